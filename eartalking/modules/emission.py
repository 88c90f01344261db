"""What all emission heads have in common: from the backbone's features of one frame to that frame's latents.

Convention, stated once: x_0 is noise, x_1 is data, t in [0, 1] goes from the one to the other.

Two parts. A linear regression gives the conditional mean of the latents; a network with attention over the frame's
tokens models what the mean leaves over. For that network, x_1 = (latents - mean) / residual_std: unit scale, whatever
the regression has learnt so far, and a network that knows nothing still yields the mean.

Notation: M frames (batch and time folded), N tokens per frame, C latent channels, Dc cond_dim, D dim.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.modules.transformer import MODULATION_PARTS, Block, modulated_norm, zero_init

RESIDUAL_STD_DECAY = 0.99
RESIDUAL_STD_FLOOR = 1e-3
TIME_FREQUENCIES = 64


class EmissionLoss(NamedTuple):
    """Scalars, each a (weighted) mean over frames, tokens and channels."""

    residual: Tensor  # squared error of what the head predicts of the residual, in units of residual_std
    regression: Tensor  # squared error of the mean, in the latents' units


class FrameNet(nn.Module):
    """A transformer over the tokens of one frame, given the time, the frame's condition and the sink (adaLN)."""

    def __init__(self, in_channels: int, num_tokens: int, dim: int, depth: int, num_heads: int, cond_dim: int) -> None:
        super().__init__()
        self.from_latents = nn.Linear(in_channels, dim)
        self.cond_norm = nn.LayerNorm(cond_dim)
        self.from_cond = nn.Linear(cond_dim, dim)
        self.from_pooled = nn.Linear(cond_dim, dim)
        self.from_sink = nn.Linear(cond_dim, dim)
        self.from_time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.token_embedding = nn.Parameter(0.02 * torch.randn(num_tokens, dim))
        residual_scale = (2 * depth) ** -0.5
        self.blocks = nn.ModuleList(Block(dim, num_heads, residual_scale=residual_scale) for _ in range(depth))
        self.to_modulation = nn.Linear(dim, MODULATION_PARTS * dim)
        self.to_out_modulation = nn.Linear(dim, 2 * dim)

    def condition(self, cond: Tensor, sink: Tensor | None) -> tuple[Tensor, Tensor]:
        """The part that depends on neither tokens nor time: tokens (M, N, D) to add, vector (M, D) for adaLN."""
        cond = self.cond_norm(cond)
        tokens = self.from_cond(cond) + self.token_embedding
        vector = self.from_pooled(cond.mean(dim=1))
        if sink is not None:
            vector = vector + self.from_sink(sink)
        return tokens, vector

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, vector: Tensor) -> Tensor:
        """x (M, N, in_channels), t (M,), and what `condition` gave -> features (M, N, D)."""
        vector = F.silu(vector + self.from_time(time_features(t)))  # (M, D)
        modulation = self.to_modulation(vector).unflatten(-1, (MODULATION_PARTS, -1))  # (M, 6, D)
        x = self.from_latents(x) + tokens  # (M, N, D)
        for block in self.blocks:
            x = block(x, modulation)
        shift, scale = self.to_out_modulation(vector).unsqueeze(1).chunk(2, dim=-1)
        return modulated_norm(x, shift, scale)


def time_features(t: Tensor) -> Tensor:
    """Cosines and sines of t (...) in [0, 1] at geometric frequencies -> (..., 2 * TIME_FREQUENCIES)."""
    exponents = torch.arange(TIME_FREQUENCIES, device=t.device, dtype=torch.float32) / TIME_FREQUENCIES
    angles = t.float()[..., None] * (1000.0 * torch.exp(-math.log(10_000.0) * exponents))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class EmissionHead(nn.Module, ABC):
    """Regression plus a model of the residual, over the tokens of one frame."""

    residual_std: Tensor

    def __init__(self, latent_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.mean_norm = nn.LayerNorm(cond_dim)
        self.to_mean = zero_init(nn.Linear(cond_dim, latent_channels))
        self.register_buffer("residual_std", torch.ones(latent_channels))

    @abstractmethod
    def residual_loss(self, x_1: Tensor, cond: Tensor, sink: Tensor | None, weight: Tensor | None) -> Tensor:
        """Of true residuals (M, N, C) at unit scale; the other arguments are those of `loss`."""

    @abstractmethod
    def draw(self, noise: Tensor, temperature: float, cond: Tensor, sink: Tensor | None, num_steps: int) -> Tensor:
        """Residuals (M, N, C) at unit scale out of standard normal noise of that shape; temperature > 0."""

    def mean(self, cond: Tensor) -> Tensor:
        """The regression: cond (M, N, Dc) -> conditional mean of the latents (M, N, C)."""
        return self.to_mean(self.mean_norm(cond))

    def loss(
        self, latents: Tensor, cond: Tensor, sink: Tensor | None = None, weight: Tensor | None = None
    ) -> EmissionLoss:
        """Both losses of true latents (M, N, C) given cond (M, N, Dc) and the sink's summary (M, Dc).

        weight: (M,) or broadcastable to (M, N, C), >= 0; a weight of 0 takes an element out altogether. In
        training mode this also updates residual_std.
        """
        latents = latents.float()
        if weight is not None and weight.ndim == 1:
            weight = weight[:, None, None]
        mean = self.mean(cond).float()
        regression = weighted_mean((latents - mean).square(), weight)
        residual = (latents - mean).detach()
        if self.training:
            self._update_residual_std(residual, weight)
        return EmissionLoss(self.residual_loss(residual / self.residual_std, cond, sink, weight), regression)

    @torch.no_grad()
    def sample(
        self,
        cond: Tensor,
        sink: Tensor | None = None,
        num_steps: int = 4,
        temperature: float = 1.0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw latents (M, N, C) for cond (M, N, Dc) in `num_steps` steps from noise to data, added to the mean.

        temperature scales the noise; at 0 the answer is the regression alone and nothing else is run.
        noise: standard normal (M, N, C), given by callers who need the same answer twice.
        """
        if num_steps < 1 or temperature < 0:
            raise ValueError(f"need num_steps >= 1 and temperature >= 0, got {num_steps} and {temperature}")
        mean = self.mean(cond).float()
        if temperature == 0:
            return mean
        noise = torch.randn_like(mean) if noise is None else noise.to(mean)
        return mean + self.residual_std * self.draw(noise, temperature, cond, sink, num_steps)

    @torch.no_grad()
    def _update_residual_std(self, residual: Tensor, weight: Tensor | None) -> None:
        """Moving root mean square per channel (the residual's own mean is near zero once trained)."""
        square = residual.square()
        if weight is None:
            variance = square.mean(dim=(0, 1))
        else:
            weight = weight.expand_as(square)
            total = weight.sum(dim=(0, 1))
            variance = (square * weight).sum(dim=(0, 1)) / total.clamp_min(1e-8)
            variance = torch.where(total > 0, variance, self.residual_std.square())
        variance = torch.lerp(variance, self.residual_std.square(), RESIDUAL_STD_DECAY)
        self.residual_std.copy_(variance.sqrt().clamp_min(RESIDUAL_STD_FLOOR))


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of values, or their mean under a broadcastable weight."""
    if weight is None:
        return values.mean()
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1e-8)
