"""Which pixels of a picture belong to the person: a network's matte, sharpened along the picture's own edges."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.perception.graph_network import GraphNetwork
from eartalking.perception.turned_square import Picture, TurnedSquare

REACH = 4  # pixels of the network's picture, of 256 a side, from which an edge is taken over
EDGE = 1e-4  # variance of colour, of 0..1, below which a difference counts as flat


def person_matte(picture: Picture, square: TurnedSquare, size: int) -> np.ndarray:
    """The share of each pixel that shows a person, (size, size) float32 0..1, for `picture.cut(square, size)`.

    The network sees the square at 256 pixels; its matte follows the picture's edges at `size` after a guided filter:
    around each pixel the matte is a linear function of the colour, fitted at 256 and evaluated at `size`.
    """
    network = _network()
    coarse = picture.cut(square, network.size[0]) / 255
    with torch.inference_mode():
        matte = network(coarse[None])[0]  # (1, 1, 256, 256)
        fine = picture.cut(square, size).permute(2, 0, 1)[None] / 255
        return along_edges(matte, coarse.permute(2, 0, 1)[None], fine)[0, 0].numpy()


def along_edges(matte: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
    """A matte (B, 1, H, W) of pictures (B, 3, H, W) in 0..1 for the same at another size (B, 3, S, S), its edges where
    the pictures' are: (B, 1, S, S) in 0..1."""
    slope, offset = (
        F.interpolate(value, fine.shape[-2:], mode="bilinear", align_corners=False)
        for value in _linear_fit(coarse, matte)
    )
    return ((slope * fine).sum(1, keepdim=True) + offset).clamp(0, 1)


def _linear_fit(guide: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Around each pixel: values (B, 1, H, W) as slope (B, 3, H, W) times guide (B, 3, H, W) plus offset like values."""
    mean_guide, mean_values = _around(guide), _around(values)
    covariance = _around(guide * values) - mean_guide * mean_values  # (B, 3, H, W)
    spread = _around((guide[:, :, None] * guide[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    spread = spread - torch.einsum("bihw,bjhw->bijhw", mean_guide, mean_guide)
    first, second, third = (spread + EDGE * torch.eye(3, device=guide.device)[..., None, None]).unbind(1)
    # Cramer's rule for a symmetric matrix in every pixel.
    minors = [torch.linalg.cross(*two, dim=1) for two in ((second, third), (third, first), (first, second))]
    slope = sum(part[:, None] * minor for part, minor in zip(covariance.unbind(1), minors, strict=True))
    slope = slope / (first * minors[0]).sum(1, keepdim=True)
    offset = mean_values - (slope * mean_guide).sum(1, keepdim=True)
    return _around(slope), _around(offset)


def _around(values: Tensor) -> Tensor:
    """Mean over the pixels within REACH, at the edge over those that the picture has."""
    rows = F.avg_pool2d(values, (1, 2 * REACH + 1), stride=1, padding=(0, REACH), count_include_pad=False)
    return F.avg_pool2d(rows, (2 * REACH + 1, 1), stride=1, padding=(REACH, 0), count_include_pad=False)


@lru_cache(maxsize=1)
def _network() -> GraphNetwork:
    return GraphNetwork.load("person_matte")
