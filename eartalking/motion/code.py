"""The motion code: motion vectors <-> latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eartalking.config import AutoencoderConfig


class MotionCode(nn.Module):
    """Motion vectors (..., L) <-> raw latents (..., N, C), fixed once and for all before anything is trained.

    Every coordinate is centred and brought to its spread over the data, then a random orthonormal map spreads them over
    the
    latents: a small movement that matters (a lid, a lip) takes up as much of the latents as a turn of the head. A code
    that is learnt together with the decoder gives nearly all of it to the head's pose, and mouth and eyes drown in
    noise.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.shape = (config.num_latent_tokens, config.latent_channels)
        size = config.motion_size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))  # coordinates = (motion - mean) · scale
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(self.shape[0] * self.shape[1], size, generator=generator, dtype=torch.float64)
        self.register_buffer("basis", torch.linalg.qr(square)[0].T.float())  # (L, N·C), orthonormal rows

    @torch.no_grad()
    def measure(self, motion: Tensor, emphasis: Tensor) -> None:
        """Fit the coordinates to motion vectors (M, L); `emphasis` (L,) is the spread that each shall have.

        A coordinate that never moves gets the scale 0: it is not part of the code.
        """
        spread = motion.std(0)
        self.mean.copy_(motion.mean(0))
        self.scale.copy_(torch.where(spread > 1e-3, emphasis / spread.clamp_min(1e-3), 0.0))

    def encode(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> raw latents (..., N, C)."""
        return self.spread(self.to_coordinates(motion))

    def to_coordinates(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> coordinates of about unit spread (..., L)."""
        return (motion - self.mean) * self.scale

    def spread(self, coordinates: Tensor) -> Tensor:
        """Coordinates (..., L) -> raw latents (..., N, C)."""
        return (coordinates @ self.basis).unflatten(-1, self.shape)

    def coordinates(self, latents: Tensor) -> Tensor:
        """Raw latents (..., N, C) -> coordinates of about unit spread (..., L); what is off the code's plane is
        dropped.
        """
        return latents.flatten(-2).float() @ self.basis.T

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`: raw latents (..., N, C) -> motion vectors (..., L)."""
        return self.motion(self.coordinates(latents))

    def motion(self, coordinates: Tensor) -> Tensor:
        """The inverse of `to_coordinates`: coordinates (..., L) -> motion vectors (..., L)."""
        return coordinates * torch.where(self.scale > 0, 1 / self.scale.clamp_min(1e-6), 0.0) + self.mean
