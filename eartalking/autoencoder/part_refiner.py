"""Part refiner: eyes and mouth, drawn once more at full resolution.

The decoder moves and paints a face on a grid of a quarter of the resolution: an eye is six of its cells wide, a lid
less than one high. What people look at is therefore cut out of the decoded frame and of the portrait, at whole pixels,
and a small
network draws what is missing: lids that close, irises that turn, lips and teeth. What it adds fades out towards the
edge of the cut, so nothing can be seen of it there. Where the parts are in the frame follows from where they are in the
portrait and from the motion, so nothing is detected while streaming.

Notation: B batch, H W pixels of a frame, h w of a cut, L coordinates of the motion code. Images are in [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.config import AutoencoderConfig
from eartalking.modules.constant import constant
from eartalking.modules.res_block import ResBlock, norm_groups, upsample

EYE, MOUTH = (
    (0.1875, 0.15625),
    (0.28125, 0.25),
)  # width and height of the cuts in fractions of the frame: 48 x 40, 72 x 64 of 256
FADE = 1 / 8  # of a cut's height: how wide its edge is
COND_DIM = 128
WIDTHS = (24, 48)
MOVE_UNIT = 0.1  # of the frame: the size of a landmark's movement


def cut_size(part: tuple[float, float], image_size: int) -> tuple[int, int]:
    """Height and width of a part's cut in pixels, multiples of four."""
    width, height = (4 * max(2, round(side * image_size / 4)) for side in part)
    return height, width


def corners(landmarks: Tensor, size: tuple[int, int], image_size: int) -> list[tuple[int, int]]:
    """Top and left pixel of the cut around each of the points (B, 2); cuts stay inside the frame."""
    points = (landmarks.detach() * image_size).nan_to_num(0.0).tolist()
    return [
        tuple(
            min(max(round(middle - side / 2), 0), image_size - side) for middle, side in zip((y, x), size, strict=True)
        )
        for x, y in points
    ]


def cut(images: Tensor, places: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w)."""
    height, width = size
    return torch.stack(
        [image[:, top : top + height, left : left + width] for image, (top, left) in zip(images, places, strict=True)]
    )


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
    """A part as decoded and as in the portrait (B, 3, h, w) each, and a condition (B, D) -> what to add (B, 3, h,
    w).
    """

    def __init__(self) -> None:
        super().__init__()
        fine, coarse = WIDTHS
        self.conv_in = nn.Conv2d(6 * 4, fine, 3, padding=1)
        self.fine = ResBlock(fine, fine, COND_DIM)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(ResBlock(coarse, coarse, COND_DIM) for _ in range(2))
        self.up = nn.Conv2d(coarse, fine, 1)
        self.last = ResBlock(fine, fine, COND_DIM)
        self.norm_out = nn.GroupNorm(norm_groups(fine), fine)
        self.conv_out = nn.Conv2d(fine, 4 * 4, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, decoded: Tensor, portrait: Tensor, cond: Tensor) -> Tensor:
        x = F.pixel_unshuffle(torch.cat([decoded, portrait], dim=1), 2).contiguous(memory_format=torch.channels_last)
        x = self.fine(self.conv_in(x), cond)
        hidden = self.down(x)
        for block in self.coarse:
            hidden = block(hidden, cond)
        x = x + upsample(self.up(hidden))
        add, erase = (
            F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(self.last(x, cond)))), 2).float().split([3, 1], dim=1)
        )
        # Erasing has its own channel: to shut an eye by adding alone, every detail would have to be cancelled exactly.
        return add - erase * decoded


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
        self.eye, self.mouth = PartNet(), PartNet()

    def landmarks(self, motion: Tensor, reference_motion: Tensor, reference_landmarks: Tensor) -> Tensor:
        """Where the parts are, in fractions of the frame (B, 3, 2): from coordinates of the frame and of the portrait
        (B, L) and the portrait's landmarks (B, 3, 2)."""
        known = [motion, motion - reference_motion, (reference_landmarks.flatten(1) - 0.5) / MOVE_UNIT]
        return reference_landmarks + MOVE_UNIT * self.move(torch.cat(known, dim=1)).float().unflatten(1, (3, 2))

    def additions(
        self, motion: Tensor, reference_motion: Tensor, eyes: tuple[Tensor, Tensor], mouth: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What to add to the cuts: eyes (B, 2, 3, h, w), mouth (B, 3, h, w); of each the decoded and the portrait's cut
        are given, the second eye mirrored."""
        cond = self.cond(torch.cat([motion, motion - reference_motion], dim=1))
        sided = self.mix(cond[:, None] + self.side).flatten(0, 1)
        return (
            self.eye(*(cuts.flatten(0, 1) for cuts in eyes), sided).unflatten(0, (-1, 2)),
            self.mouth(*mouth, self.mix(cond)),
        )

    def forward(
        self, image: Tensor, portrait: Tensor, motion: Tensor, reference_motion: Tensor, reference_landmarks: Tensor
    ) -> Tensor:
        """Decoded frames and portraits (B, 3, H, W), coordinates (B, L), the portrait's landmarks -> frames (B, 3, H,
        W).
        """
        size = image.shape[-1]
        here = self.landmarks(motion, reference_motion, reference_landmarks)
        eye_size, mouth_size = cut_size(EYE, size), cut_size(MOUTH, size)
        sizes = (eye_size, eye_size, mouth_size)
        places = [corners(here[:, part], sizes[part], size) for part in range(3)]
        cuts = [
            (
                cut(image, places[part], sizes[part]),
                cut(portrait, corners(reference_landmarks[:, part], sizes[part], size), sizes[part]),
            )
            for part in range(3)
        ]
        eyes = tuple(torch.stack([left, right.flip(-1)], dim=1) for left, right in zip(cuts[0], cuts[1], strict=True))
        added_eyes, added_mouth = self.additions(motion, reference_motion, eyes, cuts[2])
        image = image.clone()
        for part, added in enumerate((added_eyes[:, 0], added_eyes[:, 1].flip(-1), added_mouth)):
            height, width = sizes[part]
            added = added * fade(sizes[part], image.device)
            for index, (top, left) in enumerate(places[part]):
                image[index, :, top : top + height, left : left + width] += added[index]
        return image
