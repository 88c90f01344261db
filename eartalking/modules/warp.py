"""Warps: displacements in normalised coordinates, and sampling by them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.modules.constant import constant


def warp_image(image: Tensor, warp: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample `image` (B, C, H, W) at the identity grid plus `warp` (B, 2, h, w); returns (B, C, h, w) in float32."""
    grid = identity_grid(warp.shape[-1], warp.device) + warp.float().permute(0, 2, 3, 1)
    return F.grid_sample(image.float(), grid, mode=mode, padding_mode="border", align_corners=False)


@constant
def pixel_centres(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Of a picture's pixels, in pixels from its upper left corner: (H, W, 2), x right and y down."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1) + 0.5


@constant
def identity_grid(size: int, device: torch.device | None = None) -> Tensor:
    """Pixel centres in [-1, 1]: (1, size, size, 2), x right and y down."""
    return (pixel_centres(size, size, device) * (2 / size) - 1)[None]
