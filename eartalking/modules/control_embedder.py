"""Control values -> one token per control track, with a learned NULL for a released track (FCIC).

Notation: B batch, T frames, G scalar tracks, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NUM_FREQUENCIES = 3


class ControlEmbedder(nn.Module):
    """Tokens for G scalar tracks and one categorical track with an intensity, in that order."""

    def __init__(self, ranges: list[tuple[float, float]], num_categories: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor([low for low, _ in ranges]), persistent=False)
        self.register_buffer("high", torch.tensor([high for _, high in ranges]), persistent=False)
        self.weight = nn.Parameter(torch.randn(len(ranges), 1 + 2 * NUM_FREQUENCIES, dim) * 0.3)
        self.bias = nn.Parameter(torch.zeros(len(ranges), dim))
        self.category = nn.Parameter(torch.randn(num_categories, dim) * 0.5)
        self.category_bias = nn.Parameter(torch.zeros(dim))
        self.null = nn.Parameter(torch.randn(len(ranges) + 1, dim) * 0.2)

    @property
    def num_tokens(self) -> int:
        return len(self.null)

    def forward(self, values: Tensor, category: Tensor, intensity: Tensor, given: Tensor) -> Tensor:
        """values (..., G) in their ranges, category (...) int, intensity (...) in 0..1, given (..., G + 1) bool
        (what is not given may hold anything finite) -> tokens (..., G + 1, D)."""
        unit = (2 * (values - self.low) / (self.high - self.low) - 1).clamp(-1, 1)[..., None]  # (..., G, 1) in [-1, 1]
        angles = unit * (math.pi / 2 * 2.0 ** torch.arange(NUM_FREQUENCIES, device=values.device))
        features = torch.cat([unit, angles.sin(), angles.cos()], dim=-1)  # (..., G, F)
        scalars = torch.einsum("...gf,gfd->...gd", features, self.weight) + self.bias
        categories = self.category[category] * intensity[..., None] + self.category_bias
        tokens = torch.cat([scalars, categories[..., None, :].to(scalars.dtype)], dim=-2)  # (..., G + 1, D)
        return torch.where(given[..., None], tokens, self.null.to(tokens.dtype))
