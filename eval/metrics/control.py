"""Control fidelity: what the face reader sees in the video, against what the controls asked for, frame by frame.

Clips without a control file, or whose file leaves a track out, are not measured. The reader makes errors of its own:
its error on held-out heads is in the network's name, and differences below it mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import numpy as np

from eartalking.controls import CONTROL_RANGES, EMOTION_TRACK, EMOTIONS
from eartalking.perception.face_reader import WEIGHTS_FOLDER, FaceReader, FaceReading
from eval.cache import file_hash
from eval.clips import EvalClip, Footage
from eval.metrics.metric import FRAMES, SHARE, Item, MeanMetric, Metric, NotAsked, Unmeasured, present
from eval.metrics.signals import first_seen, step_response, voice_envelope

POSE_TRACKS = ("yaw", "pitch", "roll")
GAZE_TRACKS = ("gaze_yaw", "gaze_pitch")
STEP_TRACKS = (*POSE_TRACKS, *GAZE_TRACKS, "blink", "smile")
HORIZON = 12  # frames after a step in which it may be seen
SMALLEST_STEP = 0.25  # of the track's range; smaller steps are within the reader's error
CLEAR_INTENSITY = 0.6  # of an emotion, from which on it counts as recognisable
CLOSED = 0.5  # blink above which an eye counts as closed
QUIET, LOUD = 0.02, 0.3  # of the voice's peak loudness
SETTLE_BEFORE, SETTLE_AFTER = 8, 3  # frames: a mouth closes a little after a word and opens a little before one
FEWEST_QUIET = 10  # frames


class Reader:
    """The face reader and its version. Raises InputError: no reader there."""

    smallest_opening = 0.004  # head heights

    def __init__(self) -> None:
        self._reader = FaceReader.load()
        self.version = file_hash(WEIGHTS_FOLDER / "reader.safetensors")[:12]

    def network(self, *readings: str) -> str:
        """The reader's name with its own error in these readings, where that is known."""
        known = self._reader.accuracy
        errors = ", ".join(f"{name} {known[name]:.3g}" for name in readings if name in known)
        return f"face reader {self.version}" + (f" (own: {errors})" if errors else "")

    def read(self, footage: Footage) -> FaceReading:
        """All frames of a video, from the cache where they have been read before."""

        def extract(found: Footage) -> dict[str, np.ndarray]:
            return vars(FaceReading.concat([self._reader.read(batch) for batch in found.batches()]))

        return FaceReading(**footage.features(f"reader:1:{self.version}", extract))


class ReadsFaces(Interface):
    """What the metrics of pose, gaze, lids and lips need of a reader. smallest_opening: a mouth that speaks opens
    further on average, in the unit of its `mouth_open`."""

    smallest_opening: float

    def network(self, *readings: str) -> str:
        """Its name, with its own error in these readings."""

    def read(self, footage: Footage) -> Any:
        """Tracks (T,) by name: POSE_TRACKS, GAZE_TRACKS, `blink` and `mouth_open`; Unmeasured without a face."""


def asked_track(clip: EvalClip, track: str) -> np.ndarray:
    """(T,) float: what was asked of a scalar track, nan where it was released. Raises NotAsked: nowhere asked."""
    return _given(track, [frame[track] for frame in _frames(clip)])


def asked_emotion(clip: EvalClip) -> np.ndarray:
    """(T,) float index into EMOTIONS where an emotion was asked clearly, nan elsewhere. Raises NotAsked: nowhere."""
    asked = [frame[EMOTION_TRACK] for frame in _frames(clip)]
    clear = [one is not None and (one[0] == EMOTIONS[0] or one[1] >= CLEAR_INTENSITY) for one in asked]
    return _given(EMOTION_TRACK, [EMOTIONS.index(one[0]) if ok else None for one, ok in zip(asked, clear, strict=True)])


def _frames(clip: EvalClip) -> list[Any]:
    if clip.controls is None:
        raise NotAsked("no control file: nothing was asked for")
    return [clip.controls.at(index) for index in range(clip.num_frames)]


def _given(track: str, values: list[float | None]) -> np.ndarray:
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    if np.isnan(found).all():
        raise NotAsked(f"the controls never ask for {track}")
    return found


