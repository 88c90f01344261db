"""The decoder: a motion on a portrait -> pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.autoencoder.reference import Reference
from eartalking.autoencoder.surface import BASE_CHANNELS, Base, FineBase
from eartalking.config import AutoencoderConfig
from eartalking.modules.around import sums_around
from eartalking.modules.curves import smoothstep
from eartalking.modules.pixels import shuffle, to_uint8, unshuffle
from eartalking.modules.res_block import ResBlock, for_convolution, norm_groups, single_map, upsample
from eartalking.modules.vectors import lengths
from eartalking.modules.warp import warp_image

# How decidedly the blend takes one side, and how far (in logits) it leans to the portrait's own pixels. A share of a
# tenth of the painting, which is smooth, takes a fifth of a face's sharpness; half and half is a ghost.
DECIDED, LEANS = 3.0, 0.2
# By how much the surface's warp on its finer grid is beside the coarser one, in [-1, 1] (1 and 2 pixels of 256): up to
# here that is noise, and from there on an edge.
SMOOTH, JUMP = 2 / 256, 4 / 256


class Geometry(NamedTuple):
    """Where things go, before any pixel is made: `warps` and `visibility` as in `Decoded`; the last level's features
    (B, D, h, w), which the painting goes on from; the last warp (B, 2, f h, f w), and where the person may be (B, 1,
    f h, f w), on the surface's own grid, which is finer: on the last level's, a face's edge before hair had steps."""

    warps: list[Tensor]
    visibility: Tensor
    hidden: Tensor
    warp: Tensor
    reach: Tensor


class Decoded(NamedTuple):
    """A decoded frame and what it was blended from.

    image (B, 3, H, W), the blend, with eyes and mouth refined if `FrameAutoencoder` made it; warped (B, 3, H, W), the
    warped person before the background; painted (B, 3, H, W); blend (B, 1, H, W) in 0..1, the share of `warped`; warps,
    one (B, 2, h, w) per level, coarse to fine; visibility (B, 1, h, w) logits.
    """

    image: Tensor
    warped: Tensor
    painted: Tensor
    blend: Tensor
    warps: list[Tensor]
    visibility: Tensor

    def pixels(self) -> Tensor:
        """The frames as a stream puts them out: (B, H, W, 3) uint8."""
        return to_uint8(self.image)


