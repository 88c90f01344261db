"""A take's place in the line: it waits for it, lends it to others while its viewer has paused, and gives it back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic

from demo.channel import Slot
from demo.line import Line

_LOOK_SECONDS = 0.2  # how soon it is noticed that a viewer goes on


class Place:
    """The place of one take. `wait` and `lend` block; the rest may be called from any thread.

    `tell(kind, **content)` is called with `queue` (`place`, and about how many `seconds` that takes, None where nobody
    knows) and, when the place goes to others, with `parked`.
    """

    def __init__(self, line: Line, slot: Slot, number: int, tell: Callable[..., None]) -> None:
        """`number` is the take's own in `line`, and `slot` its slot."""
        self._line, self._slot, self._number, self._tell = line, slot, number, tell
        self._lock = threading.Lock()
        self._left = False  # for good
        self._paused_since: float | None = None
        self._stirred = monotonic()
        self._goes_on = threading.Event()

    @property
    def number(self) -> int:
        """0 when it is its turn, 1 for the next."""
        return self._line.place(self._number)

    @property
    def idle_seconds(self) -> float:
        """For how long the viewer has neither watched nor steered."""
        return monotonic() - self._stirred

    def stir(self, paused: bool | None = None) -> None:
        """The viewer steers; or has paused, or not."""
        if paused is None:
            self._paused_since = self._paused_since and monotonic()
        elif not paused:
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = monotonic()
        if not paused:
            self._stirred = monotonic()
            self._goes_on.set()

    def join(self, seconds: float) -> None:
        """Stand in the line with so many seconds of work."""
        with self._lock:
            if not self._left:
                self._line.join(self._number, seconds)

    def wait(self) -> bool:
        """Block until it is its turn; False if the take was stopped before."""
        gone = lambda: self._left or self._slot.stopped  # noqa: E731
        its_turn = self._line.wait_for_turn(self._number, self._tell_place, gone)
        self._stirred = monotonic()
        return its_turn and not self._left

    def leave(self) -> None:
        """The take has ended."""
        with self._lock:
            self._left = True
            self._line.leave(self._number)

    def is_paused(self, seconds: float) -> bool:
        """Whether the viewer paused so many seconds ago or more."""
        since = self._paused_since
        return since is not None and monotonic() - since >= seconds

    def is_wanted(self, seconds: float) -> bool:
        """Whether the viewer paused so many seconds ago or more, and others wait."""
        return self.is_paused(seconds) and self.number == 0 and self._line.waiting > 0

    def lend(self, seconds_left: Callable[[], float], enough: Callable[[], bool]) -> bool:
        """Let others have the place until the viewer goes on, then stand in the line again, with `seconds_left()` of
        work, and block until it is its turn; False if the take ended, was stopped or had `enough` of waiting for that.
        """
        self._goes_on.clear()
        with self._lock:
            if self._left:
                return False
            self._slot.park(True)
            self._line.leave(self._number)
        self._tell("parked")
        while not self._goes_on.wait(_LOOK_SECONDS):
            if self._left or self._slot.stopped or enough():
                return False
        self.join(seconds_left())
        if not self.wait():
            return False
        self._slot.park(False)
        return True

    def _tell_place(self, place: int, seconds: float) -> None:
        self._tell("queue", place=place, seconds=round(seconds) if math.isfinite(seconds) else None)
