"""LiveFace: a face that keeps step with a voice while it is spoken.

A `StreamSession` waits for its caller; a conversation does not. Here sound is given whenever it comes, from any thread,
and frames come out as soon as they can be made. Where no sound comes, silence is heard, so the face goes on living.
Where the machine is slower than the voice, frames are left out, then sound too, and the delay stays what it is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.level import float_mono
from eartalking.session import Frame, StreamSession
from eartalking.workers import UNDER_WAY

# Sound that is later than this is taken for silence: more than a network's usual jitter, less than a syllable.
PATIENCE_SECONDS = 0.2
# Of sound that waits, this much is heard, the newest: what is older is late, and a face that is late stays late.
BACKLOG_SECONDS = 0.24


@dataclass(frozen=True)
class LiveFrame:
    """A frame and the sound (samples,), float at 16 kHz, that belongs to it and to what was left out before it; `delay`
    is the seconds from when the last of that sound came until the frame was made, the look-ahead of two frames
    included."""

    frame: Frame
    sound: np.ndarray
    delay: float


@dataclass(frozen=True)
class _Unit:
    """A frame's worth of sound, when it came, and the sound before it that was left out."""

    sound: np.ndarray
    came: float
    missed: tuple[np.ndarray, ...] = ()


class LiveFace:
    """One live stream: `hear`, `set`, `release`, `interrupt` and `close` from any thread, `frames` from one."""

    def __init__(self, session: StreamSession) -> None:
        """session: a new one, which from now on belongs to this face."""
        self._session = session
        self._lookahead = session.lookahead_samples // SAMPLES_PER_FRAME
        self._rest = np.zeros(0, np.float32)  # sound that is not a whole frame yet
        self._waiting: deque[_Unit] = deque()
        self._came = threading.Condition()
        self._silent_from = perf_counter()  # when silence is heard unless sound comes
        self._interrupted = self._closed = False
        self._heard: deque[_Unit] = deque()  # the sound of frame `_next` and of those after it
        self._next = 0

    def hear(self, waveform: np.ndarray) -> None:
        """Float mono 16 kHz sound (samples,) that has just come. Of more than `BACKLOG_SECONDS`, the end counts.

        Raises:
            ValueError: not floating-point, not one-dimensional, or not finite.
        """
        waveform = float_mono(waveform)
        now = perf_counter()
        with self._came:
            sound = np.concatenate([self._rest, waveform])
            whole = len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
            self._waiting.extend(_Unit(unit, now) for unit in sound[:whole].reshape(-1, SAMPLES_PER_FRAME))
            self._rest = sound[whole:]
            missed: list[np.ndarray] = []
            while len(self._waiting) > round(BACKLOG_SECONDS * FPS):
                late = self._waiting.popleft()
                missed += [*late.missed, late.sound]
            if missed:
                self._waiting[0] = replace(self._waiting[0], missed=(*missed, *self._waiting[0].missed))
            self._came.notify()

    def set(self, **tracks: Any) -> None:
        """As of `StreamSession`: from the next frame on. Raises ValueError for what is no track or out of range."""
        self._session.set(**tracks)

    def release(self, *tracks: str) -> None:
        """As of `StreamSession`."""
        self._session.release(*tracks)

    def interrupt(self) -> None:
        """Stop speaking: forget the sound that waits. The lips close within a few frames."""
        with self._came:
            self._waiting.clear()
            self._rest = self._rest[:0]
            self._interrupted = True

    def close(self) -> None:
        """End `frames`."""
        with self._came:
            self._closed = True
            self._came.notify()

    def frames(self) -> Iterator[LiveFrame]:
        """Frames as they are made, until `close`."""
        while units := self._units():
            self._heard.extend(units)
            waveform = np.concatenate([unit.sound for unit in units])
            for frame in self._session.push(waveform, show=self._wanted(len(units))):
                past = [self._heard.popleft() for _ in range(frame.index + 1 - self._next)]
                self._next = frame.index + 1
                sound = np.concatenate([piece for unit in past for piece in (*unit.missed, unit.sound)])
                yield LiveFrame(frame, sound, perf_counter() - past[-1].came)
                if self._closed or self._interrupted:
                    break
            if self._interrupted:
                self._forget()

    def _units(self) -> list[_Unit]:
        """The sound that came; a frame of silence where none did in time; nothing once this is closed."""
        with self._came:
            patience = max(self._silent_from - perf_counter(), 0.0)
            self._came.wait_for(lambda: self._closed or self._waiting, patience)
            if self._closed:
                return []
            now = perf_counter()
            if self._waiting:
                units = list(self._waiting)
                self._waiting.clear()
                self._silent_from = now + PATIENCE_SECONDS
            else:
                units = [_Unit(np.zeros(SAMPLES_PER_FRAME, np.float32), now)]
                self._silent_from = max(self._silent_from + 1 / FPS, now)
        return units

    def _wanted(self, count: int) -> Callable[[int], bool]:
        """Which frames of `count` units to show: as many as are computed at once, evenly, and the last."""
        last = self._session.samples_heard // SAMPLES_PER_FRAME + count - 1 - self._lookahead
        step = -(-count // UNDER_WAY)
        return lambda index: (last - index) % step == 0

    def _forget(self) -> None:
        """Take an interruption over into the session."""
        with self._came:
            self._interrupted = False
        self._session.interrupt()
        kept = self._session.samples_heard // SAMPLES_PER_FRAME - self._next
        while len(self._heard) > kept:
            self._heard.pop()
