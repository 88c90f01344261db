"""The mesh of a face: 468 points in three dimensions, of faces as a camera or our renderer shows them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from eartalking.io.portrait import Box
from eartalking.perception.graph_network import GraphNetwork
from eartalking.perception.turned_square import Picture, TurnedSquare

NUM_POINTS = 468
CUT_SIDE = 1.5  # side of the network's cut, in sides of the face's box
# Points of the mesh; right and left are the person's own.
RIGHT_EYE_OUTER, RIGHT_EYE_INNER, LEFT_EYE_INNER, LEFT_EYE_OUTER = 33, 133, 362, 263
CERTAIN = 8.0  # certainty of a mesh that counts, where its face stands upright in the cut
SETTLED = 0.03  # drift of a mesh that need not be read again
CHIN, FOREHEAD = 152, 10


@dataclass(frozen=True)
class FaceMesh:
    """The mesh of one face.

    Attributes:
        points: (468, 3) float64. x right and y down in the picture's pixels; z in pixels too, smaller is nearer to
            the camera, 0 at about the depth of the head's middle.
        certainty: the network's logit that the cut shows a face that stands upright in it. Faces give 10 to 30, what
            is turned upside down below 10, what is no face below 0 with few exceptions.
        square: the cut that was read.
    """

    points: np.ndarray
    certainty: float
    square: TurnedSquare

    @property
    def roll(self) -> float:
        """How far the line through the outer eye corners is turned clockwise as seen, degrees in -180..180."""
        across, down, _ = self.points[LEFT_EYE_OUTER] - self.points[RIGHT_EYE_OUTER]
        return float(np.degrees(np.arctan2(down, across)))

    @property
    def box(self) -> Box:
        """left, top, right, bottom of all points, pixels."""
        (left, top), (right, bottom) = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return float(left), float(top), float(right), float(bottom)

    @property
    def upright(self) -> np.ndarray:
        """(468, 3): the points turned about the picture's origin so that the eyes are level."""
        turn = np.radians(self.roll)
        cosine, sine = np.cos(turn), np.sin(turn)
        x, y, z = self.points.T
        return np.stack([cosine * x + sine * y, cosine * y - sine * x, z], axis=1)

    @property
    def next_square(self) -> TurnedSquare:
        """The cut that fits this mesh: its longer side times CUT_SIDE, levelled by the eyes."""
        upright = self.upright[:, :2]
        low, high = upright.min(0), upright.max(0)
        middle, turn = (low + high) / 2, np.radians(self.roll)
        x = np.cos(turn) * middle[0] - np.sin(turn) * middle[1]
        y = np.sin(turn) * middle[0] + np.cos(turn) * middle[1]
        return TurnedSquare(float(x), float(y), CUT_SIDE * float((high - low).max()), self.roll)

    @property
    def drift(self) -> float:
        """How much the cut that fits differs from the one that was read, in sides; 0.02 or less on a face at rest."""
        better, turn = self.next_square, (self.next_square.roll - self.square.roll + 180) % 360 - 180
        moved = np.hypot(better.x - self.square.x, better.y - self.square.y) / self.square.side
        return float(moved + abs(better.side / self.square.side - 1) + abs(np.radians(turn)) / 2)


def read_meshes(picture: Picture, squares: list[TurnedSquare]) -> list[FaceMesh]:
    """One mesh per square; the squares should hold CUT_SIDE boxes of a face, levelled by its eyes."""
    network, meshes = _network(), []
    size = network.size[0]
    for start in range(0, len(squares), 8):
        batch = squares[start : start + 8]
        with torch.inference_mode():
            points, logits = network(picture.cuts(batch, size) / 255)
        places = points.numpy().reshape(len(batch), NUM_POINTS, 3) / size
        for square, place, logit in zip(batch, places.astype(np.float64), logits.flatten().tolist(), strict=True):
            meshes.append(FaceMesh(square.to_picture(place), logit, square))
    return meshes


def settle(picture: Picture, mesh: FaceMesh, rounds: int = 6) -> FaceMesh:
    """The mesh read again from the cut that fits it, until it stays where it is, at most `rounds` times."""
    for _ in range(rounds):
        mesh = read_meshes(picture, [mesh.next_square])[0]
        if mesh.drift < SETTLED:
            break
    return mesh


@lru_cache(maxsize=1)
def _network() -> GraphNetwork:
    return GraphNetwork.load("face_mesh")
