"""Linear regression with a ridge, as several stages use it."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_regression(inputs: Tensor, outputs: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weight (G, F) and bias (G,) of rows (M, F) -> rows (M, G); `ridge` is a share of the inputs' mean variance."""
    inputs, outputs = inputs.double(), outputs.double()
    mean, mean_output = inputs.mean(0), outputs.mean(0)
    centred = inputs - mean
    own, shared = centred.T @ centred / len(inputs), centred.T @ (outputs - mean_output) / len(inputs)
    own += ridge * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
    weight = torch.linalg.solve(own, shared).T
    return weight.float(), (mean_output - weight @ mean).float()
