"""Where a clip is filmed: camera, light, background, and what the camera does to the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from eartalking.motion.head_space import FACE_PLANE

BACKDROP_SIZE = 256


@dataclass(frozen=True)
class Light:
    """Directions (3,) point from the head to the light; colours (3,) are linear intensities."""

    ambient_sky: np.ndarray
    ambient_ground: np.ndarray
    key_direction: np.ndarray
    key_colour: np.ndarray
    fill_direction: np.ndarray
    fill_colour: np.ndarray
    rim_colour: np.ndarray
    wrap: float


@dataclass(frozen=True)
class Photograph:
    """What the camera does to every frame of a clip alike. blur: Gaussian sigma as a fraction of the image width;
    gain (3,) and lift (3,) per channel, gamma, vignette 0..1 at the corners, noise: sigma in grey levels."""

    blur: float
    gain: np.ndarray
    lift: np.ndarray
    gamma: float
    vignette: float
    noise: float


def sample_camera(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Camera (3,): x, y of the optical axis and distance to z = 0 in head heights; and 1 / tan(fov / 2)."""
    field_of_view = np.radians(rng.uniform(15, 35))
    frame_height = 1 / rng.uniform(0.62, 0.82)
    focal = 1 / np.tan(field_of_view / 2)
    centre = np.array([0.0, 0.5]) + rng.normal(0, 0.025, 2) * frame_height
    centre[1] -= 0.06 * (frame_height - 1)
    return np.array([*centre, FACE_PLANE + frame_height / 2 * focal], np.float32), float(focal)


def _direction(rng: np.random.Generator, spread: float) -> np.ndarray:
    yaw, pitch = rng.normal(0, spread), rng.normal(0.35, 0.35)
    vector = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def sample_light(rng: np.random.Generator) -> Light:
    """Ambient light, key, fill and sometimes a rim, in random colours and directions."""
    warmth = rng.normal(0, 0.08)
    tint = np.array([1 + warmth, 1 + rng.normal(0, 0.02), 1 - warmth])
    level = rng.uniform(0.85, 1.45)
    contrast = rng.uniform(0.25, 0.75)  # share of the light that comes from the key
    rim = rng.uniform(0, 0.5, 3) * rng.uniform(0, 1) if rng.random() < 0.4 else np.zeros(3)
    return Light(
        ambient_sky=(level * (1 - contrast) * tint * rng.normal(1, 0.06, 3)).astype(np.float32),
        ambient_ground=(level * (1 - contrast) * rng.uniform(0.4, 0.9) * tint * rng.normal(1, 0.08, 3)).astype(
            np.float32
        ),
        key_direction=_direction(rng, 0.7),
        key_colour=(1.15 * level * contrast * tint * rng.normal(1, 0.08, 3)).astype(np.float32),
        fill_direction=_direction(rng, 1.0),
        fill_colour=(level * rng.uniform(0, 0.35) * rng.normal(1, 0.15, 3)).astype(np.float32),
        rim_colour=rim.astype(np.float32),
        wrap=float(rng.uniform(0.05, 0.5)),
    )


def sample_backdrop(rng: np.random.Generator) -> np.ndarray:
    """A background (256, 256, 3) uint8: gradient, clouds, spots, stripes or a room of blocks, sharp or blurred."""
    size = BACKDROP_SIZE
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    one, two = rng.uniform(0.02, 1, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    mix = 0.5 + 0.5 * (np.cos(angle) * x + np.sin(angle) * y)
    if rng.random() < 0.25:
        two = one * rng.uniform(0.8, 1.2)  # a plain studio wall
    image = one + (two - one) * np.clip(mix, 0, 1)[..., None]
    kind = rng.integers(6)
    if kind == 1:
        for scale in (60, 24, 9):
            cloud = ndimage.gaussian_filter(rng.normal(size=(size, size)), scale / 2)
            image += rng.uniform(-0.2, 0.2, 3) * (cloud / cloud.std())[..., None]
    elif kind == 2:
        for _ in range(rng.integers(4, 14)):
            spot = (x - rng.uniform(-1, 1)) ** 2 + (y - rng.uniform(-1, 1)) ** 2 < rng.uniform(0.05, 0.35) ** 2
            image[spot] += (rng.uniform(0, 1, 3) - image[spot]) * rng.uniform(0.3, 1)
    elif kind == 3:
        stripes = np.sin((np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(6, 40))
        image += rng.uniform(-0.25, 0.25, 3) * stripes[..., None]
    elif kind >= 4:  # furniture, windows
        for _ in range(rng.integers(4, 16)):
            left, top = rng.integers(-40, size, 2)
            width, height = rng.integers(15, 130, 2)
            image[max(top, 0) : top + height, max(left, 0) : left + width] = rng.uniform(0, 1, 3)
    if kind >= 2:
        blur = rng.choice([0.7, 3, 8])
        image = np.stack([ndimage.gaussian_filter(image[..., i], blur) for i in range(3)], axis=-1)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * rng.uniform(0.05, 1) ** 1.5  # most rooms are not gaudy
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def sample_photograph(rng: np.random.Generator) -> Photograph:
    """Random degradations of a camera, the same for a whole clip."""
    return Photograph(
        blur=float(rng.uniform(0.4, 1.3) / 256) if rng.random() < 0.3 else 0.0,
        gain=(rng.normal(1, 0.05, 3) * rng.uniform(0.85, 1.12)).astype(np.float32),
        lift=(rng.normal(0, 0.01, 3) + rng.uniform(-0.02, 0.05)).astype(np.float32),
        gamma=float(np.exp(rng.normal(0, 0.1))),
        vignette=float(rng.uniform(0, 0.5) if rng.random() < 0.35 else 0),
        noise=float(rng.uniform(0.5, 5) if rng.random() < 0.5 else 0),
    )
