"""What the voice of a frame says of its mouth by itself.

A line cannot say when lips are shut: it goes half-way where it is in doubt, and lips half-way shut are open.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.modules.transformer import zero_init

BENDS = 256


class VoiceToLatents(nn.Linear):
    """What a frame's audio tokens (..., A * D) add to the mean of its latents (..., N * C): a line through them, and
    what a hidden layer bends it by; nothing at first."""

    def __init__(self, heard: int, latents: int) -> None:
        super().__init__(heard, latents)
        zero_init(self)
        self.bend_in = nn.Linear(heard, BENDS)
        self.bend_out = nn.Linear(BENDS, latents, bias=False)
        nn.init.zeros_(self.bend_out.weight)

    def bent(self, tokens: Tensor) -> Tensor:
        """Audio tokens (..., A * D) -> the hidden layer (..., BENDS)."""
        return F.silu(self.bend_in(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) + self.bend_out(self.bent(tokens))
