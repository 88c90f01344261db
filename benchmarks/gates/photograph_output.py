"""Photographs as users want them back: at twice the model's size, and in the whole picture.

The first two seconds of speech. Kept are numbers and, of faces that may be shown and of a rendered one, a picture:
frames whole, and below them what the middle of the face looks like at its own size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.gates.material import EXAMPLE_PORTRAIT
from benchmarks.gates.photograph_material import faces
from benchmarks.gates.streams import SAMPLE_EVERY, Context, drive
from benchmarks.gates.table import GateRow, Unavailable, farthest_share, unavailable, worst_row
from eartalking import StreamSession
from eartalking.config import SAMPLE_RATE
from eartalking.io.portrait import cut_square, load_portrait
from eartalking.output import ENLARGED
from eartalking.perception.face_detector import crop_face
from eartalking.perception.identity import summarise

NAMES = ("photographs_identity_512", "photographs_sharpness_512", "photographs_seam")
SECONDS = 2.0
SHOWN = 3  # frames of a portrait in the picture; the first is left out, for it is the portrait
FACE = (0.5, 0.6)  # where the middle of a face lies in a crop, from the left and the top
Sharpness = Callable[[np.ndarray], float]


def measure_outputs(context: Context, waveform: np.ndarray, sharpness: Sharpness) -> list[GateRow]:
    """Rows for NAMES; `sharpness` of the cheeks in frames (F, S, S, 3), on average."""
    waveform = waveform[: round(SECONDS * SAMPLE_RATE)]
    image_size = context.model.config.autoencoder.image_size
    alike, sharp, seams = {}, {}, {}
    looks: list[np.ndarray] = []
    for name, picture, face, shown in tqdm(list(faces()), unit="portrait", desc="512", mininterval=2, leave=False):
        size, box = ENLARGED * image_size, crop_face(picture, image_size, face=face).box
        portrait = cut_square(picture, size, box, None).image
        frames = _frames(context, picture, waveform, face=face, size=size)
        try:
            alike[name] = summarise(context.distances(portrait, frames)).distance
        except Unavailable:
            alike[name] = None
        if shown:
            looks.append(np.stack([portrait, *frames[1 : SHOWN + 1]]))
        sharp[name] = sharpness(frames) / max(sharpness(portrait[None]), 1e-6)
        whole = _frames(context, picture, waveform, face=face, size=size, frame="portrait")
        seams[name] = seam(whole, picture, box)
    if looks and EXAMPLE_PORTRAIT.is_file():
        rendered = load_portrait(EXAMPLE_PORTRAIT)
        looks.append(_frames(context, rendered, waveform, size=ENLARGED * image_size)[: SHOWN + 1])
    if looks:
        context.pictures["photographs_512"] = closely(looks)
    known = {name: value for name, value in alike.items() if value is not None}
    if not sharp:
        return [unavailable(name, "no package with photographs is installed") for name in NAMES]
    return [
        worst_row(NAMES[0], known, max(known, key=known.__getitem__), "photographs")
        if known
        else unavailable(NAMES[0], "no identity"),
        worst_row(NAMES[1], sharp, farthest_share(sharp), "photographs"),
        worst_row(NAMES[2], seams, max(seams, key=seams.__getitem__), "photographs"),
    ]


def closely(looks: list[np.ndarray]) -> Image.Image:
    """Frames (F, S, S, 3) of several faces, F and S the same: a row of each at half its size, and one of the middles of
    its face as they are."""
    rows = []
    for frames in looks:
        side = frames.shape[1] // 2
        left, top = (round(share * 2 * side) - side // 2 for share in FACE)
        whole = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.LANCZOS)) for one in frames]
        rows += [np.concatenate(whole, axis=1), np.concatenate(frames[:, top : top + side, left : left + side], axis=1)]
    return Image.fromarray(np.concatenate(rows))


def seam(frames: np.ndarray, picture: np.ndarray, box: tuple[float, float, float, float]) -> float:
    """The largest difference, of 255, between frames (F, H, W, 3) and the picture, around the crop and at its edges."""
    height, width = frames.shape[1:3]
    left, top, right, bottom = (round(edge) for edge in box)
    outside = np.ones((height, width), bool)
    outside[
        max(top, 0) + (top > 0) : bottom - (bottom < height), max(left, 0) + (left > 0) : right - (right < width)
    ] = False
    return float(np.abs(frames.astype(np.int16) - picture[:height, :width])[:, outside].max(initial=0))


def _frames(context: Context, picture: np.ndarray, waveform: np.ndarray, **options: object) -> np.ndarray:
    kept: list[np.ndarray] = []
    count = 0

    def look(image: np.ndarray) -> None:
        nonlocal count
        if count % SAMPLE_EVERY == 0:
            kept.append(image)
        count += 1

    drive(StreamSession(context.model, picture, seed=context.seed, **options), waveform, None, look)  # type: ignore[arg-type]
    return np.stack(kept)
