"""What a person looks like, as a handful of choices that texture and geometry share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SKIN_TONES = (
    np.array(
        [
            (250, 222, 202),
            (240, 200, 172),
            (226, 176, 138),
            (204, 146, 104),
            (166, 108, 72),
            (116, 72, 48),
            (74, 46, 34),
        ]
    )
    / 255
)
HAIR_TONES = (
    np.array(
        [
            (22, 18, 17),
            (48, 32, 24),
            (84, 54, 34),
            (128, 84, 48),
            (186, 142, 88),
            (222, 196, 148),
            (148, 66, 34),
            (150, 148, 146),
        ]
    )
    / 255
)


@dataclass(frozen=True)
class Look:
    """Choices shared by skin, hair and geometry. Colours are sRGB in 0..1."""

    skin: np.ndarray  # (3,)
    hair: np.ndarray  # (3,)
    hair_style: str  # "bald", "buzz", "short", "long"
    hairline: float  # raises (+) or lowers (-) the hairline, head heights
    age: float  # 0 young .. 1 old
    beard: float  # 0 none .. 1 full
    make_up: float  # 0 none .. 1 strong
    random_texture: float  # 0 natural .. 1 mostly random colours


def sample_look(rng: np.random.Generator) -> Look:
    """Random choices of an identity's appearance."""
    skin = tone(SKIN_TONES, rng.uniform(0, len(SKIN_TONES) - 1.001)) * rng.normal(1, 0.035, 3)
    if rng.random() < 0.04:
        skin = rng.uniform(0.2, 0.95, 3)
    hair = HAIR_TONES[rng.integers(len(HAIR_TONES))] * rng.uniform(0.6, 1.25) * rng.normal(1, 0.06, 3)
    if rng.random() < 0.06:
        hair = rng.uniform(0.05, 0.95, 3)
    style = rng.choice(["bald", "buzz", "short", "long"], p=[0.08, 0.14, 0.43, 0.35])
    return Look(
        skin=np.clip(skin, 0.03, 0.98),
        hair=np.clip(hair, 0.02, 0.95),
        hair_style=str(style),
        hairline=float(
            -rng.uniform(0.05, 0.2) if style in ("short", "long") and rng.random() < 0.2 else rng.normal(0, 0.03)
        ),
        age=rng.beta(1, 1.6),
        beard=float(rng.uniform(0.15, 1) if rng.random() < (0.1 if style == "long" else 0.35) else 0),
        make_up=float(rng.uniform(0.2, 1) if rng.random() < 0.35 else 0),
        random_texture=float(rng.uniform(0.25, 1) if rng.random() < 0.25 else 0),
    )


def tone(table: np.ndarray, at: float) -> np.ndarray:
    """Colour (3,) at a real-valued position of a colour table."""
    low = int(np.clip(np.floor(at), 0, len(table) - 2))
    return table[low] + (table[low + 1] - table[low]) * (at - low)
