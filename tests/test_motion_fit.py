"""The fit of motion to pixels, on the shipped checkpoint: it finds back what moved a picture."""

from pathlib import Path

import pytest
import torch

from eartalking import load_model
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.motion_fit import contrast, fit_motion
from eartalking.autoencoder.reference import Reference
from eartalking.io.portrait import load_portrait
from eartalking.modules.pixels import to_float
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_detector import crop_face

PORTRAIT = Path(__file__).parents[1] / "examples" / "portrait.png"
ASKED = torch.tensor([[9.0, -6.0, 5.0], [-12.0, 3.0, -4.0]])  # yaw, pitch, roll


@pytest.fixture(scope="module")
def autoencoder() -> FrameAutoencoder:
    return load_model().autoencoder


@pytest.fixture(scope="module")
def reference(autoencoder: FrameAutoencoder) -> Reference:
    with torch.no_grad():
        return autoencoder.reference(to_float(torch.from_numpy(crop_face(load_portrait(PORTRAIT)).image))[None]).expand(
            2
        )


def turned(autoencoder: FrameAutoencoder, reference: Reference) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (2, 3, H, W) of the portrait turned as `ASKED`, and their coordinates (2, L)."""
    motion = autoencoder.code.latents_to_motion(reference.latents)
    motion[:, HEAD_POSE] = ASKED * MOTION_SCALES["head_pose"]
    latents = autoencoder.code.motion_to_latents(motion)
    with torch.no_grad():
        return autoencoder.decode(latents, reference).image.clamp(-1, 1), autoencoder.code.latents_to_coordinates(
            latents
        )


def degrees(autoencoder: FrameAutoencoder, coordinates: torch.Tensor) -> torch.Tensor:
    return autoencoder.code.coordinates_to_motion(coordinates)[:, HEAD_POSE] / MOTION_SCALES["head_pose"]


def test_a_turn_is_found_from_the_portrait_s_own_pose(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    frames, _ = turned(autoencoder, reference)
    start = autoencoder.code.latents_to_coordinates(reference.latents)
    error = torch.ones(start.shape[1])
    found = fit_motion(
        autoencoder.surface,
        reference.surface,
        reference.home,
        autoencoder.code.coordinates_to_motion,
        frames,
        reference.image,
        start,
        error,
    )
    off = (degrees(autoencoder, found) - ASKED).abs()
    before = (degrees(autoencoder, start) - ASKED).abs()
    assert before.mean() > 4
    assert off.mean() < 1.5 and off.max() < 4


def test_what_is_encoded_looks_like_the_frame(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    frames, _ = turned(autoencoder, reference)
    with torch.no_grad():
        read = autoencoder.code.coordinates_to_latents(autoencoder.encoder(frames, reference.image).float())
        errors = [
            (autoencoder.decode(latents, reference).image - frames).square().mean()
            for latents in (read, autoencoder.encode(frames, reference))
        ]
    assert errors[1] < 0.5 * errors[0]


def test_a_frame_that_shows_nothing_is_left_to_the_reading(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    read = torch.randn(2, len(autoencoder.code.scale), generator=torch.Generator().manual_seed(0))
    found = fit_motion(
        autoencoder.surface,
        reference.surface,
        reference.home,
        autoencoder.code.coordinates_to_motion,
        torch.zeros_like(reference.image),
        reference.image,
        read,
        torch.ones(read.shape[1]),
    )
    torch.testing.assert_close(found, read)


def test_each_frame_is_fitted_for_itself(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    frames, _ = turned(autoencoder, reference)
    both = autoencoder.encode(frames, reference)
    alone = autoencoder.encode(frames[1:], autoencoder.reference(reference.image[:1]))
    torch.testing.assert_close(both[1:], alone, atol=2e-3, rtol=1e-2)


def test_contrast_does_not_see_light() -> None:
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(contrast(images * 0.5 + 0.2, 1.0), contrast(images, 1.0), atol=0.15, rtol=0.2)
    assert contrast(torch.ones(1, 3, 64, 64), 1.0).abs().max() < 1e-4
