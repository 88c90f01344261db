"""Where the mouth is in a clip, by one rule for training and measuring: a face detector on every third frame.

The detector's box runs from the brows to the chin. It is averaged over two sizes of the picture, because at one size it
jumps by a tenth; then boxes are filtered by a median over time, and interpolated.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import median_filter

from eartalking.perception.frontal_detector import detect

CROP_HEIGHT, CROP_WIDTH = 48, 64
# The crop in units of the detector's box: wide enough for a head that turns, low enough for an open jaw.
MOUTH_CENTRE = (0.5, 0.79)
MOUTH_WIDTH = 0.8
DETECT_EVERY = 3  # frames
# Longer sides at which the detector looks; the next pair only where the first finds nothing.
_SIDES = ((256, 320), (480, 640), (960, 1280))
_SMALLEST_SCORE = -0.2
_MEDIAN = 3  # detections
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class NoMouthError(ValueError):
    """No face was found in the frames that were looked at."""


def face_boxes(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """Face box (left, top, right, bottom) of every frame of (T, H, W, 3) uint8 in pixels, (T, 4) float, and the share
    of the frames looked at in which a face was found; the others are interpolated.

    Raises:
        NoMouthError: no face in any of them.
        ValueError: the frames are not (T, H, W, 3) uint8.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"expected frames (T, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    looked = list(range(0, len(frames), DETECT_EVERY))
    level = 0
    found: dict[int, np.ndarray] = {}
    for index in looked:
        while level < len(_SIDES):
            box = _detect(frames[index], _SIDES[level])
            if box is not None:
                found[index] = box
            if box is not None or found:
                break
            level += 1  # nothing found in this clip so far: look for smaller faces
        if level == len(_SIDES):
            level = 0
    if not found:
        raise NoMouthError(f"no face found in {len(looked)} frames")
    times = np.array(list(found))
    boxes = np.stack(list(found.values()))
    boxes = median_filter(boxes, (_MEDIAN, 1), mode="nearest")
    every = np.arange(len(frames))
    return np.stack([np.interp(every, times, boxes[:, edge]) for edge in range(4)], 1), len(found) / len(looked)


def mouth_crops(frames: np.ndarray, boxes: np.ndarray, margin: float = 1.0) -> np.ndarray:
    """Grey mouths (T, CROP_HEIGHT·margin, CROP_WIDTH·margin) uint8; `margin` widens field and size alike."""
    size = (round(CROP_WIDTH * margin), round(CROP_HEIGHT * margin))
    crops = np.empty((len(frames), size[1], size[0]), np.uint8)
    for index, (frame, (left, top, right, bottom)) in enumerate(zip(frames, boxes, strict=True)):
        side = (right - left + bottom - top) / 2
        x, y = left + MOUTH_CENTRE[0] * (right - left), top + MOUTH_CENTRE[1] * (bottom - top)
        half_width = MOUTH_WIDTH * side * margin / 2
        half_height = half_width * CROP_HEIGHT / CROP_WIDTH
        crops[index] = _cut(frame, (x - half_width, y - half_height, x + half_width, y + half_height), size)
    return crops


def _cut(frame: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Luma of `box` at `size` (width, height); what lies outside the picture repeats its edge."""
    height, width = frame.shape[:2]
    x0, y0 = (int(np.floor(edge)) - 1 for edge in box[:2])
    x1, y1 = (int(np.ceil(edge)) + 1 for edge in box[2:])
    rows, columns = np.clip(np.arange(y0, y1), 0, height - 1), np.clip(np.arange(x0, x1), 0, width - 1)
    grey = (frame[rows[:, None], columns] @ _LUMA).round().astype(np.uint8)
    window = (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR, box=window))


def _detect(frame: np.ndarray, sides: tuple[int, ...]) -> np.ndarray | None:
    """The surest face at each of the sizes, averaged over them; None without one."""
    looks = (detect(frame, side, _SMALLEST_SCORE, Image.Resampling.BILINEAR) for side in sides)
    boxes = [box for found in looks if (box := found.surest()) is not None]
    return np.mean(boxes, axis=0) if boxes else None
