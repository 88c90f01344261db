"""What the mesh and the irises of a portrait's face look like to a network: one tensor of points.

The networks that find them have seen real faces, so that what is learnt from these points on rendered heads holds on
photographs, too. Notation: B batch, NUM_MARKS points.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eartalking.modules.pixels import to_uint8
from eartalking.perception.face_mesh import CERTAIN, NUM_POINTS, FaceMesh, read_meshes, settle
from eartalking.perception.iris import read_eyes
from eartalking.perception.lips import with_lips
from eartalking.perception.turned_square import Picture, TurnedSquare

EYE_POINTS = 21  # of each eye: the first 16 go round the opening, then the iris's centre and four points of its edge
OPENING = 16
NUM_MARKS = NUM_POINTS + 2 * EYE_POINTS
# The mesh's points around the opening of the lips, one after the other.
LIPS_OUTLINE = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
# Where the face is in a crop as `crop_face` makes it, in fractions of its side: the network's cut.
_MIDDLE, _SIDE = (0.5, 0.52), 0.72
_ROLLS = (0.0, 25.0, -25.0)


def eye_marks(eye: int) -> slice:
    """The marks of the person's right (0) or left (1) eye."""
    return slice(NUM_POINTS + eye * EYE_POINTS, NUM_POINTS + (eye + 1) * EYE_POINTS)


def read_marks(images: Tensor) -> Tensor:
    """Crops (B, 3, H, W) in [-1, 1], as `crop_face` makes them -> marks (B, NUM_MARKS, 3) in fractions of the crop's
    side: x right, y down, z smaller is nearer. All zero where no face is certain."""
    marks = [_marks_of(image) for image in to_uint8(images).cpu().numpy()]
    return torch.from_numpy(np.stack(marks)).to(images.device)


def _marks_of(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (NUM_MARKS, 3) float32."""
    picture, side = Picture(image), image.shape[0]
    mesh = _find(picture, side)
    if mesh is None:
        return np.zeros((NUM_MARKS, 3), np.float32)
    eyes, mesh = read_eyes(picture, [mesh])[0], with_lips(picture, mesh)
    points = [mesh.points, *(part for eye in eyes for part in (eye.outline[:OPENING], eye.iris))]
    return (np.concatenate(points) / side).astype(np.float32)


def _find(picture: Picture, side: int) -> FaceMesh | None:
    for roll in _ROLLS:
        square = TurnedSquare(_MIDDLE[0] * side, _MIDDLE[1] * side, _SIDE * side, roll)
        mesh = settle(picture, read_meshes(picture, [square])[0])
        if mesh.certainty >= CERTAIN:
            return mesh
    return None
