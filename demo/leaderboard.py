"""The Leaderboard tab: a results CSV as ranked, filterable table, plot, download and provenance, whatever columns it
has. Reading and ranking are `benchmarks.leaderboard.table`'s.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from benchmarks.leaderboard.headline import EMBEDDED, headline, kind_name, method_name, title
from benchmarks.leaderboard.table import (
    COMPANY,
    LARGEST,
    SMALLEST,
    ZERO,
    Choice,
    Row,
    best,
    cell,
    chosen,
    heading,
    interval_of,
    is_measured,
    is_reference,
    name_column,
    offered,
    ranked,
    read_table,
    suites,
)
from demo.scatter import POINT_STYLE, Point, scatter
from eartalking.errors import InputError

Axes = tuple[str | None, str | None]
LATENCY = ("ttff", "latency", "ms", "rtf")
QUALITY = ("sync_c", "fvd", "fid", "csim", "psnr", "lpips", "ssim")
# What the file says of a row, in the order in which it is told.
ABOUT_ROW = {
    "about": "what it is",
    "citation": "from",
    "source": "source",
    "kind": "kind",
    "suite": "test set",
    "clips": "clips",
    "seed": "seed",
    "hardware": "hardware",
    "date": "date",
    "commit": "commit",
    "command": "command",
    "version": "weights and settings",
    "protocol": "protocol",
    "testset": "hash of the test set",
    "latency_load": "busy processors before timing",
    "note": "note",
}
ABOUT_METRIC = {
    "ci_low": "95 % from",
    "ci_high": "to",
    "n_videos": "clips",
    "n_frames": "frames",
    "coverage": "covered",
    "direction": "better",
}
MISSING = (
    "No results here yet. `python -m benchmarks.compare --suite quick` measures every built-in method and writes them."
)


def ranking(rows: Sequence[Row], choice: Choice, every: bool = False) -> pd.DataFrame:
    """The table that is shown: the chosen rows, best first, with the main results or, if `every`, all there are, the
    one that is ranked by before the others. Column `row` is the number in the file.
    """
    columns, metric = offered(rows, choice), choice.metric
    shown = columns if every else headline(columns)
    if metric in columns:
        shown = [metric, *(column for column in shown if column != metric)]
    name = name_column(rows)
    records = []
    for place, number, row in ranked(rows, choice):
        about = {name: method_name(row[name])} | ({"kind": kind_name(row["kind"])} if "kind" in row else {})
        values = {heading(rows, column): cell(row, column) for column in shown}
        records.append({"rank": place, **about, **values, "row": number})
    return pd.DataFrame(records, dtype=object)


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def provenance(rows: Sequence[Row], number: int) -> str:
    """Everything the file says about one row (counting from 1), as HTML: the run, then each metric with its company."""
    row = rows[number - 1]
    kind = "measured here" if is_measured(row) else f"reported elsewhere (source: {row.get('source')})"
    company = [
        column
        for column in row
        if any(column.endswith(f"_{part}") and column[: -len(part) - 1] in row for part in COMPANY)
    ]
    accompanied = [metric for metric in row if any(f"{metric}_{part}" in row for part in COMPANY)]
    method = row[name_column(rows)]
    title_line = f"{html.escape(_text(method_name(method)))} <span>row {number}, {html.escape(kind)}</span>"
    first = [column for column in ABOUT_ROW if column in row]
    plain = first + [column for column in row if column not in (*company, *accompanied, *first)]
    items = "".join(
        f"<div><dt title='{html.escape(column)}'>{html.escape(ABOUT_ROW.get(column) or title(column))}</dt>"
        f"<dd>{html.escape(_text(row[column]))}</dd></div>"
        for column in plain
        if row[column] is not None
    )
    return f"<div class='lb-row'><h4>{title_line}</h4><dl>{items}</dl>{_metric_table(row, accompanied)}</div>"


def _metric_table(row: Row, accompanied: Sequence[str]) -> str:
    parts = [part for part in COMPANY if any(row.get(f"{metric}_{part}") is not None for metric in accompanied)]
    shown = [metric for metric in accompanied if any(row.get(key) is not None for key in (metric, f"{metric}_note"))]
    shown.sort(key=lambda metric: row.get(metric) is None)  # what was not measured, and why, comes last
    if not shown:
        return ""
    head = "".join(
        f"<th title='{html.escape(part)}'>{html.escape(ABOUT_METRIC.get(part, part))}</th>"
        for part in ("metric", "value", *parts)
    )
    body = "".join(
        f"<tr><th title='{html.escape(metric)}'>{html.escape(title(metric))}</th>"
        + "".join(
            f"<td>{html.escape(_text(row.get(key)))}</td>" for key in (metric, *(f"{metric}_{part}" for part in parts))
        )
        + "</tr>"
        for metric in shown
    )
    return f"<div class='lb-wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def points(rows: Sequence[Row], choice: Choice, x: str | None, y: str | None) -> list[Point]:
    """The points of the plot: chosen rows that have both values."""
    name = name_column(rows)
    return [
        Point(
            method_name(row[name]),
            row[x],
            row[y],
            f"{method_name(row[name])}: {heading(rows, y)} {cell(row, y)}, {heading(rows, x)} {cell(row, x)}",
            interval_of(row, y),
            is_reference(row),
        )
        for _, row in chosen(rows, choice)
        if x and y and row[x] is not None and row[y] is not None
    ]


def plot(rows: Sequence[Row], choice: Choice, x: str | None, y: str | None) -> str:
    """The plot as HTML, or a sentence on why there is none."""
    found = points(rows, choice, x, y)
    if not found or x is None or y is None:
        return "<div class='lb-hint'>No row has both of these values: choose others to see a plot.</div>"
    return scatter(found, heading(rows, x), heading(rows, y), x_is_time=x.endswith("_ms"))


def _first(columns: Sequence[str], wanted: Sequence[str], other_than: str | None = None) -> str | None:
    for word in wanted:
        for column in columns:
            if column != other_than and (column.lower().startswith(word) or word in column.lower().split("_")):
                return column
    return next((column for column in columns if column != other_than), None)


CSS = (
    """
