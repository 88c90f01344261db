"""A portrait's own mouth, fitted to its lips.

A reading of single face units from marks is drawn towards the usual (an open mouth is read as three quarters as open),
and lips that were read too near to each other could not meet: the stream moves them by the difference. So the units of
the mouth are moved until the lips, by the portrait's own surface, would stand just as far apart as they do in the
picture when they are opened by these units from a shut mouth (Gauss-Newton steps, the reading as a prior).

Notation: B batch, K marks, P pairs of lip points, L coordinates of the motion code. Places are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.perception.face_mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER

# The mesh's points of the lips between the corners, from the person's right to the left.
UPPER_INNER, UPPER_OUTER = (80, 81, 82, 13, 312, 311, 310), (39, 37, 37, 0, 267, 267, 269)
LOWER_INNER, LOWER_OUTER = (88, 178, 87, 14, 317, 402, 318), (181, 84, 84, 17, 314, 314, 405)
MOUTH = slice(UNIT_INDEX["jawForward"], UNIT_INDEX["mouthUpperUpRight"] + 1)
SHUT_GAP = 0.013  # of the distance of the outer eye corners: how far apart the mesh sees lips that are shut
EXACT = 0.002  # how exactly a gap shall be met, in units of [-1, 1]: a quarter of a pixel of 256
STEPS = 3
NUDGE = 0.05  # of a coordinate: the step by which slopes are measured


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
    shut = to_motion(read).clone()
    shut[:, MOUTH] = 0
    from_shut = _apart(surface, lips, shut)
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
    return 2 * (gaps * (1 - SHUT_GAP * unit / length).clamp_min(0)).transpose(1, 2)


def _at_lips(fields: SurfaceFields, marks: Tensor) -> SurfaceFields:
    """The surface at the middle of the lips' red, upper lip first: (B, C, 1, 2 P)."""
    upper = (marks[:, UPPER_INNER, :2] + marks[:, UPPER_OUTER, :2]) / 2
    lower = (marks[:, LOWER_INNER, :2] + marks[:, LOWER_OUTER, :2]) / 2
    places = 2 * torch.cat([upper, lower], dim=1)[:, None] - 1
    point, weight, cover, components = (
        F.grid_sample(value, places, align_corners=False)
        for value in (fields.point, fields.weight, fields.cover, fields.components)
    )
    return SurfaceFields(point, weight, cover, components, fields.camera)


def _apart(surface: SurfaceEncoder, lips: SurfaceFields, motion: Tensor) -> Tensor:
    """How far below the upper lip's points the lower lip's are under motion vectors (B, L): (B, 2, P)."""
    places = surface.place(lips, surface.moved(lips, motion), motion)[0]
    upper, lower = places.chunk(2, dim=2)
    return lower - upper
