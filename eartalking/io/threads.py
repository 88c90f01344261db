"""How many threads PyTorch gets by default."""

from __future__ import annotations

import os
from pathlib import Path


def default_threads() -> int:
    """All granted cores but one, at least one.

    The one is for what runs beside the model: the video's encoder, the page, the player. On two cores a second thread
    makes a stream no faster (39 ms a frame with one, 35 to 41 with two, measured), and what runs beside it waits.
    """
    return max(granted_cores() - 1, 1)


def granted_cores() -> int:
    """Cores that this process may use: its affinity, and the container's share of the machine, which PyTorch does not
    ask for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(max(int(quota) // int(period), 1), cores)
    except (OSError, ValueError):  # not a control group of version 2, or "max"
        return cores
