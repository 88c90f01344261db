"""The texture atlas of an identity: skin with brows, beard and make-up, hair, eyes, clothes, plain colours.

One atlas serves the whole scene, so that a frame is one draw call. Skin and hair are painted in the template's
3-D coordinates (each texel of MakeHuman's head island knows its point on the mean head), which keeps every mark
on its anatomical place for all identities and leaves no seams.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, sparse

from eartalking.synth.head import MASKS, PARTS, HeadBundle
from eartalking.synth.look import Look, tone
from eartalking.synth.teeth import ROWS, Teeth, paint_row

ATLAS_SIZE = 640
TEXELS_PER_UV = 900
# Where MakeHuman's islands start (u, v from above) and where their texels go: (column, row, width, height).
HEAD_ISLAND, HEAD_BOX = (0.634, 0.176), (0, 0, 332, 620)
EARS_ISLAND, EARS_BOX = (0.008, 0.362), (338, 314, 140, 84)
HAIR_BOX = (338, 0, 166, 310)  # the head island again, at half resolution
EYE_BOX = (508, 0, 128, 128)
LOCKS_BOX = (508, 132, 128, 178)
CLOTH_BOX = (338, 402, 300, 236)
CLOTH_X, CLOTH_Y = (-1.2, 1.2), (-1.1, 0.35)  # head heights covered by CLOTH_BOX
SOLIDS = ("tongue", "mouth", "lash", "glasses")
SOLID_ORIGIN, SOLID_SIZE = (484, 316), 24
TEETH_BOXES = {name: (484, 342 + 30 * index, 150, 28) for index, name in enumerate(ROWS)}
EYE_TEXTURE_ANGLE = 1.75  # radians from the optical axis at the rim of EYE_BOX
LATTICES = (5, 14, 38)  # noise cells per head height

IRIS_TONES = np.array([(62, 36, 20), (98, 62, 30), (112, 98, 48), (72, 108, 72), (82, 122, 156), (116, 130, 140)]) / 255


@dataclass(frozen=True)
class TextureSpace:
    """What each texel of HEAD_BOX and EARS_BOX is on the mean head; n = texels of both boxes, head first.

    points (n, 3) float32 template position, masks (n, 4) float32 in the order of MASKS, noise: one sparse matrix
    (n, cells) per lattice that interpolates random values given at the lattice's cells.
    """

    points: np.ndarray
    masks: np.ndarray
    noise: tuple[sparse.csr_matrix, ...]


def island_texels(uv: np.ndarray, island: tuple[float, float], box: tuple[int, int, int, int]) -> np.ndarray:
    """MakeHuman's (n, 2) texture coordinates as (n, 2) atlas columns and rows, for one island."""
    return np.stack(
        [
            (uv[:, 0] - island[0]) * TEXELS_PER_UV + box[0],
            (1 - uv[:, 1] - island[1]) * TEXELS_PER_UV + box[1],
        ],
        axis=1,
    )


def is_ear_island(uv: np.ndarray) -> np.ndarray:
    """Which of (n, 2) texture coordinates lie on the two ear islands: (n,) bool."""
    return (uv[:, 0] < 0.17) & (uv[:, 1] > 0.53) & (uv[:, 1] < 0.64)


def is_head_island(uv: np.ndarray) -> np.ndarray:
    """Which of (n, 2) texture coordinates lie on the head island: (n,) bool."""
    u, v = uv.T
    return (u > 0.638) & (v > 0.146) & (v < 0.83) & ~((u < 0.65) & (v > 0.67))


