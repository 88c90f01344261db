"""Any results table: read from CSV, its metrics and their directions, and ranked. Serves `benchmarks` and the demo.

A row is a dict from column to a number, where every filled cell of the column is one, else to text; None where empty.
Rows with `source` measured (run by this repository's own commands) and rows copied from papers are never ranked
together, nor are rows of different test sets. Rows of the kind `reference` (the truth, a still portrait ...) have no
place: they are ends of the scale.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.leaderboard.headline import title
from eartalking.errors import InputError, os_cause

Row = dict[str, Any]
MEASURED, REFERENCE = "measured", "reference"
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
LARGEST, SMALLEST, ZERO = "the largest", "the smallest", "nearest to 0"


def read_table(path: str | Path, finite: bool = False) -> list[Row]:
    """The rows of a results CSV in the file's order. A number that is not finite counts as empty, unless `finite` asks
    for an error.

    Raises:
        InputError: the file is missing, or is no table (naming the row).
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        # The strict parser first: pandas takes an open quote and fills up a short row without a word.
        lines = [line for line in csv.reader(io.StringIO(text), strict=True) if line]
    except UnicodeDecodeError:
        raise InputError(path, "not a UTF-8 text file") from None
    except OSError as error:
        raise InputError(path, os_cause(error)) from None
    except csv.Error as error:
        raise InputError(path, f"broken CSV: {error}") from None
    if len(lines) < 2:
        raise InputError(path, "there are no rows below the header" if lines else "the file is empty")
    columns = [column.strip() for column in lines[0]]
    if len(set(columns)) < len(columns) or "" in columns:
        raise InputError(path, "the header has an empty or a repeated column name")
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(columns):
            raise InputError(path, f"row {number}: {len(cells)} cells under {len(columns)} columns")
        endless = next((c for c, cell in zip(columns, cells, strict=True) if _not_finite(cell)), None)
        if finite and endless:
            raise InputError(path, f"row {number}, {endless}: not finite; what could not be measured is empty")
    frame = pd.read_csv(
        io.StringIO(text), dtype=str, keep_default_na=False, skip_blank_lines=True, names=columns, header=0
    )
    return frame.apply(_typed).astype(object).replace({np.nan: None}).to_dict("records")


def _typed(cells: pd.Series) -> pd.Series:
    """A column as numbers where all of its filled cells are, else as text; what is empty or not finite is missing."""
    cells = cells.str.strip().replace("", None)
    numbers = pd.to_numeric(cells, errors="coerce")
    filled = cells.dropna()
    if (numbers[filled.index].notna() | filled.map(_not_finite)).all():
        return numbers.astype(float).replace([np.inf, -np.inf], np.nan)
    return cells


def _not_finite(cell: str) -> bool:
    return cell.strip().lower().lstrip("+-") in ("nan", "inf", "infinity")


def is_measured(row: Row) -> bool:
    """Whether a row was measured by this repository; a file without `source` has only such rows."""
    return str(row.get("source") or MEASURED).strip().lower() == MEASURED


def is_reference(row: Row) -> bool:
    """Whether a row is an end of the scale and no contestant."""
    return str(row.get("kind") or "").strip().lower() == REFERENCE


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


def suites(rows: Sequence[Row], measured: bool) -> dict[str, int]:
    """The test sets that rows of one kind of source were scored on and their numbers of clips, the largest first; 0
    where the file does not say how many.
    """
    found: dict[str, int] = {}
    for row in rows:
        if row.get("suite") and is_measured(row) == measured:
            clips = row.get("clips")
            size = int(clips) if isinstance(clips, float) else 0
            found[str(row["suite"])] = max(found.get(str(row["suite"]), 0), size)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


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


def ranked(rows: Sequence[Row], choice: Choice) -> list[tuple[int | None, int, Row]]:
    """The chosen rows, each with its place and its number in the file (both from 1): contestants, the best first, then
    references in the same order, then rows without the metric; these two without a place.

    A place says how many contestants are better for certain, plus one. Where 95 % intervals overlap, nothing is
    certain: such rows share a place, and so do equal values without an interval.
    """
    numbered = chosen(rows, choice)
    metric = choice.metric
    if not metric:
        return [(None, number, row) for number, row in numbered]
    measured = [(number, row) for number, row in numbered if row[metric] is not None]
    spans = {number: _span(row, metric, choice.best) for number, row in measured}
    contestants = [number for number, row in measured if not is_reference(row)]
    places = {
        number: 1 + sum(spans[other].worst < spans[number].best for other in contestants) for number in contestants
    }
    last = len(rows) + 1

    def order(item: tuple[int, Row]) -> tuple[int, float]:
        return places.get(item[0], last), spans[item[0]].value

    inside = [(places.get(number), number, row) for number, row in sorted(measured, key=order)]
    return inside + [(None, number, row) for number, row in numbered if row[metric] is None]


class _Span(NamedTuple):
    """A value and its interval, turned so that less is better."""

    value: float
    best: float
    worst: float


def _span(row: Row, metric: str, better: str) -> _Span:
    value, interval = row[metric], interval_of(row, metric)
    low, high = interval or (value, value)
    if better == LARGEST:
        return _Span(-value, -high, -low)
    if better == SMALLEST:
        return _Span(value, low, high)
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return _Span(abs(value), nearest, max(abs(low), abs(high)))


def interval_of(row: Row, metric: str) -> tuple[float, float] | None:
    """The 95 % interval beside a value; None where it has none."""
    low, high = (row.get(f"{metric}_{part}") for part in ("ci_low", "ci_high"))
    return (low, high) if isinstance(low, float) and isinstance(high, float) else None


def cell(row: Row, metric: str) -> str:
    """A value as it is read: with its interval, and the share of the set that it covers where it is not all of it."""
    value = row.get(metric)
    if value is None:
        return "-"
    interval, coverage = interval_of(row, metric), row.get(f"{metric}_coverage")
    span = f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""
    partly = f" ({coverage:.0%} covered)" if isinstance(coverage, float) and coverage < 0.9995 else ""
    return f"{value:.4g}{span}{partly}"


def heading(rows: Sequence[Row], column: str) -> str:
    """A column in words, with an arrow for what is better."""
    arrow = {LARGEST: " ↑", SMALLEST: " ↓", ZERO: " →0", None: ""}[best(rows, column)]
    return column if any(mark in column for mark in "↑↓") else title(column) + arrow
