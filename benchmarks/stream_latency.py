"""How fast the stream is, everything included: `python -m benchmarks.stream_latency --seconds 60`.

Cold start, time to the first frame (audio arriving in real time, so the look-ahead is inside), time per frame,
sustained rate, deadlines missed at 25 fps, memory over time and where the processor's time goes. A fifth of the stream
is also computed frame after frame, for comparison. Prints a table; the last stdout line is JSON, which also goes to a
file in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.record import ROOT, provenance, write_result
from eartalking import StreamSession, TalkingHeadModel, load_model
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.errors import run_program
from eartalking.io.sound import read_audio
from eartalking.io.threads import granted_cores
from eartalking.io.video_writer import VideoWriter
from eval.metrics.latency import STAGES, StreamTiming, cold_start_seconds, first_frame_live, run_flat_out, summary

EXAMPLES = ROOT / "examples"
LIVE_STARTS = 5  # the first frame's time is the median of that many live starts


def measure(
    model: TalkingHeadModel,
    portrait: Path | np.ndarray,
    waveform: np.ndarray,
    encode: bool = True,
    crop: str = "auto",
    threads: int | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """All of `eval.metrics.latency.summary` for a stream over `waveform`, and `serial_fps`, the rate of computing frame
    after frame over its first fifth; `encode` includes H.264 in the time per frame. `size` as of a session's `Look`.
    """
    session = StreamSession(model, portrait, crop=crop, threads=threads, size=size)
    ttff = []
    for _ in tqdm(range(LIVE_STARTS + 1), unit="start", leave=False, mininterval=2):
        session.reset()
        ttff.append(first_frame_live(session, waveform))
    session.reset()
    serial = StreamSession(model, portrait, crop=crop, threads=1, size=size)
    serial_fps = _flat_out(serial, waveform[: len(waveform) // 5], encode).fps
    timing = _flat_out(session, waveform, encode)
    # The first start warmed the kernels up.
    return {**summary(timing, ttff[1:]), "serial_fps": round(serial_fps, 2)}


def _flat_out(session: StreamSession, waveform: np.ndarray, encode: bool) -> StreamTiming:
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "stream.mp4"
        with VideoWriter(video, session.frame_shape) if encode else nullcontext() as writer:
            return run_flat_out(session, waveform, None if writer is None else writer.write)


def looped(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The waveform again and again until it lasts `seconds`."""
    samples = round(seconds * SAMPLE_RATE)
    return np.tile(waveform, -(-samples // len(waveform)))[:samples]


def print_table(result: dict[str, Any]) -> None:
    """One line per number, then one per stage."""
    units = {
        "cold_start_s": "s",
        "fps": "fps",
        "serial_fps": "fps",
        "rtf": "",
        "frames": "",
        "deadline_misses": f"of {result['frames']}",
    }
    for name in (
        "cold_start_s",
        "ttff_ms",
        "ttff_ms_worst",
        "frame_ms_p50",
        "frame_ms_p95",
        "frame_ms_p99",
        "fps",
        "serial_fps",
        "rtf",
        "deadline_misses",
        "peak_mem_mb",
        "rss_growth_mb",
    ):
        unit = units.get(name, "MB" if name.endswith("_mb") else "ms")
        print(f"{name:<18} {'-' if result[name] is None else result[name]:>10} {unit}")
    for stage in (*STAGES, "video_encoder", "rest"):
        if stage in result["stage_ms"]:
            print(f"  {stage:<16} {result['stage_ms'][stage]:>10.2f} ms/frame")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the stream")
    parser.add_argument("--threads", type=int, default=granted_cores(), help="as of eartalking.generate")
    parser.add_argument("--portrait", type=Path, default=EXAMPLES / "photo.jpg")
    parser.add_argument("--audio", type=Path, default=EXAMPLES / "speech.wav", help="repeated until --seconds are full")
    parser.add_argument("--crop", choices=("auto", "center"), default="auto")
    parser.add_argument("--size", type=int, help="pixels a side of the frames (default: the model's)")
    parser.add_argument("--no-encode", action="store_true", help="leave H.264 out of the time per frame")
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/stream_latency_<checkpoint>[_<size>].json"
    )
    args = parser.parse_args(argv)
    about = provenance(args.checkpoint, args.threads)
    cold = cold_start_seconds(args.checkpoint, args.portrait, args.crop)
    model = load_model(args.checkpoint)
    waveform = looped(read_audio(args.audio), args.seconds)
    result = {
        **about,
        "size": args.size or model.config.autoencoder.image_size,
        "target_fps": FPS,
        "seconds": args.seconds,
        "video_encoded": not args.no_encode,
        "lookahead_ms": 1000 * model.config.audio.lookahead // FPS,
        "cold_start_s": round(cold, 2),
        **measure(model, args.portrait, waveform, not args.no_encode, args.crop, args.threads, args.size),
    }
    print(
        f"{about['hardware']['processor']}, {args.threads} threads, {result['size']}x{result['size']}, "
        f"{args.seconds:g} s"
    )
    print_table(result)
    name = "_".join([Path(args.checkpoint).name, *([str(args.size)] if args.size else [])])
    out = args.out or ROOT / "benchmarks" / "results" / f"stream_latency_{name}.json"
    write_result(out, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_program(main)
