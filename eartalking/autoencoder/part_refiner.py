"""Part refiner: eyes and mouth, drawn once more at full resolution.

The decoder moves and paints a face on a grid of a quarter of the resolution: an eye is six of its cells wide, a lid
less than one high. What people look at is therefore cut out of the decoded frame and of the portrait, at whole pixels,
and a small network draws what is missing: lids that close, irises that turn, lips and teeth (of which `inner_mouth` has
a code). What it adds fades out towards the edge of the cut, so nothing can be seen of it there. Where the parts are in
the frame follows from where they are in the portrait and from the motion, so nothing is detected while streaming.

Notation: B batch, H W pixels of a frame, h w of a cut, L coordinates of the motion code, C numbers of the mouth's.
Images are in [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.autoencoder.inner_mouth import InnerMouth
from eartalking.autoencoder.portrait_parts import (
    EYE,
    MOUTH,
    Parts,
    corners,
    cut,
    cut_eyes,
    cut_size,
    turned,
    without_eyes,
)
from eartalking.config import AutoencoderConfig
from eartalking.modules.constant import constant
from eartalking.modules.res_block import ResBlock, norm_groups, upsample

FADE = 1 / 8  # of a cut's height: how wide its edge is
COND_DIM = 128
WIDTHS = (24, 48)
MOVE_UNIT = 0.1  # of the frame: the size of a landmark's movement


@constant
def fade(size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """One inside, falling to zero towards the edge: (h, w)."""
    reach = FADE * size[0]

    def ramp(length: int) -> Tensor:
        inward = torch.arange(length, device=device) + 0.5
        inward = torch.minimum(inward, length - inward) / reach
        return 0.5 - 0.5 * torch.cos(torch.pi * inward.clamp(max=1))

    return ramp(size[0])[:, None] * ramp(size[1])


class PartNet(nn.Module):
    """Pictures of a part (B, 3 P, h, w), the decoded one first, and a condition (B, D) -> what to add to that (B, 3, h,
    w)."""

    def __init__(self, pictures: int) -> None:
        """pictures: P."""
        super().__init__()
        fine, coarse = WIDTHS
        self.conv_in = nn.Conv2d(3 * pictures * 4, fine, 3, padding=1)
        self.fine = ResBlock(fine, fine, COND_DIM)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(ResBlock(coarse, coarse, COND_DIM) for _ in range(2))
        self.up = nn.Conv2d(coarse, fine, 1)
        self.last = ResBlock(fine, fine, COND_DIM)
        self.norm_out = nn.GroupNorm(norm_groups(fine), fine)
        self.conv_out = nn.Conv2d(fine, 4 * 4, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, pictures: Tensor, cond: Tensor) -> Tensor:
        x = F.pixel_unshuffle(pictures, 2).contiguous(memory_format=torch.channels_last)
        x = self.fine(self.conv_in(x), cond)
        hidden = self.down(x)
        for block in self.coarse:
            hidden = block(hidden, cond)
        x = x + upsample(self.up(hidden))
        add, erase = (
            F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(self.last(x, cond)))), 2).float().split([3, 1], dim=1)
        )
        # Erasing has its own channel: to shut an eye by adding alone, every detail would have to be cancelled exactly.
        return add - erase * pictures[:, :3]


class PartRefiner(nn.Module):
    """Decoded frames -> frames with eyes and mouth drawn again; a new one changes nothing."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        size = 2 * config.motion_size
        hidden = [nn.Linear(size + 6, COND_DIM), nn.GELU(), nn.Linear(COND_DIM, COND_DIM), nn.GELU()]
        self.move = nn.Sequential(*hidden, nn.Linear(COND_DIM, 6))
        nn.init.zeros_(self.move[-1].weight)
        nn.init.zeros_(self.move[-1].bias)
        # The network is told which eye it draws: the right one's picture is mirrored for it, the motion is not.
        self.side = nn.Parameter(torch.randn(2, COND_DIM) * 0.2)
        self.cond = nn.Sequential(nn.Linear(size, COND_DIM), nn.SiLU(), nn.Linear(COND_DIM, COND_DIM))
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(COND_DIM, COND_DIM), nn.SiLU())
        self.eye, self.mouth = PartNet(4), PartNet(2)
        self.inner_mouth: InnerMouth | None = None
        if config.mouth_channels:
            self.inner_mouth = InnerMouth(config.mouth_channels, config.motion_size)
            self.from_code = nn.Linear(config.mouth_channels, COND_DIM)
            nn.init.zeros_(self.from_code.bias)

    def parts(self, portrait: Tensor, marks: Tensor, coordinates: Tensor, landmarks: Tensor) -> Parts:
        """What is kept of portraits (B, 3, H, W) with marks (B, K, 3), coordinates (B, L) and landmarks (B, 3, 2)."""
        size = portrait.shape[-1]
        shape = cut_size(MOUTH, size)
        eyes, lidded = (
            cut_eyes(image, landmarks, cut_size(EYE, size)) for image in (portrait, without_eyes(portrait, marks))
        )
        mouth = cut(portrait, corners(landmarks[:, 2], shape, size), shape)
        code = portrait.new_zeros(len(portrait), 0)
        if self.inner_mouth is not None:
            code = self.inner_mouth.of_portrait(mouth, coordinates)
        return Parts(eyes, lidded, mouth, landmarks, coordinates, code)

    def landmarks(self, motion: Tensor, reference_motion: Tensor, reference_landmarks: Tensor) -> Tensor:
        """Where the parts are, in fractions of the frame (B, 3, 2): from coordinates of the frame and of the portrait
        (B, L) and the portrait's landmarks (B, 3, 2)."""
        known = [motion, motion - reference_motion, (reference_landmarks.flatten(1) - 0.5) / MOVE_UNIT]
        return reference_landmarks + MOVE_UNIT * self.move(torch.cat(known, dim=1)).float().unflatten(1, (3, 2))

    def additions(
        self, motion: Tensor, turn: Tensor, eyes: Tensor, mouth: Tensor, parts: Parts, image_size: int
    ) -> tuple[Tensor, Tensor]:
        """What to add to decoded cuts of eyes (B, 2, 3, h, w), the second one mirrored, and mouths (B, 3, h, w): the
        same shapes. `motion` (B, L) and `turn` (B, 2) as for `forward`."""
        cond = self.cond(torch.cat([motion, motion - parts.coordinates], dim=1))
        sided = self.mix(cond[:, None] + self.side).flatten(0, 1)
        inside = cond if self.inner_mouth is None else cond + self.from_code(parts.code)
        moved = turned(parts.eyes, turn, image_size)
        pictures = torch.cat([eyes, parts.eyes, moved, parts.lidded], dim=2).flatten(0, 1)
        return (
            self.eye(pictures, sided).unflatten(0, (-1, 2)),
            self.mouth(torch.cat([mouth, parts.mouth], dim=1), self.mix(inside)),
        )

    def forward(self, image: Tensor, motion: Tensor, turn: Tensor, parts: Parts) -> Tensor:
        """Decoded frames (B, 3, H, W), their coordinates (B, L), how far their eyes have turned (B, 2; `eye_turn`) and
        the portraits' parts -> frames (B, 3, H, W)."""
        size = image.shape[-1]
        here = self.landmarks(motion, parts.coordinates, parts.landmarks)
        sizes = (cut_size(EYE, size), cut_size(EYE, size), cut_size(MOUTH, size))
        places = [corners(here[:, part], sizes[part], size) for part in range(3)]
        one, other, mouth = (cut(image, places[part], sizes[part]) for part in range(3))
        eyes = torch.stack([one, other.flip(-1)], dim=1)
        added_eyes, added_mouth = self.additions(motion, turn, eyes, mouth, parts, size)
        image = image.clone()
        for part, added in enumerate((added_eyes[:, 0], added_eyes[:, 1].flip(-1), added_mouth)):
            height, width = sizes[part]
            added = added * fade(sizes[part], image.device)
            for index, (top, left) in enumerate(places[part]):
                image[index, :, top : top + height, left : left + width] += added[index]
        return image
