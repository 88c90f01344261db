"""Controls: which head pose, gaze, blink, expression and emotion are asked for, frame by frame.

A track that is absent, or null at a time, is *released*: the model decides. A whole video's worth of values
is a `Controls`, loaded from JSON keyframes or from a CSV with one row per frame; the values of one frame are
a `ControlFrame`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from eartalking.config import FPS
from eartalking.control_files import csv_text, json_text, parse_csv, parse_json
from eartalking.errors import InputError, check_file, os_cause

EMOTIONS = ("neutral", "happy", "sad", "angry", "surprised", "fear", "disgusted", "contempt")
CONTROL_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "yaw": (-30.0, 30.0),  # degrees; > 0 turns the nose to the viewer's right
        "pitch": (-20.0, 20.0),  # degrees; > 0 looks up
        "roll": (-20.0, 20.0),  # degrees; > 0 tilts clockwise as seen
        "gaze_yaw": (-25.0, 25.0),  # degrees relative to the head, same signs
        "gaze_pitch": (-20.0, 20.0),
        "blink": (0.0, 1.0),  # eyelid closure
        "brow": (-1.0, 1.0),  # frown to raised
        "smile": (-1.0, 1.0),
        "mouth_scale": (0.0, 2.0),  # articulation strength, 1 is natural
    }
)
SCALAR_TRACKS = tuple(CONTROL_RANGES)
EMOTION_TRACK = "emotion"
CONTROL_TRACKS = (*SCALAR_TRACKS, EMOTION_TRACK)
BROW, SMILE, MOUTH_SCALE = (SCALAR_TRACKS.index(track) for track in ("brow", "smile", "mouth_scale"))

Emotion = tuple[str, float]
ControlValue = float | Emotion | None
Keyframe = tuple[float, ControlValue]  # seconds, value; None releases the track

_PARSERS = {".json": parse_json, ".csv": parse_csv}
_TIME_TOLERANCE = 1e-6  # seconds: a keyframe written as 0.36000000000000004 belongs to the frame at 0.36


def validate_control(track: str, value: Any) -> ControlValue:
    """`value` in canonical form: a float, `(emotion name, intensity)`, or None for released.

    Raises:
        ValueError: unknown track, wrong type, not finite, or out of range; the message names the track.
    """
    if track not in CONTROL_TRACKS:
        raise ValueError(f"unknown track {track!r}; known tracks: {', '.join(CONTROL_TRACKS)}")
    if value is None:
        return None
    if track == EMOTION_TRACK:
        return _validate_emotion(value)
    low, high = CONTROL_RANGES[track]
    return _validate_number(track, value, low, high)


def _validate_number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number in {low:g}..{high:g}, not {value!r}")
    number = _to_float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{name} {number:g} is outside {low:g}..{high:g}")
    return number


def _to_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer with hundreds of digits, which JSON allows
        return math.inf


def _validate_emotion(value: Any) -> Emotion:
    if isinstance(value, str) or not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"emotion must be [name, intensity 0..1], not {value!r}")
    name, intensity = value
    if name not in EMOTIONS:
        raise ValueError(f"unknown emotion {name!r}; known emotions: {', '.join(EMOTIONS)}")
    return name, _validate_number("emotion intensity", intensity, 0.0, 1.0)


class ControlFrame(Mapping[str, ControlValue]):
    """The controls in force at one frame: every track of `CONTROL_TRACKS` -> value, or None where released.

    Immutable; `with_values` makes a changed copy.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None, **tracks: Any) -> None:
        """Raises: ValueError as `validate_control` does."""
        asked = {**(values or {}), **tracks}
        checked = {track: validate_control(track, value) for track, value in asked.items()}
        self._values = {track: checked.get(track) for track in CONTROL_TRACKS}

    def __getitem__(self, track: str) -> ControlValue:
        return self._values[track]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.values()))

    def __repr__(self) -> str:
        return f"ControlFrame({', '.join(f'{track}={value!r}' for track, value in self.given().items())})"

    def given(self) -> dict[str, ControlValue]:
        """Only the tracks that are not released."""
        return {track: value for track, value in self._values.items() if value is not None}

    def with_values(self, **tracks: Any) -> ControlFrame:
        """A copy with these tracks set, or released where None. Raises as `validate_control` does."""
        return ControlFrame(self._values, **tracks)


