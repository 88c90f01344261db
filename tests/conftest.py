"""Shared by all tests: a fixed seed, so that a failure can be repeated, and one thread and one folder of Gradio's for
each test process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported, here and in what tests start
# Gradio keeps equal uploads of all processes in one place: what one page deletes would be gone from another.
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="gradio-")
atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    from chromium import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[str, Any]]:
    """The demo's page with a tiny random model: its address, and what it knows of its visitors."""
    from demo_app import served, tiny_engine

    with served(tiny_engine()) as (address, sessions):
        yield address, sessions
