"""The two face detectors: candidates for faces in square cuts of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from eartalking.perception.graph_network import GraphNetwork
from eartalking.perception.turned_square import Picture, TurnedSquare

# Anchors of a detector: (cells per side, anchors per cell), in the order of its outputs.
_ANCHORS = {"face_detector_far": ((48, 1),), "face_detector_near": ((16, 2), (8, 6))}
DETECTORS = tuple(_ANCHORS)
RIGHT_EYE, LEFT_EYE = 0, 1  # of the six points; right and left are the person's


@dataclass(frozen=True)
class FaceCandidate:
    """What a detector takes for a face; lengths in the picture's pixels.

    Attributes:
        x, y, side: centre and side of its square box, brows to chin.
        points: (6, 2) right eye, left eye, tip of the nose, mouth, right ear, left ear.
        score: 0..1.
    """

    x: float
    y: float
    side: float
    points: np.ndarray
    score: float

    @property
    def roll(self) -> float:
        """How far the line through the eyes is turned clockwise as seen, degrees."""
        across, down = self.points[LEFT_EYE] - self.points[RIGHT_EYE]
        return float(np.degrees(np.arctan2(down, across)))


def detect(picture: Picture, squares: list[TurnedSquare], detector: str, threshold: float) -> list[FaceCandidate]:
    """Candidates in the cuts of all `squares` that score at least `threshold`, best first; a face may come often."""
    network, anchors = _network(detector), _anchor_centres(detector)
    size = network.size[0]
    found = []
    for start in range(0, len(squares), 8):
        batch = squares[start : start + 8]
        with torch.inference_mode():
            outputs = network(picture.cuts(batch, size, outside="zeros") / 127.5 - 1)
        boxes, logits = sorted((output.numpy() for output in outputs), key=lambda output: -output.shape[-1])
        scores = 1 / (1 + np.exp(-np.clip(logits[..., 0], -60, 60)))  # (B, anchors)
        for row, square in enumerate(batch):
            kept = np.flatnonzero(scores[row] >= threshold)
            values = boxes[row, kept] / size  # x, y, width, height, then six points, about the anchor
            places = values.reshape(-1, 8, 2)[:, [0, *range(2, 8)]] + anchors[kept, None]
            places = square.to_picture(places)
            for place, sides, score in zip(places, values[:, 2:4], scores[row, kept], strict=True):
                side = float(sides.max()) * square.side
                found.append(FaceCandidate(float(place[0, 0]), float(place[0, 1]), side, place[1:], float(score)))
    return sorted(found, key=lambda face: -face.score)


def merge(candidates: list[FaceCandidate], overlap: float = 0.3) -> list[FaceCandidate]:
    """One candidate per face, best first: those that overlap are averaged by their scores."""
    merged, rest = [], sorted(candidates, key=lambda face: -face.score)
    while rest:
        same = [face for face in rest if _overlap(rest[0], face) > overlap]
        rest = [face for face in rest if _overlap(rest[0], face) <= overlap]
        best = same[0]
        # Only what agrees in size and direction is averaged: a mean of two directions is neither.
        alike = [face for face in same if _overlap(best, face) > 0.5 and _turn(best, face) < 25]
        weights = np.array([face.score for face in alike])
        x, y, side = np.average([(face.x, face.y, face.side) for face in alike], axis=0, weights=weights)
        points = np.average([face.points for face in alike], axis=0, weights=weights)
        merged.append(FaceCandidate(float(x), float(y), float(side), points, best.score))
    return merged


def _overlap(a: FaceCandidate, b: FaceCandidate) -> float:
    """Intersection over union of the boxes, taken as upright squares."""
    reach = (a.side + b.side) / 2
    width = min(max(reach - abs(a.x - b.x), 0.0), a.side, b.side)
    height = min(max(reach - abs(a.y - b.y), 0.0), a.side, b.side)
    return width * height / (a.side**2 + b.side**2 - width * height)


def _turn(a: FaceCandidate, b: FaceCandidate) -> float:
    return abs((a.roll - b.roll + 180) % 360 - 180)


@cache
def _network(detector: str) -> GraphNetwork:
    return GraphNetwork.load(detector)


@cache
def _anchor_centres(detector: str) -> np.ndarray:
    """(anchors, 2) in fractions of the cut."""
    centres = []
    for cells, count in _ANCHORS[detector]:
        steps = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        centres.append(np.repeat(grid, count, axis=0))
    return np.concatenate(centres)
