"""Residual block of convolutions, optionally conditioned, and what stands between two levels of such blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """Two 3x3 convolutions with group norm; `cond` (B, cond_dim) scales and shifts the second norm."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups(in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(norm_groups(out_channels), out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.modulation = nn.Linear(cond_dim, 2 * out_channels) if cond_dim else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.norm2(hidden)
        if self.modulation is not None:
            scale, shift = self.modulation(cond)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(hidden))


def norm_groups(channels: int) -> int:
    """How many groups a group norm of so many channels has."""
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """(B, C, h, w) -> (B, C, h · factor, w · factor), bilinear."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def for_convolution(x: Tensor) -> Tensor:
    """(B, C, H, W) in the memory layout that convolutions and enlarging are fastest in: channels-last."""
    if len(x) > 1:
        return x.contiguous(memory_format=torch.channels_last)
    rows = x[0].flatten(1).t().contiguous()  # for a single frame a quarter of the time
    return rows.view(1, *x.shape[2:], -1).permute(0, 3, 1, 2)


def single_map(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution to one channel, (B, C, H, W) -> (B, 1, H, W): one product, and nine moved maps added up. A
    quarter of the time that the kernels for many channels take for one."""
    weights = convolution.weight[0].flatten(1).T.flip(0)  # (9, C); `fold` moves the other way round
    return F.fold(weights @ x.flatten(2), x.shape[-2:], 3, padding=1) + convolution.bias
