"""Distance between faces by dlib's face ResNet: 128 numbers per face; below 0.6 dlib calls them the same person.

The network and the 5-point landmarks are in the public domain (CC0) and come with the package
`face-recognition-models`. A frame in which no face is found is counted: every result has its coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from eartalking.io.portrait import Box
from eartalking.perception.frontal_detector import detect, resize

LANDMARKS_NAME, NETWORK_NAME = "shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat"
_DETECTION_SIDES = (480, 640)  # the detector's smallest face is 80 pixels; one size alone misses some
_QUICK_SIDES = (288, 480)  # enough for a portrait that is framed already
_SMALLEST_SCORE = -0.2  # lower than the detector's own: a turned or blurred face of a made video still counts


@dataclass(frozen=True)
class IdentityDistance:
    """Mean distance over the frames with a face (None without any), the share of frames with one, frames looked at."""

    distance: float | None
    coverage: float
    num_frames: int


@dataclass(frozen=True)
class _Found:
    """A face in a resized picture: the picture, its scale (new size over old), and the box in its pixels (4,)."""

    picture: np.ndarray
    scale: float
    box: np.ndarray


class FaceIdentity:
    """Descriptors of faces.

    Raises:
        ImportError: dlib is not installed.
        FileNotFoundError: the networks are not installed; the message names the package.
    """

    def __init__(self) -> None:
        import dlib  # here, because it takes time to load

        folder = _models_folder()
        self._rectangle = dlib.rectangle
        self._landmarks = dlib.shape_predictor(str(folder / LANDMARKS_NAME))
        self._network = dlib.face_recognition_model_v1(str(folder / NETWORK_NAME))

    def find(self, image: np.ndarray) -> Box | None:
        """Box (left, top, right, bottom) of the surest face in (H, W, 3) uint8, in its pixels; None without one."""
        found = _detect(image)
        if found is None:
            return None
        left, top, right, bottom = (float(edge) / found.scale for edge in found.box)
        return left, top, right, bottom

    def between_eyes(self, image: np.ndarray) -> np.ndarray | None:
        """(2,) the point between the eyes of the surest face in a square picture, x and y in [-1, 1]; None without
        one.
        """
        found = _detect(image, _QUICK_SIDES)
        if found is None:
            return None
        corners = list(self._shape(found).parts())[:4]  # the four corners of the eyes; the fifth point is the nose
        middle = np.mean([(point.x + 0.5, point.y + 0.5) for point in corners], axis=0)
        return middle * 2 / found.picture.shape[0] - 1

    def descriptor(self, image: np.ndarray) -> np.ndarray | None:
        """(128,) of the surest face in (H, W, 3) uint8, None without one."""
        found = _detect(image)
        if found is None:
            return None
        return np.asarray(self._network.compute_face_descriptor(found.picture, self._shape(found)))

    def distances(self, reference: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Distance of the face of each of the frames (T, H, W, 3) to that of the reference; nan without a face.

        Raises:
            ValueError: no face in the reference.
        """
        own = self.descriptor(reference)
        if own is None:
            raise ValueError("no face was found in the reference picture")
        found = [self.descriptor(frame) for frame in frames]
        return np.array([np.nan if other is None else np.linalg.norm(other - own) for other in found])

    def _shape(self, found: _Found) -> Any:
        left, top, right, bottom = (int(edge) for edge in found.box)
        # dlib's right and bottom are the last pixels inside the box.
        return self._landmarks(found.picture, self._rectangle(left, top, right - 1, bottom - 1))


def _detect(image: np.ndarray, sides: tuple[int, ...] = _DETECTION_SIDES) -> _Found | None:
    """The surest face at the first of the sizes that shows one."""
    for side in sides:
        picture, scale = resize(image, side)
        box = detect(picture, side, _SMALLEST_SCORE).surest()
        if box is not None:
            return _Found(picture, scale, box)
    return None


def summarise(distances: np.ndarray) -> IdentityDistance:
    """Mean and coverage of distances (T,) in which nan means that no face was found."""
    found = distances[~np.isnan(distances)]
    mean = float(found.mean()) if len(found) else None
    return IdentityDistance(mean, len(found) / max(1, len(distances)), len(distances))


def _models_folder() -> Path:
    spec = find_spec("face_recognition_models")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "models"
    if folder is None or not (folder / NETWORK_NAME).is_file():
        raise FileNotFoundError(
            "identity needs the package face-recognition-models: pip install face-recognition-models"
        )
    return folder
