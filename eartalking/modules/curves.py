"""Curves: piecewise linear ones, and a smooth step."""

from __future__ import annotations

import torch
from torch import Tensor


def piecewise_linear(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Functions with values (B, N) at knots (B, N), in any order, at places (B, P): (B, P); constant beyond them."""
    knots, order = knots.sort(dim=1)
    values = values.gather(1, order)
    right = torch.searchsorted(knots, at.contiguous()).clamp(1, knots.shape[1] - 1)
    low, high = knots.gather(1, right - 1), knots.gather(1, right)
    share = ((at - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    return torch.lerp(values.gather(1, right - 1), values.gather(1, right), share)


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, and a smooth way between: 3 x² - 2 x³."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
