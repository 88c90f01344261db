"""Numbers and pictures by which the stages are watched."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from eartalking.training.losses import laplacian


def psnr(a: Tensor, b: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], over the pixels where `weight` (B, 1, H, W) is one."""
    error = (a.clamp(-1, 1) - b).pow(2)
    mean = error.mean() if weight is None else (error * weight).sum() / (weight.sum() * error.shape[1]).clamp_min(1)
    return float(-10 * torch.log10(mean / 4 + 1e-10))


def sharpness(images: Tensor, weight: Tensor) -> float:
    """Mean squared Laplacian of (B, 3, H, W) images where `weight` (B, 1, H, W) is one."""
    energy = laplacian(F.pad(images.float(), (1, 1, 1, 1))).pow(2).mean(1, keepdim=True)
    return float((energy * weight).sum() / weight.sum().clamp_min(1))


def to_strip(columns: list[Tensor]) -> Image.Image:
    """Columns of (B, 3, H, W) images in [-1, 1] -> one picture, a row per sample."""
    rows = torch.cat([column.float().cpu().expand(-1, 3, -1, -1) for column in columns], dim=3)  # (B, 3, H, W·columns)
    picture = torch.cat(list(rows), dim=1).permute(1, 2, 0)
    return Image.fromarray(((picture.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
