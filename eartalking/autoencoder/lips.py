"""A portrait's own mouth: how far its lips are open, and what lies behind them.

A reading of single face units from marks is drawn towards the usual (an open mouth is read as three quarters as open),
and lips that were read too near to each other could not meet: the stream moves them by the difference. So the units of
the mouth are moved until the lips, by the portrait's own surface, would stand just as far apart as they do in the
picture when they are opened by these units from a shut mouth (Gauss-Newton steps, the reading as a prior).

Notation: B batch, K marks, P pairs of lip points, L coordinates of the motion code. Places are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields, background_plate
from eartalking.modules.res_block import upsample
from eartalking.modules.warp import identity_grid
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.perception.face_marks import LIPS_OUTLINE
from eartalking.perception.face_mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER

# The mesh's points of the lips between the corners, from the person's right to the left.
UPPER_INNER, UPPER_OUTER = (80, 81, 82, 13, 312, 311, 310), (40, 39, 37, 0, 267, 269, 270)
LOWER_INNER, LOWER_OUTER = (88, 178, 87, 14, 317, 402, 318), (91, 181, 84, 17, 314, 405, 321)
MOUTH = slice(UNIT_INDEX["jawForward"], UNIT_INDEX["mouthUpperUpRight"] + 1)
SHUT_GAP = 0.013  # of the distance of the outer eye corners: how far apart the mesh sees lips that are shut
OVER = 1.2  # times the gap that a mouth is read as open: what is drawn on a grid of four pixels closes a little less
EXACT = 0.002  # how exactly a gap shall be met, in units of [-1, 1]: a quarter of a pixel of 256
APART, EDGE = 1.3, 0.1  # heights of a lip: from where on its movement is read rightly; how far it goes over its edge
MORE = 0.3  # by how much more the edge of a lip moves than what is a lip's height away
COLUMN = 0.12  # of the width of the lips: how far one of their points speaks for what is beside it
BEHIND = 0.15  # head heights: enough that no tooth is mixed into a lip
SEAM = (0.12, 0.27, 0.24)  # by how much the line between shut lips is darker than these: red, green, blue
UNSEEN, SEEN = 0.15, 0.55  # of the portrait's opening: up to where nothing shows between its lips, and from where all
LEAST_APART = 0.012  # in [-1, 1], 1.5 pixels of 256: lips that are nearer to each other count as shut
STEPS = 3
NUDGE = 0.05  # of a coordinate: the step by which slopes are measured


def with_teeth(fields: SurfaceFields, marks: Tensor) -> SurfaceFields:
    """The surface where what shows between the lips belongs to the skull, and lies behind them.

    The surface encoder has seen few open mouths, and takes teeth for the lips around them; so they were drawn together
    when the lips closed, instead of being covered.
    """
    between = between_lips(marks, fields.cover.shape[-1])
    return fields._replace(components=fields.components * (1 - between), behind=BEHIND * between)


def with_sharp_lips(fields: SurfaceFields, marks: Tensor) -> SurfaceFields:
    """The surface where each lip moves, up to its edge, by what it does a lip's height away from there.

    The surface encoder draws a smooth movement across the line where lips part: half of the true one at their edges,
    all of it at `APART` times a lip's height from there. So mouths opened by two thirds of what was asked. With this
    they open by the whole (the median of held-out SynthTalk heads).
    """
    side = fields.cover.shape[-1]
    grid = identity_grid(side, marks.device)
    places = (grid.view(1, -1, 1, 2) + 1) / 2  # (1, M, 1, 2)
    shift, more = torch.zeros_like(grid), torch.zeros_like(grid[..., 0])
    for inner, outer in ((UPPER_INNER, UPPER_OUTER), (LOWER_INNER, LOWER_OUTER)):
        start, end = marks[:, None, inner, :2], marks[:, None, outer, :2]  # (B, 1, P, 2)
        height, away = end - start, places - start
        length = height.norm(dim=3).clamp_min(1e-4)
        along = (away * height).sum(3) / length.square()  # (B, M, P)
        aside = (away[..., 0] * height[..., 1] - away[..., 1] * height[..., 0]) / length
        width = (start[:, :, -1] - start[:, :, 0]).norm(dim=2)[..., None]
        weight = torch.exp(-0.5 * (aside / (COLUMN * width)).square())
        missing = (APART - along) * ((along > -EDGE) & (along < APART))
        steps = (weight * missing)[..., None] * height
        total = weight.sum(2) + 0.05
        shift = shift + (steps.sum(2) / total[..., None]).view(-1, side, side, 2)
        more = more + ((weight * missing).sum(2) / total).view(-1, side, side)
    components = F.grid_sample(fields.components, grid + 2 * shift, padding_mode="border", align_corners=False)
    return fields._replace(components=components * (1 + MORE * more)[:, None])


class Lips(NamedTuple):
    """The lips of portraits: the surface at the middle of their red, upper ones first, (B, C, 1, 2 P) each; how far
    they are apart (B,), in [-1, 1]; and the portraits (B, 3, H, W) where what shows between the lips has their colour.
    """

    red: SurfaceFields
    apart: Tensor
    covered: Tensor

    @classmethod
    def of(cls, fields: SurfaceFields, marks: Tensor, portraits: Tensor) -> Lips:
        between = between_lips(marks, fields.cover.shape[-1])
        covered = background_plate(portraits, between)
        # The line where lips meet is darker than they are; drawn together, this is what becomes of the opening.
        dark = F.avg_pool2d(upsample(between, portraits.shape[-1] // between.shape[-1]), 5, 1, 2)
        covered = (covered + 1) * (1 - dark * dark.new_tensor(SEAM).view(3, 1, 1)) - 1
        return cls(_at_lips(fields, marks), _gaps(marks).norm(dim=1).mean(1), covered)

    def closing_over(self, surface: SurfaceEncoder, portraits: Tensor, motion: Tensor) -> Tensor:
        """What the portraits (B, C, H, W) show when their lips come together under motion vectors (B, L): less and less
        of what lies between them.

        A warp has no edges: between two lips that meet it would still show a narrow strip of teeth.
        """
        now = _apart(surface, self.red, motion) - _apart(surface, self.red, shut(motion))
        share = now.norm(dim=1).mean(1) / self.apart.clamp_min(1e-6)
        seen = ((share - UNSEEN) / (SEEN - UNSEEN)).clamp(0, 1)
        seen = torch.where(self.apart < LEAST_APART, 1.0, seen)[:, None, None, None]
        colours = torch.lerp(self.covered, portraits[:, :3], seen)
        return torch.cat([colours, portraits[:, 3:]], dim=1)


def between_lips(marks: Tensor, size: int) -> Tensor:
    """1 between the lips: (B, 1, size, size)."""
    places = (identity_grid(size, marks.device).view(-1, 2) + 1) / 2
    return inside(marks[:, LIPS_OUTLINE, :2], places).view(len(marks), 1, size, size)


def shut(motion: Tensor) -> Tensor:
    """Motion vectors (B, L) with no unit of the mouth."""
    motion = motion.clone()
    motion[:, MOUTH] = 0
    return motion


def inside(polygons: Tensor, places: Tensor) -> Tensor:
    """Whether places (P, 2) lie in polygons (B, V, 2), by the even-odd rule: (B, P) of 0 and 1."""
    start, end = polygons[:, None], polygons.roll(-1, 1)[:, None]  # (B, 1, V, 2)
    x, y = places[:, 0][None, :, None], places[:, 1][None, :, None]  # (1, P, 1)
    spans = (start[..., 1] > y) != (end[..., 1] > y)
    rise = end[..., 1] - start[..., 1]
    share = (y - start[..., 1]) / torch.where(rise == 0, 1.0, rise)
    left = x < start[..., 0] + share * (end[..., 0] - start[..., 0])
    return ((spans & left).sum(2) % 2).float()


def fit_lips(
    surface: SurfaceEncoder,
    fields: SurfaceFields,
    marks: Tensor,
    to_motion: Callable[[Tensor], Tensor],
    read: Tensor,
    error: Tensor,
) -> Tensor:
    """Coordinates (B, L) of portraits with these surfaces and marks (B, K, 3), of which only those of mouth units
    differ from `read` (B, L); `error` (L,) is how far off these usually are."""
    gaps = _gaps(marks)
    lips = _at_lips(fields, marks)
    from_shut = _apart(surface, lips, shut(to_motion(read)))
    certainty = torch.diag(1 / error[MOUTH].clamp_min(0.05).square())
    steps = torch.eye(len(error), device=read.device)[MOUTH]  # a unit of each coordinate of the mouth
    found = read.clone()
    for _ in range(STEPS):
        apart = _apart(surface, lips, to_motion(found))
        residual = (apart - from_shut - gaps).flatten(1)  # (B, 2 P)
        slopes = torch.stack(
            [(_apart(surface, lips, to_motion(found + NUDGE * step)) - apart).flatten(1) / NUDGE for step in steps],
            dim=2,
        )  # (B, 2 P, columns of the mouth)
        normal = slopes.transpose(1, 2) @ slopes / EXACT**2 + certainty
        slope = (slopes.transpose(1, 2) @ residual[..., None])[..., 0] / EXACT**2
        slope = slope + (found - read)[:, MOUTH] @ certainty
        found[:, MOUTH] -= torch.linalg.solve(normal, slope)
    return found


def _gaps(marks: Tensor) -> Tensor:
    """How far below the upper lip's points the lower lip's are (B, 2, P), less what shut lips seem to be apart."""
    gaps = marks[:, LOWER_INNER, :2] - marks[:, UPPER_INNER, :2]
    unit = (marks[:, LEFT_EYE_OUTER] - marks[:, RIGHT_EYE_OUTER]).norm(dim=1)[:, None, None]
    length = gaps.norm(dim=2, keepdim=True).clamp_min(1e-6)
    return 2 * OVER * (gaps * (1 - SHUT_GAP * unit / length).clamp_min(0)).transpose(1, 2)


def _at_lips(fields: SurfaceFields, marks: Tensor) -> SurfaceFields:
    """The surface at the middle of the lips' red, upper lip first: (B, C, 1, 2 P)."""
    upper = (marks[:, UPPER_INNER, :2] + marks[:, UPPER_OUTER, :2]) / 2
    lower = (marks[:, LOWER_INNER, :2] + marks[:, LOWER_OUTER, :2]) / 2
    places = 2 * torch.cat([upper, lower], dim=1)[:, None] - 1
    return fields.at(lambda values: F.grid_sample(values, places, align_corners=False))


def _apart(surface: SurfaceEncoder, lips: SurfaceFields, motion: Tensor) -> Tensor:
    """How far below the upper lip's points the lower lip's are under motion vectors (B, L): (B, 2, P)."""
    places = surface.place(lips, surface.moved(lips, motion), motion)[0]
    upper, lower = places.chunk(2, dim=2)
    return lower - upper
