"""Linear regression with a ridge, as several stages use it."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_regression(
    inputs: Tensor, outputs: Tensor, ridge: float, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (G, F) and bias (G,) of rows (M, F) -> rows (M, G); `ridge` is a share of the inputs' mean variance. A row
    counts as often as `counts` (M,) says, once by default."""
    inputs, outputs = inputs.double(), outputs.double()
    shares = torch.ones(len(inputs)) if counts is None else counts
    shares = (shares / shares.sum()).double()[:, None]
    mean, mean_output = (shares * inputs).sum(0), (shares * outputs).sum(0)
    centred = inputs - mean
    weighed = (shares * centred).T
    own, shared = weighed @ centred, weighed @ (outputs - mean_output)
    own += ridge * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
    weight = torch.linalg.solve(own, shared).T
    return weight.float(), (mean_output - weight @ mean).float()