RELEASED = ControlFrame()


class Controls:
    """The control tracks of a whole video, as keyframes; immutable.

    Between two numbers a track is linear, an emotion is stepped, the last value is held; a track is released
    before its first keyframe and from a null keyframe to the next one (a number is held until its null).
    """

    def __init__(self, tracks: Mapping[str, Iterable[tuple[float, Any]]] | None = None) -> None:
        """`tracks` maps a track to its `(seconds, value)` keyframes in increasing order of time.

        Raises:
            ValueError: naming the track and the keyframe (counted from 1).
        """
        checked = {track: _check_keyframes(track, keyframes) for track, keyframes in (tracks or {}).items()}
        self._tracks = {track: checked[track] for track in CONTROL_TRACKS if checked.get(track)}
        self._times = {track: [time for time, _ in keyframes] for track, keyframes in self._tracks.items()}

    @property
    def tracks(self) -> Mapping[str, tuple[Keyframe, ...]]:
        """Read-only view: track -> its keyframes; tracks without any are absent."""
        return MappingProxyType(self._tracks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Controls) and self._tracks == other._tracks

    def __hash__(self) -> int:
        return hash(tuple(self._tracks.items()))

    def __repr__(self) -> str:
        counts = [f"{track}: {len(keyframes)} keyframes" for track, keyframes in self._tracks.items()]
        return f"Controls({', '.join(counts)})"

    @property
    def num_frames(self) -> int:
        """Frames until the last keyframe has taken effect; what is in force then is held for ever."""
        last = max((times[-1] for times in self._times.values()), default=None)
        return 0 if last is None else math.ceil((last - _TIME_TOLERANCE) * FPS) + 1

    def at(self, frame: int) -> ControlFrame:
        """The controls of frame `frame` >= 0, that is at `frame / 25` seconds."""
        time = frame / FPS
        return ControlFrame({track: self._value(track, time) for track in self._tracks})

    def _value(self, track: str, time: float) -> ControlValue:
        keyframes = self._tracks[track]
        index = bisect_right(self._times[track], time + _TIME_TOLERANCE) - 1
        if index < 0:
            return None
        start, value = keyframes[index]
        end, target = keyframes[index + 1] if index + 1 < len(keyframes) else (start, None)
        if not isinstance(value, float) or not isinstance(target, float):  # an emotion, released, or held
            return value
        between = value + (target - value) * (time - start) / (end - start)
        return min(max(between, min(value, target)), max(value, target))  # rounding must not leave the range

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Controls:
        """Read a `.json` (keyframes) or `.csv` (one row per frame) control file.

        Raises:
            InputError: naming the file, the track and the keyframe or row.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in _PARSERS:
            raise InputError(path, "a control file must end in .json or .csv")
        check_file(path)
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(path, "not a UTF-8 text file") from None
        except OSError as error:
            raise InputError(path, os_cause(error)) from None
        if not text.strip():
            raise InputError(path, "the file is empty")
        try:
            return cls(_PARSERS[suffix](text, validate_control))
        except ValueError as error:
            raise InputError(path, str(error)) from None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the contract's JSON or CSV, by the file's ending; a CSV has `num_frames` rows.

        Raises:
            InputError: another ending, or the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in _PARSERS:
            raise InputError(path, "a control file must end in .json or .csv")
        if suffix == ".json":
            text = json_text(self._tracks)
        else:
            rows = [self.at(frame) for frame in range(max(self.num_frames, 1))]
            text = csv_text(list(self._tracks) or SCALAR_TRACKS, rows)
        try:
            Path(path).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise InputError(path, os_cause(error)) from None


def _check_keyframes(track: str, keyframes: Iterable[tuple[float, Any]]) -> tuple[Keyframe, ...]:
    validate_control(track, None)
    checked: list[Keyframe] = []
    for number, (time, value) in enumerate(keyframes, start=1):
        where = f"track {track}, keyframe {number}"
        if isinstance(time, bool) or not isinstance(time, Real) or not 0 <= _to_float(time) < math.inf:
            raise ValueError(f"{where}: the time must be a finite number of seconds >= 0, not {time!r}")
        if checked and time <= checked[-1][0]:
            raise ValueError(f"{where}: time {time:g} does not follow {checked[-1][0]:g}")
        try:
            checked.append((float(time), validate_control(track, value)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return tuple(checked)


@dataclass
class ControlBatch:
    """Controls as the network takes them, for any number of frames.

    values (..., G) in the units of `CONTROL_RANGES` and the order of `SCALAR_TRACKS`; emotion (...) index into
    `EMOTIONS`; intensity (...) 0..1; given (..., G + 1) bool, the emotion last. What is not given may hold anything
    finite.
    """

    values: Tensor
    emotion: Tensor
    intensity: Tensor
    given: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> ControlBatch:
        """The same with each tensor changed."""
        return ControlBatch(*(change(value) for value in vars(self).values()))

    def frame(self, index: int) -> ControlBatch:
        """One frame (B, 1) of controls over (B, T)."""
        return self.map(lambda value: value[:, index : index + 1])

    def released_by(self, later: ControlBatch) -> ControlBatch:
        """These controls where they are given and `later` ones are not: what a release leaves behind."""
        return ControlBatch(self.values, self.emotion, self.intensity, self.given & ~later.given)

    def without_expressions(self) -> ControlBatch:
        """The same with brow, smile and emotion released."""
        given = self.given.clone()
        given[..., (BROW, SMILE, -1)] = False
        return ControlBatch(self.values, self.emotion, self.intensity, given)

    @classmethod
    def of_frame(cls, frame: ControlFrame, device: torch.device | None = None) -> ControlBatch:
        """The controls of one frame of one stream: over (1, 1)."""
        scalars = [frame[track] for track in SCALAR_TRACKS]
        emotion = frame[EMOTION_TRACK]
        name, intensity = emotion if isinstance(emotion, tuple) else (EMOTIONS[0], 0.0)
        given = [value is not None for value in (*scalars, emotion)]
        return cls(
            torch.tensor([[[0.0 if value is None else value for value in scalars]]], device=device),
            torch.tensor([[EMOTIONS.index(name)]], device=device),
            torch.tensor([[intensity]], dtype=torch.float32, device=device),
            torch.tensor([[given]], device=device),
        )

    @classmethod
    def released(cls, *shape: int, device: torch.device | None = None) -> ControlBatch:
        """All tracks released."""
        return cls(
            torch.zeros(*shape, len(CONTROL_RANGES), device=device),
            torch.zeros(*shape, dtype=torch.long, device=device),
            torch.zeros(*shape, device=device),
            torch.zeros(*shape, len(CONTROL_RANGES) + 1, dtype=torch.bool, device=device),
        )


def control_values(labels: dict[str, Tensor]) -> Tensor:
    """(T, 9): the scalar control tracks of a clip in the order of `SCALAR_TRACKS`."""
    pose, gaze = labels["head_pose"].float(), labels["gaze"].float()
    columns = {
        "yaw": pose[:, 0],
        "pitch": pose[:, 1],
        "roll": pose[:, 2],
        "gaze_yaw": gaze[:, 0],
        "gaze_pitch": gaze[:, 1],
    }
    columns |= {name: labels[name].float() for name in ("blink", "brow", "smile", "mouth_scale")}
    return torch.stack([columns[track] for track in SCALAR_TRACKS], dim=1)
