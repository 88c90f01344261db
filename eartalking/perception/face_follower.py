"""One face through a video: its mesh and what it does, each frame read from where the face was in the frame before."""

from __future__ import annotations

import numpy as np

from eartalking.perception.face_finder import find_faces
from eartalking.perception.face_mesh import CERTAIN, FaceMesh, read_meshes
from eartalking.perception.iris import read_eyes
from eartalking.perception.mesh_readings import FaceState, MeshReader
from eartalking.perception.turned_square import Picture

PASSED_OVER = 5  # frames after one in which no face was found: it is not looked for in these


class FaceFollower:
    """Follows the largest face; where it is lost, it is looked for in the whole frame."""

    def __init__(self, reader: MeshReader) -> None:
        self._reader = reader
        self._mesh: FaceMesh | None = None
        self._to_pass = 0

    def look(self, frame: np.ndarray) -> tuple[FaceMesh, FaceState] | None:
        """The face in the next frame (H, W, 3) uint8; None where none is certain."""
        picture = Picture(frame)
        mesh = None if self._mesh is None else read_meshes(picture, [self._mesh.next_square])[0]
        if mesh is None or mesh.certainty < CERTAIN:
            mesh = self._find(frame)
        self._mesh = mesh
        return None if mesh is None else (mesh, self._reader.read(mesh, read_eyes(picture, [mesh])[0]))

    def _find(self, frame: np.ndarray) -> FaceMesh | None:
        if self._to_pass:
            self._to_pass -= 1
            return None
        mesh = next((face for face in find_faces(frame) if face.certainty >= CERTAIN), None)
        self._to_pass = 0 if mesh else PASSED_OVER
        return mesh
