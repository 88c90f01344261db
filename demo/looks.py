"""What a video can show, as visitors and programs choose it."""

from __future__ import annotations

from typing import Any

from PIL import ImageColor

from demo.uploads import UploadError
from eartalking.output import ENLARGED, KEEP, Look, check_look


def looks(image_size: int) -> dict[str, Look]:
    """What the page offers, the usual one first; for a model of so many pixels a side."""
    large = ENLARGED * image_size
    return {
        f"Face, {image_size} pixels": {},
        f"Face, {large} pixels": {"size": large},
        "Whole picture": {"size": large, "frame": "portrait"},
        "Face on white": {"size": large, "background": "white"},
        "Face on green": {"size": large, "background": "#00b140"},
    }


def checked_look(asked: Look | None, image_size: int) -> Look:
    """What was asked for that is not so anyway. A background is a colour here and never a file: these are the server's.

    Raises:
        UploadError: no frame can look so.
    """
    wanted: dict[str, Any] = {name: value for name, value in (asked or {}).items() if value not in (None, "")}
    try:
        size, frame = int(wanted.get("size", image_size)), str(wanted.get("frame", "crop"))
        background = str(wanted.get("background", KEEP))
        if background != KEEP:
            background = "#{:02x}{:02x}{:02x}".format(*ImageColor.getrgb(background)[:3])
        check_look(image_size, size, frame, background)
    except (TypeError, ValueError) as error:
        raise UploadError(f"The video cannot look so: {error}.") from None
    look = Look()
    if size != image_size:
        look["size"] = size
    if frame != "crop":
        look["frame"] = frame
    if background != KEEP:
        look["background"] = background
    return look
