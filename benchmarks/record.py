"""Where a number comes from: hardware, checkpoint, code and date, written into every result file."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from eartalking.checkpoint import resolve, weight_files
from eval.provenance import git_commit, hardware

ROOT = Path(__file__).parent.parent


def provenance(checkpoint: str, threads: int) -> dict[str, Any]:
    """Everything a result needs to be compared with another one."""
    weights = b"".join(path.read_bytes() for path in weight_files(resolve(checkpoint)))
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "checkpoint": checkpoint,
        "checkpoint_sha256": hashlib.sha256(weights).hexdigest(),
        "commit": git_commit(),
        "hardware": hardware(threads),
    }


def write_result(path: Path, result: dict[str, Any]) -> None:
    """JSON, one key a line, in a folder that is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
