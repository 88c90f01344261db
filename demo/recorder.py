"""The mp4 of a running take, written beside the stream and not in its way."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from eartalking.io.sound import SpokenSound
from eartalking.io.video_writer import VideoWriter

# Of frames that may wait to be written: 128 of 256 pixels a side. When they are full, the stream waits for the file.
BACKLOG_BYTES = 25_000_000
# Of the thread: a viewer waits for the next frame, not for the file. With more, a busy machine never gets to it.
_NICE = 4
_WHOLE, _EARLY, _DISCARD = object(), object(), object()


class _Discarded(Exception):
    """Leaves the video writer by its failing door, so that nothing of the file remains."""


class _Writer(VideoWriter):
    """The command line's writer, which can also end the sound with the picture instead of writing all of it."""

    ends_early = False

    def _write_sound(self, until: float) -> None:
        super()._write_sound(min(until, self.num_frames / self.fps) if self.ends_early else until)


class Recorder:
    """Writes frames to `path` in a thread of its own. Whatever happens, call `finish` or `discard` once at the end.

    Encoding a frame takes 3 ms of the 40 that a frame has, and on two cores the model wants all of them: so it happens
    where the model waits for the viewer.
    """

    def __init__(self, path: Path, size: tuple[int, int], audio: Path | SpokenSound) -> None:
        self.path, self._size, self._audio = path, size, audio
        self.num_frames = 0
        self.written = 0
        self._frames: queue.Queue[object] = queue.Queue(max(BACKLOG_BYTES // (3 * size[0] * size[1]), 4))
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"mp4-{path.parent.name[:6]}", daemon=True)
        self._thread.start()

    def add(self, image: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8, which must not change any more.

        Raises:
            InputError: the file cannot be written, or its sound cannot be read.
        """
        self._frames.put(image)
        self.num_frames += 1
        self._raise_if_failed()

    def finish(self, early: bool = False) -> None:
        """No more frames; `wait` until the file is there. If `early`, its sound ends with its last frame."""
        self._frames.put(_EARLY if early else _WHOLE)

    def wait(self, seconds: float | None) -> bool:
        """After `finish`: whether the file is complete, waiting at most so long (None: as long as it takes).

        Raises:
            InputError: as `add`.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self._raise_if_failed()
        return True

    def discard(self) -> None:
        """Give up; nothing of the file remains."""
        self._frames.put(_DISCARD)
        self._thread.join()

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        _give_way()
        item: Any = None  # a frame, or a word that ends the file
        try:
            with _Writer(self.path, self._size, audio=self._audio) as writer:
                while not _is_end(item := self._frames.get()):
                    writer.write(item)
                    self.written += 1
                if item is _DISCARD:
                    raise _Discarded
                writer.ends_early = item is _EARLY
        except _Discarded:
            pass
        except Exception as error:  # raised where the next frame is added
            self._error = error
            while not _is_end(item):  # a caller that waits for room must not wait for ever
                item = self._frames.get()


def _is_end(item: object) -> bool:
    return item is _WHOLE or item is _EARLY or item is _DISCARD


def _give_way() -> None:
    """Lower this thread's priority, where the system has one for each thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
