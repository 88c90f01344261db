"""The visible mark: a small label "AI-generated" in the corner of every frame, for those who switch it on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TEXT = "AI-generated"
_HEIGHT = 0.055  # of the frame; still legible at 256 pixels
_MARGIN = 0.025


def draw_badge(image: np.ndarray) -> np.ndarray:
    """A copy of (H, W, 3) uint8 with the label in its lower left corner."""
    label = _label(image.shape[0])
    height, width = min(label.shape[0], image.shape[0]), min(label.shape[1], image.shape[1])
    bottom, left = image.shape[0] - round(_MARGIN * image.shape[0]), round(_MARGIN * image.shape[1])
    top, right = max(bottom - height, 0), min(left + width, image.shape[1])
    marked = image.copy()
    colour, opacity = label[: bottom - top, : right - left, :3], label[: bottom - top, : right - left, 3:] / 255.0
    under = marked[top:bottom, left:right]
    marked[top:bottom, left:right] = np.rint(colour * opacity + under * (1 - opacity)).astype(np.uint8)
    return marked


@lru_cache(maxsize=4)
def _label(frame_height: int) -> np.ndarray:
    """(h, w, 4) uint8: white letters on a dark, rounded, translucent plate."""
    size = max(round(_HEIGHT * frame_height), 8)
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(TEXT)
    pad = max(size // 3, 2)
    plate = Image.new("RGBA", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), (0, 0, 0, 0))
    draw = ImageDraw.Draw(plate)
    draw.rounded_rectangle((0, 0, plate.width - 1, plate.height - 1), radius=pad, fill=(12, 14, 20, 170))
    draw.text((pad - left, pad - top), TEXT, font=font, fill=(255, 255, 255, 235))
    return np.asarray(plate)
