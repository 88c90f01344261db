"""The Leaderboard tab: a results CSV as ranked, filterable table, plot, download and provenance, whatever columns it
has.

Rows with `source` measured (run by this repository's own commands) and rows copied from papers are never ranked
together.
"""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from eartalking.errors import InputError, os_cause

Row = dict[str, Any]
MEASURED = "measured"
# What stands beside a metric, as METRIC_SUFFIX; and columns about the run. Both are shown with the row, not ranked by.
COMPANY = ("ci_low", "ci_high", "n_videos", "n_frames", "coverage", "direction", "network", "tier", "unit", "note")
BOOKKEEPING = (
    "source",
    "kind",
    "about",
    "suite",
    "testset",
    "clips",
    "citation",
    "date",
    "commit",
    "protocol",
    "hash",
    "hardware",
    "device",
    "seed",
    "command",
    "version",
    "latency_load",
    "n_videos",
    "n_frames",
    "coverage",
    "checkpoint",
    "row_id",
    "url",
    "year",
    "note",
)
NAMES = ("method", "name", "model", "system")
HIGHER = (
    "sync_c",
    "csim",
    "ssim",
    "psnr",
    "fps",
    "acc",
    "f1",
    "lip_sync",
    "followed",
    "correlation",
    "confidence",
    "score",
)
LOWER = (
    "fid",
    "fvd",
    "lpips",
    "perceptual",
    "sync_d",
    "identity",
    "err",
    "latency",
    "ms",
    "rtf",
    "drift",
    "flicker",
    "silence",
    "memory",
    "mb",
    "distance",
    "seconds",
)
LATENCY = ("ttff", "latency", "ms", "rtf")
QUALITY = ("sync_c", "fvd", "fid", "csim", "psnr", "lpips", "ssim")
LARGEST, SMALLEST, ZERO = "the largest", "the smallest", "nearest to 0"
MISSING = (
    "No results here yet. `python -m benchmarks.compare --suite quick` measures every built-in method and writes them."
)


