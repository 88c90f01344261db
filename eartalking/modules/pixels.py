"""Pictures at the edge, (..., H, W, 3) uint8, and inside, (..., 3, H, W) float in [-1, 1]."""

from __future__ import annotations

from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float in [-1, 1]."""
    return images.movedim(-1, -3).float() / 127.5 - 1
