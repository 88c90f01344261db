"""Letting packages import a torchvision whose compiled half does not fit the torch beside it.

There is no CPU build of torchvision on the package index. Its wheel is built for CUDA; beside a CPU torch its compiled
operators do not load, and `import torchvision` fails with `operator torchvision::nms does not exist`. Every package
that imports torchvision then fails with it: lpips, pytorch-fid, torchmetrics, transformers. Declaring the two operators
that torchvision registers a shape rule for lets the import pass. They have no code behind them, and nothing here calls
them.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # kept, because a library's declarations end with it


def declare_torchvision_operators() -> None:
    """Call this before importing a package that imports torchvision.

    It does nothing where torchvision is not installed, or works.
    """
    if _declared or find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401  (here, because it takes seconds)
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(_SCHEMA.format(name))
        _declared.append(library)
