"""How many cores there are to use."""

from __future__ import annotations

import os
from pathlib import Path


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
