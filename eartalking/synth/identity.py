"""Identities of SynthTalk: everything about a clip that does not move, drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from eartalking.motion.face_units import FACE_UNITS
from eartalking.synth.appearance import (
    ATLAS_SIZE,
    CLOTH_BOX,
    CLOTH_X,
    CLOTH_Y,
    EARS_BOX,
    EARS_ISLAND,
    EYE_BOX,
    EYE_TEXTURE_ANGLE,
    HAIR_BOX,
    HEAD_BOX,
    HEAD_ISLAND,
    LOCKS_BOX,
    SOLID_SIZE,
    TEETH_BOXES,
    hair_coverage,
    is_ear_island,
    is_head_island,
    island_texels,
    paint_atlas,
    solid_corner,
)
from eartalking.synth.head import PARTS, HeadBundle, vertex_normals
from eartalking.synth.look import Look, sample_look
from eartalking.synth.scene import Light, Photograph, sample_backdrop, sample_camera, sample_light, sample_photograph
from eartalking.synth.teeth import Teeth, places, sample_teeth, set_teeth

SPLITS = ("train", "val", "test")
SEEDS_PER_SPLIT = 1_000_000_000
# Surfaces that the visibility test keeps apart; 0 is the background.
GROUPS = {"skin": 1, "torso": 1, "inner_mouth": 2, "eye_left": 3, "eye_right": 3, "teeth_upper": 4,
          "teeth_lower": 5, "tongue": 6, "lashes": 7, "hair": 8, "locks": 9, "glasses": 10}  # fmt: skip
LOCKS_GRID = (13, 41)
TEETH_STREAM = 1  # teeth have random numbers of their own: all else of a person stays as it was before they had them


@dataclass(frozen=True, eq=False)
class Identity:
    """One person in one place. R vertices, F triangles; lengths in head heights.

    rest, normals (R, 3) float32, uv (R, 2) float32 in the atlas (v downwards), material (R, 4) float32: head
    weight, eye (-1 left, 1 right), gloss, shade (negative inside the mouth); group (R,) float32 from GROUPS,
    triangles (F, 3) int32, eye_centres (2, 3), atlas (640, 640, 4) uint8, backdrop (256, 256, 3) uint8,
    camera (3,): x, y of the optical axis and distance, focal = 1 / tan(fov / 2).
    """

    seed: int
    split: str
    look: Look
    rest: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    group: np.ndarray
    triangles: np.ndarray
    eye_centres: np.ndarray
    atlas: np.ndarray
    backdrop: np.ndarray
    light: Light
    camera: np.ndarray
    focal: float
    photograph: Photograph


def sample_identity(seed: int, split: str, bundle: HeadBundle) -> Identity:
    """The identity of a seed (0 <= seed < 1e9) in a split; the splits share no identity.

    Raises:
        ValueError: unknown split or seed out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if not 0 <= seed < SEEDS_PER_SPLIT:
        raise ValueError(f"seed must be in [0, {SEEDS_PER_SPLIT}), got {seed}")
    rng = np.random.default_rng(SPLITS.index(split) * SEEDS_PER_SPLIT + seed)
    look = sample_look(rng)
    coefficients = np.clip(rng.normal(0, 1, len(bundle.basis)), -2.3, 2.3).astype(np.float32)
    shape = bundle.mean + np.tensordot(coefficients, bundle.basis, axes=1)
    shape = _close_lips(shape, bundle)
    teeth = sample_teeth(np.random.default_rng([SPLITS.index(split), seed, TEETH_STREAM]))
    pieces = [_head_piece(set_teeth(teeth, shape, bundle), teeth, bundle, rng)]
    if look.hair_style != "bald":
        pieces.append(_hair_piece(shape, look, bundle, rng))
    if look.hair_style == "long":
        pieces.append(_locks_piece(shape, bundle, rng))
    eye_centres = np.stack([shape[bundle.vertices_of(name)].mean(axis=0) for name in ("eye_left", "eye_right")])
    if rng.random() < 0.12:
        pieces.append(_glasses_piece(shape, eye_centres, rng))
    offsets = np.cumsum([0] + [len(piece.rest) for piece in pieces])
    camera, focal = sample_camera(rng)
    return Identity(
        seed=seed,
        split=split,
        look=look,
        rest=np.concatenate([piece.rest for piece in pieces]).astype(np.float32),
        normals=np.concatenate([piece.normals for piece in pieces]).astype(np.float32),
        uv=np.concatenate([piece.uv for piece in pieces]).astype(np.float32) / ATLAS_SIZE,
        material=np.concatenate([piece.material for piece in pieces]).astype(np.float32),
        group=np.concatenate([piece.group for piece in pieces]).astype(np.float32),
        triangles=np.concatenate([p.triangles + o for p, o in zip(pieces, offsets, strict=False)]).astype(np.int32),
        eye_centres=eye_centres.astype(np.float32),
        atlas=paint_atlas(look, teeth, bundle, rng),
        backdrop=sample_backdrop(rng),
        light=sample_light(rng),
        camera=camera,
        focal=focal,
        photograph=sample_photograph(rng),
    )


