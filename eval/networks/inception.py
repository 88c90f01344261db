"""InceptionV3 of 2015-12-05 up to its 2048 pooled features: the network that FID is defined by, from pytorch-fid."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from eartalking.modules.torchvision_operators import declare_torchvision_operators


def load_inception(path: Path) -> nn.Module:
    """pytorch-fid's network with the weights of its own file: images (B, 3, H, W) in 0..1 -> [(B, 2048, 1, 1)].

    Raises:
        ImportError: pytorch-fid is not installed.
        RuntimeError, OSError: the file does not hold these weights.
    """
    declare_torchvision_operators()
    from pytorch_fid import inception  # here: it imports torchvision, which takes seconds

    weights = torch.load(path, map_location="cpu", weights_only=True)
    # The package fetches the file while it builds the network and takes no path; the file is here, its hash checked.
    with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        return inception.InceptionV3().eval()


@torch.inference_mode()
def inception_features(network: nn.Module, frames: np.ndarray) -> np.ndarray:
    """Frames (B, H, W, 3) uint8 -> (B, 2048) float32."""
    device = next(network.parameters()).device
    images = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float() / 255
    return network(images)[0].flatten(1).cpu().numpy()
