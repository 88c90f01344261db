"""The leaderboard's file: one row per method and test set, every metric with its company. Written, read back, shown,
drawn.

`LEADERBOARD.md` documents the columns for people who submit a row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.headline import EMBEDDED, kind_name, method_name, title
from benchmarks.leaderboard.method_latency import HIGHER_IS_BETTER
from benchmarks.leaderboard.method_latency import KEYS as LATENCY_KEYS
from benchmarks.leaderboard.table import LARGEST, MEASURED, Choice, Row, cell, heading, ranked, read_table
from eartalking.errors import InputError, os_cause
from eval.suite import NAMES

PAPER_ROWS = Path(__file__).parent.parent / "methods" / "paper.json"
ABOUT = (
    "method",
    "kind",
    "about",
    "suite",
    "source",
    "citation",
    "clips",
    "seed",
    "version",
    "testset",
    "protocol",
    "hardware",
    "latency_load",
    "commit",
    "date",
    "command",
    "note",
)
# What stands beside each metric, as METRIC_SUFFIX.
COMPANY = ("ci_low", "ci_high", "n_videos", "n_frames", "coverage", "direction", "network", "tier", "note")
METRICS = tuple(NAMES)
NUMBERS = {*METRICS, *LATENCY_KEYS, "clips", "seed", "latency_load"}
NUMBERS |= {
    f"{metric}_{part}" for metric in METRICS for part in ("ci_low", "ci_high", "n_videos", "n_frames", "coverage")
}
PAPER = "paper"
# Of what two readers read, the one that has seen real faces first.
SHOWN = (
    "sync_c_synthtalk",
    "sync_d_synthtalk",
    "av_offset_synthtalk",
    "mouth_corr_mesh",
    "mouth_spread_gap_mesh",
    "silence_motion_mesh",
    "fid_lite0",
    "fvd_lite0",
    "perceptual_lite0",
    "csim_dlib",
    "psnr",
    "sharpness_gap",
    "pose_err_mesh",
    "pose_err",
    "gaze_err_mesh",
    "blink_f1_mesh",
    "blink_f1",
    "head_spread_gap",
    "head_speed_gap",
    "head_shake_gap",
    "drift_identity",
    "drift_sharpness",
    "drift_colour",
)
SHOWN_LATENCY = ("ttff_ms", "ttff_compute_ms", "sound_needed_ms", "fps", "frame_ms_p95", "peak_mem_mb", "cold_start_s")
RANKED_BY = "sync_c_synthtalk"


def columns() -> tuple[str, ...]:
    """Every column in the file's order."""
    with_company = [column for metric in METRICS for column in (metric, *(f"{metric}_{part}" for part in COMPANY))]
    latency = [column for key in LATENCY_KEYS for column in (key, f"{key}_direction")]
    return (*ABOUT, *with_company, *latency)


def metric_cells(scores: Iterable[Row]) -> Row:
    """Rows of `eval.run.score`, one per metric, as the cells of one row."""
    cells: Row = {}
    for score in scores:
        cells[score["metric"]] = score["value"]
        cells |= {f"{score['metric']}_{part}": score[part] for part in COMPANY}
    return cells


def latency_cells(found: Row) -> Row:
    """Numbers of `benchmarks.leaderboard.method_latency`, with their directions."""
    known = {key: found[key] for key in LATENCY_KEYS if found.get(key) is not None}
    return known | {f"{key}_direction": "higher" if key in HIGHER_IS_BETTER else "lower" for key in known}


def paper_rows() -> list[Row]:
    """Figures that authors report, each with its citation; they are never ranked with measured ones."""
    rows = []
    for entry in json.loads(PAPER_ROWS.read_text(encoding="utf-8")):
        about = {
            "method": entry["method"],
            "kind": PAPER,
            "source": PAPER,
            "citation": entry["citation"],
            "suite": "the authors'",
        }
        about |= {"hardware": entry.get("hardware", ""), "note": "not comparable with measured rows"}
        values = entry["values"]
        rows.append(about | {key: values[key] for key in values if key not in LATENCY_KEYS} | latency_cells(values))
    return rows


def write_csv(path: Path, rows: list[Row]) -> None:
    """Measured rows first, a number as short as it can be read back, None as an empty cell.

    Raises:
        InputError: a row has an unknown column, or the file cannot be written.
    """
    names = columns()
    unknown = sorted({key for row in rows for key in row} - set(names))
    if unknown:
        raise InputError(path, f"unknown columns: {', '.join(unknown)}")
    ordered = sorted(rows, key=lambda row: row.get("source") != MEASURED)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in ordered)
        partial.replace(path)
    except OSError as error:
        raise InputError(path, os_cause(error)) from None


