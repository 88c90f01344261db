"""Blinks where none is asked for, of models that draw none and of faces that show an emotion: at random, for no voice
tells when people blink."""

from __future__ import annotations

import numpy as np

from eartalking.controls import ControlFrame

BLINK_EVERY = 90  # frames: one blink in each span of so many
BLINK_SHAPE = (0.4, 1.0, 1.0, 0.7, 0.35, 0.1)  # closure frame by frame: the mean of SynthTalk's blinks
BLINK_MARGIN = 12  # frames that a blink stays away from both ends of its span


def spontaneous_blink(seed: int, index: int) -> float:
    """Lid closure in 0..1 at a frame, a function of seed and frame alone, as the stream's noise is."""
    span, place = divmod(index, BLINK_EVERY)
    start = int(np.random.default_rng([seed % 2**63, span]).integers(BLINK_MARGIN, BLINK_EVERY - BLINK_MARGIN))
    return BLINK_SHAPE[place - start] if 0 <= place - start < len(BLINK_SHAPE) else 0.0


def with_blink(controls: ControlFrame, seed: int, index: int) -> ControlFrame:
    """The controls of a frame, with a spontaneous blink where blink is released.

    A regression of blinks is an eye that never closes, so the network is asked for each of them as by a control.
    """
    if controls["blink"] is not None:
        return controls
    return controls.with_values(blink=spontaneous_blink(seed, index))
