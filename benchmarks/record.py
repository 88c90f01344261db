"""Where a number comes from: hardware, checkpoint, code and date, written into every result file."""
from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

from eartalking.checkpoint import WEIGHTS_NAME, resolve

ROOT = Path(__file__).parent.parent


def hardware(threads: int) -> dict[str, Any]:
    """Processor, its cores, memory, threads used, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "device": "cpu",
        "load_before": round(os.getloadavg()[0], 2),  # above 0, the machine was not ours alone
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def provenance(checkpoint: str, threads: int) -> dict[str, Any]:
    """Everything a result needs to be compared with another one."""
    weights = resolve(checkpoint) / WEIGHTS_NAME
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "checkpoint": checkpoint,
        "checkpoint_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "commit": git_commit(),
        "hardware": hardware(threads),
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


def write_result(path: Path, result: dict[str, Any]) -> None:
    """JSON, one key a line, in a folder that is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
