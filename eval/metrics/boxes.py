"""Where the face and the mouth are in a rendered frame, from SynthTalk's exact correspondence with the portrait.

The portrait's face box comes from a detector; a pixel of the frame belongs to the face when its surface point lies in
that box of the portrait. So the boxes follow the head through every pose without any landmark model.
"""

from __future__ import annotations

import numpy as np

from eval.metrics.signals import Box

# The face's box where `eartalking.perception.face_detector` frames it, as fractions of the crop.
DEFAULT_FACE = (0.28, 0.40, 0.72, 0.83)
# The mouth inside a face box that runs from the brows to the chin.
MOUTH_IN_FACE = (0.2, 0.6, 0.8, 0.98)
SMALLEST_SIDE = 8  # pixels


def face_fractions(box: tuple[float, float, float, float] | None, size: int) -> tuple[float, float, float, float]:
    """A detected box in pixels of a square picture as fractions of it; the usual place when none was found."""
    if box is None:
        return DEFAULT_FACE
    left, top, right, bottom = (edge / size for edge in box)
    return left, top, right, bottom


def mouth_fractions(face: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The mouth's box inside a face box, both as fractions of the picture."""
    left, top, right, bottom = face
    width, height = right - left, bottom - top
    a, b, c, d = MOUTH_IN_FACE
    return left + a * width, top + b * height, left + c * width, top + d * height


def to_pixels(fractions: tuple[float, float, float, float], size: int) -> Box:
    """Whole pixels of a square picture."""
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in fractions)
    return int(left * size), int(top * size), int(np.ceil(right * size)), int(np.ceil(bottom * size))


def follow(
    fractions: tuple[float, float, float, float], correspondence: np.ndarray, visibility: np.ndarray, size: int
) -> Box | None:
    """Where a box of the portrait went in the frame: the box of the frame's pixels whose surface point lies in it.

    correspondence (M, M, 2) in [-1, 1] and visibility (M, M) 0/255 of the frame, as in a clip; None when too few
    pixels are left (turned away).
    """
    height = len(correspondence)
    axis = (np.arange(height) + 0.5) * (2 / height) - 1
    here = np.stack(np.meshgrid(axis, axis), -1)
    # Background maps to itself; where the portrait shows something else there, it is marked hidden.
    background = (np.abs(correspondence.astype(np.float32) - here).max(-1) < 2e-3) & (visibility == 0)
    left, top, right, bottom = (2 * edge - 1 for edge in fractions)
    x, y = correspondence[..., 0].astype(np.float32), correspondence[..., 1].astype(np.float32)
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom) & ~background
    rows, columns = np.nonzero(inside)
    if len(rows) < 4:
        return None
    # Percentiles: single pixels of hair or shoulders that happen to map into the box must not stretch it.
    (x0, x1), (y0, y1) = np.percentile(columns, [2, 98]), np.percentile(rows, [2, 98])
    box = to_pixels((x0 / height, y0 / height, (x1 + 1) / height, (y1 + 1) / height), size)
    return box if min(box[2] - box[0], box[3] - box[1]) >= SMALLEST_SIDE else None
