"""The two file formats of controls: JSON with keyframes, and CSV with one row per frame.

Parsing gives raw tracks, `{track: [(seconds, value), ...]}`; `check(track, value)` is `controls.validate_control`, and
is asked for every cell of a CSV, so that an error can name its row.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eartalking.config import FPS

RawTracks = dict[str, list[tuple[float, Any]]]
Check = Callable[[str, Any], Any]


def parse_json(text: str, check: Check) -> RawTracks:
    """`{"fps": 25, "tracks": {track: [[seconds, value], ...]}}`.

    Raises:
        ValueError: broken JSON, an unknown key or track, another rate, or a malformed keyframe; naming it.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("broken JSON: nested too deeply") from None
    if not isinstance(document, dict) or not isinstance(document.get("tracks"), dict):
        raise ValueError('expected {"fps": 25, "tracks": {track: [[seconds, value], ...]}}')
    unknown = sorted(set(document) - {"fps", "tracks"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known keys: fps, tracks")
    fps = document.get("fps", FPS)
    if isinstance(fps, bool) or fps != FPS:
        raise ValueError(f"fps must be {FPS}, not {fps!r}")
    for track, keyframes in document["tracks"].items():
        check(track, None)
        if not isinstance(keyframes, list):
            raise ValueError(f"track {track}: expected a list of [seconds, value], not {keyframes!r}")
        for number, keyframe in enumerate(keyframes, start=1):
            if not isinstance(keyframe, list) or len(keyframe) != 2:
                where = f"track {track}, keyframe {number}"
                raise ValueError(f"{where}: expected [seconds, value], not {keyframe!r}")
    return document["tracks"]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"{key!r} appears twice")
        seen[key] = value
    return seen


def parse_csv(text: str, check: Check) -> RawTracks:
    """A header of tracks, then one row per frame; an empty cell is released.

    Raises:
        ValueError: broken CSV, an unknown or repeated track, or a cell that does not fit; naming row and track.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"broken CSV: {error}") from None
    while rows and not rows[-1] and len(rows[0]) > 1:  # blank lines below a table; of one column they are its rows
        rows.pop()
    columns = [name.strip() for name in rows[0]]
    for track in columns:
        check(track, None)
        if columns.count(track) > 1:
            raise ValueError(f"column {track!r} appears twice")
    if len(rows) == 1:
        raise ValueError("there are no rows below the header")
    tracks: RawTracks = {track: [] for track in columns}
    for frame, cells in enumerate(rows[1:]):
        # csv writes the released row of a one-column table as a blank line or as "".
        cells = cells or [""] if len(columns) == 1 else cells
        where = f"row {frame + 2} (frame {frame})"  # the header is row 1, as spreadsheets count
        if len(cells) != len(columns):
            raise ValueError(f"{where}: {len(cells)} cells under {len(columns)} columns")
        for track, cell in zip(columns, cells, strict=True):
            try:
                value = check(track, _parse_cell(cell.strip(), is_emotion=track == "emotion"))
            except ValueError as error:
                raise ValueError(f"{where}, track {track}: {error}") from None
            tracks[track].append((frame / FPS, value))
    return tracks


def _parse_cell(cell: str, is_emotion: bool) -> Any:
    if not cell:
        return None
    if is_emotion:
        # happy:0.8 is what `csv_text` writes; happy 0.8 and the JSON form ["happy", 0.8] mean the same.
        match = re.fullmatch(r"""\[?\s*["']?([^"'\s:,]+)["']?(?:\s*[:,]\s*|\s+)([^\s\]]+)\s*\]?""", cell)
        if match is None:
            raise ValueError(f"expected name:intensity, such as happy:0.8, not {cell!r}")
        return match[1], _parse_number(match[2])
    return _parse_number(cell)


def _parse_number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{cell!r} is not a number") from None


def json_text(tracks: Mapping[str, Any]) -> str:
    """Keyframes of every track as the JSON format."""
    return json.dumps({"fps": FPS, "tracks": dict(tracks)}) + "\n"


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """One row per frame as the CSV format; None is released."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_format_cell(row[track]) for track in columns] for row in rows])
    return text.getvalue()


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value[0]}:{value[1]!r}" if isinstance(value, tuple) else repr(value)
