"""The portrait's two components: an image input that never decodes what it is given, and the face crop over it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demo.component import component
from demo.uploads import MIN_SIDE, CropBox, Portrait, UploadError

_HERE = Path(__file__).parent
_SHOWN_SIDE = 640  # of the copy that the browser gets for adjusting the crop


class PortraitInput(gr.Image):
    """`gr.Image` that hands over the path of the upload as it is. The original opens the picture on the way, so that a
    damaged or huge one fails inside Gradio, before it could be refused with a useful sentence."""

    is_template = True  # drawn by gr.Image's own frontend

    def preprocess(self, payload: Any) -> str | None:
        return None if payload is None else payload.path


def portrait_crop(**kwargs: Any) -> gr.HTML:
    """The component. Its value is None for the automatic crop or {"box": [left, top, side]}; `shown` makes its
    update. `.select` fires with `event.number` when another of the faces is clicked, counted from the left from 1.
    """
    return component(_HERE, "crop", picture={}, **kwargs)


def shown(portrait: Portrait | None) -> dict[str, Any]:
    """The update of `portrait_crop` for a new portrait."""
    if portrait is None:
        return gr.update(value=None, picture={})
    height, width = portrait.image.shape[:2]
    picture = {
        "url": picture_url(portrait.image),
        "width": width,
        "height": height,
        "box": [portrait.box.left, portrait.box.top, portrait.box.side],
        "room": list(portrait.room),
        "faces": [list(face) for face in portrait.faces],
        "number": portrait.number,
        "least": MIN_SIDE,
        "note": _note(portrait),
    }
    return gr.update(value=None, picture=picture)


def _note(portrait: Portrait) -> str:
    if portrait.number is None:
        return "No face was found in this picture. Drag the square over one, from chin to crown."
    asleep = "The eyes are shut in this picture, and will stay shut." if portrait.asleep else ""
    if len(portrait.faces) > 1:
        told = f"{len(portrait.faces)} faces found, using number {portrait.number}. Click another to use it."
        return f"{told} {asleep}".strip()
    return asleep


def picture_url(image: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 for the browser, reduced where it is large."""
    return _data_url(Image.fromarray(image))


def chosen(value: Any) -> CropBox | None:
    """The crop that the component's value asks for; None is the automatic one.

    Raises:
        UploadError: not three finite numbers with a positive side.
    """
    if not value:
        return None
    try:
        left, top, side = (float(number) for number in value["box"])
    except (KeyError, TypeError, ValueError):
        raise UploadError("The crop cannot be used.") from None
    if not (abs(left) < 1e5 and abs(top) < 1e5 and 8 <= side < 1e4):
        raise UploadError("The crop cannot be used: it lies far outside the picture.")
    return CropBox(left, top, side)


def thumbnail(path: Path, side: int) -> str:
    """A small square JPEG of a picture's upper middle, as a data URL."""
    with Image.open(path) as image:
        edge = min(image.size)
        left = (image.width - edge) // 2
        return _data_url(image.convert("RGB").crop((left, 0, left + edge, edge)), side)


def _data_url(image: Image.Image, side: int = _SHOWN_SIDE) -> str:
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
