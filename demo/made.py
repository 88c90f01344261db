"""What a take has made so far, and what of it is final: it goes into the file when it can no more be made anew."""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from pathlib import Path

import numpy as np

from demo.recorder import Recorder
from eartalking.controls import ControlFrame
from eartalking.errors import InputError, os_cause

_IN_MEMORY = 16  # pictures


class Pile:
    """Pictures of one size that wait, most of them on disk: a slow machine's viewer lets hundreds wait, 200 kB each."""

    def __init__(self, folder: Path) -> None:
        """Its file has no name, so nothing of it remains, whatever happens. Raises OSError: it cannot be made."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._folder = folder
        self._waiting: deque[np.ndarray | tuple[int, tuple[int, ...]]] = deque()  # or place in the file, and shape
        self._free: list[int] = []
        self._places = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, image: np.ndarray) -> None:
        """Put (H, W, 3) uint8, which must not change any more, at the end.

        Raises:
            InputError: the disk is full.
        """
        if len(self._waiting) < _IN_MEMORY:
            self._waiting.append(image)
            return
        if not self._free:
            self._free.append(self._places)
            self._places += 1
        place = self._free.pop()
        try:
            self._file.seek(place * image.nbytes)
            if self._file.write(np.ascontiguousarray(image).data.cast("B")) != image.nbytes:
                raise OSError(None, "No space left on device")
        except OSError as error:
            raise InputError(self._folder, os_cause(error)) from None
        self._waiting.append((place, image.shape))

    def popleft(self) -> np.ndarray:
        """Take the first."""
        first = self._waiting.popleft()
        if isinstance(first, np.ndarray):
            return first
        place, shape = first
        image = np.empty(shape, np.uint8)
        self._file.seek(place * image.nbytes)
        self._file.readinto(image.data.cast("B"))
        self._free.append(place)
        return image

    def drop(self, count: int) -> None:
        """Forget the last `count`."""
        for _ in range(count):
            last = self._waiting.pop()
            if not isinstance(last, np.ndarray):
                self._free.append(last[0])

    def close(self) -> None:
        self._file.close()


class Made:
    """The frames of a take: the controls of each, and a fingerprint of all their pixels.

    Attributes:
        applied: the controls that were in force, frame by frame.
    """

    def __init__(self) -> None:
        self.applied: list[ControlFrame] = []
        self._hash = hashlib.sha256()  # of all final frames
        self._after: deque[hashlib._Hash] = deque()  # the same after each of the others
        self._recorder: Recorder | None = None
        self._pile: Pile | None = None

    def __len__(self) -> int:
        return len(self.applied)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all pixels."""
        return self._latest.hexdigest()

    @property
    def _latest(self) -> hashlib._Hash:
        """The hash after the last frame."""
        return self._after[-1] if self._after else self._hash

    def record(self, recorder: Recorder) -> None:
        """Give `recorder` what is final, from now on. Raises OSError: there is no room for what is not."""
        self._recorder, self._pile = recorder, Pile(recorder.path.parent)

    def add(self, image: np.ndarray, applied: ControlFrame, shown: np.ndarray) -> None:
        """The next frame, (H, W, 3) uint8, and the picture that is shown of it.

        Raises:
            InputError: the disk is full.
        """
        after = self._latest.copy()
        after.update(image.data)
        self._after.append(after)
        self.applied.append(applied)
        if self._pile is not None:
            self._pile.append(shown)

    def drop_from(self, frame: int) -> None:
        """Frame `frame`, which is not final, and all that follow are made anew."""
        count = len(self.applied) - frame
        del self.applied[frame:]
        for _ in range(count):
            self._after.pop()
        if self._pile is not None:
            self._pile.drop(count)

    def settle(self, final: int | None = None) -> None:
        """Frames below `final` (None: all) are final.

        Raises:
            InputError: the file cannot be written.
        """
        until = len(self.applied) if final is None else min(final, len(self.applied))
        for _ in range(until - (len(self.applied) - len(self._after))):
            self._hash = self._after.popleft()
            if self._pile is not None and self._recorder is not None:
                self._recorder.add(self._pile.popleft())

    def close(self) -> None:
        """Forget the pictures that are not final."""
        if self._pile is not None:
            self._pile.close()
