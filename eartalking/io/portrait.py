"""From any picture to the square face crop that the model sees: load, find the face, frame the whole head."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from os import PathLike

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from eartalking.errors import InputError, check_file, os_cause

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
MAX_PIXELS = 170_000_000  # a file with more is refused: unpacked it would take gigabytes
MAX_SIDE = 2048  # larger pictures are reduced on load; no model here looks at more
BRIGHTEST = 2.0  # up to here numbers are taken for a picture of 0..1
MIN_SIDE = 32
BACKDROP = (128, 128, 128)  # what shows through transparent pixels
# Chin to crown, in units of the detector's box (brows to chin), measured on a photograph.
HEAD_ABOVE_BOX = 0.60
HEAD_BELOW_BOX = 0.06
HEAD_IN_CROP = 0.72  # head height / crop height
HEAD_CENTRE = 0.45  # middle between chin and crown, from the top of the crop


@dataclass(frozen=True)
class FaceCrop:
    """A square cut out of a picture.

    Attributes:
        image: (size, size, 3) uint8.
        box: left, top, right, bottom of the square in the picture's pixels; may lie partly outside the
        picture.
        face: the detector's box in the same form, None for a centred crop.
    """

    image: np.ndarray
    box: Box
    face: Box | None


def load_portrait(source: str | PathLike[str] | Image.Image | np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """Any picture as (H, W, 3) uint8 RGB, upright, at most `max_side` pixels on its longer side.

    Takes a path, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) uint8. EXIF rotation is applied,
    transparency lies over grey, 16-bit and float pictures are scaled to 8 bits; of an animation the first
    picture is taken.

    Raises:
        InputError: the file is missing, unreadable, damaged, no picture, too large or too small.
        ValueError: the same for a picture that is not a file.
    """
    if isinstance(source, np.ndarray):
        return _normalise(_image_from_array(source), max_side)
    if isinstance(source, Image.Image):
        return _normalise(source, max_side)
    check_file(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bomb and metadata warnings: the limits below decide
            with Image.open(source) as image:
                return _normalise(image, max_side)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(source, "not a picture") from None
    except Image.DecompressionBombError:
        raise InputError(source, _too_large()) from None
    except OSError as error:
        cause = os_cause(error)
        raise InputError(source, cause if error.errno else f"damaged picture ({cause})") from None
    except (ValueError, SyntaxError, EOFError, ArithmeticError, IndexError, KeyError, TypeError) as error:
        # Pillow's decoders raise all of these on damaged data; ours say what is wrong.
        raise InputError(source, str(error) or "damaged picture") from None


def crop_around(image: np.ndarray, face: Box, size: int = 256) -> FaceCrop:
    """The crop of `crop_face` for a face box (left, top, right, bottom) in pixels that is already known."""
    left, top, right, bottom = face
    box_height = bottom - top
    crown, chin = top - HEAD_ABOVE_BOX * box_height, bottom + HEAD_BELOW_BOX * box_height
    side = (chin - crown) / HEAD_IN_CROP
    x = (left + right) / 2 - side / 2
    y = (crown + chin) / 2 - side * HEAD_CENTRE
    return cut_square(image, size, (x, y, x + side, y + side), face)


def cut_square(
    image: np.ndarray,
    size: int,
    box: Box,
    face: Box | None,
) -> FaceCrop:
    """Resample `box` to `size` pixels; what lies outside the picture repeats its edge."""
    height, width = image.shape[:2]
    left, top = max(-int(np.floor(box[0])), 0), max(-int(np.floor(box[1])), 0)
    right, bottom = max(int(np.ceil(box[2])) - width, 0), max(int(np.ceil(box[3])) - height, 0)
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")
    window = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
    resized = Image.fromarray(padded).resize((size, size), Image.Resampling.LANCZOS, box=window, reducing_gap=3.0)
    return FaceCrop(np.array(resized), box, face)


def _normalise(image: Image.Image, max_side: int) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(_too_large())
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"the picture is too small ({image.width}x{image.height}; at least {MIN_SIDE} pixels a side)")
    image.draft("RGB", (max_side, max_side))  # lets a large JPEG decode at a fraction of its size
    image.load()
    upright = ImageOps.exif_transpose(image)
    factor = max(upright.size) // max_side  # a cheap whole-number step before the good filter
    rgb = _to_rgb(upright)
    if factor > 1:
        rgb = rgb.reduce(factor)
    if max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.array(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit, 32-bit and float greyscale
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, (*BACKDROP, 255))
        return Image.alpha_composite(backdrop, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Greyscale numbers as uint8; the range that they are in is read off the largest."""
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    largest = float(values.max())
    # Of 0..1, highlights may lie above.
    top = 1.0 if largest <= BRIGHTEST else next((limit for limit in (255.0, 65535.0) if largest <= limit), largest)
    return np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8)


def _image_from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"expected a picture (H, W, 3) uint8, got {array.shape} {array.dtype}")
    if 0 in array.shape:
        raise ValueError(f"the picture is empty: {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def _too_large() -> str:
    return f"the picture is too large (more than {MAX_PIXELS // 1_000_000} megapixels)"