def read_leaderboard(csv_path: str | Path) -> list[Row]:
    """The rows of a results CSV in the file's order: column -> number where every filled cell of it is one, else text;
    None if empty.

    Raises:
        InputError: the file is missing, or is no table (naming the row).
    """
    try:
        text = Path(csv_path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(csv_path, "not a UTF-8 text file") from None
    except OSError as error:
        raise InputError(csv_path, os_cause(error)) from None
    try:
        lines = [line for line in csv.reader(text.splitlines(), strict=True) if line]
    except csv.Error as error:
        raise InputError(csv_path, f"broken CSV: {error}") from None
    if len(lines) < 2:
        raise InputError(csv_path, "there are no rows below the header" if lines else "the file is empty")
    columns = [column.strip() for column in lines[0]]
    if len(set(columns)) < len(columns) or "" in columns:
        raise InputError(csv_path, "the header has an empty or a repeated column name")
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(columns):
            raise InputError(csv_path, f"row {number}: {len(cells)} cells under {len(columns)} columns")
    table = {column: _typed([cells[index].strip() for cells in lines[1:]]) for index, column in enumerate(columns)}
    return [{column: values[number] for column, values in table.items()} for number in range(len(lines) - 1)]


def _typed(cells: Sequence[str]) -> list[Any]:
    try:
        numbers = [float(cell) if cell else None for cell in cells]
    except ValueError:
        return [cell or None for cell in cells]
    return [number if number is None or math.isfinite(number) else None for number in numbers]


def is_measured(row: Row) -> bool:
    """Whether a row was measured by this repository; a file without `source` has only such rows."""
    return str(row.get("source") or MEASURED).strip().lower() == MEASURED


def name_column(rows: Sequence[Row]) -> str:
    """The column that says what a row is about."""
    return next((column for column in NAMES if column in rows[0]), next(iter(rows[0])))


def metrics(rows: Sequence[Row]) -> list[str]:
    """The columns that rows can be ranked by: numbers that are results."""

    def is_result(column: str) -> bool:
        if column in BOOKKEEPING or column == name_column(rows):
            return False
        if any(column.endswith(f"_{part}") and column[: -len(part) - 1] in rows[0] for part in COMPANY):
            return False
        return any(isinstance(row[column], float) for row in rows)

    return [column for column in rows[0] if is_result(column)]


def best(rows: Sequence[Row], metric: str) -> str | None:
    """Which value of `metric` is best: LARGEST, SMALLEST, ZERO, or None where nothing says so. The file's word
    (`<metric>_direction`, or an arrow in the name) goes before what the metric's name suggests."""
    said = next((str(row[f"{metric}_direction"]).lower() for row in rows if row.get(f"{metric}_direction")), "")
    if "zero" in said or said == "0":
        return ZERO
    if "↑" in metric or any(word in said for word in ("↑", "higher", "up", "max")):
        return LARGEST
    if "↓" in metric or any(word in said for word in ("↓", "lower", "down", "min")):
        return SMALLEST
    parts = metric.lower().split("_")
    for direction, known in ((LARGEST, HIGHER), (SMALLEST, LOWER)):
        if any(word in parts or f"_{word}_" in f"_{metric.lower()}_" for word in known):
            return direction
    return None


class Choice(NamedTuple):
    """What the tab shows. Rows of different sources or different suites are never ranked together."""

    measured: bool
    suite: str | None = None
    metric: str | None = None
    best: str = SMALLEST


def suites(rows: Sequence[Row], measured: bool) -> list[str]:
    """The test sets that rows of one kind of source were scored on, in the file's order; empty if the file does not
    say.
    """
    return list(dict.fromkeys(str(row["suite"]) for row in rows if row.get("suite") and is_measured(row) == measured))


def chosen(rows: Sequence[Row], choice: Choice) -> list[tuple[int, Row]]:
    """The rows that the choice is about, with their numbers in the file, counting from 1."""
    return [
        (number, row)
        for number, row in enumerate(rows, start=1)
        if is_measured(row) == choice.measured and choice.suite in (None, row.get("suite"))
    ]


def offered(rows: Sequence[Row], choice: Choice) -> list[str]:
    """The metrics that at least one of the chosen rows has a value of."""
    return [metric for metric in metrics(rows) if any(row[metric] is not None for _, row in chosen(rows, choice))]


def ranked(rows: Sequence[Row], choice: Choice) -> pd.DataFrame:
    """The chosen rows, best first; rows without the metric come last, unranked. Column `row` is the number in the
    file.
    """
    numbered, metric = chosen(rows, choice), choice.metric
    key = {SMALLEST: lambda value: value, LARGEST: lambda value: -value, ZERO: abs}[choice.best]
    if metric:
        numbered.sort(key=lambda item: (item[1][metric] is None, key(item[1][metric] or 0.0)))
    columns = offered(rows, choice)
    columns = [metric] * (metric in columns) + [column for column in columns if column != metric]
    about = [name_column(rows)] + ["kind"] * ("kind" in rows[0])
    records = []
    for place, (number, row) in enumerate(numbered, start=1):
        rank = place if metric and row[metric] is not None else None
        values = {_heading(rows, column): _short(row[column]) for column in columns}
        records.append({"rank": rank, **{column: row[column] for column in about}, **values, "row": number})
    return pd.DataFrame(records, dtype=object)


def _heading(rows: Sequence[Row], column: str) -> str:
    arrow = {LARGEST: " ↑", SMALLEST: " ↓", ZERO: " →0", None: ""}[best(rows, column)]
    return column if any(mark in column for mark in "↑↓") else column + arrow


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


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
    title = f"{html.escape(_text(row[name_column(rows)]))} <span>row {number}, {html.escape(kind)}</span>"
    plain = [column for column in row if column not in company and column not in accompanied]
    items = "".join(
        f"<div><dt>{html.escape(column)}</dt><dd>{html.escape(_text(row[column]))}</dd></div>" for column in plain
    )
    return f"<div class='lb-row'><h4>{title}</h4><dl>{items}</dl>{_metric_table(row, accompanied)}</div>"


def _metric_table(row: Row, accompanied: Sequence[str]) -> str:
    parts = [part for part in COMPANY if any(row.get(f"{metric}_{part}") is not None for metric in accompanied)]
    shown = [metric for metric in accompanied if any(row.get(key) is not None for key in (metric, f"{metric}_note"))]
    if not shown:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("metric", "value", *parts))
    body = "".join(
        "<tr>"
        + f"<th>{html.escape(metric)}</th>"
        + "".join(
            f"<td>{html.escape(_text(row.get(key)))}</td>" for key in (metric, *(f"{metric}_{part}" for part in parts))
        )
        + "</tr>"
        for metric in shown
    )
    return f"<div class='lb-wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def plot_table(rows: Sequence[Row], choice: Choice, x: str | None, y: str | None) -> pd.DataFrame:
    """The points of the plot: chosen rows that have both values."""
    name = name_column(rows)
    points = [row for _, row in chosen(rows, choice) if x and y and row[x] is not None and row[y] is not None]
    return pd.DataFrame({column: [row[column] for row in points] for column in dict.fromkeys([name, x, y]) if column})


def _first(columns: Sequence[str], wanted: Sequence[str], other_than: str | None = None) -> str | None:
    for word in wanted:
        for column in columns:
            if column != other_than and (column.lower().startswith(word) or word in column.lower().split("_")):
                return column
    return next((column for column in columns if column != other_than), None)


