"""The surface that a picture of a rendered head shows: for every pixel the point of the head, exactly.

The renderer says which triangle a pixel shows and where; from that follow the point at rest, how much of the head's
pose it takes over, and how the face units and the turning eyeballs move it. The movement of all vertices is compressed
to a few components once (`mover_components`): they are what `eartalking.autoencoder.surface.SurfaceEncoder` reads from
a portrait.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eartalking.motion.face_units import NUM_FACE_UNITS
from eartalking.motion.head_space import FACE_PLANE
from eartalking.synth.head import HeadBundle
from eartalking.synth.identity import Identity
from eartalking.synth.performance import random_stills

if TYPE_CHECKING:
    from eartalking.synth.performance import Performance
    from eartalking.synth.render import Renderer

GAZE_SPREAD = np.radians(10)
_STILLS = 2000  # random states from which the spread of each unit is taken


@lru_cache(maxsize=2)
def mover_components(bundle: HeadBundle, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How everything moves a vertex, compressed: components (V, count) of unit spread over the vertices that move, and
    basis (count, 54, 3), so that `components @ basis` is the movement of each vertex by each mover at full strength: 52
    face units, then the gaze's yaw and pitch in radians, to first order. What moves much and often is kept best."""
    movement = np.zeros((len(bundle.mean), NUM_FACE_UNITS + 2, 3), np.float64)
    movement[:, :NUM_FACE_UNITS] = bundle.deltas.transpose(1, 0, 2)
    for name in ("eye_left", "eye_right"):
        eye = bundle.vertices_of(name)
        x, y, z = (bundle.mean[eye] - bundle.mean[eye].mean(axis=0)).T
        movement[eye, -2, 0], movement[eye, -2, 2] = z, -x  # yaw
        movement[eye, -1, 1], movement[eye, -1, 2] = z, -y  # pitch
    spread = np.append(random_stills(_STILLS, np.random.default_rng(0)).face_units.std(axis=0), [GAZE_SPREAD] * 2)
    spread = np.maximum(spread, 0.02)[None, :, None]
    left, values, right = np.linalg.svd((movement * spread).reshape(len(movement), -1), full_matrices=False)
    moving = np.abs(movement).max(axis=(1, 2)) > 0
    components = left[:, :count] * values[:count]
    scale = components[moving].std(axis=0)
    basis = (right[:count] * scale[:, None]).reshape(count, *movement.shape[1:]) / spread
    return (components / scale).astype(np.float32), basis.astype(np.float32)


def surface_maps(renderer: Renderer, identity: Identity, performance: Performance) -> dict[str, np.ndarray]:
    """What the pixels of T states of the loaded identity show, S pixels a side.

    surface_point (T, S, S, 3) float16, the point at rest; surface_weight (T, S, S) uint8, 255 where it takes over all
    of the head's pose; surface_vertices (T, S, S, 3) int16, the bundle's vertices around it, -1 where face units move
    nothing, -2 where the background is; surface_shares (T, S, S, 2) uint8, how much of the first two; surface_camera
    (1, 4) as `eartalking.autoencoder.surface.CAMERA`.
    """
    values = renderer.surface(performance)
    triangle = values[..., 3].round().astype(np.int64) - 1  # (T, S, S)
    corners = identity.triangles[np.maximum(triangle, 0)]  # (T, S, S, 3)
    point = values[..., :3]
    shares = _barycentric(point, identity.rest[corners])
    bundle_vertex = np.full(len(identity.rest), -1, np.int16)
    bundle_vertex[: len(renderer.bundle.render_vertex)] = renderer.bundle.render_vertex
    vertices = bundle_vertex[corners]
    weight = (identity.material[corners, 0] * shares).sum(-1)
    person = triangle >= 0
    vertices[~person] = -2
    camera, focal = identity.camera, identity.focal
    reach = camera[2] - FACE_PLANE
    return {
        "surface_point": np.where(person[..., None], point, 0).astype(np.float16),
        "surface_weight": (np.clip(weight, 0, 1) * person * 255 + 0.5).astype(np.uint8),
        "surface_vertices": vertices,
        "surface_shares": (shares[..., :2] * 255 + 0.5).astype(np.uint8),
        "surface_camera": np.array([[camera[0], camera[1], focal / reach, 1 / reach]], np.float32),
    }


def _barycentric(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Shares (..., 3) of the corners (..., 3, 3) in points (..., 3) of their planes; clipped to the triangles."""
    a, b, c = np.moveaxis(triangles.astype(np.float64), -2, 0)
    normal = np.cross(b - a, c - a)
    area = np.maximum((normal**2).sum(-1), 1e-18)
    second = (np.cross(points - a, c - a) * normal).sum(-1) / area
    third = (np.cross(b - a, points - a) * normal).sum(-1) / area
    shares = np.clip(np.stack([1 - second - third, second, third], axis=-1), 0, 1)
    return shares / shares.sum(-1, keepdims=True)
