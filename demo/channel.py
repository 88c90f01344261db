"""Shared memory between the page and whoever computes the frames, be it a thread or a forked process.

On ZeroGPU the model runs in a process forked from the page's, which sees no later change to the page's objects. So
everything that may change while a stream runs lies in memory that survives the fork: the control values of every
frame, how far the stream may run, and the orders to go back and to stop. The ordinary thread uses the same slots, so
there is one path.
"""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from eartalking.config import FPS
from eartalking.controls import (
    CONTROL_TRACKS,
    EMOTION_TRACK,
    EMOTIONS,
    SCALAR_TRACKS,
    ControlFrame,
    Controls,
    ControlValue,
)

_COLUMNS = len(SCALAR_TRACKS) + 2  # the emotion takes two: which one, how strong
_STOPPED, _ANCHOR_FRAME, _ANCHOR_TIME, _PLAYING, _LEAD = range(5)
_OPEN, _FINAL, _BACK, _ASKED, _ANSWERED, _PARKED, _HEADER = range(5, 12)
_POLL_SECONDS = 0.02  # how soon a stop or a jump of the viewer is noticed by a stream that waits


class BusyError(RuntimeError):
    """All places for running streams are taken; the message is for the user."""


class Slot:
    """The shared memory of one running stream: a table of control values per frame, its pace, and to which frame it
    shall go back.

    A value is NaN where the track is released. One process writes, one reads (and notes which order it has answered); a
    row that is read while it is written may mix old and new tracks for that frame, and the frame reports what it got.
    """

    def __init__(self, num_frames: int) -> None:
        memory = multiprocessing.RawArray("d", _HEADER + num_frames * _COLUMNS)
        values = np.frombuffer(memory)
        self._header, self._table = values[:_HEADER], values[_HEADER:].reshape(num_frames, _COLUMNS)
        self.clear()

    def clear(self) -> None:
        """Everything released, running freely, not stopped."""
        self._table[:] = math.nan
        self._header[:] = 0
        self._header[_LEAD] = math.inf

    # What the page does.

    def write(self, track: str, first_frame: int, value: ControlValue) -> None:
        """Put `value` (None releases) in force for `track` from `first_frame` to the end."""
        self._table[first_frame:, _columns(track)] = _encode(track, value)

    def write_plan(self, controls: Controls, first_frame: int, num_frames: int) -> None:
        """Put the values of `controls` in force from `first_frame` on."""
        end = min(max(controls.num_frames, first_frame + 1), num_frames)  # after the last keyframe all is held
        frames = [controls.at(frame) for frame in range(first_frame, end)]
        for track in CONTROL_TRACKS:
            if frames:
                self._table[first_frame:end, _columns(track)] = [_encode(track, frame[track]) for frame in frames]
                self.write(track, end, frames[-1][track])

    def pace(self, lead_frames: int) -> None:
        """From now on run at most `lead_frames` ahead of what `follow` reports; without it a stream runs freely."""
        self._header[_LEAD] = lead_frames

    def follow(self, frame: float, playing: bool) -> None:
        """The viewer is at `frame` now and, if `playing`, moves on at 25 frames a second."""
        self._header[_ANCHOR_FRAME] = frame
        self._header[_ANCHOR_TIME] = time.monotonic()
        self._header[_PLAYING] = playing

    def open(self) -> None:
        """From now on the stream may be asked to go back, even after its last frame, until `close`."""
        self._header[_OPEN] = 1

    def close(self) -> None:
        """Whatever has been made stays as it is."""
        self._header[_OPEN] = 0

    def settle(self, frame: int) -> None:
        """Frames below this one will not be asked for again."""
        self._header[_FINAL] = frame

    def go_back(self, frame: int) -> None:
        """Make `frame`, which was made, and all that follow anew, with what the table says by now."""
        self._header[_BACK] = min(frame, self._header[_BACK]) if self._asked_back else frame
        self._header[_ASKED] += 1  # last: who reads it finds the frame, and the table, as they shall be

    def park(self, parked: bool) -> None:
        """Compute nothing more until this is called with False."""
        self._header[_PARKED] = parked

    def stop(self) -> None:
        """The reader gives up at its next frame."""
        self._header[_STOPPED] = 1

    # What the computing side does.

    @property
    def stopped(self) -> bool:
        return bool(self._header[_STOPPED])

    def allows(self, frame: int) -> bool:
        """Whether `frame` may be computed now."""
        return not self.stopped and not self._header[_PARKED] and frame < self._allowed()

    @property
    def is_open(self) -> bool:
        """Whether the stream may be asked to go back."""
        return bool(self._header[_OPEN])

    @property
    def final(self) -> int:
        """Frames below this one will not be asked for again."""
        return int(self._header[_FINAL])

    def taken_back(self) -> int | None:
        """The frame to which the stream shall go back, told once; None if it shall not."""
        asked = self._header[_ASKED]
        if asked == self._header[_ANSWERED]:
            return None
        frame = int(self._header[_BACK])
        self._header[_ANSWERED] = asked
        return frame

    def wait_for(self, frame: int) -> bool:
        """Block until `frame` may be computed, or the stream shall go back; False if it was stopped."""
        while not self.stopped:
            missing = frame - self._allowed()
            if self._header[_PARKED]:
                time.sleep(_POLL_SECONDS)
                continue
            if missing < 0 or self._asked_back:
                return True
            playing = self._header[_PLAYING]
            time.sleep(min((missing + 0.01) / FPS, _POLL_SECONDS) if playing else _POLL_SECONDS)
        return False

    def wait_for_end(self) -> bool:
        """After the last frame: block until the stream shall go back; False if it was closed or stopped."""
        while self.is_open and not self.stopped:
            if self._asked_back:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    @property
    def _asked_back(self) -> bool:
        """Whether there is an order to go back that the stream has not taken yet."""
        return bool(self._header[_ASKED] != self._header[_ANSWERED])

    def _allowed(self) -> float:
        """Frames below this one may be computed."""
        return self.playhead + self._header[_LEAD]

    @property
    def playhead(self) -> float:
        """Where the viewer is by now, in frames."""
        _, frame, since, playing = self._header[:_LEAD]
        return frame + ((time.monotonic() - since) * FPS if playing else 0.0)

    def at(self, frame: int) -> ControlFrame:
        """The controls in force at `frame`."""
        row = self._table[min(frame, len(self._table) - 1)]
        return ControlFrame({track: _decode(track, row[_columns(track)]) for track in CONTROL_TRACKS})


