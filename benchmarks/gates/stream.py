"""Gates of long streams: identity over ten seconds, drift over minutes, speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.gates.material import EXAMPLE_PHOTO
from benchmarks.gates.streams import Context, Schedule, StreamRecord, spread, strip
from benchmarks.gates.table import DRIFT_SECONDS, GATES, GateRow, Unavailable, judge, unavailable
from benchmarks.stream_latency import LIVE_STARTS
from benchmarks.stream_latency import measure as measure_stream_latency
from eartalking import StreamSession
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.perception.identity import summarise
from eval.metrics.signals import relative_change

IDENTITY_SECONDS = 10
BIN_SECONDS = 30
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
    """One long stream per portrait: identity, sharpness and colour of its last half minute against its first.

    The change counts in both directions; of several portraits the worst one is the value. A head that happens to be
    turned is less like its portrait, and softer, and so is one that says something else. So the same is measured once
    more at equal pose and of equal words: on copies of the stream that look ahead, and hear its first half minute.
    """
    measured = [seconds for seconds in DRIFT_SECONDS if seconds <= context.suite.drift_seconds]
    rows = [
        unavailable(name, f"only in the full suite ({context.suite.drift_seconds} s here)")
        for name in GATES["drift"]
        if not any(name.startswith(f"drift_{seconds}s_") for seconds in measured)
    ]
    try:
        streams = _long_streams(context, measured)
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in GATES["drift"]]
    for seconds in reversed(measured):
        parts = [[stream[end] for end in (BIN_SECONDS, seconds)] for stream in streams]
        for suffix, posed in (("_posed", 1), ("", 0)):
            bins = [[_bin(context, part[posed]) for part in stream] for stream in parts]
            rows = [*_changes(f"drift_{seconds}s{suffix}", bins), *rows]
    context.pictures["drift"] = strip(
        [[stream[BIN_SECONDS][0].portrait, *(image for part in stream.values() for image in spread(part[0].sampled, 2))]
         for stream in streams]
    )  # fmt: skip
    return rows


def _long_streams(context: Context, measured: list[int]) -> list[dict[int, tuple[StreamRecord, StreamRecord]]]:
    """Of each portrait's stream, by their end in seconds, half minutes as they are, and at equal pose."""
    material = context.material
    starts = [context.start(material.photographs()[0], "auto")]
    if context.suite.drift_seconds > min(DRIFT_SECONDS):
        starts.append(context.start(material.portraits()[0]))
    voice = material.voice(max(measured))
    return [_half_minutes(context, session, voice, [BIN_SECONDS, *measured]) for session in starts]


def _half_minutes(
    context: Context, session: StreamSession, voice: np.ndarray, ends: list[int]
) -> dict[int, tuple[StreamRecord, StreamRecord]]:
    """What lies between them is heard, and moves the head, but is not made into frames."""
    length = BIN_SECONDS * SAMPLE_RATE
    session.push(voice)
    found = {}
    for end in ends:
        start = (end - BIN_SECONDS) * FPS
        for frame in tqdm(range(session.next_index, start, FPS), unit="s", desc=f"to {end} s", leave=False):
            session.pass_over(min(frame + FPS, start))
        records = []
        for words, schedule in ((voice[session.samples_heard :][:length], None), (voice[:length], LOOKING_AHEAD)):
            copy = session.clone()
            copy.interrupt()  # it hears these words next
            records.append(context.watch(copy, words, schedule, read=False, title=f"drift, {end} s"))
        found[end] = (records[0], records[1])
    return found


@dataclass(frozen=True)
class Bin:
    """Half a minute of a stream: mean sharpness and colour (3,); distance to the portrait, None without a face, of so
    many of its frames."""

    sharpness: float
    colour: np.ndarray
    identity: float | None
    coverage: float


def _bin(context: Context, record: StreamRecord) -> Bin:
    sharp, colour = float(record.sharpness.mean()), record.colour.mean(0)
    try:
        found = summarise(context.distances(record.portrait, record.sampled))
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
