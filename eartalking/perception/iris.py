"""The irises and lids of a face whose mesh is known, each eye looked at on its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from eartalking.perception.face_mesh import (
    LEFT_EYE_INNER,
    LEFT_EYE_OUTER,
    RIGHT_EYE_INNER,
    RIGHT_EYE_OUTER,
    FaceMesh,
)
from eartalking.perception.graph_network import GraphNetwork
from eartalking.perception.turned_square import Picture, TurnedSquare

EYE_CUT = 2.3  # side of the network's cut, in widths of the eye
CORNERS = ((RIGHT_EYE_OUTER, RIGHT_EYE_INNER), (LEFT_EYE_INNER, LEFT_EYE_OUTER))  # as seen from left to right


@dataclass(frozen=True)
class EyePoints:
    """One eye; x right and y down in the picture's pixels, z in pixels, smaller is nearer.

    Attributes:
        outline: (71, 3); the first 16 go round the opening between the lids, the others are lid folds and brow.
        iris: (5, 3) its centre, then four points on its edge.
    """

    outline: np.ndarray
    iris: np.ndarray


def read_eyes(picture: Picture, meshes: list[FaceMesh]) -> list[tuple[EyePoints, EyePoints]]:
    """The person's right and left eye of every mesh."""
    network, squares = _network(), [_square(mesh, eye) for mesh in meshes for eye in (0, 1)]
    if not squares:
        return []
    cuts = picture.cuts(squares, network.size[0]) / 255
    cuts[1::2] = cuts[1::2].flip(2)  # the network knows right eyes
    with torch.inference_mode():
        outline, iris = (points.numpy().reshape(len(squares), -1, 3) for points in network(cuts))
    eyes = []
    for index, square in enumerate(squares):
        places = [points[index].astype(np.float64) / network.size[0] for points in (outline, iris)]
        for place in places if index % 2 else ():
            place[:, 0] = 1 - place[:, 0]
        eyes.append(EyePoints(*(square.to_picture(place) for place in places)))
    return list(zip(eyes[::2], eyes[1::2], strict=True))


def _square(mesh: FaceMesh, eye: int) -> TurnedSquare:
    start, end = (mesh.points[corner] for corner in CORNERS[eye])
    middle, across = (start + end) / 2, end - start
    # A head that is turned shows a narrower eye, which is no smaller for that.
    return TurnedSquare(float(middle[0]), float(middle[1]), EYE_CUT * float(np.linalg.norm(across)), mesh.roll)


@lru_cache(maxsize=1)
def _network() -> GraphNetwork:
    return GraphNetwork.load("iris")
