"""What a viewer asks of a running take: changes that no frame has shown yet, and the frame to which it goes back."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from demo.channel import Slot
from demo.made import Made
from eartalking.controls import ControlFrame, Controls, ControlValue
from eartalking.session import Frame

NEAR = 15  # frames; who has no more of a take before them steers it no more


@dataclass
class Change:
    """A control change that was asked for and has not been seen in a frame yet."""

    number: int
    tracks: dict[str, ControlValue]
    asked: float = field(default_factory=monotonic)


@dataclass(frozen=True)
class Taken:
    """What a frame that was taken in brought with it: whether the take went back to it, and the changes seen in it."""

    went_back: bool
    seen: list[Change]


class Steering:
    """Changes to a take, written into its slot. All methods may be called from any thread, `take_in` and `give_up` by
    the one only that takes the frames.
    """

    def __init__(self, slot: Slot, made: Made, controls: Controls, num_frames: int) -> None:
        """`made` is of the same take, and `controls` are in force until somebody steers."""
        self._slot, self._made, self._num_frames = slot, made, num_frames
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._pending: list[Change] = []
        self._took_effect: dict[int, int] = {}  # change -> frame
        self._back: int | None = None  # the frame to which the stream was asked to go back, until it has
        self._seen = 0  # frames below this one are final
        self._over = False
        self.turns = 0  # times that the stream was asked to go back
        slot.write_plan(controls, 0, num_frames)

    @property
    def next_frame(self) -> int:
        """Index of the frame that is made next."""
        return len(self._made) if self._back is None else self._back

    @property
    def final(self) -> int:
        """Frames below this one stay as they are."""
        return self._seen

    def set(self, tracks: Mapping[str, Any], first: int | None = None) -> int:
        """Put tracks in force for good (None releases them); returns this change's number. They act from the next frame
        on or, if `first` is given, from that frame on: what was made of it and of what follows is made anew, unless it
        is final.

        Raises:
            ValueError: unknown track, or a value out of range.
        """
        asked = ControlFrame(tracks)
        values = {track: asked[track] for track in tracks}
        with self._lock:
            number = next(self._numbers)
            if not self._over:
                self._reach_back(first, lambda frame: values)
                self._expect(number, values)
                self._write_pending()
                self._order_back(first)
        return number

    def replan(self, controls: Controls, first: int | None = None) -> None:
        """The timeline was edited: follow it from the next frame on or, if `first` is given, from the first frame from
        there on that would have become another one. Changes that no frame has shown yet stay on top of it.
        """
        with self._lock:
            if not self._over:
                self._reach_back(first, controls.at)
                self._slot.write_plan(controls, self.next_frame, self._num_frames)
                self._write_pending()
                self._order_back(first)

    def effect_of(self, change: int) -> int | None:
        """The frame at which a change took effect; None if it has not yet, or was overtaken by another."""
        return self._took_effect.get(change)

    def follow(self, frame: float) -> None:
        """The viewer has come to `frame`; what lies before it is final."""
        with self._lock:
            self._seen = max(self._seen, int(min(frame, self.next_frame)))
            self._slot.settle(self._seen)

    def take_in(self, frame: Frame, shown: np.ndarray) -> Taken | None:
        """The stream has made a frame, of which `shown` (H, W, 3) uint8 is to be seen. None if it is to be made anew.

        Raises:
            InputError: the disk is full.
        """
        with self._lock:
            went_back = frame.index < len(self._made)
            if self._back is not None and not went_back:
                return None  # it was under way when the stream was asked to go back
            if went_back:
                self._drop_from(frame.index)
            self._made.add(frame.image, frame.applied, shown)
            seen = [one for one in self._pending if _holds(one.tracks, frame.applied)]
            self._pending = [one for one in self._pending if one not in seen]
            self._took_effect |= {one.number: frame.index for one in seen}
            self._close(nearly_seen=True)
        return Taken(went_back, seen)

    @property
    def is_kept_open(self) -> bool:
        """Whether all frames are made, and wait for their viewer only, who may still steer."""
        return self._slot.is_open and self._back is None and len(self._made) == self._num_frames

    def close(self, nearly_seen: bool) -> None:
        """If all frames are made and, where it matters, `nearly_seen`, they stay as they are."""
        with self._lock:
            self._close(nearly_seen)

    def _close(self, nearly_seen: bool) -> None:
        if self.is_kept_open and (not nearly_seen or self._slot.playhead >= self._num_frames - NEAR):
            self._slot.close()

    def give_up(self) -> int | None:
        """The stream makes no more frames. Returns the frame from which on it was to make them anew, and has not: these
        are dropped.
        """
        with self._lock:
            back = self._back
            if back is not None:
                self._drop_from(back)
            self._slot.close()
        return back

    def end(self) -> None:
        """From now on nothing is changed any more."""
        with self._lock:
            self._over = True
            self._pending.clear()

    def _drop_from(self, frame: int) -> None:
        self._made.drop_from(frame)
        self._back = None

    def _reach_back(self, first: int | None, wanted: Callable[[int], Mapping[str, ControlValue]]) -> None:
        """The next frame shall be the first one, from `first` on, that was made otherwise than `wanted` of it."""
        if first is None or not self._slot.is_open:
            return
        for frame in range(max(first, self._seen), self.next_frame):
            if not _holds(wanted(frame), self._made.applied[frame]):
                self._back = frame
                return

    def _order_back(self, first: int | None) -> None:
        """After all is written. Again if it was ordered before: that may have been done, with what was written then."""
        if first is not None and self._back is not None:
            self._slot.go_back(self._back)
            self.turns += 1

    def _write_pending(self) -> None:
        for change in self._pending:
            for track, value in change.tracks.items():
                self._slot.write(track, self.next_frame, value)

    def _expect(self, number: int, values: dict[str, ControlValue]) -> None:
        for change in self._pending:  # what was overtaken by this change will never be seen
            change.tracks = {track: value for track, value in change.tracks.items() if track not in values}
        self._pending = [change for change in self._pending if change.tracks]
        self._pending.append(Change(number, values))


def _holds(wanted: Mapping[str, ControlValue], applied: Mapping[str, ControlValue]) -> bool:
    return all(applied[track] == value for track, value in wanted.items())
