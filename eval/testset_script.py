"""Scripted clips of a test set: one control track stepped through its range, and the face that follows it."""

from __future__ import annotations

import dataclasses

import numpy as np

from eartalking.config import FPS
from eartalking.controls import CONTROL_RANGES, EMOTION_TRACK, EMOTIONS, Controls
from eartalking.motion.face_units import compose_face_units
from eartalking.synth.performance import Performance
from eartalking.synth.speech import Utterance
from eartalking.synth.visemes import speech_mouth

HOLD = 20  # frames between the steps of a script
# Control track -> the field of `Performance` and its column; every other track is a field of its own name.
_COLUMNS = {
    "yaw": ("head_pose", 0), "pitch": ("head_pose", 1), "roll": ("head_pose", 2),
    "gaze_yaw": ("gaze", 0), "gaze_pitch": ("gaze", 1),
}  # fmt: skip
_EXPRESSION = ("blink", "brow", "smile", "mouth_scale", "emotion", "emotion_intensity")
Value = float | tuple[str, float]


def follow_script(
    performance: Performance, utterance: Utterance, track: str, rng: np.random.Generator
) -> tuple[Performance, Controls]:
    """The same performance with one control track stepped through its range, a new value every HOLD frames, and the
    controls that ask for it. track: one of `eval.testset.SCRIPTED_TRACKS`.
    """
    labels = {field.name: getattr(performance, field.name).copy() for field in dataclasses.fields(performance)}
    steps = -(-len(performance) // HOLD)
    values: list[Value]
    if track == EMOTION_TRACK:
        chosen = np.resize(rng.permutation(np.arange(1, len(EMOTIONS))), steps)
        values = [(EMOTIONS[index], 1.0) for index in chosen]
        labels["emotion"][:] = np.repeat(chosen, HOLD)[: len(performance)]
        labels["emotion_intensity"][:] = 1
    else:
        numbers = _stepped(track, steps, rng)
        values = list(numbers)
        field, column = _COLUMNS.get(track, (track, None))
        held = np.repeat(numbers, HOLD)[: len(performance)]
        labels[field][... if column is None else (slice(None), column)] = held
    mouth = speech_mouth(utterance.phones, utterance.waveform, len(performance))
    labels["face_units"] = compose_face_units(mouth, *(labels[name] for name in _EXPRESSION))
    return type(performance)(**labels), Controls({track: _keyframes(track, values, len(performance))})


def _stepped(track: str, steps: int, rng: np.random.Generator) -> list[float]:
    """A value per step, alternately from the upper and the lower part of the track's range, so that every step can be
    seen; lids are open or closed.
    """
    if track == "blink":
        return [float(step % 2) for step in range(steps)]
    low, high = CONTROL_RANGES[track]
    parts = ((high / 3, high), (low, low / 3))
    return [float(rng.uniform(*parts[step % 2])) for step in range(steps)]


def _keyframes(track: str, values: list[Value], num_frames: int) -> list[tuple[float, Value]]:
    """(seconds, value): each value at the first frame of its step and, because scalar tracks are interpolated, at the
    last one.
    """
    keyframes: list[tuple[float, Value]] = []
    for step, value in enumerate(values):
        keyframes.append((step * HOLD / FPS, value))
        if track != EMOTION_TRACK:
            keyframes.append(((min((step + 1) * HOLD, num_frames) - 1) / FPS, value))
    return keyframes
