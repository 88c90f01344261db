"""Methods made of what is given: the truth, the truth one frame late, the portrait. They mark the ends of every
scale.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.methods.base import Method, NotReady, Request, Sound
from eartalking.io.video_reader import read_video


class GroundTruth(Method):
    """The true video."""

    name, kind, measurable, shows_truth = "ground_truth", "reference", False, True
    about = "the true video: the best that any column can say"

    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        yield from _true_frames(request)


class CopyPrevious(Method):
    """Every frame is the true frame before it; the first is the portrait."""

    name, kind, measurable, shows_truth = "copy_previous", "reference", False, True
    about = "the previous true frame: what a teacher-forced model that only copies would show"

    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        previous = request.portrait
        for frame in _true_frames(request):
            yield previous
            previous = frame


class StaticPortrait(Method):
    """The portrait, for as long as somebody speaks."""

    name, kind = "static_portrait", "reference"
    about = "the portrait, unmoved: the floor of everything that moves"

    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        for index, _ in enumerate(sound):
            if index == request.num_frames:
                return
            yield request.portrait


def _true_frames(request: Request) -> Iterator[np.ndarray]:
    if request.truth is None:
        raise NotReady(f"{request.name}: no true video is given")
    for index, frame in enumerate(read_video(request.truth).frames):
        if index == request.num_frames:
            return
        yield frame
