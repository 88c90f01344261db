"""How fast one method is, in a process of its own: `python -m benchmarks.leaderboard.method_latency --method NAME
--testset DIR`.

The same for every method. Live: sound arrives in pieces of 40 ms as it is recorded, and the clock runs from the first
sample to the first frame, the portrait's preparation included. Flat out: all the sound is there, and everything is
inside the clock, from the portrait to H.264 on disk. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.leaderboard.requests import load_requests
from benchmarks.methods import choose
from benchmarks.methods.base import Method, NotReady, Request, Sound, num_frames
from eartalking.checkpoint import DEFAULT_CHECKPOINT
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.errors import InputError
from eartalking.io.video_writer import VideoWriter

KEYS = (
    "ttff_ms",
    "ttff_compute_ms",
    "sound_needed_ms",
    "fps",
    "rtf",
    "frame_ms_p50",
    "frame_ms_p95",
    "frame_ms_p99",
    "peak_mem_mb",
    "cold_start_s",
)
HIGHER_IS_BETTER = {"fps"}
LIVE_RUNS = 3
LIVE_SECONDS = 4.0


def measure(method: Method, request: Request, voice: np.ndarray) -> dict[str, float]:
    """The numbers of KEYS, but for the cold start."""
    flat, frame_ms, first_ms = flat_out(method, request, voice)
    live = [live_first(method, request, voice[: round(LIVE_SECONDS * SAMPLE_RATE)]) for _ in range(LIVE_RUNS)]
    frames = len(frame_ms)
    return {
        "ttff_ms": float(np.median([ms for ms, _ in live])),
        "ttff_compute_ms": first_ms,
        "sound_needed_ms": 1000.0 * live[0][1] / FPS,
        "fps": frames / flat,
        "rtf": flat * FPS / frames,
        **{f"frame_ms_p{q}": float(np.percentile(frame_ms, q)) for q in (50, 95, 99)},
        "peak_mem_mb": peak_memory_mb(),
    }


def flat_out(method: Method, request: Request, voice: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Seconds of the whole video, milliseconds of each frame from the one before it, milliseconds of the first."""
    times = []
    with tempfile.TemporaryDirectory(prefix="latency-") as folder:
        started = time.perf_counter()
        writer: VideoWriter | None = None
        for image in method.generate(sized(request, voice), Sound(voice)):
            if writer is None:
                writer = VideoWriter(Path(folder) / "video.mp4", image.shape[:2]).__enter__()
            writer.write(image)
            times.append(time.perf_counter())
        if writer is None:
            raise NotReady(f"{method.name} made no frame")
        writer.__exit__(None, None, None)
        wall = time.perf_counter() - started
    frame_ms = np.diff([started, *times]) * 1000
    return wall, frame_ms, float(frame_ms[0])


def live_first(method: Method, request: Request, voice: np.ndarray) -> tuple[float, int]:
    """Milliseconds until the first frame when sound arrives in real time, and the pieces of sound taken until then."""
    sound = Sound(voice, live=True)
    started = time.perf_counter()
    frames = method.generate(sized(request, voice), sound)
    next(iter(frames))
    return (time.perf_counter() - started) * 1000, sound.taken


def sized(request: Request, voice: np.ndarray) -> Request:
    """The same portrait with another voice."""
    return dataclasses.replace(request, num_frames=num_frames(voice), controls=None, other_voice=voice)


def peak_memory_mb() -> float:
    """Of this process, and of the largest that it started."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    own, children = (
        resource.getrusage(who).ru_maxrss / unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    try:  # Linux lets ru_maxrss of a new process begin at that of the program which started it
        status = Path("/proc/self/status").read_text(encoding="ascii")
        own = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 2**10
    except (OSError, StopIteration):
        pass
    return own + children


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.leaderboard.method_latency", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--method", default="", help="built-in name or NAME=CHECKPOINT")
    parser.add_argument("--external", type=Path, help="description of an external method instead")
    parser.add_argument("--testset", type=Path, required=True)
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sustained run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        (method,) = choose(
            [args.method] if args.method else [], [args.external] if args.external else [], args.checkpoint
        )
        method.prepare()
        cold = time.time() - psutil.Process().create_time()
        requests, voices = load_requests(args.testset)
        voice = np.resize(np.concatenate(voices), round(args.seconds * SAMPLE_RATE)).astype(np.float32)
        found = measure(method, requests[0], voice) | {"cold_start_s": cold}
    except (NotReady, InputError, ValueError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({key: round(found[key], 3) for key in KEYS}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