@lru_cache(maxsize=1)
def texture_space(bundle: HeadBundle) -> TextureSpace:
    """The texture space of a bundle, computed once (about a second)."""
    part = bundle.part[bundle.render_vertex]
    body = (part == PARTS.index("skin")) | (part == PARTS.index("torso"))
    triangles = bundle.render_triangles
    ears, head = body & is_ear_island(bundle.uv), body & is_head_island(bundle.uv)
    steps = np.arange(17) / 16
    a, b = np.meshgrid(steps, steps)
    bary = np.stack([a, b, 1 - a - b], axis=-1)[a + b <= 1.0001]  # (S, 3)
    attributes = np.concatenate([bundle.mean, bundle.masks], axis=1)[bundle.render_vertex]
    layers = []
    for island, box, chosen in (
        (HEAD_ISLAND, HEAD_BOX, triangles[head[triangles].all(axis=1)]),
        (EARS_ISLAND, EARS_BOX, triangles[ears[triangles].all(axis=1)]),
    ):
        texels = island_texels(bundle.uv, island, box) - box[:2]
        where = np.einsum("sk,fkc->fsc", bary, texels[chosen]).reshape(-1, 2).astype(int)
        values = np.einsum("sk,fkc->fsc", bary, attributes[chosen]).reshape(-1, attributes.shape[1])
        layer = np.zeros((box[3], box[2], attributes.shape[1]), np.float32)
        filled = np.zeros(layer.shape[:2], bool)
        where = np.clip(where, 0, [box[2] - 1, box[3] - 1])
        layer[where[:, 1], where[:, 0]] = values
        filled[where[:, 1], where[:, 0]] = True
        # Texels off the island repeat its rim: bilinear look-ups there must not bleed.
        rows, columns = ndimage.distance_transform_edt(~filled, return_distances=False, return_indices=True)
        layers.append(layer[rows, columns].reshape(-1, layer.shape[2]))
    stacked = np.concatenate(layers)
    points = stacked[:, :3]
    return TextureSpace(points, stacked[:, 3:], tuple(_lattice(points, cells) for cells in LATTICES))


def _lattice(points: np.ndarray, cells: int) -> sparse.csr_matrix:
    """Trilinear interpolation weights (n, cells of the lattice) at the points."""
    low = points.min(axis=0)
    scaled = (points - low) * cells
    size = np.ceil(scaled.max(axis=0)).astype(int) + 2
    base = scaled.astype(int)
    fraction = scaled - base
    fraction = fraction * fraction * (3 - 2 * fraction)
    columns, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        index = base + corner
        columns.append((index[:, 0] * size[1] + index[:, 1]) * size[2] + index[:, 2])
        weights.append(np.prod(np.where(corner, fraction, 1 - fraction), axis=1))
    count = len(points)
    indptr = np.arange(0, 8 * count + 1, 8)
    return sparse.csr_matrix(
        (np.stack(weights, 1).ravel().astype(np.float32), np.stack(columns, 1).ravel(), indptr),
        shape=(count, int(size.prod())),
    )


def _bump(value: np.ndarray, centre: float, width: float | np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((value - centre) / width) ** 2)


def _ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def hair_coverage(points: np.ndarray, hairline: float) -> np.ndarray:
    """Signed distance-like measure (n,) of template points to the hairline; positive is hair, head heights."""
    x, y, z = points.T
    line = np.interp(
        z, [-0.4, -0.15, 0.0, 0.10, 0.20, 0.30, 0.42, 0.52], [0.10, 0.16, 0.33, 0.52, 0.60, 0.70, 0.82, 0.86]
    )
    return y - line - hairline * _ramp(z, 0.1, 0.4)


