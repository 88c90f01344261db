"""dlib's frontal face detector, for what is measured: identity, and mouths for lip sync.

Portraits are framed by `face_finder`, which sees more faces; a measure keeps the detector that its numbers were made
with.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from eartalking.io.portrait import Box

# The detector's smallest face is 80 pixels. It is tried on the picture resized to these longer sides: first on several
# close ones, whose boxes are averaged because one alone jumps by 10 %, then on large ones for faces far away.
_NEAR_SIDES = (480, 560, 640, 720)
_FAR_SIDES = (1280, 2048)
_DETECTING = threading.Lock()  # dlib's detector keeps its work in itself: two threads at once get wrong boxes
_SURE = 0.5  # a detector score that needs no second sighting; false alarms stay below


def find_frontal_face(image: np.ndarray) -> Box | None:
    """Box (left, top, right, bottom) in pixels of the largest face in (H, W, 3) uint8, None without one."""
    for sides in (_NEAR_SIDES, _FAR_SIDES):
        sightings = [sighting for side in sides for sighting in _sightings(image, side)]
        faces = [face for face in _merge(sightings) if face.score >= _SURE or face.count > 1]
        if not faces:
            continue
        # A patch of texture can score a little above zero at that size: it must not beat a clear one.
        best = max(face.score for face in faces)
        return max((face for face in faces if face.score >= 0.4 * best), key=lambda face: face.box[3] - face.box[1]).box
    return None


@dataclass(frozen=True)
class Detections:
    """Faces found in one picture: boxes (N, 4) float left, top, right, bottom in its pixels, and scores (N,)."""

    boxes: np.ndarray
    scores: np.ndarray

    def surest(self) -> np.ndarray | None:
        """(4,) the box with the highest score, None without any."""
        return self.boxes[int(np.argmax(self.scores))] if len(self.scores) else None


def detect(
    image: np.ndarray,
    long_side: int,
    threshold: float = 0.0,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Detections:
    """All faces that dlib's detector sees in (H, W, 3) uint8 when its longer side is resized to `long_side` pixels.

    The detector finds faces of 80 pixels and more, so a larger `long_side` finds smaller faces. threshold: lowest
    score that counts; 0 is dlib's own, lower finds more faces and more false ones.
    """
    resized, scale = resize(image, long_side, resample)
    with _DETECTING:
        rectangles, scores, _ = _detector().run(resized, 0, threshold)
    # dlib's right and bottom are the last pixels inside the box.
    edges = [(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in rectangles]
    return Detections(np.array(edges, np.float64).reshape(-1, 4) / scale, np.array(scores))


def resize(
    image: np.ndarray, long_side: int, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> tuple[np.ndarray, float]:
    """(H, W, 3) uint8 with its longer side at `long_side` pixels, and the scale: new size over old."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(Image.fromarray(image).resize(size, resample)), scale


@lru_cache(maxsize=1)
def _detector() -> Any:
    import dlib  # here, because it takes time to load

    return dlib.get_frontal_face_detector()


@dataclass(frozen=True)
class _Sighting:
    box: Box
    score: float
    count: int = 1


def _sightings(image: np.ndarray, long_side: int) -> list[_Sighting]:
    found = detect(image, long_side)
    return [_Sighting(_as_box(box), float(score)) for box, score in zip(found.boxes, found.scores, strict=True)]


def _as_box(edges: np.ndarray) -> Box:
    left, top, right, bottom = (float(edge) for edge in edges)
    return left, top, right, bottom


def _merge(sightings: list[_Sighting]) -> list[_Sighting]:
    """One sighting per face: overlapping boxes averaged by score, best score and number of boxes kept."""
    merged = []
    rest = sorted(sightings, key=lambda sighting: -sighting.score)
    while rest:
        same = [sighting for sighting in rest if _overlap(rest[0].box, sighting.box) > 0.4]
        weights = np.array([max(sighting.score, 1e-3) for sighting in same])
        box = np.average([sighting.box for sighting in same], axis=0, weights=weights)
        merged.append(_Sighting(_as_box(box), rest[0].score, len(same)))
        rest = [sighting for sighting in rest if sighting not in same]
    return merged


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)
