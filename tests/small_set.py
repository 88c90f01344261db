"""Parts of the test set that is in the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

SMALL_SET = Path(__file__).parent.parent / "benchmarks" / "testset_small"


def first_clips(count: int, folder: Path) -> Path:
    """Copies the first clips of the set into `folder`, with a manifest of their own."""
    manifest = json.loads((SMALL_SET / "manifest.json").read_text())
    manifest["clips"] = manifest["clips"][:count]
    for clip in manifest["clips"]:
        for key in ("ref", "portrait", "audio", "labels"):
            shutil.copy(SMALL_SET / clip[key], folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
