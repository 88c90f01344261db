"""What every method of the comparison is: prepared once, then asked for videos, sound going in as it would arrive.

The sound comes as an iterator of pieces of one frame (640 samples), so the same code serves files and live streams: a
method that needs more sound before it can show a frame simply takes more pieces, and the clock sees it.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.controls import Controls

KINDS = ("reference", "ours", "ablation", "retrained", "baseline", "external", "paper")


class NotReady(Exception):
    """A method that cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class Request:
    """One video to make. portrait (S, S, 3) uint8, framed; truth: the true video, for methods that are made of it;
    labels: what its face does, exactly, for methods that are told; other_voice: the sound of another clip of the set;
    portrait_path, audio_path: where they lie as files, for programs that read files."""

    name: str
    portrait: np.ndarray
    num_frames: int
    controls: Controls | None = None
    seed: int = 0
    truth: Path | None = None
    labels: Path | None = None
    other_voice: np.ndarray | None = None
    portrait_path: Path | None = None
    audio_path: Path | None = None


class Method(ABC):
    """A talking-head system under comparison.

    `name` is its row in the leaderboard, `kind` one of KINDS, `about` a line on what it is. `measurable`: whether
    timing it says anything; `shows_truth`: whether its frames are the true video's; `ships`: whether what it needs is
    in the repository, so that "all" means it, too.
    """

    kind: str = "baseline"
    about: str = ""
    measurable: bool = True
    shows_truth: bool = False
    ships: bool = True
    name: str

    def prepare(self) -> None:  # noqa: B027 (most references need nothing)
        """Load what is needed. Raises NotReady with what to do when something is missing."""

    @abstractmethod
    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 at 25 fps, `request.num_frames` of them, each as soon as it can be shown."""

    def version(self) -> str:
        """Changes whenever the method's videos would: results are kept under it."""
        return "1"


@dataclass
class Sound:
    """A waveform as pieces of one frame, the last filled up with silence; counts what was taken. `live`: each piece is
    handed out only when its last sample would have been recorded."""

    waveform: np.ndarray
    live: bool = False
    taken: int = field(default=0, init=False)
    started: float = field(default=0.0, init=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.started = time.perf_counter()
        for start in range(0, len(self.waveform), SAMPLES_PER_FRAME):
            if self.live:
                time.sleep(max(0.0, self.started + (self.taken + 1) / FPS - time.perf_counter()))
            piece = self.waveform[start : start + SAMPLES_PER_FRAME].astype(np.float32)
            self.taken += 1
            yield np.pad(piece, (0, SAMPLES_PER_FRAME - len(piece)))


def num_frames(waveform: np.ndarray) -> int:
    """Frames of a video as long as the waveform."""
    return -(-len(waveform) // SAMPLES_PER_FRAME)


def content(*parts: bytes | str | Path) -> str:
    """Twelve hex digits over texts, bytes and the contents of files."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()[:12]
