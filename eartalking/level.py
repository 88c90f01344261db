"""Voices as they come: the level of a stream of sound, brought causally to what the audio encoder was trained on.

The level is a decaying maximum of the loudness of frames, so pauses hardly count, and nothing depends on sound that is
still to come. In training it lay between -28 and -4 dBFS: a voice in that range passes unchanged, to the last bit; one
beside it is brought to the range's edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eartalking.config import FPS, SAMPLES_PER_FRAME

QUIETEST, LOUDEST = -28.0, -4.0  # dBFS; between them nothing is changed
SILENCE = -72.0  # dBFS: a frame below is no voice, and is not raised
FALL = 3.0  # dB a second: how fast the level follows a voice that becomes quieter
# Until a frame has reached the level, it falls faster, so that a quiet stream is found within a second; but not before
# so many frames that are no silence, for an ordinary voice reaches it within five.
FIRST_FALL, PATIENCE = 40.0, 6
MOST_RAISED = 40.0  # dB


@dataclass(frozen=True)
class LevelState:
    """The level of the voice so far in dBFS, whether a frame has reached it yet, and how many have tried."""

    level: float = QUIETEST
    heard: bool = False
    tried: int = 0


def normalise_level(samples: np.ndarray, state: LevelState) -> tuple[np.ndarray, LevelState]:
    """One frame's samples (640,) float32 in [-1, 1] -> the same at a level that training knows, and the next state."""
    loudness = frame_level(samples)
    if loudness < SILENCE:
        return samples, state
    heard = state.heard or loudness >= state.level
    fall = FALL if heard else FIRST_FALL if state.tried >= PATIENCE else 0.0
    state = LevelState(max(loudness, state.level - fall / FPS), heard, state.tried + 1)
    gain = level_gain(state.level)
    if gain == 0:
        return samples, state
    return np.clip(samples * np.float32(10 ** (gain / 20)), -1, 1), state


def level_gain(level: float) -> float:
    """Decibels by which a voice of a level in dBFS is raised, or lowered where negative."""
    return min(max(QUIETEST - level, 0.0), MOST_RAISED) + min(LOUDEST - level, 0.0)


def frame_level(samples: np.ndarray) -> float:
    """Root mean square in dBFS; -inf for nothing but zeros."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return float(10 * np.log10(power)) if power > 0 else -np.inf


def float_mono(waveform: np.ndarray) -> np.ndarray:
    """Sound as streams take it, (samples,) float32.

    Raises:
        ValueError: not floating-point (whole numbers are of another scale), not one-dimensional, or not finite.
    """
    waveform = np.asarray(waveform)
    if waveform.size == 0 and waveform.ndim == 1:
        return waveform.astype(np.float32)
    if not np.issubdtype(waveform.dtype, np.floating):
        raise ValueError(f"a stream takes floating-point sound in -1..1, not {waveform.dtype}")
    if waveform.ndim != 1:
        raise ValueError(f"a stream takes mono sound (samples,), not of shape {waveform.shape}")
    samples = waveform.astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        raise ValueError("the sound has samples that are not finite (NaN or infinite)")
    return samples


def is_silent(waveform: np.ndarray) -> bool:
    """Whether no frame of a waveform (samples,) is loud enough to be a voice."""
    starts = range(0, len(waveform), SAMPLES_PER_FRAME)
    return all(frame_level(waveform[start : start + SAMPLES_PER_FRAME]) < SILENCE for start in starts)
