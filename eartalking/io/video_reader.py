"""Reading video: frames (H, W, 3) uint8 RGB one by one, and the sound beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from eartalking.config import FPS, SAMPLE_RATE
from eartalking.errors import InputError
from eartalking.io.container import EXACT_COLOURS, FilePath, open_media
from eartalking.io.sound import read_audio


@dataclass(frozen=True)
class Video:
    """An opened video: `frames` can be read once; `waveform` is at 16 kHz, None without a sound track."""

    frames: Iterator[np.ndarray]  # each (H, W, 3) uint8
    fps: float
    size: tuple[int, int]  # height, width
    waveform: np.ndarray | None


def read_video(path: FilePath, fps: float | None = None) -> Video:
    """Open a video with its sound.

    With `fps` the frames come at that constant rate, each the one that a player would show then.

    Raises:
        InputError: missing, unreadable, empty, not a video, or (while iterating) damaged.
    """
    with open_media(path) as container:
        picture, sound = container.streams.best("video"), container.streams.best("audio")
        if picture is None:
            raise InputError(path, "the file has no picture track")
        rate = float(picture.average_rate or picture.guessed_rate or FPS)
        starts = [float((stream.start_time or 0) * stream.time_base) for stream in (sound, picture) if stream]
    frames = _decode_frames(path, fps)
    first = next(frames, None)
    if first is None:
        raise InputError(path, "the file has no picture that can be decoded")
    waveform = None
    if sound is not None:  # padded where the sound starts after the picture, cut where it starts before
        samples = round((starts[0] - starts[1]) * SAMPLE_RATE)
        waveform = np.pad(read_audio(path), (max(samples, 0), 0))[max(-samples, 0) :]
    return Video(chain([first], frames), fps or rate, first.shape[:2], waveform)


def _decode_frames(path: FilePath, fps: float | None) -> Iterator[np.ndarray]:
    with open_media(path) as container:
        stream = container.streams.best("video")
        start, shown, step = None, None, 1 / float(stream.average_rate or FPS)
        count, time = 0, 0.0  # output frames so far; when the latest input frame appears
        for frame in container.decode(stream):
            image = frame.reformat(format="rgb24", interpolation=EXACT_COLOURS).to_ndarray()
            image = np.rot90(image, round(frame.rotation / 90))  # phones store the turn beside the picture
            if fps is None:
                yield image
                continue
            start = frame.time if start is None else start
            time = frame.time - start
            while shown is not None and count / fps < time - 1e-6:
                yield shown
                count += 1
            shown = image
        while fps is not None and shown is not None and count / fps < time + step - 1e-6:
            yield shown
            count += 1
