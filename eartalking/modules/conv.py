"""Causal convolution in time whose left context is an explicit state.

Notation: B batch, C channels, L steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv1d(nn.Module):
    """1-D convolution over (B, C, L); output i sees inputs up to (i + 1) * stride - 1 and nothing later.

    Offline is streaming from a fresh state: one path for both.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stride = stride
        self.context = dilation * (kernel_size - 1) + 1 - stride  # steps remembered from the past
        if stride > 1 and dilation > 1:
            raise ValueError(f"either a stride or a dilation, not {stride} and {dilation}")
        if self.context < 0:
            raise ValueError(f"a kernel of {kernel_size} does not cover a stride of {stride}")
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)

    def init_state(self, batch: int) -> Tensor:
        """The silent past: zeros (B, C, context)."""
        weight = self.conv.weight
        return torch.zeros(batch, self.in_channels, self.context, device=weight.device, dtype=weight.dtype)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, C, L), state (B, C, context) -> y (B, C', L / stride), the next state.

        Raises ValueError unless L is a multiple of the stride.
        """
        if x.shape[-1] % self.stride:
            raise ValueError(f"length {x.shape[-1]} is not a multiple of the stride {self.stride}")
        if state is None:
            x = F.pad(x, (self.context, 0))
        else:
            x = torch.cat([state.to(x.dtype), x], dim=-1)
        return self._convolve(x), x[..., x.shape[-1] - self.context :]

    def _convolve(self, x: Tensor) -> Tensor:
        (dilation,), (taps,) = self.conv.dilation, self.conv.kernel_size
        if dilation == 1:
            return self.conv(x)
        # On a CPU, PyTorch has no fast dilated convolution: for one step of 192 channels it takes ten times as long as
        # this product.
        length = x.shape[-1] - self.context
        shifted = [x[..., tap * dilation : tap * dilation + length] for tap in range(taps)]
        seen = torch.stack(shifted, dim=2)  # (B, C, taps, L)
        return self.conv.weight.flatten(1) @ seen.flatten(1, 2) + self.conv.bias[:, None]
