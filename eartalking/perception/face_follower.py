"""One face through a video: its mesh and what it does, each frame read from where the face was in the frame before."""

from __future__ import annotations

import numpy as np

from eartalking.perception.face_finder import find_faces
from eartalking.perception.face_mesh import CERTAIN, FaceMesh, read_meshes
from eartalking.perception.iris import read_eyes
from eartalking.perception.mesh_readings import FaceState, MeshReader
from eartalking.perception.turned_square import Picture


class FaceFollower:
    """Follows the largest face; where it is lost, it is looked for in the whole frame."""

    def __init__(self, reader: MeshReader) -> None:
        self._reader = reader
        self._mesh: FaceMesh | None = None

    def look(self, frame: np.ndarray) -> tuple[FaceMesh, FaceState] | None:
        """The face in the next frame (H, W, 3) uint8; None where none is certain."""
        picture = Picture(frame)
        mesh = read_meshes(picture, [self._mesh.next_square])[0] if self._mesh else None
        if mesh is None or mesh.certainty < CERTAIN:
            mesh = next((face for face in find_faces(frame) if face.certainty >= CERTAIN), None)
        self._mesh = mesh
        return (mesh, self._reader.read(mesh, read_eyes(picture, [mesh])[0])) if mesh else None
