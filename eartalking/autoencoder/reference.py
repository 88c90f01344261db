"""What is made of a portrait once per stream: its feature pyramid, and everything else that decoding needs of it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.autoencoder.eyes import Eyes
from eartalking.autoencoder.inner_mouth import InnerMouth
from eartalking.autoencoder.lips import Lips
from eartalking.autoencoder.shading import Shading
from eartalking.autoencoder.surface import PersonPixels, SurfaceFields
from eartalking.config import AutoencoderConfig
from eartalking.modules.res_block import ResBlock


class Reference(NamedTuple):
    """What the decoder keeps of a portrait: the image (B, 3, H, W); its pyramid, finest level first; its surface, where
    that is before it moves (`SurfaceEncoder.home`), and what of it is moved; its two layers, the image with the
    person's matte (B, 4, H, W) and the background without the person (B, 3, H, W); the normalised latents (B, N, C) of
    the portrait itself, and the motion vectors (B, L) that these are; where its eyes and its mouth are (B, 3, 2), in
    fractions of the frame; how far shut its eyes stay (B,), 0 open to 1 (`lids.narrowness`); if its face has marks, its
    lips, and in a stream what lies between them, its eyes and the light on it, too."""

    image: Tensor
    pyramid: list[Tensor]
    surface: SurfaceFields
    home: Tensor
    moved: PersonPixels
    person: Tensor
    plate: Tensor
    latents: Tensor
    motion: Tensor
    landmarks: Tensor
    narrow: Tensor
    lips: Lips | None = None
    mouth: InnerMouth | None = None
    eyes: Eyes | None = None
    shading: Shading | None = None

    @property
    def look(self) -> Tensor:
        """The coarsest features (B, N, D), which the model is shown of a portrait."""
        return self.pyramid[-1].flatten(2).transpose(1, 2)

    def expand(self, count: int) -> Reference:
        """One portrait (B = 1) for a batch of `count` frames."""

        def wider(value: Tensor) -> Tensor:
            return value.expand(count, *value.shape[1:])

        surface = SurfaceFields(*map(wider, self.surface))
        fields, home, start, cover = self.moved
        moved = PersonPixels(SurfaceFields(*map(wider, fields)), wider(home), start, wider(cover))
        others = (
            wider(value) for value in (self.person, self.plate, self.latents, self.motion, self.landmarks, self.narrow)
        )
        lips = self.lips
        if lips is not None:
            red, *rest = lips
            lips = Lips(SurfaceFields(*map(wider, red)), *map(wider, rest))
        mouth = None if self.mouth is None else InnerMouth(*map(wider, self.mouth))
        eyes = None if self.eyes is None else Eyes(*map(wider, self.eyes))
        shading = self.shading
        if shading is not None:
            facing, *light = shading
            shading = Shading(SurfaceFields(*map(wider, facing)), *map(wider, light))
        pyramid = [wider(level) for level in self.pyramid]
        reference = Reference(wider(self.image), pyramid, surface, wider(self.home), moved, *others)
        return reference._replace(lips=lips, mouth=mouth, eyes=eyes, shading=shading)


class ReferenceEncoder(nn.Module):
    """Portrait -> feature pyramid, finest level first."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.reference_widths
        self.stem = config.stem
        self.conv_in = nn.Conv2d(3 * config.stem**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList([ResBlock(width, width) for width in widths])
        self.downs = nn.ModuleList(
            [nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)]
        )

    def forward(self, portrait: Tensor) -> list[Tensor]:
        x = self.conv_in(F.pixel_unshuffle(portrait, self.stem))
        pyramid = []
        for index, level in enumerate(self.levels):
            x = level(x)
            pyramid.append(x)
            if index < len(self.downs):
                x = self.downs[index](x)
        return pyramid
