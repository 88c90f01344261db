"""Photographs of real people that come with packages, to measure on.

Two are in the public domain: scikit-image's astronaut and matplotlib's Grace Hopper. insightface's `t1.jpg` shows six
people and is for measuring alone: no picture made of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from eartalking.io.portrait import load_portrait

# Package, its file, how many faces, and whether pictures made of it may be kept.
PHOTOGRAPHS = (
    ("astronaut", "skimage", "data/astronaut.png", 1, True),
    ("hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 1, True),
    ("group", "insightface", "data/images/t1.jpg", 6, False),
)


def package_file(package: str, path: str) -> Path | None:
    """A file of an installed package; None where it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / path
    return file if file.is_file() else None


def pictures() -> Iterator[tuple[str, np.ndarray, int, bool]]:
    """Name, picture (H, W, 3) uint8, how many faces, and whether it may be kept, of each photograph that is here."""
    for name, package, path, faces, shown in PHOTOGRAPHS:
        file = package_file(package, path)
        if file is not None:
            yield name, load_portrait(file), faces, shown


def faces() -> Iterator[tuple[str, np.ndarray, str, bool]]:
    """Name, picture, which face of it, from the left, and whether it may be kept, of every face that is here."""
    for name, picture, count, shown in pictures():
        for number in range(1, count + 1):
            yield (name if count == 1 else f"{name}{number}"), picture, str(number), shown