def paint_atlas(look: Look, teeth: Teeth, bundle: HeadBundle, rng: np.random.Generator) -> np.ndarray:
    """The atlas (ATLAS_SIZE, ATLAS_SIZE, 4) uint8 RGBA of one identity."""
    space = texture_space(bundle)
    noise = [_fields(matrix, rng) for matrix in space.noise]  # each (n, 3), roughly -1..1
    skin = _paint_skin(look, space, noise, rng)
    hair, alpha = _paint_hair(look, space, noise, rng)
    skin = _paint_scalp(skin, look, space, hair)
    atlas = np.zeros((ATLAS_SIZE, ATLAS_SIZE, 4), np.float32)
    atlas[..., 3] = 1
    split = HEAD_BOX[2] * HEAD_BOX[3]
    for box, texels in ((HEAD_BOX, skin[:split]), (EARS_BOX, skin[split:])):
        _place(atlas, box, texels.reshape(box[3], box[2], 3))
    half = np.concatenate([hair, alpha[:, None]], axis=1)[:split].reshape(HEAD_BOX[3], HEAD_BOX[2], 4)
    half = half[: 2 * HAIR_BOX[3], : 2 * HAIR_BOX[2]]
    _place(atlas, HAIR_BOX, half.reshape(HAIR_BOX[3], 2, HAIR_BOX[2], 2, 4).mean(axis=(1, 3)))
    _place(atlas, EYE_BOX, _paint_eye(rng))
    _place(atlas, LOCKS_BOX, _paint_locks(look, rng))
    _place(atlas, CLOTH_BOX, _paint_cloth(look, rng))
    colours = _solid_colours(look, rng)
    for name in SOLIDS:
        column, row = solid_corner(name)
        atlas[row : row + SOLID_SIZE, column : column + SOLID_SIZE, :3] = colours[name]
    for name, box in TEETH_BOXES.items():
        _place(atlas, box, paint_row(teeth, name, box[2], box[3], colours["teeth"], colours["gum"]))
    return (np.clip(atlas, 0, 1) * 255 + 0.5).astype(np.uint8)


def solid_corner(name: str) -> tuple[int, int]:
    """Top-left texel (column, row) of a plain colour's patch."""
    return SOLID_ORIGIN[0] + SOLIDS.index(name) * (SOLID_SIZE + 1), SOLID_ORIGIN[1]


def _place(atlas: np.ndarray, box: tuple[int, int, int, int], image: np.ndarray) -> None:
    atlas[box[1] : box[1] + box[3], box[0] : box[0] + box[2], : image.shape[2]] = image


