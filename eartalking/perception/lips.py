"""The lips of a face whose mesh is known, looked at a second time.

The mesh's own lips are where lips usually are in such a face. This network goes back to the pixels around them. On 24
rendered heads with mouths in 12 states, lips that are shut are read 0.5 pixels of 256 apart (1.6 by the mesh), and the
opening between lips overlaps with the true one by 0.60 (0.46).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
import torch

from eartalking.perception.face_mesh import FaceMesh
from eartalking.perception.graph_network import GraphNetwork
from eartalking.perception.turned_square import Picture

# The mesh's points that it finds, in its order: the outer edge of the lips, the inner one, and two rows between, each
# from the person's right corner to the left one, first of the lower and then of the upper lip.
LIP_POINTS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291), *(185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308), *(191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306), *(184, 74, 73, 72, 11, 302, 303, 304, 408),
    *(62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292), *(183, 42, 41, 38, 12, 268, 271, 272, 407),
)  # fmt: skip


def with_lips(picture: Picture, mesh: FaceMesh) -> FaceMesh:
    """The same mesh with its lips where they are seen; their depth stays as it was."""
    network, square = _network(), mesh.next_square
    with torch.inference_mode():
        places = network(picture.cuts([square], network.size[0]) / 255)[0][0].numpy() / network.size[0]
    points = mesh.points.copy()
    points[list(LIP_POINTS), :2] = square.to_picture(places.astype(np.float64))
    return dataclasses.replace(mesh, points=points)


@lru_cache(maxsize=1)
def _network() -> GraphNetwork:
    return GraphNetwork.load("lips")
