"""Controls files in and out of the timeline: JSON and CSV, always through `eartalking.controls`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from eartalking.config import FPS
from eartalking.controls import Controls, ControlValue, Keyframe
from eartalking.errors import InputError

FileKind = Literal["json", "csv"]
KINDS: tuple[FileKind, ...] = ("json", "csv")
MAX_BYTES = 8 * 2**20  # an hour of CSV with all ten tracks
_SAME = 1e-9  # in a track's own unit; far below float32, which the model sees

TracksJSON = dict[str, list[list[Any]]]


def tracks_from_file(path: str | Path) -> TracksJSON:
    """The tracks of a `.json` or `.csv` controls file, as the timeline takes them: track -> [[seconds, value], ...].

    A CSV asks for a value in every frame; of those only the keyframes that shape the curve are kept, so that a
    curve loaded from a table can be edited by hand. The value in every frame stays the same to the last bit.

    Raises:
        InputError: naming the file, the track and the keyframe or row.
    """
    if Path(path).is_file() and Path(path).stat().st_size > MAX_BYTES:
        raise InputError(path, f"larger than {MAX_BYTES // 2**20} MB, which no controls file needs")
    tracks = Controls.load(path).tracks
    if Path(path).suffix.lower() == ".csv":
        return as_json({track: thin(track, keyframes) for track, keyframes in tracks.items()})
    return as_json(tracks)


def tracks_from_bytes(name: str, data: bytes) -> TracksJSON:
    """Like `tracks_from_file` for the content of a file that the user calls `name`; errors say `name`."""
    suffix = Path(name).suffix.lower()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"controls{suffix if suffix.lstrip('.') in KINDS else '.unknown'}"
        path.write_bytes(data)
        try:
            return tracks_from_file(path)
        except InputError as error:
            raise InputError(name, error.cause) from None


def text_from_tracks(tracks: Mapping[str, Iterable[Any]], kind: FileKind) -> str:
    """The text of the controls file with these tracks.

    Raises:
        ValueError: the tracks break the contract (naming track and keyframe), or `kind` is unknown.
    """
    with tempfile.TemporaryDirectory() as folder:
        return file_from_tracks(tracks, kind, Path(folder)).read_text(encoding="utf-8")


def file_from_tracks(tracks: Mapping[str, Iterable[Any]], kind: FileKind, folder: str | Path | None = None) -> Path:
    """Write `controls.json` or `controls.csv` into `folder` (a new temporary one by default) and return its path.

    Raises:
        ValueError: the tracks break the contract (naming track and keyframe), or `kind` is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of controls file {kind!r}; known kinds: {', '.join(KINDS)}")
    controls = Controls({track: [tuple(keyframe) for keyframe in keyframes] for track, keyframes in tracks.items()})
    path = Path(folder if folder is not None else tempfile.mkdtemp(prefix="controls-")) / f"controls.{kind}"
    controls.save(path)
    return path


def as_json(tracks: Mapping[str, Iterable[Keyframe]]) -> TracksJSON:
    """Tracks with lists where `Controls` has tuples, as JSON would give them back."""
    return {
        track: [[time, list(value) if isinstance(value, tuple) else value] for time, value in keyframes]
        for track, keyframes in tracks.items()
    }


def thin(track: str, keyframes: Iterable[Keyframe]) -> list[Keyframe]:
    """`keyframes`, one per frame, without those that the ones around them imply; every frame keeps its value."""
    given = list(keyframes)
    kept: list[Keyframe] = []
    start = 0
    while start < len(given):
        if given[start][1] is not None or kept:  # a track begins released
            kept.append(given[start])
        start = _end_of_segment(track, given, start)
    return kept


def _end_of_segment(track: str, given: list[Keyframe], start: int) -> int:
    """Index of the next keyframe that is needed after the one at `start`."""
    time, value = given[start]
    next_time, next_value = given[start + 1] if start + 1 < len(given) else (time, None)
    if not isinstance(value, float) or not isinstance(next_value, float):  # an emotion, released, or the last one
        following = start + 1
        while following < len(given) and given[following][1] == value:
            following += 1
        return following
    slope = (next_value - value) / (next_time - time)
    end = start + 1
    while end + 1 < len(given) and _on_line(given[end + 1], time, value, slope):
        end += 1
    line = Controls({track: [given[start], given[end]]})
    if any(line.at(round(time * FPS))[track] != value for time, value in given[start + 1 : end]):
        end = start + 1  # the ends do not give every value back to the last bit
    if slope == 0 and (end + 1 == len(given) or given[end + 1][1] is None):
        return end + 1  # held by itself, no keyframe needed at its end
    return end


def _on_line(keyframe: tuple[float, ControlValue], time: float, value: float, slope: float) -> bool:
    expected = value + slope * (keyframe[0] - time)
    return isinstance(keyframe[1], float) and abs(keyframe[1] - expected) <= _SAME
