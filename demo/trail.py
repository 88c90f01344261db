"""A running stream that can go back: what it needs for that, and its frames.

On a slow machine hundreds of frames are made before they are seen. When their viewer steers, those are made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from demo.channel import Slot, SteeredControls
from eartalking.controls import ControlFrame, Controls

if TYPE_CHECKING:
    from eartalking import StreamSession
    from eartalking.session import Frame

# Streams that are kept: 1.5 MB each with the default weights. Where more frames wait to be seen than that, only every
# second, fourth ... is kept, and from there the motion is computed again, which takes a quarter of a frame's time.
MOST_KEPT = 128


class Trail:
    """A stream as it was before frames that may still be made anew, and the controls that these frames had."""

    def __init__(self, session: StreamSession, most: int = MOST_KEPT) -> None:
        """`session`: before its first frame. At most `most` >= 2 earlier states of it are kept."""
        self._most, self._spacing = most, 1
        self._streams = {session.next_index: session.clone()}  # by the frame that comes next, in that order
        self._applied: dict[int, ControlFrame] = {}
        self._next = session.next_index

    def __len__(self) -> int:
        return len(self._streams)

    def note(self, session: StreamSession, frame: Frame) -> None:
        """The stream has just made `frame`."""
        self._applied[frame.index] = frame.applied
        self._next = session.next_index
        if session.next_index % self._spacing == 0:
            self._streams[session.next_index] = session.clone()
        while len(self._streams) > self._most:
            self._spacing *= 2
            first = next(iter(self._streams))  # what can be reached shall not shrink
            self._streams = {n: one for n, one in self._streams.items() if n == first or n % self._spacing == 0}

    def forget(self, final: int) -> None:
        """Nobody will ask for the frames below `final` again."""
        first = max((index for index in self._streams if index <= final), default=0)
        self._streams = {index: one for index, one in self._streams.items() if index >= first}
        self._applied = {index: one for index, one in self._applied.items() if index >= first}

    def back_to(self, frame: int) -> StreamSession:
        """The stream as it was before `frame`, or before the nearest frame to that which can be reached. What came
        after it is forgotten.
        """
        frame = min(max(frame, min(self._streams)), self._next)
        start = max(index for index in self._streams if index <= frame)
        session = self._streams[start].clone()
        session.pass_over(frame, _Past(self._applied))
        self._streams = {index: one for index, one in self._streams.items() if index < frame}
        self._streams[frame] = session.clone()  # whoever steers goes on to do so
        self._applied = {index: one for index, one in self._applied.items() if index < frame}
        self._next, self._spacing = frame, 1
        return session


class _Past(Controls):
    """What was in force in frames that were made."""

    def __init__(self, applied: Mapping[int, ControlFrame]) -> None:
        super().__init__()
        self._past = dict(applied)

    def at(self, frame: int) -> ControlFrame:
        return self._past[frame]


def frames_of(session: StreamSession, slot: Slot) -> Iterator[Frame]:
    """The frames of a stream to which all audio was pushed, as `slot` allows them; it ends early if the slot is
    stopped. While the slot is open, the stream goes back where it is asked to: then the index falls.
    """
    controls = SteeredControls(slot)
    trail = Trail(session) if slot.is_open else None
    frames = session.flush(controls)
    while slot.wait_for(session.next_index):
        if trail is not None and (first := slot.taken_back()) is not None:
            frames.close()
            session = trail.back_to(first)
            frames = session.flush(controls)
        elif (frame := next(frames, None)) is not None:
            if trail is not None:
                trail.note(session, frame)
                trail.forget(slot.final)
            yield frame
        elif not slot.wait_for_end():
            return
