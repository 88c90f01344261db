"""What the demo's tests share: a tiny random model, voices, a served page."""

from __future__ import annotations

import socket
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tiny_model import tiny_model

from demo.app import build_demo, launch
from demo.channel import SlotPool
from demo.engine import Engine
from demo.line import Speed
from demo.sessions import Sessions
from demo.settings import Limits
from eartalking.config import FPS
from eartalking.io.video_writer import VideoWriter

EXAMPLES = Path(__file__).parents[1] / "examples"
PHOTO, PORTRAIT, SPEECH = EXAMPLES / "photo.jpg", EXAMPLES / "portrait.png", EXAMPLES / "speech.wav"
LIMITS = Limits(
    takes=2, waiting=2, voice_seconds=20, upload_bytes=4 * 2**20, voice_bytes=5 * 2**20, portrait_pixels=5_000_000
)


class SteadySpeed(Speed):
    """A machine that is always equally fast, whatever else it does: tests do not depend on the clock on the wall."""

    def __init__(self, fps: float = 100.0) -> None:
        super().__init__(fps)

    def note(self, seconds: float) -> None:
        pass

    def among(self, streams: int, work: float = 1.0) -> Speed:
        return self


def tiny_engine(limits: Limits = LIMITS, fps: float = 100.0) -> Engine:
    """An engine that believes to make `fps` frames a second."""
    slots = SlotPool(limits.takes + limits.waiting, round(limits.voice_seconds * FPS) + 2)
    engine = Engine(tiny_model(), slots, limits.takes)
    engine.speed = SteadySpeed(fps)
    return engine


def write_voice(path: Path, seconds: float, seed: int = 0, loudness: float = 0.2) -> Path:
    """A 16 kHz WAV of noise."""
    samples = np.random.default_rng(seed).normal(0, loudness, round(seconds * 16000)).clip(-1, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def film(path: Path, voice: Path | None) -> Path:
    """An mp4 of a second, with the sound of `voice`."""
    with VideoWriter(path, (64, 64), audio=voice) as writer:
        for _ in range(FPS):
            writer.write(np.full((64, 64, 3), 99, np.uint8))
    return path


@contextmanager
def served(engine: Engine, limits: Limits = LIMITS) -> Iterator[tuple[str, Sessions]]:
    """The page on a free port; yields its address, and what it knows of its visitors."""
    with one_thread():
        page, sessions = build_demo(engine, limits)
        try:
            _, address, _ = launch(page, sessions, server_port=free_port(), prevent_thread_lock=True, quiet=True)
            sessions.wait_until_preloaded()
            yield address, sessions
        finally:
            page.close(verbose=False)
            sessions.close_all()


def free_port() -> int:
    """Ask for it right before it is used: a browser's connections take ports from the same range."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """So small a model is fastest alone, above all on a machine that has other things to do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
