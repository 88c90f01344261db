"""Typed text becomes a voice, offline: espeak-ng, a robot but a tireless one."""

from __future__ import annotations

import threading
import wave
from pathlib import Path

import numpy as np

from demo.uploads import UploadError
from eartalking.config import SAMPLE_RATE

LONGEST_TEXT = 400  # characters, about half a minute
_VOICE = "en-us+f2"
_PACE_AND_PITCH = 11  # a seed of the engine's random pace and pitch that gives an unhurried voice
_SPEAKING = threading.Lock()  # the engine is one per process


def say(text: str, path: Path) -> Path:
    """Write a WAV in which `text` is spoken.

    Raises:
        UploadError: nothing to say, too much, or the engine is not installed.
    """
    words = " ".join(text.split())
    if not any(character.isalnum() for character in words):
        raise UploadError("Please type what should be said.")
    if len(words) > LONGEST_TEXT:
        raise UploadError(f"This text has {len(words)} characters; up to {LONGEST_TEXT} can be said at once.")
    try:
        from eartalking.synth.voices import Voice, speak

        with _SPEAKING:
            spoken = speak(Voice("espeak", _VOICE), words, np.random.default_rng(_PACE_AND_PITCH))
    except (ImportError, OSError):
        spoken = None
    if spoken is None:
        raise UploadError("Typed text cannot be spoken here: espeakng-loader is not installed.")
    waveform, _ = spoken
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return path