@dataclass(frozen=True)
class _Piece:
    """A part of the mesh; uv in atlas texels."""

    rest: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    group: np.ndarray
    triangles: np.ndarray


def _material(count: int, *, weight: float | np.ndarray = 1.0, gloss: float = 0.0, shade: float = 1.0) -> np.ndarray:
    material = np.zeros((count, 4), np.float32)
    material[:, 0], material[:, 2], material[:, 3] = weight, gloss, shade
    return material


def _close_lips(shape: np.ndarray, bundle: HeadBundle) -> np.ndarray:
    """The shape (V, 3) with the jaw raised as far as its lips stand apart more than the mean head's."""
    jaw = bundle.deltas[FACE_UNITS.index("jawOpen")]

    def gap(points: np.ndarray) -> float:
        return float((points[bundle.lip_upper, 1] - points[bundle.lip_lower, 1]).mean())

    return shape - jaw * np.clip((gap(shape) - gap(bundle.mean)) / gap(jaw), 0, 0.4)


@lru_cache(maxsize=2)
def _concavity(bundle: HeadBundle) -> np.ndarray:
    """Static shade (V,) in 0..1: hollows of the mean head (eye sockets, nostrils, beside the nose) are darker."""
    mesh = bundle.triangles
    edges = np.concatenate([mesh[:, [0, 1]], mesh[:, [1, 2]], mesh[:, [2, 0]]])
    count = np.maximum(np.bincount(edges[:, 0], minlength=len(bundle.mean)), 1)

    def smooth(values: np.ndarray) -> np.ndarray:
        return np.bincount(edges[:, 0], values[edges[:, 1]], minlength=len(values)) / count

    broad = bundle.mean.astype(np.float64)
    for _ in range(12):
        broad = np.stack([smooth(broad[:, i]) for i in range(3)], axis=1)
    depth = ((broad - bundle.mean) * vertex_normals(bundle.mean, mesh)).sum(axis=1)
    for _ in range(2):
        depth = smooth(depth)
    return np.clip(1 - 22 * np.maximum(depth, 0), 0.35, 1).astype(np.float32)


@lru_cache(maxsize=2)
def _lash_roots(bundle: HeadBundle) -> np.ndarray:
    """The skin vertex nearest to each lash vertex: the lashes' length is scaled towards it."""
    skin = bundle.vertices_of("skin")
    return skin[cKDTree(bundle.mean[skin]).query(bundle.mean[bundle.vertices_of("lashes")])[1]]