def track_errors(track: str, asked: np.ndarray, reading: Any) -> np.ndarray:
    """Absolute errors of a pose or gaze track in degrees, of frames that all were asked (T,); a gaze counts with open
    eyes only.
    """
    errors = np.abs(getattr(reading, track) - asked)
    return errors[reading.blink < CLOSED] if track in GAZE_TRACKS else errors


def step_progress(
    track: str, asked: np.ndarray, reading: FaceReading, horizon: int = HORIZON
) -> tuple[np.ndarray, int]:
    """How far, on average over the steps of `asked` (T,), what is read has come in each of the `horizon` frames from
    the step on: (horizon,), 0 before and 1 when followed fully, and the number of steps that are large enough and held
    long enough. Of the emotion, asked as indices, the share of steps after which it is named."""
    if track != EMOTION_TRACK:
        low, high = CONTROL_RANGES[track]
        return step_response(getattr(reading, track), asked, SMALLEST_STEP * (high - low), horizon)
    starts = np.flatnonzero(np.diff(asked)) + 1
    ends = np.append(starts, len(asked))[1:]
    named = reading.emotion.argmax(1)
    long_enough = starts[ends - starts >= horizon]
    rows = [named[start : start + horizon] == asked[start] for start in long_enough]
    return (np.mean(rows, axis=0) if rows else np.zeros(horizon)), len(rows)


@dataclass
class TrackError(MeanMetric):
    """Mean absolute error in degrees over the tracks and frames that were asked for; a gaze needs open eyes."""

    tracks: tuple[str, ...] = POSE_TRACKS
    reader: ReadsFaces | None = None

    def measure(self, clip: EvalClip) -> Item:
        reading = present(self.reader).read(clip.pred)
        errors, asked_frames = [], 0
        for track in self.tracks:
            try:
                asked = asked_track(clip, track)
            except NotAsked:
                if track == self.tracks[-1] and not asked_frames:
                    raise
                continue
            given = ~np.isnan(asked)
            asked_frames += int(given.sum())
            errors.append(track_errors(track, asked[given], reading[given]))
        found = np.concatenate(errors)
        if not len(found):
            raise Unmeasured("the eyes are closed wherever a gaze was asked for")
        return {"errors": found, SHARE: np.asarray(len(found) / asked_frames)}

    def clip_value(self, item: Item) -> float:
        return float(item["errors"].mean())


@dataclass
class BlinkF1(Metric):
    """F1 of closed eyes over all frames of all clips in which a blink value was asked for."""

    reader: ReadsFaces | None = None

    def measure(self, clip: EvalClip) -> Item:
        asked = asked_track(clip, "blink")
        given = ~np.isnan(asked)
        wanted, seen = asked[given] > CLOSED, present(self.reader).read(clip.pred).blink[given] > CLOSED
        counts = [(wanted & seen).sum(), (~wanted & seen).sum(), (wanted & ~seen).sum()]
        return {"counts": np.array(counts), FRAMES: given.sum()}

    def value_of(self, items: list[Item]) -> float:
        hit, wrong, missed = np.sum([item["counts"] for item in items], axis=0)
        if hit + missed == 0:
            raise ValueError("no closed eye was asked for")
        return float(2 * hit / (2 * hit + wrong + missed))

    def resampled(self, items: list[Item], count: int) -> np.ndarray:
        with_blinks = [item for item in items if item["counts"][0] + item["counts"][2] > 0]
        return super().resampled(with_blinks, count)


@dataclass
class EmotionAccuracy(MeanMetric):
    """Share of the frames with a clearly asked emotion in which the reader names it."""

    reader: Reader | None = None

    def measure(self, clip: EvalClip) -> Item:
        asked = asked_emotion(clip)
        given = ~np.isnan(asked)
        named = present(self.reader).read(clip.pred).emotion.argmax(1)
        return {"hits": (named == asked)[given], FRAMES: given.sum()}

    def clip_value(self, item: Item) -> float:
        return float(item["hits"].mean())


