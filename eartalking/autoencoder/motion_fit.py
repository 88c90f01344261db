"""Motion fitted to pixels: from what the frame encoder reads to what makes the portrait lie on the frame.

A reading is right to a few degrees; but the portrait's surface (`eartalking.autoencoder.surface`) says where each pixel
of the portrait goes under a motion, and the frame says whether it went there. So the coordinates are moved by
Gauss-Newton steps until the frame, sampled where the portrait's pixels land, looks like the portrait: Lucas and
Kanade's image alignment with a head for its warp, coarse to fine. The encoder's own errors say how far each coordinate
may go (a Gaussian prior about the reading), and pixels that do not fit, like a mouth's inside or what is hidden, lose
their weight. A portrait that was read wrongly does not matter: what is fitted is the movement.

Notation: B batch, H W pixels of a frame, S pixels a side of the surface, M points of it, L coordinates of the motion
code. Images are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jacfwd, jvp, vmap

from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields, movers
from eartalking.modules.warp import identity_grid
from eartalking.motion.vector import HEAD_POSE, TRANSLATION

LEVELS = (3.0, 1.5, 0.8)  # blur of both pictures in surface pixels
STEPS = 4  # per level
STRIDE = 2  # surface pixels between those that are compared
NOISE = 1.2  # of the contrast of a pixel that fits


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W)."""
    reach = max(1, int(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=images.shape[1]), kernel.transpose(2, 3), groups=images.shape[1])


def contrast(images: Tensor, sigma: float) -> Tensor:
    """How pixels differ from what is around them, in units of how much pixels do around there: light and shade drop
    out.
    """
    around = 4 * sigma + 2
    detail = blur(images, sigma) - blur(images, around)
    return detail / (blur(detail.square().mean(1, keepdim=True), around).sqrt() + 0.03)


def with_slopes(images: Tensor) -> Tensor:
    """(B, C, S, S) -> (B, 3 C, S, S): the images and their slopes to the right and down, per unit of [-1, 1]."""
    unit = images.shape[-1] / 2
    right = F.pad((images[..., 2:] - images[..., :-2]) / 2, (1, 1, 0, 0))
    down = F.pad((images[..., 2:, :] - images[..., :-2, :]) / 2, (0, 0, 1, 1))
    return torch.cat([images, right * unit, down * unit], dim=1)


def fit_motion(
    surface: SurfaceEncoder,
    fields: SurfaceFields,
    home: Tensor,
    to_motion: Callable[[Tensor], Tensor],
    frames: Tensor,
    portraits: Tensor,
    read: Tensor,
    error: Tensor,
) -> Tensor:
    """Coordinates (B, L) under which the portraits lie on the frames.

    Args:
        fields, home: the portraits' surfaces, and where they are before they move (`SurfaceEncoder.home`).
        to_motion: coordinates (B, L) -> motion vectors (B, L).
        frames, portraits: (B, 3, H, W).
        read: (B, L), where to start from. error: (L,), the usual error of each.
    """
    side = fields.cover.shape[-1]
    scale = frames.shape[-1] // side
    frames, portraits = (F.avg_pool2d(images.float(), scale) for images in (frames, portraits))
    points = _Points.of(surface, fields, home)
    certainty = torch.diag(1 / error.clamp_min(0.02).square())
    read = found = read.float()
    # A unit of each coordinate, in its column of the motion vector.
    unit = to_motion(torch.ones_like(error)) - to_motion(torch.zeros_like(error))
    for sigma in LEVELS:
        target = with_slopes(contrast(frames, sigma))
        goal = _every_second(contrast(portraits, sigma)).flatten(2)  # (B, 3, M)
        # Neighbouring pixels of a blurred picture are not independent, so each counts for less.
        certainty_of_pixel = 1 / (NOISE**2 * 3 * sigma)
        for _ in range(STEPS):
            motion = to_motion(found)
            residual, slopes, weight = points.compare(motion, target, goal)
            jacobian = torch.einsum("bkcm,bkml->bcml", slopes, points.moves(motion) * unit)
            weighted = jacobian * (certainty_of_pixel * weight)[:, None, :, None]
            normal = torch.einsum("bcml,bcmk->blk", weighted, jacobian) + certainty
            slope = torch.einsum("bcml,bcm->bl", weighted, residual) + (found - read) @ certainty
            found = found - torch.linalg.solve(normal, slope)
    # Where a face is hardly seen the steps can go wrong: what explains the frame no better than the reading is dropped.
    # A point counts for 1 where it does not fit at all, 0 where it does.
    misfit = [
        (points.shown - points.compare(to_motion(coordinates), target, goal)[2]).sum(1) for coordinates in (read, found)
    ]
    return torch.where((misfit[1] < misfit[0])[:, None], found, read)


def _every_second(values: Tensor) -> Tensor:
    return values[..., ::STRIDE, ::STRIDE]


class _Points(NamedTuple):
    """The points of the portraits' surfaces that are compared: `fields` at them; where the picture shows them when
    nothing has moved (B, 2, M), less their place on the surface then; 1 where they belong to the person (B, M); what a
    unit of each mover does to them (B, M, movers, 3)."""

    surface: SurfaceEncoder
    fields: SurfaceFields
    start: Tensor
    shown: Tensor
    shapes: Tensor

    @classmethod
    def of(cls, surface: SurfaceEncoder, fields: SurfaceFields, home: Tensor) -> _Points:
        grid = identity_grid(fields.cover.shape[-1], home.device).permute(0, 3, 1, 2)
        start = _every_second(grid).flatten(2) - _every_second(home).flatten(2)
        fields = fields.at(_every_second)
        shown = (fields.cover > 0.5).flatten(1).float()
        shapes = torch.einsum("kmc,bkn->bmcn", surface.basis, fields.components.flatten(2))
        return cls(surface, fields, start, shown, shapes)

    def compare(self, motion: Tensor, target: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (B, 3, M), the frame's slopes (B, 2, 3, M) and the points' weights (B, M) under motion vectors."""
        place = self.start + self.surface.place(self.fields, self.surface.moved(self.fields, motion), motion)[0]
        seen = F.grid_sample(target, place.transpose(1, 2)[:, None], align_corners=False)[:, :, 0]  # (B, 9, M)
        residual = seen[:, :3] - goal
        weight = self.shown * (place.abs().amax(1) < 1) / (1 + residual.square().sum(1))
        return residual, seen[:, 3:].unflatten(1, (2, 3)), weight

    def moves(self, motion: Tensor) -> Tensor:
        """How far points go in the picture per unit of each column of the motion vectors: (B, 2, M, L)."""
        rest = self.surface.moved(self.fields, motion)
        ways = torch.eye(3, device=motion.device)[:, None, :, None]
        by_point = torch.stack(
            [_slope(lambda r: self.surface.place(self.fields, r, motion)[0], rest, way) for way in ways], dim=2
        )  # (B, 2, 3, M)
        by_mover = torch.einsum("bkcn,bmcn->bknm", by_point, self.shapes)
        moves = by_mover @ vmap(jacfwd(lambda one: movers(one[None])[0]))(motion)[:, None]
        for column in (*range(HEAD_POSE.start, HEAD_POSE.stop), *range(TRANSLATION.start, TRANSLATION.stop)):
            way = torch.eye(motion.shape[1], device=motion.device)[column]
            moves[..., column] += _slope(lambda m: self.surface.place(self.fields, rest, m)[0], motion, way)
        return moves


def _slope(function: Callable[[Tensor], Tensor], at: Tensor, way: Tensor) -> Tensor:
    return jvp(function, (at,), (way.expand_as(at),))[1]
