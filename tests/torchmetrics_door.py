"""The one way in to torchmetrics, past a torchvision that does not fit its torch.

torchmetrics imports torchvision when one is installed. A torchvision wheel built for CUDA beside a CPU torch (the usual
accident of `pip install lpips`) cannot register its operators, and its import fails on `torchvision::nms does not
exist`, taking torchmetrics with it. Declaring the two operators that it asks for, without any code behind them, lets
the import pass; nothing here calls them.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[torch.library.Library] = []  # a library's declarations die with it


def declare_torchvision_operators() -> None:
    """Let `import torchvision` succeed where its compiled half does not load; without effect everywhere else."""
    if _kept or find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(_SCHEMA.format(name))
        _kept.append(library)


declare_torchvision_operators()

from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: E402

__all__ = ["declare_torchvision_operators", "structural_similarity_index_measure"]