@dataclass
class ControlLatency(Metric):
    """Frames from a control's change to the first frame in which, on average over all steps of its track, half of the
    change is seen; then the mean over the tracks. 1 is the first frame with the new value, HORIZON + 1 never."""

    reader: Reader | None = None

    def measure(self, clip: EvalClip) -> Item:
        reading = present(self.reader).read(clip.pred)
        responses, counts = np.zeros((len(STEP_TRACKS) + 1, HORIZON)), np.zeros(len(STEP_TRACKS) + 1)
        for row, track in enumerate((*STEP_TRACKS, EMOTION_TRACK)):
            try:
                asked = asked_emotion(clip) if track == EMOTION_TRACK else asked_track(clip, track)
            except NotAsked:
                if clip.controls is None:
                    raise
                continue
            for part in _given_parts(asked):
                response, count = step_progress(track, asked[part], reading[part])
                if count:
                    responses[row] += count * response
                    counts[row] += count
        if not counts.any():
            raise NotAsked(f"the controls make no step that is large enough and held for {HORIZON} frames")
        return {"responses": responses, "counts": counts}

    def value_of(self, items: list[Item]) -> float:
        responses, counts = (np.sum([item[name] for item in items], axis=0) for name in ("responses", "counts"))
        seen = [first_seen(responses[row] / counts[row]) for row in np.flatnonzero(counts)]
        return float(np.mean([HORIZON + 1 if frames is None else frames for frames in seen]))


def _given_parts(asked: np.ndarray) -> list[slice]:
    """The stretches in which a track is asked for."""
    given = np.concatenate([[False], ~np.isnan(asked), [False]])
    edges = np.flatnonzero(np.diff(given))
    return [slice(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]


@dataclass
class SilenceMotion(MeanMetric):
    """Mean mouth opening while the voice is silent over the mean while it sounds: 0 is a mouth that closes."""

    reader: ReadsFaces | None = None

    def measure(self, clip: EvalClip) -> Item:
        loudness = voice_envelope(clip.pred.waveform, clip.num_frames)
        if loudness.max() <= 0:
            raise NotAsked("the sound is digital silence throughout")
        sounding = loudness > QUIET * loudness.max()
        around = np.convolve(sounding, np.ones(SETTLE_BEFORE + SETTLE_AFTER + 1))
        quiet = around[SETTLE_AFTER : SETTLE_AFTER + len(sounding)] == 0
        loud = loudness > LOUD * loudness.max()
        if quiet.sum() < FEWEST_QUIET:
            raise NotAsked(f"the voice is silent in only {int(quiet.sum())} frames, {FEWEST_QUIET} are needed")
        opening = present(self.reader).read(clip.pred).mouth_open
        if opening[loud].mean() < present(self.reader).smallest_opening:
            raise Unmeasured("the mouth hardly opens in speech")
        return {"openings": np.array([opening[quiet].mean(), opening[loud].mean()]), FRAMES: quiet.sum() + loud.sum()}

    def clip_value(self, item: Item) -> float:
        return float(item["openings"][0] / item["openings"][1])


def fidelity_metrics(reader: ReadsFaces | None, kind: str, suffix: str = "", **common: Any) -> list[Metric]:
    """What any reader of poses, gazes, lids and lips gives, the metrics' names with `suffix`. kind: what the reader is
    called where there is none."""

    def network(*readings: str) -> str:
        return kind if reader is None else reader.network(*readings)

    common = {"reader": reader, **common}
    return [
        SilenceMotion(f"silence_motion{suffix}", network("mouth_open"), "embedded", False, **common),
        TrackError(f"pose_err{suffix}", network(*POSE_TRACKS), "embedded", False, tracks=POSE_TRACKS, **common),
        TrackError(f"gaze_err{suffix}", network(*GAZE_TRACKS), "embedded", False, tracks=GAZE_TRACKS, **common),
        BlinkF1(f"blink_f1{suffix}", network("blink_side"), "embedded", True, **common),
    ]


def reader_metrics(reader: Reader | None, missing: str, **common: Any) -> list[Metric]:
    """All metrics that the face reader gives; `missing`: why there is no reader."""
    kind = "face reader"
    emotion, latency = (kind if reader is None else reader.network(*known) for known in (["emotion_recognised"], []))
    common = {"reader": reader, "missing": missing, **common}
    return [
        *fidelity_metrics(kind=kind, **common),
        EmotionAccuracy("emotion_acc", emotion, "embedded", True, **common),
        ControlLatency("control_latency_frames", latency, "embedded", False, **common),
    ]
