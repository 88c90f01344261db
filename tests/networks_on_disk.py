"""Files of the canonical networks' published layout, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from eartalking.modules.torchvision_operators import declare_torchvision_operators


def randomise(network: nn.Module) -> None:
    """Weights under which every layer passes something on, batch statistics included."""
    generator = torch.Generator().manual_seed(5)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith("num_batches_tracked"):
            continue
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
            else:
                noise = 0.1 * torch.randn(value.shape, generator=generator)
                value.copy_(noise + name.endswith(("bn.weight", "bn1.weight")))


def save_random_inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the names and shapes of pytorch-fid's weights, which that package otherwise fetches."""
    declare_torchvision_operators()
    from pytorch_fid import inception

    with monkeypatch.context() as patched:
        patched.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
        network = inception.fid_inception_v3()
    randomise(network)
    # The published files are older than torch's zip format.
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
