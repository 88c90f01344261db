"""Command line: a portrait and a voice become a talking video.

    python -m eartalking.generate PORTRAIT AUDIO -o OUT.mp4 [--controls FILE.json|.csv] [--seed N] [--temperature T]
        [--checkpoint NAME_OR_DIR] [--device auto|cpu|cuda] [--threads N]
        [--crop auto|center] [--face largest|left|right|N]
        [--size 256|512] [--frame crop|portrait] [--background keep|COLOUR|IMAGE|alpha]

The audio goes through a `StreamSession`, as it would in a call. A progress bar goes to stderr; the last line on stdout
is one JSON object:

    frames, seconds, fps         of the video
    size                         of the animated square, pixels a side; width and height are the video's
    speed_fps                    frames made a second, from the first audio to the finished file
    rtf                          time from the first audio to the finished file / length of the video
    ttff_ms                      time from the first audio to the first frame
    frame_ms_p50, frame_ms_p95   time per frame after the first, encoding included
    peak_mem_mb                  largest resident memory of the process
    device, checkpoint, seed     what made it

Exit code 0, or 2 after one line on stderr that names the file and the cause, or 130 after Ctrl-C. Nothing is
left of a video that was not finished.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm

from eartalking.checkpoint import load_model
from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.controls import Controls
from eartalking.errors import InputError, printable
from eartalking.io.portrait import MIN_SIDE
from eartalking.io.sound import read_audio
from eartalking.io.video_writer import TRANSPARENT, VideoWriter, check_output
from eartalking.level import is_silent
from eartalking.output import ALPHA, FRAMES, KEEP, check_look, load_background, load_picture
from eartalking.perception.face_detector import FaceChoiceError, NoFaceError, chosen_face
from eartalking.session import MAX_TEMPERATURE, Frame, StreamSession


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parse(argv)
    try:
        result = _generate(args)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps(result))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.generate", description="A portrait and a voice become a talking video."
    )
    parser.add_argument("portrait", help="a picture with a face: PNG, JPEG, WebP, ...")
    parser.add_argument("audio", help="a voice: WAV, MP3, FLAC, OGG, M4A, a video with sound, ...")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.mp4", help="the video to write")
    parser.add_argument("--controls", metavar="FILE", help="keyframes (.json) or rows (.csv): pose, emotion, ...")
    parser.add_argument("--seed", type=int, default=0, help="same inputs and seed, same video (default 0)")
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=1.0,
        metavar="T",
        help="how freely the face moves: 0..1.5",
    )
    parser.add_argument("--checkpoint", default="default", metavar="NAME_OR_DIR", help="the model")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="1: frame after frame; more: up to three at once (default: the cores)",
    )
    parser.add_argument(
        "--crop",
        choices=("auto", "center"),
        default="auto",
        help="frame a face, or take the middle",
    )
    parser.add_argument("--face", default="largest", metavar="largest|left|right|N", help="which face, of several")
    parser.add_argument("--size", type=int, metavar="256|512", help="pixels a side of the animated square")
    parser.add_argument("--frame", choices=FRAMES, default="crop", help="that square alone, or the whole picture")
    parser.add_argument(
        "--background", default=KEEP, metavar="keep|COLOUR|IMAGE|alpha", help="what stands behind the person"
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_TEMPERATURE:
        raise argparse.ArgumentTypeError(f"must be 0 to {MAX_TEMPERATURE}, not {text!r}")
    return value


@dataclass(frozen=True)
class _Inputs:
    portrait: np.ndarray
    waveform: np.ndarray
    controls: Controls | None


def _read_inputs(args: argparse.Namespace) -> _Inputs:
    """All that can be wrong with the files is found here, before a model loads or a byte is written."""
    target = check_output(args.output)
    if (target.suffix.lower() == TRANSPARENT) != (args.background == ALPHA):
        raise InputError(args.output, f"{TRANSPARENT} is for --background {ALPHA}, and that for {TRANSPARENT}")
    for source in (args.portrait, args.audio, args.controls):
        if source is not None and target.exists() and Path(source).exists() and target.samefile(source):
            raise InputError(args.output, "would overwrite an input")
    controls = None if args.controls is None else Controls.load(args.controls)
    waveform = read_audio(args.audio)
    portrait = load_picture(args.portrait, args.frame)
    load_background(args.background, MIN_SIDE)
    if args.crop == "auto":
        _check_face(args.portrait, portrait, args.face)
    if is_silent(waveform):
        print(f"{printable(str(args.audio))}: the sound is silent, so the mouth will stay closed", file=sys.stderr)
    return _Inputs(portrait, waveform, controls)


def _check_face(name: str, portrait: np.ndarray, choice: str) -> None:
    """Raises InputError without the face that was asked for; of several faces, says which one speaks."""
    try:
        face = chosen_face(portrait, choice)
    except (NoFaceError, FaceChoiceError) as error:
        raise InputError(name, str(error)) from None
    if face.count > 1:
        told = f"{face.count} faces; number {face.number} from the left speaks (--face chooses)"
        print(f"{printable(str(name))}: {told}", file=sys.stderr)


def _generate(args: argparse.Namespace) -> dict[str, float | int | str]:
    inputs = _read_inputs(args)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda", "no CUDA device here")
    model = load_model(args.checkpoint, device=device)
    image_size = model.config.autoencoder.image_size
    try:
        check_look(image_size, args.size, args.frame, args.background)
    except ValueError as error:
        raise InputError("--size, --frame, --background", str(error)) from None
    session = StreamSession(
        model,
        inputs.portrait,
        seed=args.seed,
        crop=args.crop,
        face=args.face,
        temperature=args.temperature,
        threads=args.threads,
        size=args.size,
        frame=args.frame,
        background=args.background,
    )
    if session.eyes_stay_shut:
        print(f"{printable(str(args.portrait))}: the eyes are shut in this portrait, and stay shut", file=sys.stderr)

    started = perf_counter()
    times = _write(args, session, inputs, started)
    elapsed = perf_counter() - started
    seconds = len(times) / FPS
    frame_ms = np.diff(times) * 1000 if len(times) > 1 else np.array([times[0] - started]) * 1000
    return {
        "frames": len(times),
        "seconds": round(seconds, 3),
        "size": args.size or image_size,
        "width": session.frame_shape[1],
        "height": session.frame_shape[0],
        "fps": FPS,
        "speed_fps": round(len(times) / elapsed, 2),
        "rtf": round(elapsed / seconds, 4),
        "ttff_ms": round((times[0] - started) * 1000, 2),
        "frame_ms_p50": round(float(np.percentile(frame_ms, 50)), 2),
        "frame_ms_p95": round(float(np.percentile(frame_ms, 95)), 2),
        "peak_mem_mb": round(_peak_memory() / 2**20, 1),
        "device": device,
        "checkpoint": args.checkpoint,
        "seed": args.seed,
    }


def _write(args: argparse.Namespace, session: StreamSession, inputs: _Inputs, started: float) -> list[float]:
    """Stream the video into the output file; returns when each frame was there (`perf_counter` seconds)."""
    times = []
    total = -(-len(inputs.waveform) // SAMPLES_PER_FRAME)
    with (
        VideoWriter(args.output, session.frame_shape, audio=args.audio) as writer,
        tqdm(total=total, unit="frame", file=sys.stderr, leave=False) as bar,
    ):
        for frame in _frames(session, inputs):
            times.append(perf_counter())
            writer.write(frame.image)
            bar.update()
        if len(times) != total:
            raise RuntimeError(f"the session made {len(times)} frames of {total}")
    return times


def _frames(session: StreamSession, inputs: _Inputs) -> Iterator[Frame]:
    yield from session.push(inputs.waveform, controls=inputs.controls)
    yield from session.flush(controls=inputs.controls)


def _peak_memory() -> int:
    """Bytes; the system counts in kilobytes, on macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
