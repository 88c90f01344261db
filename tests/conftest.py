"""Shared by all tests: a fixed seed, so that a failure can be repeated."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
