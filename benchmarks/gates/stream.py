"""Gates of long streams: identity over ten seconds, drift over minutes, speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gates.material import EXAMPLE_PHOTO
from benchmarks.gates.streams import Context, Schedule, StreamRecord, spread, strip
from benchmarks.gates.table import DRIFT_SECONDS, GATES, GateRow, Unavailable, judge, unavailable
from benchmarks.stream_latency import LIVE_STARTS
from benchmarks.stream_latency import measure as measure_stream_latency
from eartalking.config import FPS
from eartalking.perception.identity import summarise
from eval.metrics.signals import relative_change

IDENTITY_SECONDS = 10
BIN_FRAMES = 10 * FPS  # the first and the last ten seconds
SPEED_SECONDS = 60.0
LOWEST_COVERAGE = 0.9
LOOKING_AHEAD: Schedule = [{"yaw": 0.0, "pitch": 0.0, "roll": 0.0}]


def measure_identity(context: Context) -> list[GateRow]:
    """Distance to the portrait over ten seconds of free-running speech, on rendered heads and on photographs."""
    rows = []
    for name, kind in (("identity_rendered", "rendered"), ("identity_photo", "photo")):
        try:
            rows.append(_identity(context, name, kind))
        except Unavailable as error:
            rows.append(unavailable(name, str(error)))
    return rows


def _identity(context: Context, name: str, kind: str) -> GateRow:
    material = context.material
    pictures, crop = (material.portraits(), "center") if kind == "rendered" else (material.photographs(), "auto")
    records, distances, faceless = [], [], 0
    for index, picture in enumerate(pictures):
        session = context.start(picture, crop)
        if context.identity.find(session.portrait) is None:
            faceless += 1  # the detector does not know this portrait: nothing can be compared with it
            continue
        voice = material.voice(IDENTITY_SECONDS, skip=2 * index)
        record = context.watch(session, voice, read=False, title=f"identity, {kind}")
        records.append(record)
        distances.append(context.distances(record.portrait, record.sampled))
    if not records:
        raise Unavailable(f"no face is detected in any of the {len(pictures)} portraits")
    context.pictures[name] = strip([[record.portrait, *spread(record.sampled, 10)] for record in records])
    result = summarise(np.concatenate(distances))
    floor = summarise(_to_others(context, records, _strangers(context, kind))).distance
    value = math.nan if result.distance is None else result.distance
    return judge(
        name,
        value,
        result.num_frames,
        "frames",
        floor,
        _coverage_reason(result.coverage),
        coverage=round(result.coverage, 3),
        portraits_without_a_face=faceless,
        by_portrait=[summarise(row).distance for row in distances],
    )


def _strangers(context: Context, kind: str) -> list[np.ndarray]:
    """Portraits of people who are not on the photographs; rendered heads have each other."""
    try:
        return context.material.portraits() if kind == "photo" else []
    except Unavailable:
        return []


def _to_others(context: Context, records: list[StreamRecord], strangers: list[np.ndarray]) -> np.ndarray:
    """Distance of each portrait to those of other people: what no likeness at all measures."""
    found = [np.zeros(0)]
    for record in records:
        others = strangers or [other.portrait for other in records if other is not record]
        if others:
            found.append(context.distances(record.portrait, np.stack(others)))
    return np.concatenate(found)


def _coverage_reason(coverage: float) -> str:
    return "" if coverage >= LOWEST_COVERAGE else f"a face was found in only {coverage:.0%} of the frames"


def measure_drift(context: Context) -> list[GateRow]:
    """One long stream per portrait: identity, sharpness and colour of its last ten seconds against its first ten.

    The change counts in both directions; of several portraits the worst one is the value. A head that happens to be
    turned is less like its portrait, and softer. So the same is measured once more at equal pose: on copies of the
    stream that leave it before these ten seconds, and look ahead.
    """
    measured = [seconds for seconds in DRIFT_SECONDS if seconds <= context.suite.drift_seconds]
    rows = [
        unavailable(name, f"only in the full suite ({context.suite.drift_seconds} s here)")
        for name in GATES["drift"]
        if not any(name.startswith(f"drift_{seconds}s_") for seconds in measured)
    ]
    try:
        records = _long_streams(context, max(measured))
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in GATES["drift"]]
    for seconds in reversed(measured):
        rows = [*_drift_rows(context, records, seconds), *rows]
    context.pictures["drift"] = strip([[record.portrait, *spread(record.sampled, 12)] for record in records])
    return rows


def _long_streams(context: Context, seconds: int) -> list[StreamRecord]:
    material = context.material
    starts = [context.start(material.photographs()[0], "auto")]
    if context.suite.drift_seconds > min(DRIFT_SECONDS):
        starts.append(context.start(material.portraits()[0]))
    voice = material.voice(seconds)
    ends = [end for end in DRIFT_SECONDS if end <= seconds]
    branches = {max(0, end * FPS - BIN_FRAMES): (BIN_FRAMES, LOOKING_AHEAD) for end in (0, *ends)}
    title = f"drift, {seconds} s"
    return [context.watch(session, voice, read=False, title=title, branches=branches) for session in starts]


def _drift_rows(context: Context, records: list[StreamRecord], seconds: int) -> list[GateRow]:
    first, last = 0, seconds * FPS - BIN_FRAMES
    as_it_stands = [[_bin(context, record, start) for start in (first, last)] for record in records]
    posed = [
        [_bin(context, record.branches[start], 0) for start in (first, last)] for record in records if record.branches
    ]
    return [*_changes(f"drift_{seconds}s", as_it_stands), *_changes(f"drift_{seconds}s_posed", posed)]


@dataclass(frozen=True)
class Bin:
    """Ten seconds of a stream: mean sharpness and colour (3,); distance to the portrait, None without a face, of so
    many of its frames."""

    sharpness: float
    colour: np.ndarray
    identity: float | None
    coverage: float


def _bin(context: Context, record: StreamRecord, first: int) -> Bin:
    frames = slice(first, first + BIN_FRAMES)
    sharp, colour = float(record.sharpness[frames].mean()), record.colour[frames].mean(0)
    try:
        sampled = record.sampled_between(frames.start, frames.stop)
        found = summarise(context.distances(record.portrait, sampled))
    except Unavailable:
        return Bin(sharp, colour, None, 0.0)
    return Bin(sharp, colour, found.distance, found.coverage)


def _changes(prefix: str, streams: list[list[Bin]]) -> list[GateRow]:
    """How much the last of each stream's bins differs from the first."""
    pairs = [(bins[0], bins[-1]) for bins in streams]
    known = [(a.identity, b.identity) for a, b in pairs if a.identity is not None and b.identity is not None]
    changes = {
        "identity": [relative_change(a, b) for a, b in known],
        "sharpness": [relative_change(a.sharpness, b.sharpness) for a, b in pairs],
        "colour": [max(relative_change(x, y) for x, y in zip(a.colour, b.colour, strict=True)) for a, b in pairs],
    }
    told: dict[str, list[Any]] = {
        "identity": [(a.identity, b.identity) for a, b in pairs],
        "sharpness": [(a.sharpness, b.sharpness) for a, b in pairs],
        "colour": [(a.colour.round(2).tolist(), b.colour.round(2).tolist()) for a, b in pairs],
    }
    rows = []
    for what, values in changes.items():
        name = f"{prefix}_{what}"
        if not values:
            rows.append(unavailable(name, "identity could not be measured: no network, or no face in the portrait"))
            continue
        unless = ""
        if what == "identity":
            unless = next(filter(None, (_coverage_reason(part.coverage) for pair in pairs for part in pair)), "")
            if len(values) < len(pairs):
                unless = unless or f"{len(values)} of {len(pairs)} streams show a face"
        rows.append(judge(name, max(values), len(values), "streams", None, unless, first_and_last=told[what]))
    return rows


def measure_speed(context: Context) -> list[GateRow]:
    """A minute of live stream with everything included, by `benchmarks.stream_latency`."""
    try:
        voice = context.material.voice(SPEED_SECONDS)
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in GATES["speed"]]
    crop = "auto" if EXAMPLE_PHOTO.is_file() else "center"
    portrait = EXAMPLE_PHOTO if EXAMPLE_PHOTO.is_file() else context.material.portraits()[0]
    result = measure_stream_latency(context.model, portrait, voice, crop=crop)
    frames = result["frames"]
    rest = {
        key: result[key]
        for key in ("frame_ms_p50", "frame_ms_p95", "frame_ms_p99", "deadline_misses", "stage_ms", "peak_mem_mb")
    }
    return [
        judge("speed_fps", result["fps"], frames, "frames", **rest),
        judge("speed_ttff_ms", result["ttff_ms"], LIVE_STARTS, "starts", worst=result["ttff_ms_worst"]),
        judge("speed_rss_growth_mb", result["rss_growth_mb"], frames, "frames"),
    ]
