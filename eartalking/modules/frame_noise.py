"""The noise of a stream's frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def frame_noise(seed: int, index: int, shape: Sequence[int]) -> Tensor:
    """Gaussian noise of one frame, a function of seed and index alone: a stream carries no generator state."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
    return torch.randn(tuple(shape), generator=generator)
