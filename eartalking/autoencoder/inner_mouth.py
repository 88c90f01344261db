"""What the inside of a person's mouth looks like: a few numbers, learnt from pixels, read once per stream.

How far teeth reach below the lip, how bright they are, where the tongue lies: neither the motion nor a portrait with
shut lips says it. A network that draws mouths without knowing draws the average of all people's, a blur. So it is told
by a code that was learnt from other pictures of the same person (a variational autoencoder whose prior sees the
portrait alone: Sohn, Lee and Yan 2015), and in a stream by what the portrait makes likely. Whatever the code is, it
stands for one mouth, not for the mean of many, and stays the same for the whole stream.

Each picture is an expert with an opinion on every number and a certainty of it; opinions multiply (product of experts,
Hinton 2002), so any number of pictures makes one code, and a picture that shows nothing says nothing.

Notation: B batch, K pictures of one person, L coordinates of the motion code, C numbers of the code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.modules.res_block import ResBlock

STEM = 4  # pixel-unshuffle factor: a cut is looked at once per stream, but three times per step of training
WIDTHS = (32, 48, 64)
COND_DIM = 64
SURE = 1.0  # a new expert's: were it unsure, its code would be noise at first, and drawing would learn to ignore it


class Belief(NamedTuple):
    """What is known of a code: normal distributions of `mean` and `variance` (B, C) each."""

    mean: Tensor
    variance: Tensor

    def draw(self) -> Tensor:
        """A sample (B, C)."""
        return self.mean + self.variance.sqrt() * torch.randn_like(self.mean)

    def divergence(self, other: Belief) -> Tensor:
        """Kullback and Leibler's KL(self || other) (B,), in nats."""
        ratio = self.variance / other.variance
        apart = (self.mean - other.mean).square() / other.variance
        return 0.5 * (ratio + apart - 1 - ratio.log()).sum(1)


class InnerMouth(nn.Module):
    """Cuts of one person's mouth, with the motion in each -> the belief about its inside."""

    def __init__(self, channels: int, motion_size: int) -> None:
        """channels: C. motion_size: L."""
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.channels = channels
        self.motion = nn.Sequential(nn.Linear(motion_size, COND_DIM), nn.SiLU())
        self.conv_in = nn.Conv2d(3 * STEM**2, fine, 3, padding=1)
        self.fine = ResBlock(fine, fine, COND_DIM)
        self.down = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.middle = ResBlock(middle, middle, COND_DIM)
        self.further = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = ResBlock(coarse, coarse, COND_DIM)
        self.out = nn.Linear(2 * coarse, 2 * channels)

    def opinions(self, mouths: Tensor, motion: Tensor) -> Tensor:
        """Cuts (M, 3, h, w) in [-1, 1] and coordinates (M, L) -> each one's opinion and certainty (M, 2 C)."""
        cond = self.motion(motion)
        x = F.pixel_unshuffle(mouths, STEM).contiguous(memory_format=torch.channels_last)
        x = self.down(self.fine(self.conv_in(x), cond))
        x = self.coarse(self.further(self.middle(x, cond)), cond)
        return self.out(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)).float()

    @staticmethod
    def believe(opinions: Tensor, seen: Tensor) -> Belief:
        """Opinions (B, K, 2 C) of K pictures, of which `seen` (B, K) in 0..1 count -> what they say together."""
        means, certainty = opinions.chunk(2, dim=2)
        certainty = F.softplus(certainty + SURE) * seen[..., None]
        total = 1 + certainty.sum(1)  # of one: what is known of people in general
        return Belief((certainty * means).sum(1) / total, 1 / total)

    def of_portrait(self, mouth: Tensor, motion: Tensor) -> Tensor:
        """The likeliest code (B, C) of people whose portraits' mouths (B, 3, h, w) and coordinates (B, L) are these."""
        opinions = self.opinions(mouth, motion)[:, None]
        return self.believe(opinions, opinions.new_ones(opinions.shape[:2])).mean
