"""Vectors that lie along the channels of a map."""

from __future__ import annotations

from torch import Tensor

LEAST = 1e-18  # of a square: at 0 a root has no gradient


def lengths(vectors: Tensor) -> Tensor:
    """Vectors (B, C, ...) of few numbers -> their lengths (B, 1, ...). What PyTorch has for norms takes a hundred times
    as long along an axis that is not the last one."""
    return vectors.square().sum(1, keepdim=True).clamp_min(LEAST).sqrt()
