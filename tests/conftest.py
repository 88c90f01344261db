"""Shared by all tests: a fixed seed, so that a failure can be repeated, and one thread and one folder of Gradio's for
each test process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported, here and in what tests start
# Gradio keeps equal uploads of all processes in one place: what one page deletes would be gone from another.
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="gradio-")
atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
