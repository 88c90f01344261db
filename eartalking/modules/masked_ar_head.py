"""The paper's own emission, masked autoregression inside a frame: a few tokens at a time, each by a diffusion head.

A transformer sees the tokens that are known so far and gives every other one a condition; a network per token denoises
it under that condition alone, predicting the noise (after MAR: Li, Tian, Li, Deng and He 2024). Where the flow head
takes four passes a frame, this takes `masked_steps` of the transformer and `num_steps` of the denoiser in each (36 x 25
in the paper), one after the other.

x_t = cos(πt/2) x_0 + sin(πt/2) x_1, so that its variance stays one. The rest, and the notation, is in `emission`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from eartalking.modules.emission import TIME_FREQUENCIES, EmissionHead, FrameNet, time_features, weighted_mean
from eartalking.modules.transformer import zero_init

FIRST_TIME = 0.02  # pure noise says nothing of the data: its prediction would be divided by zero
LARGEST = 5.0  # standard deviations of a residual; what is beyond is an error of the first steps


class TokenDenoiser(nn.Module):
    """One token with noise, the time and the token's condition -> its noise; tokens do not see each other."""

    def __init__(self, latent_channels: int, dim: int) -> None:
        super().__init__()
        self.from_latents = nn.Linear(latent_channels, dim)
        self.from_time = nn.Linear(2 * TIME_FREQUENCIES, dim)
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)) for _ in range(2)
        )
        self.to_noise = zero_init(nn.Linear(dim, latent_channels))

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x_t (M, N, C), t (M, N) or (1, 1), condition (M, N, D) -> noise (M, N, C)."""
        told = condition + self.from_time(time_features(t))
        x = self.from_latents(x_t)
        for block in self.hidden:
            x = x + block(x + told)
        return self.to_noise(x)


class MaskedARHead(EmissionHead):
    """Regression plus masked autoregression of the residual over the tokens of one frame."""

    def __init__(
        self,
        latent_channels: int,
        num_tokens: int,
        *,
        dim: int,
        cond_dim: int,
        num_heads: int,
        depth: int = 3,
        masked_steps: int = 36,
    ) -> None:
        super().__init__(latent_channels, cond_dim)
        self.masked_steps = min(masked_steps, num_tokens)
        self.mixer = FrameNet(latent_channels + 1, num_tokens, dim, depth, num_heads, cond_dim)
        self.denoiser = TokenDenoiser(latent_channels, dim)

    def residual_loss(self, x_1: Tensor, cond: Tensor, sink: Tensor | None, weight: Tensor | None) -> Tensor:
        """Squared error of the noise in the tokens that are masked."""
        count, num_tokens = x_1.shape[:2]
        left = torch.cos(torch.rand(count, 1, device=x_1.device) * math.pi / 2)  # as many as a sampler meets on its way
        rank = torch.rand(count, num_tokens, device=x_1.device).argsort(1).argsort(1)
        masked = rank < (left * num_tokens).ceil()
        x_0 = torch.randn_like(x_1)
        t = torch.rand(count, num_tokens, device=x_1.device)
        condition = self._condition(x_1, ~masked, *self.mixer.condition(cond, sink))
        noise = self.denoiser(mixed(x_0, x_1, t), t, condition)
        chosen = masked[..., None].to(x_1)
        return weighted_mean((noise.float() - x_0).square(), chosen if weight is None else chosen * weight)

    def draw(self, noise: Tensor, temperature: float, cond: Tensor, sink: Tensor | None, num_steps: int) -> Tensor:
        """Tokens in an order of their own for every frame; in each step as many as leave a cosine's share of them for
        later (MaskGIT).
        """
        count, num_tokens = noise.shape[:2]
        # The order follows from the noise, so that the same noise gives the same frame; from its far decimals, so that
        # it says nothing of the noise's size.
        order = (noise[..., 0] * 1000).remainder(1).argsort(1)
        known = torch.zeros(count, num_tokens, dtype=torch.bool, device=noise.device)
        x_1 = torch.zeros_like(noise)
        shared = self.mixer.condition(cond, sink)
        done = 0
        for step in range(1, self.masked_steps + 1):
            left = math.floor(num_tokens * math.cos(math.pi / 2 * step / self.masked_steps) + 1e-6)
            later_steps = self.masked_steps - step
            after = min(max(num_tokens - left, done + 1), num_tokens - later_steps)  # one token at least in every step
            now = order[:, done:after]
            condition = self._condition(x_1, known, *shared).take_along_dim(now[..., None], 1)
            drawn = self._denoise(temperature * noise.take_along_dim(now[..., None], 1), condition, num_steps)
            x_1 = x_1.scatter(1, now[..., None].expand_as(drawn), drawn)
            known, done = known.scatter(1, now, True), after
        return x_1

    def _condition(self, x_1: Tensor, known: Tensor, tokens: Tensor, vector: Tensor) -> Tensor:
        """What the known tokens (M, N) of x_1 say of the others: (M, N, D)."""
        flag = known[..., None].to(x_1)
        return self.mixer(torch.cat([x_1 * flag, flag], dim=-1), known.float().mean(1), tokens, vector)

    def _denoise(self, x: Tensor, condition: Tensor, num_steps: int) -> Tensor:
        """Deterministic steps from noise to data (DDIM: Song, Meng and Ermon 2021)."""
        times = torch.linspace(FIRST_TIME, 1, num_steps + 1).tolist()
        for t, later in zip(times[:-1], times[1:], strict=True):
            noise = self.denoiser(x, x.new_full((1, 1), t), condition).float()
            angle = t * math.pi / 2
            x_1 = ((x - math.cos(angle) * noise) / math.sin(angle)).clamp(-LARGEST, LARGEST)
            x = mixed(noise, x_1, x.new_full((1, 1), later))
        return x


def mixed(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
    """x_t of noise and data (M, N, C) at times (M, N) or (1, 1)."""
    angle = (t * (math.pi / 2))[..., None]
    return angle.cos() * x_0 + angle.sin() * x_1
