"""LPIPS v0.1 with the AlexNet trunk, by the package that defines it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eartalking.modules.torchvision_operators import declare_torchvision_operators


class LpipsAlex(nn.Module):
    """The perceptual distance of the package `lpips`: its linear layers, a trunk from a file of torchvision's AlexNet.

    Raises:
        ImportError: lpips is not installed.
        RuntimeError, OSError: the file is not that of an AlexNet.
    """

    def __init__(self, trunk: Path) -> None:
        super().__init__()
        declare_torchvision_operators()
        import lpips  # here: it imports torchvision, which takes seconds

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it builds AlexNet by an argument that torchvision has renamed
            # Without `pnet_rand` the package would fetch the trunk itself, and nobody would check its hash.
            self.network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        weights = torch.load(trunk, map_location="cpu", weights_only=True)
        # The package cuts AlexNet's `features` into slices and keeps their numbers: features.3 is slice2.3.
        names = {name: f"features.{name.split('.', 1)[1]}" for name in self.network.net.state_dict()}
        if missing := sorted(set(names.values()) - set(weights)):
            raise RuntimeError(f"no AlexNet: {missing[0]} is missing")
        self.network.net.load_state_dict({name: weights[given] for name, given in names.items()})
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def distances(self, frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Frames and truth (B, H, W, 3) uint8 -> (B,) float32, 0 for equal frames."""
        device = next(self.parameters()).device
        a, b = (
            torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            for images in (frames, truth)
        )
        return self.network(a, b).flatten().cpu().numpy()
