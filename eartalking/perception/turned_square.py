"""Squares of a picture, turned by any angle and of any size, as the perception networks take them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TurnedSquare:
    """A square in the picture's pixels (x right, y down, a pixel's centre at +0.5); it may reach outside.

    Attributes:
        x, y: its centre.
        side: length of a side.
        roll: how far it is turned clockwise as seen, degrees; what is turned so is upright in the cut.
    """

    x: float
    y: float
    side: float
    roll: float = 0.0

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2 or 3) in fractions of the cut, 0..1 right and down, as pixels of the picture.

        A third coordinate is a depth in fractions of the side; it is scaled as the others are.
        """
        cosine, sine = math.cos(math.radians(self.roll)), math.sin(math.radians(self.roll))
        across, down = (points[..., 0] - 0.5) * self.side, (points[..., 1] - 0.5) * self.side
        moved = [self.x + cosine * across - sine * down, self.y + sine * across + cosine * down]
        return np.stack([*moved, *(points[..., axis] * self.side for axis in range(2, points.shape[-1]))], axis=-1)


class Picture:
    """One picture at several resolutions, so that a cut of any size is sampled without aliasing."""

    def __init__(self, image: np.ndarray) -> None:
        """image: (H, W, 3) uint8."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"expected a picture (H, W, 3) uint8, got {image.shape} {image.dtype}")
        self.height, self.width = image.shape[:2]
        level = torch.tensor(image).permute(2, 0, 1)[None].float()
        self.levels = [level]  # (1, 3, H / 2^n, W / 2^n), values 0..255; the last row or column may be repeated
        while min(level.shape[2:]) >= 64:
            even = F.pad(level, (0, level.shape[3] % 2, 0, level.shape[2] % 2), mode="replicate")
            level = F.avg_pool2d(even, 2)
            self.levels.append(level)

    def cut(self, square: TurnedSquare, size: int, outside: str = "border") -> Tensor:
        """(size, size, 3) float 0..255. `outside` the picture: "border" repeats its edge, "zeros" is black."""
        number = min(int(math.log2(max(square.side / size, 1.0))), len(self.levels) - 1)
        level, scale = self.levels[number], 2.0**number
        steps = (torch.arange(size) + 0.5) / size - 0.5
        turn = math.radians(square.roll)
        across, down = steps[None, :] * square.side, steps[:, None] * square.side
        x = (square.x + math.cos(turn) * across - math.sin(turn) * down) / scale
        y = (square.y + math.sin(turn) * across + math.cos(turn) * down) / scale
        grid = torch.stack([2 * x / level.shape[3] - 1, 2 * y / level.shape[2] - 1], dim=-1)[None]
        return F.grid_sample(level, grid, mode="bilinear", padding_mode=outside, align_corners=False)[0].permute(
            1, 2, 0
        )

    def cuts(self, squares: list[TurnedSquare], size: int, outside: str = "border") -> Tensor:
        """(N, size, size, 3) float 0..255."""
        return torch.stack([self.cut(square, size, outside) for square in squares])
