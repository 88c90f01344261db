"""What frames look like: how large, the crop alone or the whole picture, before which background.

The model moves a square crop of a picture. `Output` knows that picture: it gives the canvas on which the crop is drawn,
and puts the crop back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from eartalking.autoencoder.canvas import Canvas
from eartalking.autoencoder.reference import Reference
from eartalking.errors import InputError
from eartalking.io.portrait import HEAD_CENTRE, MAX_SIDE, Box, FaceCrop, cut_square, load_portrait
from eartalking.modules.pixels import to_float
from eartalking.perception.face_detector import crop_face
from eartalking.perception.person_matte import person_matte
from eartalking.perception.turned_square import Picture, TurnedSquare

FRAMES = ("crop", "portrait")
KEEP, ALPHA = "keep", "alpha"  # the background that the picture has, and none: frames say how opaque they are
ENLARGED = 2  # times the model's size: the larger of the two sizes
LARGEST_SIDE = 3840  # of a whole picture
FADE = 0.08  # of the crop's side: so far from an edge inside the picture, movement is whole again
Picturelike = str | os.PathLike[str] | Image.Image | np.ndarray  # what `load_portrait` takes
Background = Picturelike  # or a word, or a colour


class Look(TypedDict, total=False):
    """What a caller may ask for.

    size: pixels a side of the animated crop: the model's, which is the default, or ENLARGED times as many.
    frame: "crop", frames show that square, or where it lies partly outside the picture the largest square of it that
    does not; "portrait", the whole picture, in which all around the crop stands still.
    background: "keep", a colour ("white", "#00ff00"), a picture as `load_portrait` takes it, or "alpha", nothing: then
    frames are (H, W, 4), the last channel 255 where they are opaque. Of crops only.
    """

    size: int | None
    frame: str
    background: Background


@dataclass(frozen=True)
class Output:
    """picture (H, W, 3) uint8, both even; `box`, the square of it that is animated and drawn at `size` pixels a side;
    `whole`, frames show the whole picture, else the picture is that square; background (size, size, 3) uint8, None to
    keep the picture's or, where frames are `transparent`, to show none; `view`, the square of what is drawn that frames
    show, if not all of it.
    """

    picture: np.ndarray
    box: Box
    size: int
    whole: bool = False
    background: np.ndarray | None = None
    transparent: bool = False
    view: Box | None = None

    @classmethod
    def of(
        cls,
        picture: np.ndarray,
        cut: FaceCrop,
        size: int | None = None,
        frame: str = "crop",
        background: Background = KEEP,
    ) -> Output:
        """For the model's crop of a picture and a `Look`.

        Raises:
            InputError: the background is a file that is no picture.
            ValueError: frames cannot look so.
        """
        image_size = len(cut.image)
        check_look(image_size, size, frame, background)
        size = size or image_size
        if frame == "crop":
            square = cut.image if size == image_size else cut_square(picture, size, cut.box, None).image
            backdrop = load_background(background, size)
            view = _in_picture(cut.box, picture, size)
            return cls(square, (0.0, 0.0, size, size), size, False, backdrop, _is(background, ALPHA), view)
        height, width = whole_shape(picture)
        return cls(np.ascontiguousarray(picture[:height, :width]), cut.box, size, True)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        height, width = self.picture.shape[:2]  # of crops, the crop's
        return height, width

    def canvas(self, reference: Reference, image_size: int, device: torch.device) -> Canvas | None:
        """What the crop is drawn on; None where that is the model's own frame."""
        cut_out = self.transparent or self.background is not None
        if self.size == image_size and not self.whole and not cut_out:
            return None
        portrait = cut_square(self.picture, self.size, self.box, None).image if self.whole else self.picture
        matte = backdrop = moving = None
        if cut_out:
            left, top, right, bottom = self.box
            square = TurnedSquare((left + right) / 2, (top + bottom) / 2, right - left)
            matte = torch.from_numpy(person_matte(Picture(self.picture), square, self.size))[None, None].to(device)
            backdrop = None if self.background is None else _batch(self.background, device)
        if self.whole:
            side = reference.surface.cover.shape[-1]
            moving = torch.from_numpy(self._fade(side, side))[None, None].to(device)
        return Canvas.of(reference, _batch(portrait, device), matte, backdrop, moving)

    def place(self, image: np.ndarray) -> np.ndarray:
        """The frame for a drawn crop (size, size, 3 or 4) uint8: itself, what of it shows the picture, or a copy of the
        whole picture in which it lies where it was cut out. At the crop's edges every pixel is the picture's own.
        """
        if self.view is not None:
            return np.asarray(Image.fromarray(image).resize(image.shape[:2], Image.Resampling.BICUBIC, self.view))
        if not self.whole:
            return image
        left, top, right, bottom = self._inside()
        scale = self.size / (self.box[2] - self.box[0])
        part = tuple(
            (edge - start) * scale for edge, start in zip((left, top, right, bottom), self.box[:2] * 2, strict=True)
        )
        drawn = Image.fromarray(image).resize(
            (right - left, bottom - top), Image.Resampling.BICUBIC, box=tuple(np.clip(part, 0, self.size))
        )
        frame = self.picture.copy()
        there = frame[top:bottom, left:right]
        share = self._fade(bottom - top, right - left)[..., None]
        there[:] = np.rint(there + share * (np.asarray(drawn, np.float32) - there)).astype(np.uint8)
        return frame

    def _inside(self) -> tuple[int, int, int, int]:
        """The pixels of the picture that the crop shows: left, top, right, bottom."""
        height, width = self.picture.shape[:2]
        left, top = (max(int(np.ceil(edge)), 0) for edge in self.box[:2])
        return left, top, min(int(self.box[2]), width), min(int(self.box[3]), height)

    def _fade(self, rows: int, columns: int) -> np.ndarray:
        """(rows, columns) float32: 0 at those edges of the crop that lie inside the picture, 1 from FADE on."""
        height, width = self.picture.shape[:2]
        inside = (self.box[1] > 0, self.box[3] < height), (self.box[0] > 0, self.box[2] < width)
        down, across = (_rise(count, *ends) for count, ends in zip((rows, columns), inside, strict=True))
        return (down[:, None] * across).astype(np.float32)

    def to_tensors(self) -> dict[str, Tensor]:
        """For `from_tensors`."""
        arrays = {
            "picture": self.picture,
            "box": np.array(self.box),
            "numbers": np.array([self.size, self.whole, self.transparent]),
        }
        arrays |= {} if self.background is None else {"background": self.background}
        arrays |= {} if self.view is None else {"view": np.array(self.view)}
        return {f"output.{name}": torch.from_numpy(value.copy()) for name, value in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Output:
        arrays = {name: tensors[f"output.{name}"].numpy() for name in ("picture", "box", "numbers")}
        background, view = (tensors.get(f"output.{name}") for name in ("background", "view"))
        size, whole, transparent = arrays["numbers"].tolist()
        return cls(
            arrays["picture"],
            tuple(arrays["box"].tolist()),
            size,
            bool(whole),
            None if background is None else background.numpy(),
            bool(transparent),
            None if view is None else tuple(view.tolist()),
        )


def leaves(box: Box, picture: np.ndarray) -> bool:
    """Whether a square shows more than the picture (H, W, 3) has; half a pixel is nothing."""
    height, width = picture.shape[:2]
    return min(box[:2]) < -0.5 or box[2] > width + 0.5 or box[3] > height + 0.5


def _in_picture(box: Box, picture: np.ndarray, size: int) -> Box | None:
    """The largest square of a crop, drawn at `size` pixels, that lies in the picture (H, W, 3), framed as the crop as
    far as it can be; None where the crop lies in it.

    What the crop shows beyond the picture repeats its edge, for the model's sake, and is not to be seen.
    """
    if not leaves(box, picture):
        return None
    scale, (height, width) = size / (box[2] - box[0]), picture.shape[:2]
    low = [max(-edge * scale, 0.0) for edge in box[:2]]
    high = [min((end - start) * scale, size) for end, start in zip((width, height), box[:2], strict=True)]
    side = min(high[0] - low[0], high[1] - low[1])
    # The head's middle stays where it is in a whole crop.
    wanted = ((size - side) * part for part in (0.5, HEAD_CENTRE))
    left, top = (min(max(start, first), last - side) for start, first, last in zip(wanted, low, high, strict=True))
    return left, top, left + side, top + side


def whole_shape(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of a frame that shows a whole picture (H, W, 3): H.264 wants them even."""
    height, width = (side - side % 2 for side in picture.shape[:2])
    return height, width


def load_picture(source: Picturelike, frame: str) -> np.ndarray:
    """The picture (H, W, 3) uint8 that `frame` needs. Errors as for `load_portrait`."""
    return load_portrait(source, LARGEST_SIDE if frame == "portrait" else MAX_SIDE)


def framed(
    source: Picturelike, image_size: int, crop: str | Box, face: str | int, frame: str
) -> tuple[np.ndarray, FaceCrop]:
    """The picture (H, W, 3) uint8 that `frame` needs, and the model's crop of it. Errors as for `load_portrait` and
    `crop_face`; ValueError besides: a box that is no square, or that shows nothing of the picture.
    """
    picture = load_picture(source, frame)
    if not isinstance(crop, str):
        _check_box(crop, picture)
        return picture, cut_square(picture, image_size, crop, None)
    return picture, crop_face(picture, size=image_size, mode=crop, face=str(face))


def _check_box(box: Box, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    left, top, right, bottom = box
    side = right - left
    if not (np.isfinite(box).all() and side >= 1 and abs(side - (bottom - top)) <= 0.01 * side):
        raise ValueError(f"crop must be a square (left, top, right, bottom) in pixels, not {box}")
    if not (right > 0 and left < width and bottom > 0 and top < height):
        raise ValueError(f"crop {box} lies outside the picture, which has {width} x {height} pixels")


def check_look(image_size: int, size: int | None = None, frame: str = "crop", background: Background = KEEP) -> None:
    """Raises ValueError: a `Look` that a model of this size cannot give."""
    if size not in (None, image_size, ENLARGED * image_size):
        raise ValueError(f"size must be {image_size} or {ENLARGED * image_size}, not {size}")
    if background is None:
        raise ValueError('background must be a colour, a picture, "keep" or "alpha", not None')
    if frame not in FRAMES:
        raise ValueError(f"frame must be {' or '.join(FRAMES)}, not {frame!r}")
    if frame == "portrait" and not _is(background, KEEP):
        raise ValueError("another background needs the crop alone, not the whole picture")


def load_background(background: Background, size: int) -> np.ndarray | None:
    """(size, size, 3) uint8 of a colour as CSS writes it ("white", "#00ff00"), or of the middle of a picture; None for
    "keep".

    Raises:
        InputError: a file that is no picture.
        ValueError: an array or image that is none.
    """
    if _is(background, KEEP) or _is(background, ALPHA):
        return None
    if isinstance(background, str) and not os.path.exists(background):
        try:
            colour = ImageColor.getrgb(background)[:3]
        except ValueError:
            raise InputError(background, "neither a colour nor a picture") from None
        return np.full((size, size, 3), colour, np.uint8)
    image = load_portrait(background)
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return cut_square(image, size, (left, top, left + side, top + side), None).image


def _is(background: Background, word: str) -> bool:
    return isinstance(background, str) and background == word


def _rise(count: int, first: bool, last: bool) -> np.ndarray:
    """(count,) in 0..1: 0 at the first and the last place where these are edges to be kept."""
    from_first, reach = np.arange(count), max(FADE * count, 1)
    share = np.ones(count)
    for kept, distance in ((first, from_first), (last, from_first[::-1])):
        if kept:
            near = np.clip(distance / reach, 0, 1)
            share = np.minimum(share, near * near * (3 - 2 * near))
    return share


def _batch(image: np.ndarray, device: torch.device) -> Tensor:
    return to_float(torch.from_numpy(image.copy()).to(device))[None]
