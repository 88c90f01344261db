"""What happens to pictures on their way to a network: cuts beside their place, tint, tone, loss of size, compression,
noise.

A network that has only seen clean renders trusts the renderer's finish; what a model draws, and photographs, look
otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.perception.face_parts import WHOLE

LATENT_NOISE = 0.03  # of the frame's latents, while decoder and refiner train
# The portrait's own motion will be read by the encoder, which errs; the decoder should look at the portrait, too.
PORTRAIT_NOISE = 0.1
FOUND = 0.06  # of the frame's side: from there on a landmark is found, and the cuts may follow it


def somewhere(count: int, device: torch.device | None = None) -> Tensor:
    """Places (count, 3) like `face_parts.WHOLE`, each somewhat beside it."""
    spread = torch.tensor([0.03, 0.03, 0.05], device=device)
    return torch.tensor(WHOLE, device=device) + spread * torch.randn(count, 3, device=device)


def misplaced(found: Tensor, truth: Tensor) -> Tensor:
    """Landmarks (B, 3, 2) to cut at: half of them where they were found, if that is near, the others near where they
    are.
    """
    count, device = len(truth), truth.device
    follows = ((found - truth).abs().amax((1, 2)) < FOUND) & (torch.rand(count, device=device) < 0.5)
    near = truth + 0.009 * torch.exp(0.7 * torch.randn(count, 1, 1, device=device)) * torch.randn(
        count, 3, 2, device=device
    )
    return torch.where(follows[:, None, None], found.detach(), near)


@dataclass(frozen=True)
class Damage:
    """What happens to the pictures of a batch of frames: the same to all the pictures of a frame."""

    gain: Tensor
    lift: Tensor
    tone: Tensor
    grey: Tensor
    shrink: float
    blocks: float
    noise: float

    @staticmethod
    def draw(count: int, device: torch.device | None = None) -> Damage:
        shrink, blocks, noise = torch.rand(3).tolist()
        colour = torch.randn(2, count, 3, device=device)
        tone, grey = torch.exp(0.25 * torch.randn(count, device=device)), torch.rand(count, device=device) < 0.1
        return Damage(
            1 + 0.2 * colour[0], 0.06 * colour[1], tone, grey, 0.3 + 0.5 * shrink, 0.02 + 0.13 * blocks, 0.06 * noise
        )

    def apply(self, pictures: Tensor) -> Tensor:
        """Pictures (B, ..., 3, S, S) in 0..1. Colour hits every frame; the others a slice of the batch, which is in
        random order anyway."""
        count = len(pictures)
        one, colour = [count] + [1] * (pictures.ndim - 1), [count] + [1] * (pictures.ndim - 4) + [3, 1, 1]
        pictures = pictures.clamp(1e-4, 1) ** self.tone.view(one) * self.gain.view(colour) + self.lift.view(colour)
        pictures = torch.where(self.grey.view(one), pictures.mean(-3, keepdim=True), pictures).clamp(0, 1)
        quarter = max(1, count // 4)
        for damage, rows in (
            (lambda x: _reduced(x, self.shrink), slice(0, quarter)),
            (lambda x: _blocky(x, self.blocks), slice(quarter // 2, quarter // 2 + quarter)),
            (lambda x: x + self.noise * torch.randn_like(x), slice(2 * quarter, 3 * quarter)),
        ):
            part = pictures[rows]
            pictures[rows] = damage(part.reshape(-1, *part.shape[-3:])).view_as(part)
        return pictures


def _reduced(x: Tensor, factor: float) -> Tensor:
    small = F.interpolate(x, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _blocky(x: Tensor, step: float) -> Tensor:
    """What JPEG does: the cosine coefficients of 8x8 blocks rounded to coarse steps, coarser where finer."""
    index = torch.arange(8, device=x.device)
    basis = torch.cos(math.pi / 8 * (index[None] + 0.5) * index[:, None]) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    steps = step * (0.5 + 0.25 * (index[None] + index[:, None]))
    blocks = x.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))  # (B, 3, h, 8, w, 8)
    coefficients = torch.einsum("bchiwj,ui,vj->bchwuv", blocks, basis, basis)
    coefficients = (coefficients / steps).round() * steps
    return torch.einsum("bchwuv,ui,vj->bchiwj", coefficients, basis, basis).flatten(-2).flatten(-3, -2)
