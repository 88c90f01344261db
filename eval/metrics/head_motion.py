"""Whether a head moves as people's do: how far, how fast, how shakily, how often it blinks, and in time with the voice.

A head that stands still and one that shakes are both wrong, so what is measured is compared with the true videos of the
same clips. Nothing in a voice says *which* way a head turns: only sums over all clips are compared, not frames. The
face reader's own noise is in both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import welch

from eartalking.perception.face_reader import FaceReading
from eval.clips import EvalClip
from eval.metrics.control import CLOSED, POSE_TRACKS, Reader
from eval.metrics.metric import Item, Metric, NotAsked, Unmeasured, present
from eval.metrics.signals import voice_envelope

SHAKE_HZ = 5.0  # a head that means something by it moves more slowly
SHAKE_WINDOW_SECONDS = 2.0
FEWEST_FRAMES = 25
BEAT_SECONDS = 0.1  # how far a beat of the head may be from one of the voice to count for much


def pose_of(reading: FaceReading) -> np.ndarray:
    """(T, 3) degrees."""
    return np.stack([getattr(reading, track) for track in POSE_TRACKS], axis=1).astype(np.float64)


def spread(signal: np.ndarray, fps: float) -> float:
    """Mean square distance of a signal (T, C) from its mean; of a pose degrees²."""
    return float(signal.var(axis=0).mean())


def speed(pose: np.ndarray, fps: float) -> float:
    """Mean square speed: (degrees a second)²."""
    return float(np.square(np.diff(pose, axis=0) * fps).mean())


def shake(pose: np.ndarray, fps: float) -> float:
    """Mean square of what is faster than `SHAKE_HZ`: degrees².

    By Welch's method, in tapered windows and each without its trend: the spectrum of a whole clip takes a head that
    ends elsewhere than it began for one that jumps back, and people's heads hold so little that is fast that this was
    all one saw.
    """
    window = min(len(pose), round(SHAKE_WINDOW_SECONDS * fps))
    frequencies, density = welch(pose, fps, nperseg=window, detrend="linear", axis=0)
    return float(density[frequencies > SHAKE_HZ].sum(axis=0).mean() * frequencies[1])


def gap(made: float, true: float) -> float:
    """0 where two sizes are equal, 1 where one of them is nothing: |made - true| / (made + true)."""
    return abs(made - true) / (made + true)


def beat_alignment(pose: np.ndarray, envelope: np.ndarray, fps: float) -> float:
    """How much nearer the head's beats are to the voice's than by chance.

    Beats of the head are the frames in which it is fastest between two slower ones, and faster than on average; beats
    of the voice are where it grows louder fastest. Each beat of the head counts exp(-d² / 2 `BEAT_SECONDS`²) for the
    distance d to the nearest beat of the voice (the beat alignment score of AIST++, Li et al. 2021, for speech). From
    the mean of these, the mean over all shifts of the head against the voice is taken away: 0 is chance.
    """
    head = _peaks(np.linalg.norm(np.diff(pose, axis=0), axis=1))
    voice = np.flatnonzero(_peaks(np.diff(envelope).clip(0)))
    if not head.any() or not len(voice):
        return 0.0
    frames = np.arange(len(head))
    near = np.exp(-((np.abs(frames[:, None] - voice).min(axis=1) / fps) ** 2) / (2 * BEAT_SECONDS**2))
    return float(near[head].mean() - near.mean())


def _peaks(signal: np.ndarray) -> np.ndarray:
    """(T,) bool: larger than its neighbours, and than the mean."""
    padded = np.pad(signal, 1, constant_values=-np.inf)
    return (signal > padded[:-2]) & (signal >= padded[2:]) & (signal > signal.mean())


def blinks(reading: FaceReading) -> int:
    """How often the eyes shut."""
    shut = np.concatenate([[False], reading.blink > CLOSED])
    return int((shut[1:] & ~shut[:-1]).sum())


@dataclass
class MotionGap(Metric):
    """`gap` of the root mean square over all clips, of made videos against the true ones. `signal` takes from a reading
    what moves, (T, C): the head's pose unless told otherwise. `size`: one of `spread`, `speed` and `shake`."""

    size: Callable[[np.ndarray, float], float] = spread
    signal: Callable[[Any], np.ndarray] = pose_of
    reader: Reader | None = None

    def measure(self, clip: EvalClip) -> Item:
        if clip.num_frames < FEWEST_FRAMES:
            raise NotAsked(f"motion needs {FEWEST_FRAMES} frames, the clip has {clip.num_frames}")
        reader, fps = present(self.reader), self.protocol.fps
        made, true = (self.size(self.signal(reader.read(footage)), fps) for footage in (clip.pred, clip.ref))
        return {"squares": np.array([made, true]) * clip.num_frames, "frames": np.asarray(clip.num_frames)}

    def value_of(self, items: list[Item]) -> float:
        made, true = np.sqrt(np.sum([item["squares"] for item in items], axis=0))
        if true <= 0:
            raise ValueError("nothing moves in the true videos")
        return gap(float(made), float(true))

    def clip_details(self, item: Item) -> dict[str, Any]:
        made, true = np.sqrt(item["squares"] / item["frames"])
        return {"made": float(made), "true": float(true)}