& { --lb-muted: var(--ear-muted, var(--body-text-color-subdued));
  --lb-line: var(--ear-line, var(--border-color-primary)); }
.lb-row, .lb-hint { padding: 12px 14px; border: 1px solid var(--lb-line); border-radius: 12px; font-size: 14px; }
.lb-row { color: var(--body-text-color); }
.lb-hint { color: var(--lb-muted); }
.lb-row h4 { margin: 0 0 8px; font-size: 16px; font-weight: 600; }
.lb-row h4 span { font-weight: 400; color: var(--lb-muted); margin-left: 8px; }
.lb-row dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 6px 18px; margin: 0; }
.lb-row dt { font-size: 12px; color: var(--lb-muted); } .lb-row dd { margin: 0; overflow-wrap: anywhere; }
.lb-wide { overflow: auto; margin-top: 14px; max-height: 360px; }
.lb-row table { border-collapse: collapse; font-size: 13px; width: 100%; }
.lb-row :is(th, td) { padding: 5px 14px 5px 0; border: 0; border-bottom: 1px solid var(--lb-line);
  white-space: nowrap; text-align: left; }
.lb-row th { font-weight: 600; }
"""
    + POINT_STYLE
)
HERE, PAPERS = "Measured here", "Reported in papers"
MAIN, EVERY = "Main results", "Everything"
HINT = "<div class='lb-hint'>Select a row to see everything that is known about it.</div>"


def build_leaderboard_tab(csv_path: str | Path) -> None:
    """Build the tab's content inside the current `gr.Blocks` context. The file is read when the page is loaded and by
    the Refresh button; a missing or broken one becomes a message."""
    csv_path = Path(csv_path)
    message = gr.Markdown(elem_id="leaderboard-message")
    with gr.Column() as content:
        with gr.Row(equal_height=True):
            kind = gr.Radio(
                [HERE, PAPERS], value=HERE, label="Rows", elem_id="leaderboard-kind", info="Never ranked together"
            )
            suite = gr.Dropdown([], label="Test set", elem_id="leaderboard-suite", min_width=120)
            metric = gr.Dropdown([], label="Rank by", elem_id="leaderboard-metric", min_width=160)
            order = gr.Dropdown([LARGEST, SMALLEST, ZERO], label="Best is", elem_id="leaderboard-order", min_width=140)
            every = gr.Radio([MAIN, EVERY], value=MAIN, label="Columns", elem_id="leaderboard-columns")
        table = gr.Dataframe(
            interactive=False,
            show_search="filter",
            wrap=False,
            max_height=460,
            elem_id="leaderboard-table",
            label="Ranking",
            pinned_columns=2,
            type="array",
        )
        detail = gr.HTML(HINT, css_template=CSS, apply_default_css=False, elem_id="leaderboard-row")
        with gr.Row():
            x = gr.Dropdown([], label="Across", elem_id="leaderboard-x")
            y = gr.Dropdown([], label="Up", elem_id="leaderboard-y")
        picture = gr.HTML(HINT, css_template=CSS, apply_default_css=False, elem_id="leaderboard-plot")
    with gr.Row():
        download = gr.DownloadButton("Download CSV", size="sm", scale=0, min_width=160, elem_id="leaderboard-download")
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=120, elem_id="leaderboard-refresh")

    def selected(event: gr.SelectData) -> Any:
        return _guarded(csv_path, _show_row, 1)(event)

    def refreshed() -> list[Any]:
        return _everything(csv_path)

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    inputs, views = [kind, suite, metric, order, every, x, y], [suite, metric, order, table, detail, x, y, picture]
    parts = [message, content, download, kind, *views]
    gr.on(
        None, refreshed, None, parts, **quiet
    )  # when the page is loaded, so that a visitor sees the file as it is now
    gr.on(
        [item.input for item in (kind, suite, order, every, x, y)],
        _guarded(csv_path, _show_kind, len(views)),
        inputs,
        views,
        **quiet,
    )
    metric.input(_guarded(csv_path, _show_best, 1), metric, order, **quiet).then(
        _guarded(csv_path, _show_kind, len(views)), inputs, views, **quiet
    )
    table.select(selected, None, detail, **quiet)
    refresh.click(refreshed, None, parts, **quiet)


def _guarded(csv_path: Path, show: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """The file may have gone or changed since the page was made: then the tab keeps what it shows."""

    def run(*values: Any) -> Any:
        try:
            return show(read_table(csv_path), *values)
        except (InputError, KeyError) as error:
            gr.Warning(str(error) if isinstance(error, InputError) else "The results have changed: press Refresh")
            return tuple(gr.skip() for _ in range(outputs)) if outputs > 1 else gr.skip()

    return run


def _show_kind(rows: Sequence[Row], kind: str, suite: str | None, metric: str | None, *others: str) -> tuple[Any, ...]:
    order, every, x, y = others
    choice = _start(rows, kind == HERE, suite)
    results = offered(rows, choice)
    if metric in results:
        choice = choice._replace(metric=metric, best=order)
    axes = (x, y) if x in results and y in results else _axes(rows, choice)
    return tuple(_views(rows, choice, axes, every == EVERY))


def _show_best(rows: Sequence[Row], metric: str) -> str:
    return best(rows, metric) or SMALLEST


def _show_row(rows: Sequence[Row], event: gr.SelectData) -> str:
    return provenance(rows, int(float(event.row_value[-1])))


def _start(rows: Sequence[Row], measured: bool, suite: str | None = None) -> Choice:
    """What the tab shows of one kind of source before somebody chooses."""
    sets = suites(rows, measured)
    choice = Choice(measured, suite if suite in sets else next(iter(sets), None))
    metric = _first(offered(rows, choice), QUALITY)
    return choice._replace(metric=metric, best=(best(rows, metric) if metric else None) or SMALLEST)


def _axes(rows: Sequence[Row], choice: Choice) -> Axes:
    """Latency across and the ranked metric up; where no row has both, the two that the most rows have."""
    results = offered(rows, choice)
    latency, metric = _first(results, LATENCY), choice.metric
    if points(rows, choice, latency, metric) or len(results) < 2:
        return latency, metric
    return max(
        itertools.permutations(results, 2), key=lambda axes: (len(points(rows, choice, *axes)), axes[1] == metric)
    )


def _views(rows: Sequence[Row], choice: Choice, axes: Axes, every: bool = False) -> list[Any]:
    """Updates for `views`."""
    results, sets = offered(rows, choice), suites(rows, choice.measured)
    named = [(title(metric), metric) for metric in results]
    return [
        gr.update(choices=[_suite(*item) for item in sets.items()], value=choice.suite, visible=bool(sets)),
        gr.update(choices=named, value=choice.metric),
        choice.best,
        ranking(rows, choice, every),
        HINT,
        gr.update(choices=named, value=axes[0]),
        gr.update(choices=named, value=axes[1]),
        plot(rows, choice, *axes),
    ]


def _suite(name: str, clips: int) -> tuple[str, str]:
    return f"{name} ({clips} clips)" if clips else name, name


def _everything(csv_path: Path) -> list[Any]:
    """Updates for every part of the tab, in the order of `parts`."""
    try:
        rows = read_table(csv_path)
    except InputError as error:
        reason = MISSING if not csv_path.exists() else f"The results cannot be read. {csv_path.name}: {error.cause}"
        hidden = gr.update(visible=False)
        return [gr.update(value=reason, visible=True), hidden, hidden, *[gr.skip()] * 9]
    counts = sum(map(is_measured, rows))
    choice = _start(rows, counts > 0)
    text = (
        f"**{counts}** rows measured here, **{len(rows) - counts}** reported in papers. In brackets: the 95 % interval "
        "over clips; where intervals overlap, rows share a rank. References (the truth, a still portrait) have none. "
        + EMBEDDED
    )
    return [
        gr.update(value=text, visible=True),
        gr.update(visible=True),
        gr.update(value=str(csv_path), visible=True),
        HERE if choice.measured else PAPERS,
        *_views(rows, choice, _axes(rows, choice)),
    ]
