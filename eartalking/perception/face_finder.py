"""All faces of a picture, whatever their direction: small ones, ones near the edge, and ones that fill it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from eartalking.perception.face_boxes import detect, merge
from eartalking.perception.face_mesh import CUT_SIDE, FaceMesh, read_meshes, settle
from eartalking.perception.turned_square import Picture, TurnedSquare

SMALLEST = 36  # pixels from brows to chin of the smallest face that is looked for
CHOICES = "largest, left, right, or a number that counts from the left, 1 first"
# The detectors find a face that is turned up to 60 degrees either way; three directions cover the circle. The two
# others cost as much as the first each, and are tried only where nothing stands upright.
_DIRECTIONS = (0.0, 120.0, -120.0)
_CANDIDATE = 0.45  # score of a candidate that is worth a look of the mesh
# Certainty of the mesh below which a candidate is dropped at once, after it was also tried upside down, and at the end.
_HOPELESS, _PROMISING, _CERTAIN = -8.0, -2.0, 6.0
_UPRIGHT = 13.0  # certainty that only a face gives that was read the right way up
_TILE = 480.0  # side of the smallest tile, where SMALLEST is 14 pixels to the detector
_APART = 0.4  # distance of two faces, in sides of the larger one's cut, below which they are one
_STEP = 0.6  # from tile to tile, in sides: a face of up to 0.4 sides lies whole in one of them


def find_faces(image: np.ndarray) -> list[FaceMesh]:
    """Every face of a picture (H, W, 3) uint8, the largest first; each with its mesh, box, roll and presence.

    Faces from SMALLEST pixels up are looked for, upright ones (within about 60 degrees) first; where none is, the two
    other directions are tried.
    """
    picture = Picture(image)
    faces: list[FaceMesh] = []
    for direction in _DIRECTIONS:
        faces = _distinct(faces + _faces(picture, direction))
        if faces and faces[0].certainty >= _UPRIGHT:
            break
    return sorted(faces, key=_size, reverse=True)


def choose_face(faces: list[FaceMesh], choice: str = "largest") -> FaceMesh:
    """One of `faces`: "largest", "left", "right" (as the viewer sees them), or "1", "2", ... counted from the left.

    Raises:
        ValueError: no faces, an unknown choice, or a number beyond the last face; the message says how many there are.
    """
    if not faces:
        raise ValueError("there is no face to choose from")
    across = from_left(faces)
    named = {"largest": max(faces, key=_size), "left": across[0], "right": across[-1]}
    if choice in named:
        return named[choice]
    if not choice.isdecimal():
        raise ValueError(f"the face must be {CHOICES}, not {choice!r}")
    if not 1 <= int(choice) <= len(faces):
        raise ValueError(f"the picture shows {len(faces)} face{'s' * (len(faces) > 1)}, not {choice}")
    return across[int(choice) - 1]


def from_left(faces: list[FaceMesh]) -> list[FaceMesh]:
    """The faces in the order in which the viewer sees them, from left to right."""
    return sorted(faces, key=lambda face: face.box[0] + face.box[2])


def _faces(picture: Picture, direction: float) -> list[FaceMesh]:
    candidates = []
    for squares, detectors in _levels(picture, direction):
        for detector in detectors:
            candidates += detect(picture, squares, detector, _CANDIDATE)
    smallest = 0.6 * min(SMALLEST, max(picture.height, picture.width) / 6)
    candidates = [face for face in merge(candidates) if face.side >= smallest]
    squares = [TurnedSquare(face.x, face.y, CUT_SIDE * face.side, face.roll) for face in candidates]
    seen = read_meshes(picture, squares)
    # The detectors also find faces that stand on their heads, and take them for upright: the mesh knows better.
    doubtful = [mesh.square for mesh in seen if _HOPELESS <= mesh.certainty < _UPRIGHT]
    seen += read_meshes(picture, [replace(square, roll=square.roll + 180) for square in doubtful])
    meshes = [settle(picture, mesh) for mesh in seen if mesh.certainty >= _PROMISING]
    meshes = [mesh for mesh in meshes if _is_face(picture, mesh)]
    return meshes


def _levels(picture: Picture, direction: float) -> list[tuple[list[TurnedSquare], tuple[str, ...]]]:
    """Squares that cover the picture, coarse to fine, and which detectors look at them."""
    long_side = float(max(picture.height, picture.width))
    middle = (picture.width / 2, picture.height / 2)
    # The whole picture, and once more with a margin, for faces that fill it.
    levels = [([TurnedSquare(*middle, share * long_side, direction) for share in (1.0, 1.6)], BOTH)]
    side = long_side / 2
    while side >= 0.75 * _TILE:
        rows, columns = _steps(picture.height, side), _steps(picture.width, side)
        levels.append(([TurnedSquare(x, y, side, direction) for y in rows for x in columns], FAR))
        side /= 2
    return levels


FAR: tuple[str, ...] = ("face_detector_far",)
BOTH: tuple[str, ...] = ("face_detector_far", "face_detector_near")


def _steps(length: float, side: float) -> list[float]:
    """Centres of the tiles along one side of the picture."""
    count = max(math.ceil((length - side) / (_STEP * side)), 0) + 1
    return [length / 2] if count == 1 else np.linspace(side / 2, length - side / 2, count).tolist()


def _is_face(picture: Picture, mesh: FaceMesh) -> bool:
    left, top, right, bottom = mesh.box
    inside = 0 < (left + right) / 2 < picture.width and 0 < (top + bottom) / 2 < picture.height
    return inside and mesh.certainty >= _CERTAIN


def _distinct(meshes: list[FaceMesh]) -> list[FaceMesh]:
    """One mesh per face, the surest first."""
    kept: list[FaceMesh] = []
    for mesh in sorted(meshes, key=_quality, reverse=True):
        middle = mesh.points[:, :2].mean(0)
        apart = [np.hypot(*(middle - face.points[:, :2].mean(0))) / max(_size(mesh), _size(face)) for face in kept]
        if not apart or min(apart) > _APART:
            kept.append(mesh)
    return kept


def _quality(mesh: FaceMesh) -> float:
    """Certainty; a mesh that has not come to rest may be certain and yet lie beside the face."""
    return mesh.certainty - 200 * mesh.drift


def _size(mesh: FaceMesh) -> float:
    return mesh.square.side