def read_csv(path: Path) -> list[Row]:
    """What `write_csv` wrote, or what somebody submits: numbers as float, empty cells as None, the rest as text.

    Raises:
        InputError: not such a file: a column missing or unknown, a cell that is no number, no method or a wrong source.
    """
    rows = read_table(path, finite=True)
    # A metric that came after the file was written has no columns in it: it was not measured then.
    missing, unknown = set(ABOUT) - set(rows[0]), set(rows[0]) - set(columns())
    if missing or unknown:
        raise InputError(
            path, f"not a leaderboard: {len(missing)} columns missing, unknown: {', '.join(sorted(unknown)) or 'none'}"
        )
    empty: Row = dict.fromkeys(columns())
    return [_checked(path, number, {**empty, **row}) for number, row in enumerate(rows, start=2)]


def _checked(path: Path, number: int, row: Row) -> Row:
    for key in NUMBERS:
        if isinstance(row[key], str):
            try:
                row[key] = float(row[key])  # a column becomes text by one wrong cell
            except ValueError:
                raise InputError(path, f"line {number}, {key}: {row[key]!r} is not a number") from None
    row |= {key: "" if row[key] is None else str(row[key]) for key in set(row) - NUMBERS}
    if not row["method"] or row["source"] not in (MEASURED, PAPER):
        raise InputError(path, f"line {number}: needs a method, and a source that is {MEASURED} or {PAPER}")
    if row["source"] == PAPER and not row["citation"]:
        raise InputError(path, f"line {number}: a figure from a paper needs its citation")
    return row


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """The old rows, those of the same method, suite and source replaced by the new ones."""
    key = lambda row: (row["method"], row["suite"], row["source"])  # noqa: E731
    replaced = {key(row) for row in new}
    return [row for row in old if key(row) not in replaced] + new


def in_order(rows: list[Row], suite: str) -> list[Row]:
    """The measured rows of a suite, the best in time with the voice first, then references, then those without a
    number."""
    full = [{**dict.fromkeys(columns()), **row} for row in rows]
    return [row for _, _, row in ranked(full, Choice(True, suite, RANKED_BY, LARGEST))]


def markdown(rows: list[Row]) -> str:
    """Tables for reading: per suite quality and speed, then the papers' figures by themselves."""
    parts = [
        "# Leaderboard",
        "",
        "Written by `python -m benchmarks.compare`; all columns are in `leaderboard.csv`, explained in "
        f"[LEADERBOARD.md](../LEADERBOARD.md). {EMBEDDED} Methods whose 95 % intervals overlap are not told apart.",
    ]
    for suite in dict.fromkeys(row["suite"] for row in rows if row["source"] == MEASURED):
        own = in_order(rows, suite)
        about = next((row for row in own if row.get("protocol")), own[0])
        parts += ["", f"## Suite {suite}", "", f"{about.get('hardware', '')}; protocol {about.get('protocol', '')}; "
                  f"ranked by: {title(RANKED_BY)}. [95 % interval over videos]", ""]  # fmt: skip
        shown = [metric for metric in (*METRICS[:8], *SHOWN) if any(row.get(metric) is not None for row in own)]
        parts += _table(own, ["method", "kind"], list(dict.fromkeys(shown)))
        timed = [row for row in own if row.get("fps") is not None]
        if timed:
            parts += ["", "Speed, everything included, each method in a process of its own:", ""]
            parts += _table(timed, ["method"], list(SHOWN_LATENCY))
        parts += [
            "",
            "What the rows are:",
            "",
            *(f"- {method_name(row['method'])} (`{row['method']}`): {row['about']}" for row in own if row.get("about")),
        ]
        notes = [f"- `{row['method']}`: {row['note']}" for row in own if row.get("note")]
        parts += ["", "Notes:", "", *notes] if notes else []
    papers = [row for row in rows if row["source"] == PAPER]
    if papers:
        parts += ["", "## Figures from papers (not measured here, not comparable with the above)", ""]
        parts += ["| method | figures | hardware | source |", "|---|---|---|---|"]
        for row in papers:
            figures = ", ".join(
                f"{title(key)} {row[key]:g}" for key in (*METRICS, *LATENCY_KEYS) if row.get(key) is not None
            )
            parts.append(f"| {row['method']} | {figures} | {row.get('hardware') or '-'} | {row['citation']} |")
    return "\n".join(parts) + "\n"


def _table(rows: list[Row], about: list[str], metrics: list[str]) -> list[str]:
    header = [*about, *(heading(rows, metric) for metric in metrics)]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in rows:
        names = [method_name(row[key]) if key == "method" else kind_name(row[key]) for key in about]
        lines.append(f"| {' | '.join([*names, *(cell(row, metric) for metric in metrics)])} |")
    return lines


def _cell(value: Any) -> Any:
    return "" if value is None else repr(round(value, 6)).removesuffix(".0") if isinstance(value, float) else value