def _head_piece(shape: np.ndarray, teeth: Teeth, bundle: HeadBundle, rng: np.random.Generator) -> _Piece:
    part = bundle.part
    normals = vertex_normals(shape, bundle.triangles)
    rest = shape.copy()
    # Clothes lie a little above the skin.
    torso = part == PARTS.index("torso")
    lift = np.clip((-0.2 - rest[:, 1]) / 0.1, 0, 1) * torso * rng.uniform(0.01, 0.04)
    rest += normals * lift[:, None]
    material = _material(len(rest), weight=bundle.head_weight, gloss=rng.uniform(0.02, 0.10))
    material[:, 3] = _concavity(bundle)
    material[torso, 2] = 0.0
    material[:, 2] += 0.12 * rng.uniform(0.2, 1.0) * bundle.masks[:, 0]  # lips are moist
    lip_depth = rest[bundle.lip_upper, 2].mean()
    for name, gloss, brightness in (
        ("inner_mouth", 0.03, 0.65), ("teeth_upper", 0.14, teeth.brightness),
        ("teeth_lower", 0.14, 0.75 * teeth.brightness), ("tongue", 0.10, 0.8),
    ):  # fmt: skip
        chosen = bundle.vertices_of(name)
        behind = np.clip((lip_depth - rest[chosen, 2]) / 0.22, 0, 1)
        material[chosen, 3] = -brightness * (1 - behind) ** 2.2 - 0.02
        material[chosen, 2] = gloss
    for name, sign in (("eye_left", -1), ("eye_right", 1)):
        chosen = bundle.vertices_of(name)
        material[chosen, 1:] = sign, 1.0, 0.95
        normals[chosen] = rest[chosen] - rest[chosen].mean(axis=0)
        normals[chosen] /= np.linalg.norm(normals[chosen], axis=1, keepdims=True)
    lashes = bundle.vertices_of("lashes")
    lower = bundle.mean[lashes, 1] < bundle.mean[bundle.vertices_of("eye_left"), 1].mean()
    shrink = np.where(lower, rng.uniform(0.9, 1.0), rng.uniform(0.5, 0.9))[:, None]
    rest[lashes] += (rest[_lash_roots(bundle)] - rest[lashes]) * shrink
    material[lashes, 2:] = 0.0, 0.8
    group = np.array([GROUPS[name] for name in PARTS], np.float32)[part]
    pick = bundle.render_vertex
    return _Piece(
        rest[pick], normals[pick], _head_uv(shape, normals, bundle), material[pick], group[pick],
        _two_sided(bundle.render_triangles, part[pick] == PARTS.index("lashes")),
    )  # fmt: skip


def _two_sided(triangles: np.ndarray, thin: np.ndarray) -> np.ndarray:
    """The triangles (F, 3), and once more the other way round where all their vertices are `thin` (R,) bool."""
    return np.concatenate([triangles, triangles[thin[triangles].all(axis=1)][:, ::-1]])


def _head_uv(shape: np.ndarray, normals: np.ndarray, bundle: HeadBundle) -> np.ndarray:
    """Atlas texels (R, 2) of the head's render vertices."""
    pick = bundle.render_vertex
    part = bundle.part[pick]
    ears = is_ear_island(bundle.uv)[:, None]
    uv = np.where(
        ears, island_texels(bundle.uv, EARS_ISLAND, EARS_BOX), island_texels(bundle.uv, HEAD_ISLAND, HEAD_BOX)
    )
    body = (part == PARTS.index("skin")) | (part == PARTS.index("torso"))
    torso = body & ~is_head_island(bundle.uv) & ~ears[:, 0]  # by texture, so that no triangle spans two islands
    place = bundle.mean[pick][torso]
    uv[torso, 0] = CLOTH_BOX[0] + np.clip((place[:, 0] - CLOTH_X[0]) / np.ptp(CLOTH_X), 0.01, 0.99) * CLOTH_BOX[2]
    uv[torso, 1] = CLOTH_BOX[1] + np.clip((CLOTH_Y[1] - place[:, 1]) / np.ptp(CLOTH_Y), 0.01, 0.99) * CLOTH_BOX[3]
    for name in ("eye_left", "eye_right"):
        chosen = part == PARTS.index(name)
        direction = normals[pick][chosen]
        angle = np.arccos(np.clip(direction[:, 2], -1, 1))
        radius = np.minimum(angle / EYE_TEXTURE_ANGLE, 0.97) * EYE_BOX[2] / 2
        flat = direction[:, :2] / np.maximum(np.linalg.norm(direction[:, :2], axis=1, keepdims=True), 1e-6)
        uv[chosen] = np.array(EYE_BOX[:2]) + EYE_BOX[2] / 2 + radius[:, None] * flat * [1, -1]
    for name, solid in (
        ("tongue", "tongue"),
        ("inner_mouth", "mouth"),
        ("lashes", "lash"),
    ):
        uv[part == PARTS.index(name)] = np.array(solid_corner(solid)) + SOLID_SIZE / 2
    for name, place in places(bundle).items():
        column, row, width, height = TEETH_BOXES[name]
        uv[part == PARTS.index(name)] = (column + 0.5, row + 0.5) + place * (width - 1, height - 1)
    return uv