@dataclass
class BlinkRateGap(Metric):
    """`gap` of the number of blinks over all clips."""

    reader: Reader | None = None

    def measure(self, clip: EvalClip) -> Item:
        reader = present(self.reader)
        return {"counts": np.array([blinks(reader.read(footage)) for footage in (clip.pred, clip.ref)], np.float64)}

    def value_of(self, items: list[Item]) -> float:
        made, true = np.sum([item["counts"] for item in items], axis=0)
        if not true:
            raise ValueError("nobody blinks in the true videos")
        return gap(float(made), float(true))

    def resampled(self, items: list[Item], count: int) -> np.ndarray:
        return super().resampled([item for item in items if item["counts"][1]], count)

    def clip_value(self, item: Item) -> float | None:
        return None

    def clip_details(self, item: Item) -> dict[str, Any]:
        made, true = item["counts"]
        return {"made": int(made), "true": int(true)}


@dataclass
class BeatAlignment(Metric):
    """Mean over clips of `beat_alignment` with the clip's own sound; a head that does not move has 0."""

    reader: Reader | None = None

    def measure(self, clip: EvalClip) -> Item:
        if clip.num_frames < FEWEST_FRAMES:
            raise NotAsked(f"head motion needs {FEWEST_FRAMES} frames, the clip has {clip.num_frames}")
        envelope = voice_envelope(clip.pred.waveform, clip.num_frames)
        if envelope.max() <= 0:
            raise Unmeasured("the sound is digital silence throughout")
        pose = pose_of(present(self.reader).read(clip.pred))
        return {"aligned": np.asarray(beat_alignment(pose, envelope, self.protocol.fps))}

    def value_of(self, items: list[Item]) -> float:
        return float(np.mean([item["aligned"] for item in items]))


def head_motion_metrics(reader: Reader | None, missing: str, **common: Any) -> list[Metric]:
    """All metrics of this module; `missing`: why there is no reader."""
    pose = "face reader" if reader is None else reader.network(*POSE_TRACKS)
    lids = "face reader" if reader is None else reader.network("blink_side")
    common = {"reader": reader, "missing": missing, **common}
    return [
        MotionGap("head_spread_gap", pose, "embedded", False, size=spread, **common),
        MotionGap("head_speed_gap", pose, "embedded", False, size=speed, **common),
        MotionGap("head_shake_gap", pose, "embedded", False, size=shake, **common),
        BlinkRateGap("blink_rate_gap", lids, "embedded", False, **common),
        BeatAlignment("beat_alignment", pose, "embedded", True, **common),
    ]
