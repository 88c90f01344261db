"""Gates of the face finder: photographs turned, small, cut tightly or at the edge, and pictures without a face."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.gates.photograph_material import FACELESS
from benchmarks.gates.table import GateRow, judge, unavailable
from eartalking.io.portrait import Box, load_portrait
from eartalking.perception.face_finder import find_faces
from eval.photographs import package_file, pictures

TURNS = (45, 90, 150, 180, 270)
SMALL_FACE = 40.0  # pixels from brows to chin
SIDE = 512  # longest side of a picture that is turned: the face stays large, and looking is quick


def variants(picture: np.ndarray, box: Box) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, picture and how many faces at least, of variants of a picture (H, W, 3) whose only face is in `box`."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    head = Image.fromarray(_part(picture, (left - side, top - side, right + side, bottom + side)))
    head.thumbnail((SIDE, SIDE))
    for turn in TURNS:
        yield f"turned {turn}", np.asarray(head.rotate(turn, expand=True, fillcolor=(128, 128, 128))), 1
    scale = SMALL_FACE / (bottom - top)
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (960, 540), (110, 120, 130))
    canvas.paste(small, (600, 250))
    yield "small", np.asarray(canvas), 1
    inset = 0.05 * side
    yield "tight", _part(picture, (left + inset, top - inset, right - inset, bottom)), 1
    yield "edge", _part(picture, (left + 0.15 * side, top - side, right + 2 * side, bottom + side)), 1


def _part(picture: np.ndarray, box: Box) -> np.ndarray:
    """What the picture has of a box."""
    left, top, right, bottom = (max(round(edge), 0) for edge in box)
    return picture[top:bottom, left:right]


def measure_finding() -> list[GateRow]:
    """Faces found in variants of the photographs with one face, and found where there is none."""
    found: dict[str, bool] = {}
    for name, picture, faces, _ in pictures():
        seen = find_faces(picture)
        found[name] = len(seen) == faces
        if faces > 1 or not seen:
            continue
        for variant, changed, least in variants(picture, seen[0].box):
            found[f"{name} {variant}"] = len(find_faces(changed)) >= least
    names = ("photographs_found", "photographs_false_finds")
    if not found:
        return [unavailable(name, "no package with photographs is installed") for name in names]
    lost = [name for name, hit in found.items() if not hit]
    rows = [judge(names[0], float(np.mean(list(found.values()))), len(found), "pictures", not_found=lost)]
    files = [file for name in FACELESS if (file := package_file("skimage", f"data/{name}.png")) is not None]
    if not files:
        return [*rows, unavailable(names[1], "scikit-image is not installed")]
    wrong = [file.stem for file in files if find_faces(load_portrait(file))]
    return [*rows, judge(names[1], len(wrong) / len(files), len(files), "pictures", found_in=wrong)]