def _hair_piece(shape: np.ndarray, look: Look, bundle: HeadBundle, rng: np.random.Generator) -> _Piece:
    """The scalp's triangles again, lifted off the head; the texture's alpha draws the hairline."""
    pick = bundle.render_vertex
    skin = (bundle.part[pick] == PARTS.index("skin")) & ~is_ear_island(bundle.uv) & (bundle.masks[pick, 2] < 0.5)
    cover = hair_coverage(bundle.mean, look.hairline)
    chosen = skin & (cover[pick] > -0.10)
    triangles = bundle.render_triangles[chosen[bundle.render_triangles].all(axis=1)]
    used, triangles = np.unique(triangles, return_inverse=True)
    vertices = pick[used]
    thickness = {"buzz": 0.012, "short": rng.uniform(0.03, 0.11), "long": rng.uniform(0.03, 0.08)}[look.hair_style]
    top = rng.uniform(0, 0.8) if look.hair_style == "short" else 0.2
    normals = vertex_normals(shape, bundle.triangles)[vertices]
    place = bundle.mean[vertices]
    waves = sum(
        rng.uniform(0.1, 0.35) * np.sin(place @ rng.normal(size=3) * rng.uniform(4, 14) + rng.uniform(0, 6.3))
        for _ in range(4)
    )
    rise = np.clip((cover[vertices] + 0.01) / 0.14, 0, 1)
    height = thickness * rise * (1 + top * np.clip(place[:, 1] - 0.6, 0, 0.4) * 2 + 0.5 * waves)
    rest = shape[vertices] + normals * np.maximum(height, 0.004)[:, None]
    uv = (island_texels(bundle.uv[used], HEAD_ISLAND, HEAD_BOX) - HEAD_BOX[:2]) / 2 + HAIR_BOX[:2]
    count = len(used)
    triangles = triangles.reshape(-1, 3)
    normals = vertex_normals(rest, triangles)
    return _Piece(
        rest, normals, uv, _material(count, gloss=rng.uniform(0.02, 0.15)), np.full(count, GROUPS["hair"]),
        _two_sided(triangles, np.ones(count, bool)),
    )  # fmt: skip


def _locks_piece(shape: np.ndarray, bundle: HeadBundle, rng: np.random.Generator) -> _Piece:
    """Long hair: a curtain around the back and the sides of the head that falls to between chin and chest."""
    rows, columns = LOCKS_GRID
    skin = shape[bundle.vertices_of("skin")]
    level = skin[np.abs(skin[:, 1] - 0.7) < 0.06]
    half_width = np.abs(level[:, 0]).max()
    front, back = np.percentile(level[:, 2], 97), level[:, 2].min()
    opening = np.radians(rng.uniform(78, 112))
    azimuth = np.linspace(opening, 2 * np.pi - opening, columns)
    down = np.linspace(0, 1, rows)[:, None]
    end = rng.uniform(-0.75, 0.2)
    y = 0.78 + (end - 0.78) * down + np.zeros(columns)
    volume = rng.uniform(0.02, 0.10)
    flare = rng.uniform(0.0, 0.2)
    swell = volume * np.sin(np.pi * np.clip(down * 2.2 + 0.12, 0, 0.8)) + flare * down**2
    wave = rng.uniform(0, 0.02) * np.sin(azimuth * rng.integers(6, 16) + down * rng.uniform(0, 8))
    centre = (front + back) / 2
    x = np.sin(azimuth) * (half_width + swell + wave)
    z = centre + np.cos(azimuth) * ((front - back) / 2 + swell + wave) - 0.05 * down
    rest = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    u = LOCKS_BOX[0] + 1 + np.linspace(0, LOCKS_BOX[2] - 2, columns)
    v = LOCKS_BOX[1] + 1 + np.linspace(0, LOCKS_BOX[3] - 2, rows)
    uv = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    normals = vertex_normals(rest, triangles)
    outwards = (normals[:, 0] * rest[:, 0] + normals[:, 2] * (rest[:, 2] - centre)).mean() > 0
    weight = (1 - 0.5 * np.clip((down - 0.4) / 0.6, 0, 1) + np.zeros(columns)).ravel()
    return _Piece(
        rest, normals if outwards else -normals, uv, _material(len(rest), weight=weight, gloss=0.05),
        np.full(len(rest), GROUPS["locks"]), _two_sided(triangles, np.ones(len(rest), bool)),
    )  # fmt: skip


