"""The motion code: motion vectors <-> coordinates <-> latents, all of it linear and known.

Notation: L columns of a motion vector (`eartalking.motion.vector`), N latent tokens of C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eartalking.config import AutoencoderConfig


class MotionCode(nn.Module):
    """Measured once, before anything is trained, and never trained itself.

    - *Coordinates* (..., L): motion vectors, centred and scaled to the spread that each shall have.
    - *Latents* (..., N, C): coordinates mapped by a random orthonormal basis, then normalised to zero mean and unit
      variance per token and channel over the training set.

    So a small movement that matters (a lid, a lip) takes up as much of the latents as a turn of the head. A code that
    is learnt together with the decoder gives nearly all of it to the head's pose, and mouth and eyes drown in noise.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.shape = (config.num_latent_tokens, config.latent_channels)
        size = config.motion_size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))  # coordinates = (motion - mean) · scale
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(self.shape[0] * self.shape[1], size, generator=generator, dtype=torch.float64)
        self.register_buffer("basis", torch.linalg.qr(square)[0].T.float())  # (L, N·C), orthonormal rows
        self.register_buffer("latent_mean", torch.zeros(self.shape))
        self.register_buffer("latent_std", torch.ones(self.shape))

    @torch.no_grad()
    def measure(self, motion: Tensor, emphasis: Tensor) -> None:
        """Fit the coordinates to motion vectors (M, L); `emphasis` (L,) is the spread that each shall have.

        A coordinate that never moves gets the scale 0: it is not part of the code.
        """
        spread = motion.std(0)
        self.mean.copy_(motion.mean(0))
        self.scale.copy_(torch.where(spread > 1e-3, emphasis / spread.clamp_min(1e-3), 0.0))

    def motion_to_coordinates(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> coordinates (..., L)."""
        return (motion - self.mean) * self.scale

    def coordinates_to_motion(self, coordinates: Tensor) -> Tensor:
        """Coordinates (..., L) -> motion vectors (..., L)."""
        return coordinates * torch.where(self.scale > 0, 1 / self.scale.clamp_min(1e-6), 0.0) + self.mean

    def coordinates_to_latents(self, coordinates: Tensor) -> Tensor:
        """Coordinates (..., L) -> latents (..., N, C)."""
        return (self._spread(coordinates) - self.latent_mean) / self.latent_std

    def latents_to_coordinates(self, latents: Tensor) -> Tensor:
        """Latents (..., N, C) -> coordinates (..., L); what lies off the code's plane is dropped."""
        return (latents * self.latent_std + self.latent_mean).flatten(-2).float() @ self.basis.T

    def motion_to_latents(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> latents (..., N, C)."""
        return self.coordinates_to_latents(self.motion_to_coordinates(motion))

    def latents_to_motion(self, latents: Tensor) -> Tensor:
        """Latents (..., N, C) -> motion vectors (..., L)."""
        return self.coordinates_to_motion(self.latents_to_coordinates(latents))

    def change_to_latents(self, change: Tensor) -> Tensor:
        """What a change of coordinates (..., L) changes in the latents (..., N, C)."""
        return self._spread(change) / self.latent_std

    def _spread(self, coordinates: Tensor) -> Tensor:
        return (coordinates @ self.basis).unflatten(-1, self.shape)
