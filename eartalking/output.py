"""What frames look like: how large, the crop alone or the whole picture, before which background.

The model moves a square crop of a picture. `Output` knows that picture: it gives the canvas on which the crop is drawn,
and puts the crop back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from eartalking.autoencoder.canvas import Canvas
from eartalking.autoencoder.reference import Reference
from eartalking.errors import InputError
from eartalking.io.portrait import Box, cut_square, load_portrait
from eartalking.modules.pixels import to_float
from eartalking.perception.person_matte import person_matte
from eartalking.perception.turned_square import Picture, TurnedSquare

FRAMES = ("crop", "portrait")
KEEP = "keep"  # the background that the picture has
ENLARGED = 2  # times the model's size: the larger of the two sizes
LARGEST_SIDE = 3840  # of a whole picture
FADE = 0.08  # of the crop's side: so far from an edge inside the picture, movement is whole again
Background = str | os.PathLike[str] | Image.Image | np.ndarray


@dataclass(frozen=True)
class Output:
    """picture (H, W, 3) uint8, both even; `box`, the square of it that is animated and drawn at `size` pixels a side;
    `whole`, frames show the whole picture, else the picture is that square; background (size, size, 3) uint8, None to
    keep the picture's.
    """

    picture: np.ndarray
    box: Box
    size: int
    whole: bool = False
    background: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        picture: np.ndarray,
        box: Box,
        size: int,
        frame: str = "crop",
        background: Background = KEEP,
    ) -> Output:
        """Raises InputError or ValueError: no such background; ValueError: no such frame, or a background with a whole
        picture."""
        check_output_options(frame, background)
        backdrop = load_background(background, size)
        if frame == "crop":
            return cls(cut_square(picture, size, box, None).image, (0.0, 0.0, size, size), size, False, backdrop)
        height, width = (side - side % 2 for side in picture.shape[:2])  # H.264 wants them even
        return cls(np.ascontiguousarray(picture[:height, :width]), box, size, True)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.picture.shape[:2] if self.whole else (self.size, self.size)

    def canvas(self, reference: Reference, image_size: int, device: torch.device) -> Canvas | None:
        """What the crop is drawn on; None where that is the model's own frame."""
        if self.size == image_size and not self.whole and self.background is None:
            return None
        portrait = cut_square(self.picture, self.size, self.box, None).image
        matte = backdrop = moving = None
        if self.background is not None:
            left, top, right, bottom = self.box
            square = TurnedSquare((left + right) / 2, (top + bottom) / 2, right - left)
            matte = torch.from_numpy(person_matte(Picture(self.picture), square, self.size))[None, None].to(device)
            backdrop = _batch(self.background, device)
        if self.whole:
            side = reference.pyramid[0].shape[-1]
            moving = torch.from_numpy(self._fade(side, side))[None, None].to(device)
        return Canvas.of(reference, _batch(portrait, device), matte, backdrop, moving)

    def place(self, image: np.ndarray) -> np.ndarray:
        """The frame for a drawn crop (size, size, 3) uint8: itself, or a copy of the whole picture in which it lies
        where it was cut out. At the crop's edges every pixel is the picture's own.
        """
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
        arrays = {"picture": self.picture, "box": np.array(self.box), "numbers": np.array([self.size, self.whole])}
        if self.background is not None:
            arrays["background"] = self.background
        return {f"output.{name}": torch.from_numpy(value.copy()) for name, value in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Output:
        arrays = {name: tensors[f"output.{name}"].numpy() for name in ("picture", "box", "numbers")}
        background = tensors.get("output.background")
        size, whole = arrays["numbers"].tolist()
        return cls(
            arrays["picture"],
            tuple(arrays["box"].tolist()),
            size,
            bool(whole),
            None if background is None else background.numpy(),
        )


def check_output_options(frame: str, background: Background) -> None:
    """Raises ValueError: there is no such frame, or it cannot have this background."""
    if frame not in FRAMES:
        raise ValueError(f"frame must be {' or '.join(FRAMES)}, not {frame!r}")
    if frame == "portrait" and not _keeps(background):
        raise ValueError("another background needs the crop alone, not the whole picture")


def load_background(background: Background, size: int) -> np.ndarray | None:
    """(size, size, 3) uint8 of a colour as CSS writes it ("white", "#00ff00"), or of the middle of a picture; None for
    "keep".

    Raises:
        InputError: a file that is no picture.
        ValueError: an array or image that is none.
    """
    if _keeps(background):
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


def _keeps(background: Background) -> bool:
    return isinstance(background, str) and background == KEEP


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
