"""How sharp eyes and mouths are, against true renders of the same people in the same states.

Of a photograph nobody knows how a mouth that opens would look, so only the rendered portraits are asked. Their true
frames are made of the very motion that the stream emitted.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.gates.table import GateRow, farthest_share, worst_row
from eartalking.perception.face_follower import FaceFollower
from eartalking.perception.mesh_readings import MeshReader
from eval.metrics.signals import Box, sharpness

NAME = "photographs_sharpness_parts"
# Points of the mesh around the two eyes and the mouth, and how many pixels beyond them belong to these.
PARTS = {"eyes": ((33, 159, 133, 145), (362, 386, 263, 374)), "mouth": ((61, 37, 0, 267, 291, 17),)}
MARGIN = 3


def parts_sharpness(reader: MeshReader, frames: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Sharpness of eyes and of mouth in frames (F, S, S, 3), over that of the true ones, on average."""
    shares: dict[str, list[float]] = {part: [] for part in PARTS}
    for image, target in zip(frames, true, strict=True):
        found = FaceFollower(reader).look(target)
        if found is None:
            continue
        for part, outlines in PARTS.items():
            for outline in outlines:
                box = _around(found[0].points[list(outline), :2], len(target))
                shares[part].append(sharpness(image, box) / max(sharpness(target, box), 1e-6))
    return {part: float(np.mean(values)) if values else math.nan for part, values in shares.items()}


def parts_row(by_subject: dict[str, dict[str, float]]) -> GateRow:
    """The gate's row, by rendered portrait and part."""
    shares = {f"{name}_{part}": value for name, parts in by_subject.items() for part, value in parts.items()}
    return worst_row(NAME, shares, farthest_share(shares), "parts")


def _around(points: np.ndarray, size: int) -> Box:
    """Of points (P, 2) in pixels of a square picture."""
    left, top = (int(max(edge, 0)) for edge in np.floor(points.min(0)) - MARGIN)
    right, bottom = (int(min(edge, size)) for edge in np.ceil(points.max(0)) + MARGIN)
    return left, top, max(right, left + 3), max(bottom, top + 3)
