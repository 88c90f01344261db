"""Where lips and eyes are in a portrait, drawn from the marks of its face: maps that a network can take beside pixels.

Notation: B batch, K marks, V corners of a polygon. Places are in fractions of the picture's side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eartalking.modules.warp import identity_grid
from eartalking.perception.face_marks import LIPS_OUTLINE, OPENING, eye_marks
from eartalking.perception.face_mesh import NUM_POINTS

# The mesh's points of the lips from the person's right corner to the left one.
_UPPER_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
_LOWER_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
_UPPER_INNER, _LOWER_INNER = LIPS_OUTLINE[:11], (LIPS_OUTLINE[0], *reversed(LIPS_OUTLINE[10:]))
NUM_MARK_MAPS = 4
NUM_MESH_MAPS = 5
SPACING = 0.014  # of the picture's side: how far a point of the mesh speaks for its surroundings
ALONE = 0.05  # weight of all points together below which none is near


def mark_maps(marks: Tensor, size: int) -> Tensor:
    """Marks (B, K, 3) -> upper lip, lower lip, what lies between them, the eyes' openings: (B, NUM_MARK_MAPS, size,
    size) of 0 and 1; all zero where no face was certain."""
    points = marks[..., :2]
    polygons = (
        points[:, (*_UPPER_OUTER, *reversed(_UPPER_INNER))],
        points[:, (*_LOWER_OUTER, *reversed(_LOWER_INNER))],
        points[:, LIPS_OUTLINE],
    )
    places = _places(size, marks)
    upper, lower, between = (inside(polygon, places) for polygon in polygons)
    lips = torch.stack([upper, lower, between], dim=1).unflatten(2, (size, size))
    return torch.cat([lips, eye_openings(marks, size)], dim=1)


def mesh_maps(marks: Tensor, points: Tensor, size: int) -> Tensor:
    """Marks (B, K, 3), and for each point of the mesh the place on a head that it marks, (NUM_POINTS, 3) -> for each
    place of the picture, that on the head, how much nearer than the face's middle it is, in tenths of the side, and
    whether the face is there: (B, NUM_MESH_MAPS, size, size); all zero where it is not."""
    mesh = marks[:, :NUM_POINTS]
    depth = 10 * (mesh[..., 2].mean(1, keepdim=True) - mesh[..., 2])
    told = torch.cat([points.expand(len(mesh), -1, -1), depth[..., None], torch.ones_like(depth)[..., None]], dim=2)
    known = (mesh.abs().amax((1, 2)) > 0).to(mesh.dtype)[:, None, None]
    # How near each row and each column is to each point: what is near a place is their product.
    lines = (torch.arange(size, device=marks.device) + 0.5) / size
    across, down = (
        torch.exp(-0.5 * ((lines[:, None] - mesh[:, None, :, axis]) / SPACING).square()) for axis in (0, 1)
    )  # (B, size, NUM_POINTS) each
    values = torch.einsum("bym,bxm,bmc->bcyx", down, across, told * known)
    weight = values[:, -1:]
    return values / weight.clamp_min(1e-6) * (weight / ALONE).clamp(max=1)


def between_lips(marks: Tensor, size: int) -> Tensor:
    """1 between the lips: (B, 1, size, size)."""
    return inside(marks[:, LIPS_OUTLINE, :2], _places(size, marks)).view(len(marks), 1, size, size)


def eye_openings(marks: Tensor, size: int) -> Tensor:
    """1 in the eyes' openings: (B, 1, size, size)."""
    places = _places(size, marks)
    openings = (inside(marks[:, eye_marks(eye)][:, :OPENING, :2], places) for eye in (0, 1))
    return torch.maximum(*openings).view(len(marks), 1, size, size)


def inside(polygons: Tensor, places: Tensor) -> Tensor:
    """Whether places (P, 2) lie in polygons (B, V, 2), by the even-odd rule: (B, P) of 0 and 1."""
    found = polygons.new_zeros(len(polygons), len(places))
    # Lips and eyes are a small part of a picture, and nothing beyond their outermost corners is in them.
    near = ((places >= polygons.amin((0, 1))) & (places <= polygons.amax((0, 1)))).all(1)
    start, end = polygons[:, None], polygons.roll(-1, 1)[:, None]  # (B, 1, V, 2)
    x, y = (places[near, axis][None, :, None] for axis in (0, 1))  # (1, N, 1)
    spans = (start[..., 1] > y) != (end[..., 1] > y)
    rise = end[..., 1] - start[..., 1]
    share = (y - start[..., 1]) / torch.where(rise == 0, 1.0, rise)
    left = x < start[..., 0] + share * (end[..., 0] - start[..., 0])
    found[:, near] = ((spans & left).sum(2) % 2).to(found)
    return found


def _places(size: int, marks: Tensor) -> Tensor:
    return (identity_grid(size, marks.device).view(-1, 2) + 1) / 2
