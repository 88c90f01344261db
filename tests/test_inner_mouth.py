"""Between lips that open: teeth that stay with the skull, the dark below them, and what the portrait shows itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eartalking import load_model
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.inner_mouth import ENAMEL, InnerMouth, _Back, _brought, _light
from eartalking.autoencoder.mark_maps import mark_maps
from eartalking.autoencoder.reference import Reference
from eartalking.io.portrait import load_portrait
from eartalking.modules.curves import piecewise_linear, smoothstep
from eartalking.modules.pixels import to_float
from eartalking.motion.face_units import unit_vector
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_detector import crop_face
from eartalking.perception.face_marks import NUM_MARKS, read_marks

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def autoencoder() -> FrameAutoencoder:
    return load_model().autoencoder


def reference_of(autoencoder: FrameAutoencoder, name: str) -> Reference:
    picture = crop_face(load_portrait(EXAMPLES / name)).image
    with torch.inference_mode():
        return autoencoder.reference(to_float(torch.from_numpy(picture))[None])


def motion_of(autoencoder: FrameAutoencoder, reference: Reference, **units: float) -> torch.Tensor:
    """The portrait's own motion, its mouth doing what is said instead."""
    motion = autoencoder.code.latents_to_motion(reference.latents)
    own = motion.clone()
    own[:, :52] = torch.from_numpy(unit_vector(units)) * MOTION_SCALES["face_units"]
    return own


def drawn(
    autoencoder: FrameAutoencoder, reference: Reference, motion: torch.Tensor, frame: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """A frame, a grey one if none is given, before and after."""
    grey = torch.zeros(len(motion), 3, 256, 256) if frame is None else frame
    with torch.inference_mode():
        geometry = autoencoder.geometry(autoencoder.code.motion_to_latents(motion), reference)
        places = reference.lips.places(autoencoder.surface, motion, reference.motion)
        return grey, reference.mouth.drawn(grey, grey, reference.image, reference.lips, places, geometry.warp)


def rows(image: torch.Tensor, column: int) -> tuple[list[int], list[int]]:
    """Rows of what was drawn that are light, and dark, in one column."""
    light = image[0].mean(0)[:, column]
    teeth = torch.nonzero(light > 0).flatten().tolist()
    return teeth, torch.nonzero(light < -0.4).flatten().tolist()


def test_shut_lips_show_nothing(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "portrait.png")
    assert not reference.lips.parted.any()
    grey, image = drawn(autoencoder, reference, motion_of(autoencoder, reference, mouthPress=0.3))
    assert image is grey


def test_teeth_stay_in_the_skull_while_the_jaw_falls(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "portrait.png")
    middle = round(float(reference.mouth.ends[0, 0].mean() + 1) * 128)
    found = []
    for jaw in (0.4, 0.7):
        _, image = drawn(autoencoder, reference, motion_of(autoencoder, reference, jawOpen=jaw))
        teeth, dark = rows(image, middle)
        assert teeth and dark and max(teeth) < min(dark), "teeth above the dark"
        found.append((teeth, dark))
    assert abs(max(found[0][0]) - max(found[1][0])) <= 1, "the edge of the teeth does not move"
    assert len(found[1][1]) > len(found[0][1]) + 2, "the opening grows"
    changed = (image != 0).any(1)[0]
    assert changed.sum() < 0.03 * changed.numel(), "all else stays"


def test_teeth_turn_with_the_head(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "portrait.png")
    centres = []
    for yaw in (0.0, 12.0):
        motion = motion_of(autoencoder, reference, jawOpen=0.5)
        motion[:, HEAD_POSE.start] += yaw * MOTION_SCALES["head_pose"]
        _, image = drawn(autoencoder, reference, motion)
        teeth = image[0].mean(0) > 0.05
        centres.append(float(torch.nonzero(teeth)[:, 1].float().mean()))
    assert centres[1] - centres[0] > 4, "to the viewer's right"


def test_what_parted_lips_show_stays_in_the_skull(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "photo.jpg")
    assert reference.lips.parted.all()
    own = autoencoder.code.latents_to_motion(reference.latents)
    grey, image = drawn(autoencoder, reference, own)
    assert (image != grey).any(1).sum() > 100
    _, image = drawn(autoencoder, reference, own, reference.image)
    assert (image - reference.image).abs().max() < 0.01, "a mouth that stands as in the portrait is the portrait's"
    wider = own.clone()
    wider[:, :52] += torch.from_numpy(unit_vector({"jawOpen": 0.4})) * MOTION_SCALES["face_units"]
    _, image = drawn(autoencoder, reference, wider)
    dark = torch.nonzero(image[0].mean(0) < -0.3)[:, 0]
    teeth_end = float(reference.mouth.lower[0, 1].mean() + 1) * 128
    assert len(dark) > 40 and float(dark.float().mean()) > teeth_end, "below the portrait's own teeth"
    assert not (image[0].mean(0)[round(teeth_end) + 6 :] > 0.05).any(), "whose teeth they are"
    middle = round(float(reference.mouth.ends[0, 0].mean() + 1) * 128)
    rows = slice(round(teeth_end) - 5, round(teeth_end) - 2)
    columns = slice(middle - 8, middle + 9)
    kept, before = (picture[0, :, rows, columns] for picture in (image, reference.image))
    assert (kept - before).abs().mean() < 0.08, "teeth stay where they are while the jaw falls"


def test_lips_that_meet_show_a_line(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "photo.jpg")
    grey, image = drawn(autoencoder, reference, motion_of(autoencoder, reference))
    darker = (grey - image)[0]
    right, left = ((float(end) + 1) * 128 for end in reference.mouth.ends[0, 0])
    middle = darker[:, :, round((right + left) / 2)]
    assert 0.2 < float(middle.mean(0).max()) < 0.5 and int((middle.mean(0) > 0.1).sum()) <= 3, "thin, and not black"
    assert (middle[0] <= middle[1]).all(), "and reddish"
    columns = torch.nonzero(darker.amax((0, 1)) > 0.1)[:, 0]
    assert len(columns) > 0.7 * (left - right) and right - 3 < columns.min() and columns.max() < left + 3
    grey, image = drawn(autoencoder, reference, autoencoder.code.latents_to_motion(reference.latents), reference.image)
    assert (image - grey).abs().max() < 0.01, "where its own motion parts them, there is none"


def test_nothing_that_was_painted_is_seen_beside_an_opening(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "portrait.png")
    motion = motion_of(autoencoder, reference, jawOpen=0.5)
    with torch.inference_mode():
        warp = autoencoder.geometry(autoencoder.code.motion_to_latents(motion), reference).warp
        places = reference.lips.places(autoencoder.surface, motion, reference.motion)
        painted, warped = torch.full((1, 3, 256, 256), -0.9), torch.full((1, 3, 256, 256), 0.5)
        image = reference.mouth.drawn(painted, warped, reference.image, reference.lips, places, warp)[0]
    middle = round(float(reference.mouth.ends[0, 0].mean() + 1) * 128)
    changed = torch.nonzero((image[:, :, middle] != -0.9).any(0))[:, 0]
    edges = image[:, [int(changed.min()) + 4, int(changed.max()) - 4], middle]
    assert (edges > 0).all(), "lips as the warp brought them there"


def test_teeth_of_a_portrait_turn_with_its_head(autoencoder: FrameAutoencoder) -> None:
    """Where the skull's motion takes them, and not where the lips go."""
    places = torch.rand(1, 2, 14, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.4, 0.1])[:, None]
    slope = torch.tensor([[-0.1, 0.02], [0.03, 0.0]])
    there = torch.linalg.solve(torch.eye(2) + slope, places[0] - torch.tensor([0.05, -0.02])[:, None])[None]
    back = _Back.of(places, there - places)
    found = back.places(there[0].T[None])[0, 0].T
    assert (found - places[0]).abs().max() < 0.01, "a turn is undone, to a pixel of 256"