def _fields(matrix: sparse.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    return matrix @ rng.uniform(-1.6, 1.6, (matrix.shape[1], 3)).astype(np.float32)


def _blend(colour: np.ndarray, target: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return colour + (target - colour) * amount[:, None]


def _paint_skin(look: Look, space: TextureSpace, noise: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    x, y, z = space.points.T
    side = np.abs(x)
    front = _ramp(z, 0.05, 0.3)
    lips, _, ears, eyelids = (space.masks[:, i] for i in range(len(MASKS)))
    coarse, middle, fine = noise
    colour = np.tile(look.skin.astype(np.float32), (len(x), 1))
    mottle = rng.uniform(0.01, 0.05)
    tint = np.array([0.6, 1.0, 1.0], np.float32)
    colour *= 1 + mottle * (coarse[:, :1] + 0.7 * middle[:, :1] + 0.5 * fine[:, :1]) * tint
    colour *= 1 + rng.uniform(0, 0.06) * rng.normal(size=(len(x), 1)).astype(np.float32)
    blood = np.array([1.0, 0.55, 0.5], np.float32) * colour + np.array([0.06, 0, 0], np.float32)
    blush = rng.uniform(0, 0.5) * _bump(side, 0.17, 0.06) * _bump(y, 0.36 + rng.normal(0, 0.02), 0.06) * front
    blush += rng.uniform(0, 0.5) * _bump(side, 0, 0.05) * _bump(y, 0.36, 0.05) * front + 0.25 * ears
    colour = _blend(colour, blood, np.clip(blush, 0, 1))
    shadow = rng.uniform(0, 0.35) * _bump(side, 0.125, 0.05) * _bump(y, 0.45, 0.022) * front
    shadow += 0.25 * eyelids
    if rng.random() < 0.3 + 0.5 * look.age:
        lines = _bump(np.sin(y * rng.uniform(70, 100) + 0.8 * coarse[:, 0]), 1, 0.25) * _bump(y, 0.73, 0.06)
        fold = _bump(side - (0.085 + (0.34 - y) * 0.35), 0, 0.007) * _bump(y, 0.28, 0.06)
        crow = _bump(np.sin(y * 120 + side * 30), 1, 0.3) * _bump(side, 0.25, 0.02) * _bump(y, 0.5, 0.03)
        shadow += look.age * rng.uniform(0.15, 0.5) * (lines + fold + crow) * front
    colour *= 1 - 0.55 * np.clip(shadow, 0, 1)[:, None] * np.array([0.8, 1.0, 1.0], np.float32)
    if rng.random() < 0.25:
        spots = _ramp(fine[:, 1], rng.uniform(0.45, 0.8), 1.1) * _bump(y, 0.42, rng.uniform(0.06, 0.2)) * front
        colour = _blend(colour, colour * np.array([0.6, 0.45, 0.35]), np.clip(spots, 0, 1) * rng.uniform(0.3, 0.9))
    for _ in range(rng.integers(1, 4) if rng.random() < 0.35 else 0):  # moles
        spot = np.exp(-((x - rng.uniform(-0.28, 0.28)) ** 2 + (y - rng.uniform(0.05, 0.8)) ** 2) / 0.005**2 / 2)
        colour *= 1 - 0.6 * (spot * front)[:, None]
    if look.random_texture:
        colour = _random_texture(colour, look.random_texture, space, noise, rng)
    lip_colour = look.skin * np.array([1.0, 0.62, 0.62]) * rng.uniform(0.75, 1.1) + np.array([0.05, 0, 0.02])
    if look.make_up:
        lip_colour = lip_colour * (1 - look.make_up) + rng.uniform(0.1, 0.9, 3) * [1, 0.4, 0.5] * look.make_up
        shade = rng.uniform(0, 0.8, 3)
        lid = np.clip(eyelids + _bump(side, 0.13, 0.05) * _bump(y, 0.555, 0.025), 0, 1) * look.make_up * 0.6 * front
        colour = _blend(colour, shade, lid)
    colour = _blend(colour, lip_colour * (1 + 0.08 * fine[:, :1]), _ramp(lips, 0.25, 0.75) * rng.uniform(0.55, 0.95))
    return _paint_facial_hair(colour, look, space, noise, rng)


def _random_texture(
    colour: np.ndarray, amount: float, space: TextureSpace, noise: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Colours no skin has: the model has to copy what it sees, whatever it is."""
    weights = rng.dirichlet([1, 1, 1])
    pattern = sum(weight * field for weight, field in zip(weights, noise, strict=True))
    if rng.random() < 0.4:
        direction = rng.normal(size=3) * rng.uniform(10, 45)
        pattern = pattern + np.sin(space.points @ direction + noise[0][:, 0])[:, None] * rng.uniform(-0.6, 0.6, 3)
    return np.clip(colour * (1 - 0.5 * amount) + amount * (0.35 * pattern + 0.5 * rng.uniform(0.1, 0.9, 3)), 0.02, 1)


def _paint_facial_hair(
    colour: np.ndarray, look: Look, space: TextureSpace, noise: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    x, y, z = space.points.T
    side = np.abs(x)
    front = _ramp(z, 0.2, 0.35)
    strands = (
        0.8 + 0.2 * np.sin(250 * y + 430 * side + 5 * noise[1][:, 0]) * rng.uniform(0.3, 1) + 0.15 * noise[2][:, 0]
    )
    brow_colour = look.hair * rng.uniform(0.45, 0.9) + 0.1 * look.skin * rng.uniform(0, 1)
    arch, lift = rng.uniform(0, 0.03), rng.normal(0.003, 0.006)
    centre = (
        0.586
        + lift
        + arch * np.sin(np.clip((side - 0.04) / 0.19, 0, 1) * np.pi * 0.8)
        - 0.25 * np.clip(side - 0.17, 0, 1)
    )
    thick = rng.uniform(0.007, 0.017) * (1 - 0.6 * _ramp(side, 0.14, 0.24))
    brow = _bump(y - centre, 0, thick) ** 0.8 * _ramp(side, 0.03, 0.06) * (1 - _ramp(side, 0.2, 0.235)) * front
    colour = _blend(colour, brow_colour, np.clip(brow * strands * rng.uniform(0.7, 1.5), 0, 1))
    if look.beard:
        jaw = 1 - _ramp(y - 0.55 * np.maximum(side - 0.08, 0), rng.uniform(0.16, 0.24), 0.30)
        chin_only = 1 - _ramp(side, 0.08, 0.14) if rng.random() < 0.3 else 1.0
        moustache = _bump(y, 0.262, 0.02) * (1 - _ramp(side, 0.09, 0.13)) * (rng.random() < 0.8)
        cover = np.maximum(jaw * chin_only, moustache) * _ramp(z, -0.05, 0.1) * _ramp(y, -0.10, -0.02)
        cover *= 1 - _ramp(space.masks[:, 0], 0.15, 0.5)
        grain = 0.65 + 0.35 * noise[2][:, 2] + 0.15 * rng.normal(size=len(x))
        colour = _blend(colour, look.hair * 0.75, np.clip(cover * grain * look.beard * 1.1, 0, 0.95))
    return colour


def _paint_hair(
    look: Look, space: TextureSpace, noise: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (n, 3) and coverage (n,) of the hair shell over the head island."""
    x, y, z = space.points.T
    azimuth = np.arctan2(x, z + 0.05)
    radius = np.sqrt(x**2 + (z - 0.1) ** 2)
    waves = sum(
        rng.uniform(0.3, 1)
        * np.sin(rng.uniform(15, 90) * azimuth + rng.uniform(0, 6) + 2.5 * noise[0][:, 0] + 6 * radius)
        for _ in range(5)
    )
    streak = 0.12 * waves + 0.25 * noise[2][:, 0] + 0.2 * noise[0][:, 1]
    colour = look.hair * (1 + rng.uniform(0.3, 0.8) * streak[:, None])
    cover = hair_coverage(space.points, look.hairline) + 0.02 * noise[1][:, 1] + 0.02 * noise[2][:, 1] + 0.006 * waves
    return np.clip(colour, 0, 1), _ramp(cover, -0.02, 0.02)


def _paint_scalp(skin: np.ndarray, look: Look, space: TextureSpace, hair: np.ndarray) -> np.ndarray:
    """Hair colour on the skin below the hair, so that no bald spot shows through."""
    if look.hair_style == "bald":
        return skin
    cover = _ramp(hair_coverage(space.points, look.hairline), -0.03, 0.05)
    return _blend(skin, hair, cover * (0.75 if look.hair_style == "buzz" else 0.92))


def _paint_eye(rng: np.random.Generator) -> np.ndarray:
    """Iris, pupil and sclera (128, 128, 3), azimuthal about the optical axis."""
    size = EYE_BOX[2]
    across = (np.arange(size) + 0.5) / size * 2 - 1
    u, v = np.meshgrid(across, across)
    angle, spoke = np.hypot(u, v) * EYE_TEXTURE_ANGLE, np.arctan2(v, u)
    sclera = np.array([0.93, 0.91, 0.89]) * rng.uniform(0.85, 1.02)
    veins = 1 - rng.uniform(0, 0.25) * _ramp(angle, 0.5, 1.3) * (0.6 + 0.4 * np.sin(13 * spoke + 4 * angle))
    image = sclera * np.stack([np.ones_like(veins), veins, veins], axis=-1)
    iris = np.clip(tone(IRIS_TONES, rng.uniform(0, len(IRIS_TONES) - 1.001)) * rng.normal(1, 0.1, 3), 0.03, 0.9)
    iris_angle, pupil_angle = rng.uniform(0.47, 0.54), rng.uniform(0.15, 0.24)
    spokes = 1 + 0.25 * np.sin(spoke * rng.integers(18, 40)) * np.sin(spoke * 7 + 1) + 0.3 * _ramp(angle, 0.45, 0.2)
    ring = 1 - 0.6 * _bump(angle, iris_angle, 0.05)
    inside = 1 - _ramp(angle, iris_angle - 0.03, iris_angle + 0.03)
    image = image * (1 - inside[..., None]) + iris * (spokes * ring)[..., None] * inside[..., None]
    return image * _ramp(angle, pupil_angle - 0.03, pupil_angle + 0.03)[..., None] + 0.01


def _paint_locks(look: Look, rng: np.random.Generator) -> np.ndarray:
    """Long hair (178, 128, 4): strands run downwards, the lower end frays."""
    height, width = LOCKS_BOX[3], LOCKS_BOX[2]
    strands = ndimage.gaussian_filter(rng.normal(size=(height, width)), (14, 0.7), mode=("nearest", "wrap"))
    broad = ndimage.gaussian_filter(rng.normal(size=(height, width)), (30, 4), mode=("nearest", "wrap"))
    value = 0.18 * strands / strands.std() + 0.2 * broad / broad.std()
    colour = look.hair * (1 + rng.uniform(0.4, 0.9) * value[..., None])
    row = np.linspace(0, 1, height)[:, None]
    alpha = np.clip(1.1 - _ramp(row, 0.82, 1.0) + 0.3 * strands / strands.std() * _ramp(row, 0.7, 0.9), 0, 1)
    return np.concatenate([np.clip(colour, 0, 1), alpha[..., None]], axis=-1)


def _paint_cloth(look: Look, rng: np.random.Generator) -> np.ndarray:
    """Neck and clothes (236, 300, 3), projected from the front; the neckline is the border between them."""
    width, height = CLOTH_BOX[2:]
    x, y = np.meshgrid(np.linspace(*CLOTH_X, width), np.linspace(CLOTH_Y[1], CLOTH_Y[0], height))
    grain = ndimage.gaussian_filter(rng.normal(size=(height, width)), 1.2)
    skin = look.skin * (1 + 0.06 * grain[..., None]) * (1 - 0.12 * _bump(y, 0.0, 0.12)[..., None])
    colour, second = rng.uniform(0.03, 0.95, 3) * rng.uniform(0.4, 1), rng.uniform(0.03, 0.95, 3)
    cloth = np.broadcast_to(colour, (height, width, 3)).copy()
    kind = rng.integers(5)
    period = rng.uniform(0.08, 0.3)
    if kind == 1:
        cloth[np.sin(y / period * 2 * np.pi) > rng.uniform(-0.3, 0.6)] = second
    elif kind == 2:
        cloth += (second - colour) * (
            0.5 + 0.25 * np.sign(np.sin(x / period * 6)) + 0.25 * np.sign(np.sin(y / period * 6))
        )[..., None]
    elif kind == 3:
        blobs = ndimage.gaussian_filter(rng.normal(size=(height, width)), rng.uniform(4, 14))
        cloth[blobs > 0.4 * blobs.std()] = second
    elif kind == 4:
        cloth[np.abs(x) < rng.uniform(0.05, 0.2)] = second
    folds = ndimage.gaussian_filter(rng.normal(size=(height, width)), (12, 5))
    cloth *= 1 + 0.1 * folds[..., None] / folds.std() + 0.1 * grain[..., None]
    depth = rng.uniform(0.0, 0.35)
    line = neckline(x, depth, rng.random() < 0.4)
    edge = _ramp(line - y, -0.005, 0.005)
    cloth *= 1 - 0.35 * _bump(line - y, 0.03, 0.008)[..., None]
    return skin * (1 - edge[..., None]) + np.clip(cloth, 0, 1) * edge[..., None]


def neckline(x: np.ndarray, depth: float, pointed: bool) -> np.ndarray:
    """Height of the clothes' upper border at x: a round or pointed neck of the given depth below the collar."""
    base = -0.17 + 0.12 * np.clip(np.abs(x), 0, 0.4) / 0.4
    width = 0.2
    inside = np.clip(1 - np.abs(x) / width, 0, 1)
    return base - depth * (inside if pointed else np.sqrt(inside))


def _solid_colours(look: Look, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "teeth": np.array([0.93, 0.9, 0.82]) * rng.uniform(0.8, 1.02),
        "gum": np.array([0.72, 0.36, 0.36]) * rng.uniform(0.8, 1.1),
        "tongue": np.array([0.74, 0.36, 0.36]) * rng.uniform(0.8, 1.1),
        "mouth": np.array([0.42, 0.13, 0.13]) * rng.uniform(0.6, 1.1),
        "lash": np.clip(look.hair * 0.4, 0, 0.25),
        "glasses": rng.uniform(0, 0.35, 3) if rng.random() < 0.75 else rng.uniform(0, 0.9, 3),
    }