CSS = """
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
HERE, PAPERS = "Measured here", "Reported in papers"
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
        plot = gr.ScatterPlot(height=340, tooltip="all", elem_id="leaderboard-plot", show_label=False)
    with gr.Row():
        download = gr.DownloadButton("Download CSV", size="sm", scale=0, min_width=160, elem_id="leaderboard-download")
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=120, elem_id="leaderboard-refresh")

    def guarded(show: Callable[..., Any], outputs: int) -> Callable[..., Any]:
        """The file may have gone or changed since the page was made: then the tab keeps what it shows."""

        def run(*values: Any) -> Any:
            try:
                return show(read_leaderboard(csv_path), *values)
            except (InputError, KeyError) as error:
                gr.Warning(str(error) if isinstance(error, InputError) else "The results have changed: press Refresh")
                return tuple(gr.skip() for _ in range(outputs)) if outputs > 1 else gr.skip()

        return run

    def show_kind(
        rows: Sequence[Row], kind: str, suite: str | None, metric: str | None, order: str, x: str, y: str
    ) -> tuple[Any, ...]:
        choice = _start(rows, kind == HERE, suite)
        results = offered(rows, choice)
        if metric in results:
            choice = choice._replace(metric=metric, best=order)
        axes = [
            axis if axis in results else start
            for axis, start in zip((x, y), _axes(results, choice.metric), strict=True)
        ]
        return _views(rows, choice, *axes)

    def show_best(rows: Sequence[Row], metric: str) -> str:
        return best(rows, metric) or SMALLEST

    def show_row(rows: Sequence[Row], event: gr.SelectData) -> str:
        return provenance(rows, int(float(event.row_value[-1])))

    def selected(event: gr.SelectData) -> Any:
        return guarded(show_row, 1)(event)

    def refreshed() -> list[Any]:
        return _everything(csv_path)

    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    inputs, views = [kind, suite, metric, order, x, y], [suite, metric, order, table, detail, x, y, plot]
    parts = [message, content, download, kind, *views]
    gr.on(
        None, refreshed, None, parts, **quiet
    )  # when the page is loaded, so that a visitor sees the file as it is now
    gr.on([item.input for item in (kind, suite, order, x, y)], guarded(show_kind, len(views)), inputs, views, **quiet)
    metric.input(guarded(show_best, 1), metric, order, **quiet).then(
        guarded(show_kind, len(views)), inputs, views, **quiet
    )
    table.select(selected, None, detail, **quiet)
    refresh.click(refreshed, None, parts, **quiet)


def _start(rows: Sequence[Row], measured: bool, suite: str | None = None) -> Choice:
    """What the tab shows of one kind of source before somebody chooses."""
    sets = suites(rows, measured)
    choice = Choice(measured, suite if suite in sets else next(iter(sets), None))
    metric = _axes(offered(rows, choice), None)[1]
    return choice._replace(metric=metric, best=(best(rows, metric) if metric else None) or SMALLEST)


def _axes(results: Sequence[str], metric: str | None) -> tuple[str | None, str | None]:
    """Latency across, quality up."""
    latency = _first(results, LATENCY)
    return latency, metric or _first(results, QUALITY, latency) or latency


def _views(rows: Sequence[Row], choice: Choice, x: str | None, y: str | None) -> list[Any]:
    """Updates for `views`."""
    results, sets = offered(rows, choice), suites(rows, choice.measured)
    points = plot_table(rows, choice, x, y)
    plot = gr.update(value=None, visible=False)
    if len(points):
        titles = {"x_title": _heading(rows, x), "y_title": _heading(rows, y)}
        plot = gr.update(value=points, x=x, y=y, color=name_column(rows), visible=True, **titles)
    return [
        gr.update(choices=sets, value=choice.suite, visible=bool(sets)),
        gr.update(choices=results, value=choice.metric),
        choice.best,
        ranked(rows, choice),
        HINT,
        gr.update(choices=results, value=x),
        gr.update(choices=results, value=y),
        plot,
    ]


def _everything(csv_path: Path) -> list[Any]:
    """Updates for every part of the tab, in the order of `parts`."""
    try:
        rows = read_leaderboard(csv_path)
    except InputError as error:
        reason = MISSING if not csv_path.exists() else f"The results cannot be read. {csv_path.name}: {error.cause}"
        hidden = gr.update(visible=False)
        return [gr.update(value=reason, visible=True), hidden, hidden, *[gr.skip()] * 9]
    counts = sum(map(is_measured, rows))
    choice = _start(rows, counts > 0)
    text = (
        f"**{counts}** rows measured here, **{len(rows) - counts}** reported in papers. "
        "A name with a suffix, such as `fid_lite0`, "
        "uses another network than the canonical metric: compare only within a column."
    )
    return [
        gr.update(value=text, visible=True),
        gr.update(visible=True),
        gr.update(value=str(csv_path), visible=True),
        HERE if choice.measured else PAPERS,
        *_views(rows, choice, *_axes(offered(rows, choice), choice.metric)),
    ]