def _glasses_piece(shape: np.ndarray, eye_centres: np.ndarray, rng: np.random.Generator) -> _Piece:
    """Two rims, a bridge and two temples, all tubes of square section."""
    radius, squash = rng.uniform(0.085, 0.115), rng.uniform(0.65, 1.0)
    tube = rng.uniform(0.006, 0.014)
    power = rng.uniform(2, 4)  # of the superellipse: round to rectangular
    front = eye_centres[:, 2].max() + rng.uniform(0.11, 0.14)
    angle = np.linspace(0, 2 * np.pi, 25)
    cos, sin = np.cos(angle), np.sin(angle)
    around = (np.abs(cos) ** power + np.abs(sin) ** power) ** (-1 / power)
    paths = []
    for eye in eye_centres:
        ring = np.stack([cos * around * radius, sin * around * radius * squash, -0.12 * np.abs(cos) ** 2 * radius], 1)
        paths.append(ring + [eye[0] * 1.02, eye[1] - 0.01, front])
    height = eye_centres[:, 1].mean()
    inner = np.abs(eye_centres[:, 0]).mean() * 1.02 - radius
    across = np.linspace(-inner, inner, 7)
    bridge = height + 0.02 + 0.01 * np.cos(across * 20)
    paths.append(np.stack([across, bridge, np.full(7, front + 0.005)], axis=1))
    outer = np.abs(eye_centres[:, 0]).mean() * 1.02 + radius
    side = np.abs(shape[_temple_vertices(shape)][:, 0]).max()
    for sign in (-1, 1):
        reach = np.linspace(0, 1, 8)[:, None]
        start = np.array([sign * outer, height + 0.01, front - 0.02])
        paths.append(start + reach * (np.array([sign * (side + 0.01), height, 0.08]) - start))
    rest: list[np.ndarray] = []
    normals, triangles = [], []
    for path in paths:
        along = np.gradient(path, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        reference = np.where(np.abs(along[:, 2:]) > 0.8, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
        one = np.cross(along, reference)
        one /= np.linalg.norm(one, axis=1, keepdims=True) + 1e-9
        two = np.cross(along, one)
        base = sum(len(part) for part in rest)
        corners = np.stack([one, two, -one, -two], axis=1)
        rest.append((path[:, None] + tube * corners).reshape(-1, 3))
        normals.append(corners.reshape(-1, 3))
        i = base + np.arange(len(path) - 1)[:, None] * 4 + np.arange(4)
        j = base + np.arange(len(path) - 1)[:, None] * 4 + (np.arange(4) + 1) % 4
        triangles += [np.stack([i, j, i + 4], -1).reshape(-1, 3), np.stack([j, j + 4, i + 4], -1).reshape(-1, 3)]
    points = np.concatenate(rest)
    uv = np.tile(np.array(solid_corner("glasses")) + SOLID_SIZE / 2, (len(points), 1))
    return _Piece(
        points, np.concatenate(normals), uv, _material(len(points), gloss=0.3),
        np.full(len(points), GROUPS["glasses"]), _two_sided(np.concatenate(triangles), np.ones(len(points), bool)),
    )  # fmt: skip


def _temple_vertices(shape: np.ndarray) -> np.ndarray:
    """Vertices (n,) at the height of the eyes just before the ears: where the temples of glasses pass."""
    return np.flatnonzero((np.abs(shape[:, 1] - 0.5) < 0.06) & (shape[:, 2] > 0.1) & (shape[:, 2] < 0.25))
