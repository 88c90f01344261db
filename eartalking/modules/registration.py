"""How one picture has to be warped to look like another, from their pixels alone.

Pyramidal Lucas-Kanade (B. D. Lucas and T. Kanade, 1981; J.-Y. Bouguet, 2000): coarse to fine, each place of the grid
moves by the least-squares step that its window asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.modules.warp import warp_image

STEPS = 2  # per level
FARTHEST = 2.0  # grid places that a step may go
STIFFNESS = 1e-3  # added to the windows' squared slopes: where there is nothing to see, nothing moves
SMOOTH = 5  # grid places over which a level's flow is averaged


@torch.no_grad()
def register(moving: Tensor, fixed: Tensor, pools: Sequence[int], windows: Sequence[int]) -> Tensor:
    """Images (B, C, S, S) in [-1, 1] -> warp (B, 2, s, s), s = S / pools[-1]: `moving` warped by it looks like `fixed`.

    `pools` are the pixels per grid place of each level, coarse to fine, and `windows` the grid places a side (odd) that
    share a step there.
    """
    flow = moving.new_zeros(len(moving), 2, 1, 1, dtype=torch.float32)
    for pool, window in zip(pools, windows, strict=True):
        source, target = F.avg_pool2d(moving.float(), pool), F.avg_pool2d(fixed.float(), pool)
        side = source.shape[-1]
        flow = F.interpolate(flow, size=(side, side), mode="bilinear", align_corners=False)
        for _ in range(STEPS):
            flow = flow + _step(warp_image(source, flow), target, window) * 2 / side
        flow = _mean(flow, SMOOTH)
    return flow


def _step(image: Tensor, target: Tensor, window: int) -> Tensor:
    """The least-squares step (B, 2, s, s) in grid places that brings `image` (B, C, s, s) nearer to `target`."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    left_over = target - image
    products = (right * right, right * down, down * down, right * left_over, down * left_over)
    xx, xy, yy, x, y = (_mean(product.sum(1, keepdim=True), window) for product in products)
    xx, yy = xx + STIFFNESS, yy + STIFFNESS
    step = torch.cat([yy * x - xy * y, xx * y - xy * x], dim=1) / (xx * yy - xy * xy)
    return step.clamp(-FARTHEST, FARTHEST)


def _mean(values: Tensor, window: int) -> Tensor:
    return F.avg_pool2d(values, window, 1, window // 2, count_include_pad=False)
