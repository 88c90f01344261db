"""Tensors that are needed for every frame and are always the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")


def constant(make: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Decorator: made once for each set of arguments, and shared.

    Made outside of inference mode, even if a stream asks first: PyTorch refuses tensors of inference mode in training.
    """
    return functools.cache(torch.inference_mode(False)(make))  # type: ignore[return-value]
