"""Blinks that nobody asked for."""

from __future__ import annotations

import numpy as np

# One blink in so many frames, its closure frame by frame (SynthTalk's mean blink), and how far from the span's ends it
# stays.
BLINK_EVERY, BLINK_SHAPE, BLINK_MARGIN = 90, (0.4, 1.0, 1.0, 0.7, 0.35, 0.1), 12


def spontaneous_blink(seed: int, index: int) -> float:
    """Lid closure in 0..1 at a frame, where nobody asked for any: people blink whatever they say, so no voice tells
    when.

    A function of seed and frame alone, as the noise is. A regression of blinks would be eyes that never close.
    """
    span, place = divmod(index, BLINK_EVERY)
    start = int(np.random.default_rng([seed % 2**63, span]).integers(BLINK_MARGIN, BLINK_EVERY - BLINK_MARGIN))
    return BLINK_SHAPE[place - start] if 0 <= place - start < len(BLINK_SHAPE) else 0.0
