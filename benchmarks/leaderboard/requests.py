"""From a test set on disk to what methods are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.methods.base import Request, num_frames
from eartalking.controls import Controls
from eartalking.io.portrait import load_portrait
from eartalking.io.sound import read_audio
from eval.testset import read_manifest

SEEDS = 10_000  # more than any set has clips: two runs' seeds have none in common


def load_requests(testset: Path, seed: int = 0) -> tuple[list[Request], list[np.ndarray]]:
    """One request per clip of the set and its voice, float mono at 16 kHz; each borrows the next clip's voice as the
    other one. Every clip is drawn with a seed of its own, or all of them would blink at the same moments.

    Raises:
        InputError: the set, or a file of it, cannot be used.
    """
    clips = read_manifest(testset)
    voices = [read_audio(clip.audio) for clip in clips]
    others = voices[1:] + voices[:1] if len(voices) > 1 else [None]
    requests = [
        Request(
            clip.name,
            load_portrait(clip.portrait),
            num_frames(voice),
            None if clip.controls is None else Controls.load(clip.controls),
            SEEDS * seed + index,
            truth=clip.ref,
            labels=clip.labels,
            other_voice=other,
            portrait_path=clip.portrait,
            audio_path=clip.audio,
        )  # fmt: skip
        for index, (clip, voice, other) in enumerate(zip(clips, voices, others, strict=True))
    ]
    return requests, voices
