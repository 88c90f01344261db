"""Where frames are made: the model, and one function that runs a `StreamSession` under a slot's control.

With the `spaces` package installed (Hugging Face), that function becomes a ZeroGPU task and runs in a forked process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from demo.channel import SlotPool
from demo.line import Line, Speed, capacity
from demo.settings import Limits
from demo.trail import frames_of
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.io.portrait import Box
from eartalking.output import Look, whole_shape

if TYPE_CHECKING:
    from eartalking import StreamSession, TalkingHeadModel
    from eartalking.controls import ControlFrame
    from eartalking.session import Frame

_HAS_SPACES = importlib.util.find_spec("spaces") is not None
_KEPT_PORTRAITS = 8
_LONGEST_GPU_SECONDS = 120
_LARGE_WORK = 1.7
_WARMING_FRAMES, _COLD_FRAMES = 12, 3


@dataclass(frozen=True)
class Sitter:
    """Who is to speak, and what frames show of it: picture (H, W, 3) uint8, the square of it that is animated (None:
    all of it, which is the model's crop then), and how frames look.
    """

    picture: np.ndarray
    box: Box | None = None
    look: Look = field(default_factory=Look)

    def frame_shape(self, image_size: int) -> tuple[int, int]:
        """Height and width of the frames."""
        if self.look.get("frame") == "portrait":
            return whole_shape(self.picture)
        size = self.look.get("size") or image_size
        return size, size

    @property
    def work(self) -> float:
        """How many times as long a frame takes as a usual one, measured on two cores."""
        return _LARGE_WORK if "size" in self.look else 1.0

    @property
    def key(self) -> bytes:
        """Equal for equal sitters."""
        about = repr((self.picture.shape, self.box, sorted(self.look.items())))
        return hashlib.sha256(self.picture.tobytes() + about.encode()).digest()


@dataclass(frozen=True)
class Job:
    """What a stream is made of; plain data, so that it can be sent to another process.

    Attributes:
        sitter: who is to speak.
        waveform: (samples,) float32 at 16 kHz.
        seed: same inputs and seed, same frames.
    """

    sitter: Sitter
    waveform: np.ndarray
    seed: int

    @property
    def num_frames(self) -> int:
        return -(-len(self.waveform) // SAMPLES_PER_FRAME)


class Engine:
    """The shared weights and the pool of slots; one per process."""

    def __init__(self, model: TalkingHeadModel, slots: SlotPool, most: int | None = None) -> None:
        """`most` streams run at once, fewer where the machine is slow; without it, as many as there are slots."""
        self.model = model
        self.slots = slots
        self.speed = Speed()
        streams = len(slots.slots) if most is None else most
        self.line = Line(lambda: capacity(self.speed.fps, streams))
        self._started: OrderedDict[bytes, StreamSession] = OrderedDict()  # by portrait, least recently used first
        self._lock = threading.Lock()
        self.frames: Callable[[int, Job], Iterator[Frame]] = _on_gpu(self._frames)

    @property
    def talks(self) -> bool:
        """Whether visitors may talk live. On ZeroGPU they may not: the model runs in another process, seconds at a
        time."""
        return not _HAS_SPACES

    @property
    def image_size(self) -> int:
        """Pixels a side of portrait crops and frames."""
        return self.model.config.autoencoder.image_size

    def prepare(self, sitter: Sitter) -> bool:
        """Encode a portrait ahead of its first stream, where that can be done (not on ZeroGPU); whether its eyes are
        shut, and will stay so.
        """
        return not _HAS_SPACES and self.start(sitter).eyes_stay_shut

    def warm_up(self) -> None:
        """The first frames of a process pay for choosing kernels; better now than at the first visitor's click. The
        others tell how fast this machine is.
        """
        grey = np.full((self.image_size, self.image_size, 3), 128, np.uint8)
        silence = np.zeros(_WARMING_FRAMES * SAMPLES_PER_FRAME, np.float32)
        times = [perf_counter() for _ in self.start(Sitter(grey)).push(silence)]
        for before, after in pairwise(times[_COLD_FRAMES:]):
            self.speed.note(after - before)

    def start(self, sitter: Sitter) -> StreamSession:
        """A stream at its start. Encoding a portrait takes longer than a frame, so the last few are kept."""
        from eartalking import StreamSession

        key = sitter.key
        with self._lock:
            session = self._started.pop(key, None)
        if session is None:
            session = StreamSession(self.model, sitter.picture, crop=sitter.box or "center", **sitter.look)
        with self._lock:
            self._started[key] = session
            while len(self._started) > _KEPT_PORTRAITS:
                self._started.popitem(last=False)
        return session.clone()

    def still(self, sitter: Sitter, controls: ControlFrame) -> np.ndarray | None:
        """The first frame (H, W, 3) uint8 of a silent stream under `controls`; None where that cannot be made between
        two streams (on ZeroGPU)."""
        if _HAS_SPACES:
            return None
        session = self.start(sitter)
        session.set(**controls.given())
        (frame,) = (*session.push(np.zeros(SAMPLES_PER_FRAME, np.float32)), *session.flush())
        return frame.image

    def _frames(self, slot_number: int, job: Job) -> Iterator[Frame]:
        """The frames of `job`, as `demo.trail.frames_of` gives them."""
        session = self.start(job.sitter)
        session.seed = job.seed
        session.push(job.waveform)
        yield from frames_of(session, self.slots.slots[slot_number])


def _on_gpu(function: Callable[[int, Job], Iterator[Frame]]) -> Callable[[int, Job], Iterator[Frame]]:
    if not _HAS_SPACES:
        return function
    import spaces

    def seconds(slot_number: int, job: Job) -> int:
        """A paced stream takes as long as its voice; the rest is for starting up and pauses. More is never granted."""
        return min(round(len(job.waveform) / SAMPLE_RATE) + 20, _LONGEST_GPU_SECONDS)

    return spaces.GPU(duration=seconds)(function)


def load_engine(checkpoint: str, limits: Limits) -> Engine:
    """Load the checkpoint on the best device there is, and warm it up on one short stream."""
    slots = SlotPool(limits.takes + limits.waiting, round(limits.voice_seconds * FPS) + 2)
    if _HAS_SPACES:
        import spaces  # noqa: F401  before torch: it makes ZeroGPU's device visible

    engine = Engine(_load(checkpoint), slots, limits.takes)
    if next(engine.model.parameters()).device.type == "cpu":
        engine.warm_up()
    return engine


def _load(checkpoint: str) -> TalkingHeadModel:
    import torch

    from eartalking import load_model

    if torch.cuda.is_available():
        return load_model(checkpoint, device="cuda")
    return load_model(checkpoint)
