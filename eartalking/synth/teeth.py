"""A person's teeth and tongue: where they stand behind the lips, and what teeth look like.

MakeHuman's rows stand edge to edge, the upper one hidden by its lip, the lower one above its own; people's do not. Of
parted lips the upper incisors show 1 to 4 mm, the lower ones hardly any unless the mouth is wide open, and the upper
ones stand before the lower ones (overjet) and over them (overbite). Its tongue fills the mouth up to the upper teeth; a
tongue that says nothing lies lower, and above it is dark.

Lengths are in head heights (0.01 is about 2.3 mm).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eartalking.synth.head import HeadBundle

ROWS = ("teeth_upper", "teeth_lower")
# Crowns in mm from the middle outwards, of textbooks of dental anatomy, rounded.
CROWNS = {"teeth_upper": (8.5, 6.5, 7.5, 7.0, 7.0, 10.0, 10.0), "teeth_lower": (5.5, 6.0, 7.0, 7.0, 7.0, 11.0, 10.5)}
ARCH_CENTRE = 0.33  # z about which the arch is nearly a circle
ARCH_ANGLE = 1.65  # radians from the middle to the last molar
GUM_LINE = 0.5  # of a row's height, from its edge


@dataclass(frozen=True)
class Teeth:
    """How far each row and the tongue stand below where the mesh has them, and the lower row behind that; how bright
    teeth are, how dark the gaps between them, how uneven they are."""

    upper_drop: float
    lower_drop: float
    overjet: float
    tongue_drop: float
    brightness: float
    gap: float
    uneven: np.ndarray  # (2, 14) -1..1


def sample_teeth(rng: np.random.Generator) -> Teeth:
    """Random teeth."""
    return Teeth(
        upper_drop=float(np.clip(rng.normal(0.015, 0.005), 0.001, 0.026)),
        lower_drop=float(np.clip(rng.normal(0.010, 0.004), 0.000, 0.020)),
        overjet=float(rng.uniform(0.002, 0.012)),
        tongue_drop=float(rng.uniform(0.005, 0.045)),
        brightness=float(rng.uniform(1.1, 1.5)),
        gap=float(rng.uniform(0.1, 0.5)),
        uneven=rng.normal(0, 0.4, (2, 14)).clip(-1, 1),
    )


def set_teeth(teeth: Teeth, shape: np.ndarray, bundle: HeadBundle) -> np.ndarray:
    """The head's shape (V, 3) with teeth and tongue where this person has them."""
    shape = shape.copy()
    shape[bundle.vertices_of("teeth_upper"), 1] -= teeth.upper_drop
    lower = bundle.vertices_of("teeth_lower")
    shape[lower, 1] -= teeth.lower_drop
    shape[lower, 2] -= teeth.overjet
    shape[bundle.vertices_of("tongue"), 1] -= teeth.tongue_drop
    return shape


@lru_cache(maxsize=2)
def places(bundle: HeadBundle) -> dict[str, np.ndarray]:
    """Of each row's render vertices (n,) their place in its picture (n, 2): along the arch, and from edge to root, both
    in 0..1."""
    out = {}
    for name, sign in zip(ROWS, (1, -1), strict=True):
        vertices = bundle.mean[bundle.vertices_of(name)]
        points = bundle.mean[bundle.render_vertex[np.isin(bundle.render_vertex, bundle.vertices_of(name))]]
        along = np.arctan2(points[:, 0], points[:, 2] - ARCH_CENTRE) / ARCH_ANGLE
        height, all_heights = sign * points[:, 1], sign * vertices[:, 1]
        up = (height - all_heights.min()) / np.ptp(all_heights)
        out[name] = np.clip(np.stack([0.5 + 0.5 * along, up], axis=1), 0, 1)
    return out


def paint_row(teeth: Teeth, name: str, width: int, height: int, enamel: np.ndarray, gum: np.ndarray) -> np.ndarray:
    """A row's picture (height, width, 3) in 0..1, its edge on top: crowns with dark gaps, gums above them."""
    crowns = np.array(CROWNS[name])
    bounds = np.concatenate([[0], np.cumsum(crowns)]) / crowns.sum()
    along = (np.arange(width) + 0.5) / width * 2 - 1
    which = np.clip(np.searchsorted(bounds, np.abs(along), "right") - 1, 0, len(crowns) - 1)
    start, end = bounds[which], bounds[which + 1]
    inside = (np.abs(along) - start) / (end - start)  # 0..1 across a crown
    middle = 1 - (2 * inside - 1) ** 2  # 1 in a crown's middle, 0 in a gap
    uneven = teeth.uneven[ROWS.index(name)][np.where(along < 0, which, which + len(crowns))]
    up = (np.arange(height) + 0.5)[:, None] / height
    shade = 1 - teeth.gap * (1 - middle) ** 4 + 0.05 * uneven + 0.06 * (0.5 - up)
    edge = GUM_LINE + 0.10 * middle + 0.05 * uneven  # gums reach further down between the crowns
    is_gum = np.clip((up - edge) * height / 2 + 0.5, 0, 1)[..., None]
    return np.clip((1 - is_gum) * enamel * shade[..., None] + is_gum * gum, 0, 1)