class SteeredControls(Controls):
    """Controls that are read from a slot at the moment a frame is made, so that they can change until then."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self._slot = slot

    def at(self, frame: int) -> ControlFrame:
        return self._slot.at(frame)


class SlotPool:
    """A fixed number of slots, made before any process forks."""

    def __init__(self, count: int, num_frames: int) -> None:
        self.slots = tuple(Slot(num_frames) for _ in range(count))
        self._free = list(range(count))
        self._lock = threading.Lock()

    def take(self) -> int:
        """The number of a free slot, cleared.

        Raises:
            BusyError: all are in use.
        """
        with self._lock:
            if not self._free:
                raise BusyError(f"All {len(self.slots)} stages are in use. Please try again in a moment.")
            number = self._free.pop()
        self.slots[number].clear()
        return number

    def give_back(self, number: int) -> None:
        with self._lock:
            self._free.append(number)

    @property
    def free(self) -> int:
        """How many streams could start now."""
        return len(self._free)


def _columns(track: str) -> slice:
    if track == EMOTION_TRACK:
        return slice(len(SCALAR_TRACKS), _COLUMNS)
    index = SCALAR_TRACKS.index(track)
    return slice(index, index + 1)


def _encode(track: str, value: ControlValue) -> tuple[float, ...]:
    if value is None:
        return (math.nan,) * (2 if track == EMOTION_TRACK else 1)
    if isinstance(value, tuple):
        return float(EMOTIONS.index(value[0])), float(value[1])
    return (float(value),)


def _decode(track: str, cells: np.ndarray) -> ControlValue:
    if np.isnan(cells).any():
        return None
    return (EMOTIONS[int(cells[0])], float(cells[1])) if track == EMOTION_TRACK else float(cells[0])


def controls_of(applied: Sequence[Mapping[str, ControlValue]]) -> Controls:
    """Keyframes that give exactly these values at these frames: the control log of a stream.

    A keyframe stands at both ends of every run of equal values, so that nothing is interpolated between them.
    """
    tracks: dict[str, list[tuple[float, ControlValue]]] = {}
    for track in CONTROL_TRACKS:
        values = [frame.get(track) for frame in applied]
        keyframes = []
        for frame, value in enumerate(values):
            before = values[frame - 1] if frame else None
            after = values[frame + 1] if frame + 1 < len(values) else value
            starts = value != before
            ends = value != after and value is not None and after is not None
            if starts or ends:
                keyframes.append((frame / FPS, value))
        if keyframes:
            tracks[track] = keyframes
    return Controls(tracks)
