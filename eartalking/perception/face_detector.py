"""Finding the face in a picture, and the crop that frames its whole head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eartalking.io.portrait import Box, FaceCrop, crop_around, cut_square
from eartalking.perception.face_finder import choose_face, find_faces, from_left
from eartalking.perception.face_mesh import CHIN, FOREHEAD, FaceMesh

# A face's box, brows to chin, from its mesh: in distances of chin and forehead. `io.portrait` frames the head around
# such a box; the numbers put that frame where an average of many detections by dlib put it.
_BOX_SIDE, _BOX_BELOW_MIDDLE = 0.857, 0.034
_MOST_ROLL = 45.0  # degrees; crops are not turned, and a head that lies on its side is none to the model
NO_FACE = "no face found; use a larger, frontal, well-lit face, or take the picture's middle with --crop center"


class NoFaceError(ValueError):
    """The picture shows no face that the detector can find; the message says what to do."""

    def __init__(self) -> None:
        super().__init__(NO_FACE)


class FaceChoiceError(ValueError):
    """The face that was asked for is not there, or the choice is none of `face_finder.CHOICES`."""


@dataclass(frozen=True)
class ChosenFace:
    """One of a picture's upright faces: the `number`th, from 1, of `boxes` (brows to chin, pixels), which stand from
    left to right."""

    boxes: tuple[Box, ...]
    number: int

    @property
    def box(self) -> Box:
        return self.boxes[self.number - 1]

    @property
    def count(self) -> int:
        return len(self.boxes)


def crop_face(image: np.ndarray, size: int = 256, mode: str = "auto", face: str = "largest") -> FaceCrop:
    """Cut out the whole head, chin to crown HEAD_IN_CROP of the crop, and scale it to `size` pixels.

    Args:
        image: (H, W, 3) uint8.
        size: side of the crop in pixels.
        mode: "auto" frames a face; "center" takes the largest square in the middle.
        face: which face, of several: "largest", "left", "right", or a number that counts from the left, 1 first.

    Raises:
        NoFaceError: `mode` is "auto" and no face was found.
        FaceChoiceError: there is no such face.
    """
    if mode not in ("auto", "center"):
        raise ValueError(f"crop mode must be auto or center, not {mode!r}")
    height, width = image.shape[:2]
    if mode == "center":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return cut_square(image, size, (left, top, left + side, top + side), None)
    return crop_around(image, chosen_face(image, face).box, size)


def chosen_face(image: np.ndarray, choice: str = "largest") -> ChosenFace:
    """One of the upright faces in (H, W, 3) uint8; `choice` and errors as for `crop_face`."""
    upright = [face for face in find_faces(image) if abs(face.roll) <= _MOST_ROLL]
    if not upright:
        raise NoFaceError
    try:
        face = choose_face(upright, choice)
    except ValueError as error:
        raise FaceChoiceError(str(error)) from None
    across = from_left(upright)
    number = next(number for number, other in enumerate(across, 1) if other is face)
    return ChosenFace(tuple(map(face_box, across)), number)


def find_face(image: np.ndarray) -> Box | None:
    """Box (left, top, right, bottom) in pixels of the largest upright face in (H, W, 3) uint8, None without one."""
    try:
        return chosen_face(image).box
    except NoFaceError:
        return None


def face_box(face: FaceMesh) -> Box:
    """The box (left, top, right, bottom) from brows to chin that `io.portrait.crop_around` takes, pixels."""
    chin, forehead = face.points[CHIN, :2], face.points[FOREHEAD, :2]
    length = float(np.hypot(*(chin - forehead)))
    x, y = ((chin + forehead) / 2 + [0, _BOX_BELOW_MIDDLE * length]).tolist()
    reach = _BOX_SIDE * length / 2
    return x - reach, y - reach, x + reach, y + reach
