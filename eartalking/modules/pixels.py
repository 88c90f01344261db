"""Pictures at the edge, (..., H, W, 3) uint8, and inside, (..., 3, H, W) float in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float in [-1, 1]."""
    return images.movedim(-1, -3).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """(..., 3, H, W) float in [-1, 1] -> (..., H, W, 3) uint8, rounded."""
    levels = (images * 127.5).add_(128).clamp_(0, 255)  # 127.5 and a half: the cast cuts off, so this rounds
    return levels.to(torch.uint8).movedim(-3, -1)
