"""Timing of a StreamSession, end to end: first frame, time per frame, deadlines, memory, and where the time goes.

Everything that a live stream has to do is inside the clock: audio features, model, decoding to uint8 pixels and, when a
writer is given, H.264. Two ways to drive the stream: `run_flat_out` as fast as it goes, which gives the sustained rate;
and `first_frame_live`, which lets 40 ms of audio arrive every 40 ms, which gives the time to the first frame.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, sleep, thread_time
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from eartalking import StreamSession, TalkingHeadModel
from eartalking.config import FPS, SAMPLES_PER_FRAME

FRAME_SECONDS = 1 / FPS
STAGES = ("audio_encoder", "backbone", "emission_head", "departure_head", "geometry", "pixels")
_COLD_START = """
import json, sys
from eartalking import StreamSession, load_model
StreamSession(load_model(sys.argv[1]), sys.argv[2], crop=sys.argv[3])
print(json.dumps("ready"), flush=True)
"""


@dataclass(frozen=True)
class StreamTiming:
    """A stream of F frames driven flat out. frame_ms (F,): the time each frame took, from the one before it;
    stage_ms: processor time per frame, summing to all that the process used (stages run side by side, so it may be more
    than the mean of frame_ms); rss_mb: one value per second of wall time."""

    frame_ms: np.ndarray
    wall_seconds: float
    stage_ms: dict[str, float]
    rss_mb: list[float]

    @property
    def fps(self) -> float:
        """Sustained rate over the whole stream."""
        return len(self.frame_ms) / self.wall_seconds

    @property
    def rss_growth_mb(self) -> float:
        """Memory at the end (mean of the last 5 s) over memory after the first minute, or after the first half of a
        shorter stream (mean of 5 s)."""
        settled = min(60, len(self.rss_mb) // 2)
        return float(np.mean(self.rss_mb[-5:]) - np.mean(self.rss_mb[settled : settled + 5]))


@contextmanager
def stage_clock(model: TalkingHeadModel) -> Iterator[dict[str, float]]:
    """Seconds of processor time spent in each of STAGES that the model has while the context is open, by wrapping its
    own methods."""
    wrapped: dict[str, tuple[Any, str]] = {
        "audio_encoder": (model.audio_encoder, "step"),
        "backbone": (model.backbone, "forward"),
        "emission_head": (model.emission_head, "sample"),
        "geometry": (model.autoencoder, "geometry"),
        "pixels": (model.autoencoder, "draw"),
    }
    if model.departure_head is not None:
        wrapped["departure_head"] = (model.departure_head, "draw")
    spent = dict.fromkeys(wrapped, 0.0)
    for stage, (module, name) in wrapped.items():
        setattr(module, name, _clocked(getattr(module, name), stage, spent))
    try:
        yield spent
    finally:
        for module, name in wrapped.values():
            delattr(module, name)  # the class's own method shows again


def _clocked(method: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        started = thread_time()
        try:
            return method(*args, **kwargs)
        finally:
            spent[stage] += thread_time() - started

    return run


def run_flat_out(
    session: StreamSession,
    waveform: np.ndarray,
    write: Callable[[np.ndarray], None] | None = None,
    progress: bool = True,
) -> StreamTiming:
    """Drive the stream as fast as it goes, all whole frames of the audio at hand; `write` takes each image (the
    encoder)."""
    process = psutil.Process()
    times, memory, writing = [], [], 0.0
    frames = len(waveform) // SAMPLES_PER_FRAME
    bar = tqdm(total=frames, unit="frame", disable=not progress, mininterval=2, leave=False)
    with stage_clock(session.model) as spent, bar:
        started, computing = perf_counter(), process_time()
        memory.append(process.memory_info().rss / 2**20)
        for frame in session.push(waveform[: frames * SAMPLES_PER_FRAME]):
            if write is not None:
                before = thread_time()
                write(frame.image)
                writing += thread_time() - before
            times.append(perf_counter())
            bar.update()
            if times[-1] - started >= len(memory):
                memory.append(process.memory_info().rss / 2**20)
        wall, computing = perf_counter() - started, process_time() - computing
    if not times:
        raise ValueError("the audio is too short: no frame came out")
    frame_ms = np.diff([started, *times]) * 1000
    stages = {stage: 1000 * seconds / len(times) for stage, seconds in spent.items()}
    if write is not None:
        stages["video_encoder"] = 1000 * writing / len(times)
    stages["rest"] = 1000 * computing / len(times) - sum(stages.values())
    return StreamTiming(frame_ms, wall, stages, memory)


def chunks(waveform: np.ndarray) -> Iterator[np.ndarray]:
    """Whole pieces of 40 ms."""
    for start in range(0, len(waveform) - SAMPLES_PER_FRAME + 1, SAMPLES_PER_FRAME):
        yield waveform[start : start + SAMPLES_PER_FRAME]


def first_frame_live(session: StreamSession, waveform: np.ndarray) -> float:
    """Milliseconds from the first audio sample to the first frame when audio arrives in real time.

    The clock starts when the first sample is recorded; a piece of 40 ms can be pushed only when its last sample has
    been. The look-ahead is therefore part of the number.
    """
    started = perf_counter()
    for index, chunk in enumerate(chunks(waveform), start=1):
        sleep(max(0.0, started + index * FRAME_SECONDS - perf_counter()))
        for _ in session.push(chunk):
            return (perf_counter() - started) * 1000
    raise ValueError("the audio is too short: no frame came out")


def deadline_misses(frame_ms: np.ndarray) -> int:
    """Frames that a live stream would show late, given the time that each takes to make.

    Audio for one frame arrives every 40 ms; a frame starts when its audio is there and the frame before it is done,
    and is late when it is ready more than 40 ms after its audio: the next one is already due.
    """
    late, done = 0, 0.0
    for index, cost in enumerate(frame_ms):
        arrived = index * 1000 * FRAME_SECONDS
        done = max(done, arrived) + cost
        late += done > arrived + 1000 * FRAME_SECONDS
    return int(late)


def cold_start_seconds(checkpoint: str, portrait: Path, crop: str = "auto") -> float:
    """From starting a fresh Python to a session that waits for audio: imports, weights, portrait.

    Raises:
        RuntimeError: the process failed; its last line of complaint is in the message.
    """
    command = [sys.executable, "-c", _COLD_START, checkpoint, str(portrait), crop]
    started = perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_root(), env=os.environ
    ) as child:
        assert child.stdout is not None  # a pipe was asked for
        ready = child.stdout.readline()
        elapsed = perf_counter() - started
        complaint = child.communicate()[1]
    if child.returncode or json.loads(ready or "null") != "ready":
        last_line = complaint.strip().splitlines()[-1] if complaint.strip() else "no message"
        raise RuntimeError(f"cold start failed: {last_line}")
    return elapsed


def _root() -> Path:
    return Path(__file__).parent.parent.parent


def summary(timing: StreamTiming, ttff_ms: list[float], skip: int = 5) -> dict[str, Any]:
    """The keys of the result tables; the first `skip` frames (warm-up of kernels) are left out of the percentiles
    but not out of the sustained rate."""
    settled = timing.frame_ms[skip:] if len(timing.frame_ms) > 2 * skip else timing.frame_ms
    return {
        "frames": len(timing.frame_ms),
        "ttff_ms": round(float(np.median(ttff_ms)), 1),
        "ttff_ms_worst": round(float(np.max(ttff_ms)), 1),
        **{f"frame_ms_p{q}": round(float(np.percentile(settled, q)), 2) for q in (50, 95, 99)},
        "fps": round(timing.fps, 2),
        "rtf": round(timing.wall_seconds / (len(timing.frame_ms) * FRAME_SECONDS), 4),
        "deadline_misses": deadline_misses(timing.frame_ms),
        "rss_mb": round(timing.rss_mb[-1], 1),
        "peak_mem_mb": round(max(timing.rss_mb), 1),
        "rss_growth_mb": round(timing.rss_growth_mb, 2),
        "rss_mb_per_second": [round(value, 1) for value in timing.rss_mb],
        "stage_ms": {stage: round(value, 3) for stage, value in timing.stage_ms.items()},
    }
