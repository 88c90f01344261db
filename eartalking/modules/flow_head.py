"""Flow head: all tokens of a frame drawn together by conditional flow matching, in a few steps.

x_t = (1 - t) x_0 + t x_1 and velocity = x_1 - x_0 (rectified flow: Liu, Gong and Liu 2023). The rest, and the notation,
is in `emission`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eartalking.modules.emission import EmissionHead, FrameNet, weighted_mean
from eartalking.modules.transformer import zero_init


class VelocityNet(FrameNet):
    """Predicts the velocity of all tokens of a frame together."""

    def __init__(
        self, latent_channels: int, num_tokens: int, dim: int, depth: int, num_heads: int, cond_dim: int
    ) -> None:
        super().__init__(latent_channels, num_tokens, dim, depth, num_heads, cond_dim)
        self.to_velocity = zero_init(nn.Linear(dim, latent_channels))

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, vector: Tensor) -> Tensor:
        """x_t (M, N, C), t (M,), and what `condition` gave -> velocity (M, N, C)."""
        return self.to_velocity(super().forward(x, t, tokens, vector))


class FlowHead(EmissionHead):
    """Regression plus residual flow over the tokens of one frame."""

    def __init__(
        self, latent_channels: int, num_tokens: int, *, dim: int, cond_dim: int, num_heads: int, depth: int = 3
    ) -> None:
        super().__init__(latent_channels, cond_dim)
        self.velocity = VelocityNet(latent_channels, num_tokens, dim, depth, num_heads, cond_dim)

    def residual_loss(self, x_1: Tensor, cond: Tensor, sink: Tensor | None, weight: Tensor | None) -> Tensor:
        """Squared error of the velocity."""
        x_0 = torch.randn_like(x_1)
        t = torch.sigmoid(torch.randn(len(x_1), device=x_1.device))  # logit-normal: most effort mid-way
        x_t = torch.lerp(x_0, x_1, t[:, None, None])
        velocity = self.velocity(x_t, t, *self.velocity.condition(cond, sink))
        return weighted_mean((velocity.float() - (x_1 - x_0)).square(), weight)

    def draw(self, noise: Tensor, temperature: float, cond: Tensor, sink: Tensor | None, num_steps: int) -> Tensor:
        """Euler's steps along the velocity."""
        x = temperature * noise
        tokens, vector = self.velocity.condition(cond, sink)
        for step in range(num_steps):
            t = torch.full((len(x),), step / num_steps, device=x.device)
            x = x + self.velocity(x, t, tokens, vector).float() / num_steps
        return x