def test_a_larger_frame_shows_the_same(autoencoder: FrameAutoencoder) -> None:
    reference = reference_of(autoencoder, "portrait.png")
    motion = motion_of(autoencoder, reference, jawOpen=0.5)
    with torch.inference_mode():
        warp = autoencoder.geometry(autoencoder.code.motion_to_latents(motion), reference).warp
        places = reference.lips.places(autoencoder.surface, motion, reference.motion)
        small, large = (
            reference.mouth.drawn(grey, grey, grey, reference.lips, places, warp)
            for grey in (torch.zeros(1, 3, size, size) for size in (256, 512))
        )
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean((0, 1)).max() < 0.35
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 2e-3


def test_teeth_are_as_bright_as_the_whites_of_the_eyes(autoencoder: FrameAutoencoder) -> None:
    picture = crop_face(load_portrait(EXAMPLES / "photo.jpg")).image
    bright = to_float(torch.from_numpy(picture))[None]
    dark = bright * 0.4 - 0.6
    marks = read_marks(bright)
    assert mark_maps(marks, 256)[:, 3].any()
    light, little = (_light(images, marks) for images in (bright, dark))
    assert light.shape == (1, 3) and light[0, 0] > light[0, 2] and light.mean() > little.mean() + 0.2
    unseen = _light(bright, torch.zeros(1, NUM_MARKS, 3))
    assert torch.isfinite(unseen).all() and (unseen <= torch.tensor(ENAMEL) * 1.2).all()


def test_a_warp_is_turned_round() -> None:
    warp = torch.zeros(1, 2, 64, 64)
    warp[:, 0] = -0.1  # everything has come 0.1 to the right
    warp[:, 1] = torch.linspace(-1, 1, 64)[:, None] * -0.2 / 1.2  # and away from the middle: y = 1.2 times where it was
    places = torch.tensor([[[0.0, 0.3], [0.5, -0.25]]])
    moved = _brought(places, torch.zeros_like(places), warp)
    torch.testing.assert_close(moved, torch.tensor([[[0.1, 0.1], [0.1, -0.05]]]), atol=0.004, rtol=0)


def test_portraits_of_a_batch_do_not_touch(autoencoder: FrameAutoencoder) -> None:
    alone = reference_of(autoencoder, "portrait.png")
    two = alone.expand(2)
    motion = torch.cat([motion_of(autoencoder, alone, jawOpen=jaw) for jaw in (0.0, 0.6)])
    _, image = drawn(autoencoder, two, motion)
    assert isinstance(two.mouth, InnerMouth) and not image[0].any() and image[1].any()


def test_piecewise_linear_is_numpys() -> None:
    rng = np.random.default_rng(0)
    knots, values, at = rng.random((3, 2, 20))
    order = knots.argsort(1)
    expected = [np.interp(at[i], knots[i][order[i]], values[i][order[i]]) for i in range(2)]
    found = piecewise_linear(*(torch.from_numpy(part) for part in (at, knots, values)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(smoothstep(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])), torch.tensor([0, 0, 0.5, 1, 1.0]))
