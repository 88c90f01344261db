"""LPIPS v0.1 with the AlexNet trunk: the perceptual distance of richzhang/lpips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# Mean and spread of ImageNet, for images in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_WIDTHS = (64, 192, 384, 256, 256)
_EPSILON = 1e-10


class LpipsAlex(nn.Module):
    """Two batches of images (B, 3, H, W) in [-1, 1] -> distances (B,)."""

    def __init__(self) -> None:
        super().__init__()
        convs = [nn.Conv2d(3, 64, 11, 4, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.Conv2d(192, 384, 3, 1, 1),
                 nn.Conv2d(384, 256, 3, 1, 1), nn.Conv2d(256, 256, 3, 1, 1)]  # fmt: skip
        self.convs = nn.ModuleList(convs)
        self.lins = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in _WIDTHS)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x = (torch.cat([a, b]) - self.shift) / self.scale
        total = torch.zeros(len(a), device=x.device)
        for index, (conv, lin) in enumerate(zip(self.convs, self.lins, strict=True)):
            if index in (1, 2):
                x = nn.functional.max_pool2d(x, 3, 2)
            x = torch.relu(conv(x))
            ours, theirs = (x / (x.square().sum(1, keepdim=True).sqrt() + _EPSILON)).chunk(2)
            total = total + lin((ours - theirs).square()).mean((1, 2, 3))
        return total

    @classmethod
    def load(cls, trunk: Path, linear: Path) -> LpipsAlex:
        """From torchvision's AlexNet and the linear weights of lpips 0.1.4."""
        network = cls()
        trunk_weights = torch.load(trunk, map_location="cpu", weights_only=True)
        linear_weights = torch.load(linear, map_location="cpu", weights_only=True)
        network.set_weights(trunk_weights, linear_weights)
        return network

    def set_weights(self, trunk: dict[str, Tensor], linear: dict[str, Tensor]) -> None:
        """State dicts with the names of torchvision's AlexNet (`features.N`) and of lpips (`linN.model.1`)."""
        for index, place in enumerate((0, 3, 6, 8, 10)):
            self.convs[index].load_state_dict({kind: trunk[f"features.{place}.{kind}"] for kind in ("weight", "bias")})
            self.lins[index].load_state_dict({"weight": linear[f"lin{index}.model.1.weight"]})
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def distances(self, frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Frames (B, H, W, 3) uint8 -> (B,) float32."""
        device = self.shift.device
        a, b = (
            torch.from_numpy(np.ascontiguousarray(x)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            for x in (frames, truth)
        )
        return self(a, b).cpu().numpy()
