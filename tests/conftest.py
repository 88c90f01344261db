"""Shared by all tests: a fixed seed, so that a failure can be repeated, and one thread for each test process."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported, here and in what tests start
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
