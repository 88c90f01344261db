"""How fast this machine is, how many visitors that serves at once, and the line in which the others wait."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from demo.channel import BusyError
from eartalking.config import FPS

_REMEMBERED = 50  # frames over which speed is averaged
_BELIEVED = 10  # frames that an earlier measurement counts for
_ENOUGH = 5  # times in a row before there is a speed at all
_LONGEST_SECONDS = 1.0  # what takes longer than that between two frames was something else
_SPARE = 1.05  # a stream is promised its speed with so much to spare
_LOOK_SECONDS = 0.5  # how often those who wait are told how long it will take


class Speed:
    """Frames a second that one stream gets while nothing but computing holds it back."""

    def __init__(self, known: float | None = None) -> None:
        """`known`: what was measured before, frames a second."""
        self._seconds: deque[float] = deque([] if known is None else [1 / known] * _BELIEVED, maxlen=_REMEMBERED)

    def note(self, seconds: float) -> None:
        """So much time lay between two frames."""
        self._seconds.append(min(max(seconds, 1e-4), _LONGEST_SECONDS))

    @property
    def fps(self) -> float | None:
        """None as long as too little was seen."""
        if len(self._seconds) < _ENOUGH:
            return None
        return len(self._seconds) / sum(self._seconds)

    def among(self, streams: int, work: float = 1.0) -> Speed:
        """What a stream may expect that shares the machine, `streams` with it; each of its frames takes `work` times as
        long as a usual one.
        """
        return Speed(None if self.fps is None else self.fps / max(streams, 1) / work)


class Stretch:
    """The times between frames that nothing but computing held back, once there are several in a row. Of a stream that
    its viewer holds back, only those that came late are not held: alone, they say nothing of how fast a machine is.
    """

    def __init__(self) -> None:
        self._before: float | None = None  # when the last frame came
        self._length = 0
        self._waiting: list[float] = []

    def end(self) -> None:
        """What lies between the last frame and the next is more than computing it."""
        self._before, self._length, self._waiting = None, 0, []

    def note(self, now: float, held: bool) -> list[float]:
        """A frame came at `now` seconds, and the next one is held back or not: the times that count by now."""
        counted: list[float] = []
        if self._before is not None:
            self._length += 1
            self._waiting.append(now - self._before)
            if self._length >= _ENOUGH:
                counted, self._waiting = self._waiting, []
        if held:
            self.end()
        else:
            self._before = now
        return counted


def capacity(fps: float | None, most: int) -> int:
    """How many streams get 25 frames a second of a machine that makes `fps` in all: 1 to `most`; `most` where nothing
    is known yet.
    """
    return most if fps is None else min(max(math.floor(fps / (FPS * _SPARE)), 1), most)


def seconds_to_turn(running: Sequence[float], ahead: Sequence[float]) -> float:
    """Seconds until a place is free for somebody before whom `ahead` wait, with so many seconds of work each, while
    `running` streams need so many seconds more.
    """
    ends = list(running)
    heapq.heapify(ends)
    for seconds in ahead:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return min(ends, default=0.0)


class Line:
    """Streams in the order of their arrival. As many as `places()` allows are served, the others wait.

    Nobody who is served is sent away when `places()` falls. All methods may be called from any thread.
    """

    def __init__(self, places: Callable[[], int], clock: Callable[[], float] = monotonic) -> None:
        self._places, self._clock = places, clock
        self._seconds: dict[int, float] = {}  # of everybody, in the order of arrival
        self._since: dict[int, float] = {}  # when those who are served began
        self._changed = threading.Condition()

    def join(self, key: int, seconds: float) -> None:
        """Stand at the end of the line, with so many seconds of work; with room for it, be served at once."""
        with self._changed:
            self._seconds[key] = seconds
            self._let_in()

    def enter(self, key: int) -> None:
        """Be served at once, for an unknown time.

        Raises:
            BusyError: others are, or wait.
        """
        self.join(key, math.inf)
        if self.place(key) > 0:
            self.leave(key)
            raise BusyError("This machine is busy with other visitors. Please try again in a moment.")

    def leave(self, key: int) -> None:
        """Served, or no longer willing to wait; whoever is next begins."""
        with self._changed:
            self._seconds.pop(key, None)
            self._since.pop(key, None)
            self._let_in()

    def place(self, key: int) -> int:
        """0 for those who are served, 1 for the next."""
        with self._changed:
            return self._place(key)

    @property
    def served(self) -> int:
        """How many are served now."""
        return len(self._since)

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._changed:
            return len(self._waiting())

    def seconds_left(self, key: int) -> float:
        """About how long until it is this one's turn; infinite where nobody knows."""
        with self._changed:
            now = self._clock()
            running = [max(self._seconds[one] - (now - since), 1.0) for one, since in self._since.items()]
            waiting = self._waiting()
            ahead = waiting[: waiting.index(key)] if key in waiting else []
            return seconds_to_turn(running, [self._seconds[one] for one in ahead])

    def wait_for_turn(self, key: int, told: Callable[[int, float], None], gone: Callable[[], bool]) -> bool:
        """Block until it is this one's turn; False if `gone()` before. Meanwhile `told` hears its place and about how
        many seconds it will take, whenever they change.
        """
        last: tuple[int, float] | None = None
        while not gone():
            with self._changed:
                self._let_in()  # the machine may have become faster
                place = self._place(key)
            if place == 0:
                return True
            now = (place, self.seconds_left(key))
            if last is None or place != last[0] or abs(now[1] - last[1]) >= 1:
                told(*now)
                last = now
            with self._changed:
                self._changed.wait_for(lambda: key in self._since, _LOOK_SECONDS)
        return False

    def _waiting(self) -> list[int]:
        return [key for key in self._seconds if key not in self._since]

    def _place(self, key: int) -> int:
        waiting = self._waiting()
        return waiting.index(key) + 1 if key in waiting else 0

    def _let_in(self) -> None:
        for key in self._waiting()[: max(self._places() - len(self._since), 0)]:
            self._since[key] = self._clock()
        self._changed.notify_all()