class WarpHead(nn.Module):
    """Features -> displacement (B, 2, h, w) in float32, zero at first.

    Normalised features, a pointwise convolution and a small unit: one optimizer step must not be able to throw the
    whole picture about. With a plain 3x3 convolution it could, by ten map pixels, and the warp never settled.
    """

    UNIT = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(channels), channels)
        self.conv = nn.Conv2d(channels, 2, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.UNIT * self.conv(F.silu(self.norm(hidden))).float().contiguous()


def warped_over(geometry: Geometry, person: Tensor, plate: Tensor) -> tuple[Tensor, Tensor]:
    """A portrait's two layers at any size, the person (B, 3 + M, H, W) with M mattes moved over the plate (B, 3, H, W)
    by the first of them: the picture (B, 3, H, W), and where the mattes are now (B, M, H, W).
    """
    scale = plate.shape[-1] // geometry.warp.shape[-1]
    # Bicubic: by the true warp, a bilinear one keeps 70 % of the portrait's sharpness, a bicubic one 98 %.
    # (Bilinear sampling of a portrait of three times the size keeps as much, and takes as long: its pixels no
    # longer fit into the cache.)
    moved = warp_image(person, upsample(geometry.warp, scale), "bicubic")
    mattes = moved[:, 3:].clamp(0, 1) * upsample(geometry.reach, scale)
    return torch.lerp(plate, moved[:, :3], mattes[:, :1]), mattes


def _with_edges(warp: Tensor, base: Base, finer: FineBase) -> Tensor:
    """What the warp of `base` was corrected to (B, 2, h, w), on the finer grid: with the edges that it has there, where
    it jumps; elsewhere that grid has nothing to say but the noise of few points in a cell, and holes."""
    factor = finer.warp.shape[-1] // warp.shape[-1]
    beside = finer.warp - upsample(base.warp, factor)
    jumps = smoothstep((lengths(beside) - SMOOTH) / (JUMP - SMOOTH))
    holes = sums_around((finer.occupied <= 0.5).to(beside), 1) > 0  # what is stretched, or no person
    return upsample(warp, factor) + torch.where(holes, 0.0, jumps * beside)


class FrameDecoder(nn.Module):
    """(motion, portrait) -> Decoded; the warp that the portrait's surface gives is corrected level by level, coarse to
    fine, and the blend is made at the finest."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, reference_widths = config.decoder_widths, config.reference_widths
        self.stem = config.stem
        cond_dim = widths[-1]
        # The frame's coordinates, and how they differ from the portrait's: no difference, no warp.
        self.motion = nn.Sequential(
            nn.Linear(2 * config.motion_size, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim)
        )
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.warp_heads = nn.ModuleList()
        for level in reversed(range(len(widths))):  # coarse to fine
            known = reference_widths[level] + BASE_CHANNELS + (widths[level] if self.blocks else 0)
            self.blocks.append(ResBlock(known, widths[level], cond_dim))
            self.warp_heads.append(WarpHead(widths[level]))
            self.ups.append(nn.Conv2d(widths[level], widths[level - 1], 1) if level else nn.Identity())
        finest = widths[0]
        self.visibility_head = nn.Conv2d(finest, 1, 3, padding=1)
        self.refine_in = nn.Conv2d(finest + 3 * config.stem**2, finest, 3, padding=1)
        self.refine = nn.Conv2d(finest, finest, 3, padding=1)
        self.conv_out = nn.Conv2d(finest, 4 * config.stem**2, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # `for_convolution`; else the weights are copied for every frame

    def geometry(
        self, motion: Tensor, reference_motion: Tensor, pyramid: list[Tensor], base: Base, finer: FineBase
    ) -> Geometry:
        """Coordinates of the frame and of the portrait (B, L), the portrait's pyramid and what its surface says, at the
        finest level's size and on its own grid -> warps and visibility."""
        cond = F.silu(self.motion(torch.cat([motion, motion - reference_motion], dim=1)))
        warps: list[Tensor] = []
        hidden = correction = None
        for index, block in enumerate(self.blocks):
            features = pyramid[len(self.blocks) - 1 - index]
            here = base.at(features.shape[-1])
            warp = here.warp
            if correction is not None:
                correction = upsample(correction)
                warp = warp + correction
            features = warp_image(features, warp).to(features.dtype)
            known = for_convolution(torch.cat([features, here.channels().to(features.dtype)], dim=1))
            if hidden is not None:
                known = torch.cat([known, upsample(self.ups[index - 1](hidden))], dim=1)
            hidden = block(known, cond)
            step = self.warp_heads[index](hidden)
            correction = step if correction is None else correction + step
            warps.append(here.warp + correction)
        visibility = single_map(self.visibility_head, hidden).float()
        return Geometry(warps, visibility, hidden, _with_edges(warps[-1], base, finer), finer.reach)

    def paint(self, geometry: Geometry, reference: Reference) -> Decoded:
        """The warped person before the background, blended with what neither can show."""
        warps, visibility, hidden = geometry[:3]
        warped = warped_over(geometry, reference.person, reference.plate)[0]
        seen = for_convolution(unshuffle(warped, self.stem).to(hidden.dtype))
        refined = hidden + self.refine(F.silu(self.refine_in(torch.cat([hidden, seen], dim=1))))
        out = shuffle(self.conv_out(F.silu(refined)), self.stem).float()  # (B, 4, H, W)
        painted = out[:, :3]
        blend = torch.sigmoid(DECIDED * (out[:, 3:] + upsample(visibility, self.stem) + LEANS))
        image = torch.lerp(painted, warped, blend)
        return Decoded(image, warped, painted, blend, warps, visibility)
