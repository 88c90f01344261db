"""Gates of the controls: every track stepped through its range alone, and what the reader sees, frame by frame.

No frame is left out after a step: the gate of one frame's latency makes a grace period a contradiction.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.gates.streams import Context, Schedule, StreamRecord, spread, strip
from benchmarks.gates.table import (
    ALL_GATES,
    FOLLOWED_TRACKS,
    GATES,
    GAZE_TRACKS,
    LATENCY_TRACKS,
    POSE_TRACKS,
    GateRow,
    Unavailable,
    judge,
    unavailable,
)
from benchmarks.record import ROOT
from eartalking.config import FPS
from eartalking.controls import CONTROL_RANGES, EMOTIONS
from eartalking.perception.face_reader import WEIGHTS_FOLDER, FaceReading
from eval.metrics.control import HORIZON, step_progress, track_errors
from eval.metrics.signals import first_seen

CEILING = ROOT / "benchmarks" / "results" / "ceiling.json"  # written by benchmarks.ceiling
SMALLEST_SMILE = 0.6
LARGEST_SMILE_ERROR = 0.25  # of the reader; half of the smallest smile asked for is 0.3


def blind_to(track: str, accuracy: dict[str, float]) -> str:
    """Why the reader cannot judge a track: its own error on held-out rendered heads already misses the gate. Empty when
    it can.
    """
    if track in FOLLOWED_TRACKS + ("emotion",):
        key, gate = {
            "blink": ("blink_side", 0.9),
            "smile": ("smile", LARGEST_SMILE_ERROR),
            "emotion": ("emotion_recognised", 0.8),
        }[track]
        value = accuracy.get(key, math.nan)
        able = value <= gate if track == "smile" else value >= gate
    else:
        key, gate = track, ALL_GATES[f"control_{track}_deg"].high
        value = accuracy.get(key, math.nan)
        able = value <= gate
    return (
        ""
        if able
        else f"the face reader cannot see it: its own {key} on held-out heads is {value:g}, {gate:g} is needed"
    )


def reader_hash() -> str:
    """Of the weights of the reader that ships: a ceiling holds for the reader that it was measured with."""
    return hashlib.sha256((WEIGHTS_FOLDER / "reader.safetensors").read_bytes()).hexdigest()


def missed_by_truth() -> dict[str, str]:
    """Gates that true renders do not pass with the reader that ships, and why they say nothing about a model."""
    try:
        ceiling = json.loads(CEILING.read_text(encoding="utf-8"))
    except OSError:
        return {}
    if ceiling["face_reader_sha256"] != reader_hash():
        return {}
    missed = [row for row in ceiling["gates"] if not row["passed"]]
    told = {row["name"]: row["reason"] if row["value"] is None else row["value"] for row in missed}
    return {name: f"the truth misses it as well with this face reader ({value})" for name, value in told.items()}


@dataclass
class Followed:
    """What was asked (F,) on one portrait, what was read with the track given, and with it released."""

    asked: np.ndarray
    given: FaceReading
    released: FaceReading


def asked_levels(track: str, steps: int, rng: np.random.Generator) -> list[float | int]:
    """The values that a track is stepped through: its whole range, alternately from the lower and the upper half; the
    blink closed and open; a clear smile or frown; the emotions one after the other (as indices)."""
    if track == "emotion":
        return [int(index) for index in np.resize(rng.permutation(len(EMOTIONS)), steps)]
    if track == "blink":
        return [float(step % 2) for step in range(steps)]
    if track == "smile":
        return [float(rng.uniform(SMALLEST_SMILE, 1) * (1 if step % 2 else -1)) for step in range(steps)]
    low, high = CONTROL_RANGES[track]
    middle = (low + high) / 2
    return [float(rng.uniform(low, middle) if step % 2 else rng.uniform(middle, high)) for step in range(steps)]


def schedule_of(track: str, asked: np.ndarray) -> Schedule:
    """One dict of controls per frame."""
    if track == "emotion":
        return [{track: (EMOTIONS[int(index)], 1.0)} for index in asked]
    return [{track: float(value)} for value in asked]


def measure_control(
    context: Context, tracks: tuple[str, ...] = LATENCY_TRACKS, missed: dict[str, str] | None = None
) -> list[GateRow]:
    """These tracks on all portraits of the suite; the floor is the same portrait and voice with the track released.
    Gates in `missed` (default: `missed_by_truth`) are not judged, for the reason given there."""
    suite = context.suite
    try:
        portraits, _ = context.material.portraits(), context.reader
        seconds = suite.control_steps * suite.control_hold / FPS
        voices = [context.material.voice(seconds, skip=5 * index) for index in range(len(portraits))]
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in GATES["control"] if track_of(name) in tracks]
    followed: dict[str, list[Followed]] = {track: [] for track in tracks}
    shown: dict[str, list[list[np.ndarray]]] = {track: [] for track in tracks}
    with tqdm(
        total=len(portraits) * (1 + len(tracks)), unit="stream", desc="control", mininterval=2, leave=False
    ) as bar:
        for index, (portrait, voice) in enumerate(zip(portraits, voices, strict=True)):
            released = context.watch(context.start(portrait), voice)
            bar.update()
            for track in tracks:
                rng = np.random.default_rng([context.seed, index, LATENCY_TRACKS.index(track)])
                asked = np.repeat(asked_levels(track, suite.control_steps, rng), suite.control_hold)
                record = context.watch(context.start(portrait), voice, schedule_of(track, asked))
                bar.update()
                count = min(len(asked), len(record))
                followed[track].append(Followed(asked[:count], record.read[:count], released.read[:count]))
                shown[track].append(_row(record))
    for track, pictures in shown.items():
        context.pictures[f"control_{track}"] = strip(pictures[:3])
    rows = [*_fidelity(context, followed), *(latency_row(track, followed[track]) for track in tracks)]
    blind = {track: blind_to(track, context.reader.accuracy) for track in tracks}
    missed = missed_by_truth() if missed is None else missed
    return [_unless_blind(row, blind, missed) for row in rows]


def track_of(name: str) -> str:
    """The track that a gate of the controls is about."""
    return next(track for track in sorted(LATENCY_TRACKS, key=len, reverse=True) if track in name)


def _unless_blind(row: GateRow, blind: dict[str, str], missed: dict[str, str]) -> GateRow:
    """A row that the reader cannot judge is not measured; the number that it would have given stays beside it. One that
    is
    passed where the truth misses is passed: an error of the reader makes it harder, not easier."""
    reason = blind[track_of(row.name)] or ("" if row.passed else missed.get(row.name, ""))
    if not reason:
        return row
    return dataclasses.replace(unavailable(row.name, reason), extra={"unreliable_value": row.value, **row.extra})


def _row(record: StreamRecord) -> list[np.ndarray]:
    return [record.portrait, *spread(record.sampled, 10)]


def _fidelity(context: Context, followed: dict[str, list[Followed]]) -> list[GateRow]:
    rows = []
    for track in (track for track in (*POSE_TRACKS, *GAZE_TRACKS) if track in followed):
        value, coverage = mean_error(track, [(one.asked, one.given) for one in followed[track]])
        floor, _ = mean_error(track, [(one.asked, one.released) for one in followed[track]])
        count = sum(len(one.asked) for one in followed[track])
        rows.append(judge(f"control_{track}_deg", value, count, "frames", floor,
                          "" if coverage >= 0.8 else f"the eyes are open in only {coverage:.0%} of the frames",
                          coverage=round(coverage, 3), reader_error=context.reader.accuracy.get(track)))  # fmt: skip
    names = {track: f"control_{track}_followed" for track in FOLLOWED_TRACKS} | {
        "emotion": "control_emotion_recognised"
    }
    for track, name in ((track, name) for track, name in names.items() if track in followed):
        value, floor = (
            float(np.concatenate([hits(track, one.asked, getattr(one, kind)) for one in followed[track]]).mean())
            for kind in ("given", "released")
        )
        reader = {"blink": "blink_side", "smile": "smile", "emotion": "emotion_recognised"}[track]
        count = sum(len(one.asked) for one in followed[track])
        extra: dict[str, Any] = {"by_emotion": _by_emotion(followed[track])} if track == "emotion" else {}
        rows.append(
            judge(name, value, count, "frames", floor, reader_accuracy=context.reader.accuracy.get(reader), **extra)
        )
    return rows


def mean_error(track: str, pairs: list[tuple[np.ndarray, FaceReading]]) -> tuple[float, float]:
    """Mean absolute error in degrees over all frames, and the share of frames that count: a gaze needs open eyes."""
    errors, counted, total = 0.0, 0, 0
    for asked, reading in pairs:
        found = track_errors(track, asked, reading)
        errors += float(found.sum())
        counted, total = counted + len(found), total + len(asked)
    return (errors / counted if counted else math.nan), counted / max(total, 1)


def hits(track: str, asked: np.ndarray, reading: FaceReading) -> np.ndarray:
    """(F,) bool. Blink: on the asked side of one half. Smile: at least half of what was asked, to the same side.
    Emotion: the reader names the one that was asked."""
    if track == "blink":
        return (reading.blink > 0.5) == (asked > 0.5)
    if track == "smile":
        return reading.smile * np.sign(asked) >= 0.5 * np.abs(asked)
    return reading.emotion.argmax(1) == asked


def _by_emotion(followed: list[Followed]) -> dict[str, float]:
    asked = np.concatenate([one.asked for one in followed])
    hit = np.concatenate([hits("emotion", one.asked, one.given) for one in followed])
    return {EMOTIONS[int(i)]: round(float(hit[asked == i].mean()), 3) for i in np.unique(asked)}


def latency_row(track: str, followed: list[Followed]) -> GateRow:
    """Frames until half of a step is seen, on average over all steps: 1 is the first frame with the new value."""
    name = f"control_latency_{track}_frames"
    horizon = min(HORIZON, *(_shortest_hold(one.asked) for one in followed))
    total, steps = np.zeros(horizon), 0
    for one in followed:
        response, count = step_progress(track, one.asked, one.given, horizon)
        if count:
            total, steps = total + response * count, steps + count
    if not steps:
        return unavailable(name, "no step was large enough")
    response = total / steps
    seen = first_seen(response)
    unless = "" if seen is not None else f"half of the change is never seen within {horizon} frames"
    value = float(horizon + 1 if seen is None else seen)
    return judge(name, value, steps, "steps", None, unless, response=[round(float(r), 3) for r in response])


def _shortest_hold(asked: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(asked)) + 1
    return int(np.diff([0, *edges, len(asked)]).min())
