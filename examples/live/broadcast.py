"""A face that goes on air: `python examples/live/broadcast.py PORTRAIT VOICE TARGET` plays a voice in real time into

    rtmp://host/app/key      a streaming service
    /dev/video9              a virtual camera (Linux: `modprobe v4l2loopback video_nr=9`), pictures only
    anything.flv, .ts, .mp4  a file

and lives on in silence when the voice has ended, until Ctrl-C or --seconds. Needs nothing but the library.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import av
import numpy as np

from eartalking import StreamSession, load_model
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.errors import InputError, os_cause, run_program
from eartalking.io.sound import read_audio
from eartalking.io.video_writer import METADATA
from eartalking.live import LiveFace, LiveFrame

_RAW = "/dev/video"  # a virtual camera takes pictures as they are


def speak(face: LiveFace, waveform: np.ndarray, seconds: float) -> None:
    """Say a waveform at the pace of the clock, then silence; `face` is closed after so many seconds."""
    started = time.monotonic()
    for unit in range(round(seconds * FPS)):
        piece = waveform[unit * SAMPLES_PER_FRAME : (unit + 1) * SAMPLES_PER_FRAME]
        face.hear(np.pad(piece, (0, SAMPLES_PER_FRAME - len(piece))))
        time.sleep(max(started + (unit + 1) / FPS - time.monotonic(), 0))
    face.close()


def broadcast(frames: Iterator[LiveFrame], target: str) -> int:
    """Send frames and their sound until there are no more; returns the number of pictures sent."""
    camera = target.startswith(_RAW)
    form = "v4l2" if camera else "flv" if target.startswith("rtmp") else None
    with av.open(target, "w", format=form) as output:
        output.metadata.update(METADATA)
        first = next(frames)
        height, width = first.frame.image.shape[:2]
        picture = output.add_stream("rawvideo" if camera else "libx264", rate=FPS)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        if not camera:
            picture.options = {"preset": "veryfast", "tune": "zerolatency"}
        sound = None if camera else output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        shown = spoken = 0
        for live in chain([first], frames):
            image = av.VideoFrame.from_ndarray(live.frame.image, format="rgb24")
            image.pts, image.time_base = live.frame.index, Fraction(1, FPS)
            output.mux(picture.encode(image))
            if sound is not None:
                heard = av.AudioFrame.from_ndarray(live.sound[None], format="fltp", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = SAMPLE_RATE, spoken, Fraction(1, SAMPLE_RATE)
                output.mux(sound.encode(heard))
                spoken += len(live.sound)
            shown += 1
        for stream in filter(None, (picture, sound)):
            output.mux(stream.encode(None))
    return shown


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("portrait")
    parser.add_argument("voice")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=float(60 * 60 * 24))
    parser.add_argument("--checkpoint", default="default")
    args = parser.parse_args(argv)
    if args.seconds * FPS < 1:
        parser.error(f"--seconds {args.seconds:g}: less than a picture")
    voice = read_audio(args.voice)
    face = LiveFace(StreamSession(load_model(args.checkpoint), args.portrait))
    threading.Thread(target=speak, args=(face, voice, args.seconds), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            print(f"{broadcast(face.frames(), args.target)} pictures sent to {args.target}")
    except (OSError, av.FFmpegError) as error:
        raise InputError(args.target, os_cause(error)) from None
    return 0


if __name__ == "__main__":
    run_program(main)
