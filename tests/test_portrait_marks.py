"""Marks of a portrait's face: read from renders and photographs, drawn as a map, turned into a motion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eartalking.autoencoder.lips import LOWER_INNER, UPPER_INNER, Lips, between_lips, fit_lips, inside, with_teeth
from eartalking.checkpoint import load_model, save_model
from eartalking.config import TINY, AutoencoderConfig
from eartalking.io.portrait import load_portrait
from eartalking.model import TalkingHeadModel
from eartalking.modules.pixels import to_float
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.rest import at_rest
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_detector import crop_face
from eartalking.perception.face_marks import LIPS_OUTLINE, NUM_MARKS, eye_marks, read_marks
from eartalking.perception.portrait_reader import PortraitReader, measures, normalised
from eartalking.training.marks import with_noise

EXAMPLES = Path(__file__).parent.parent / "examples"
PORTRAIT, PHOTOGRAPH = EXAMPLES / "portrait.png", EXAMPLES / "photo.jpg"


@pytest.fixture(scope="module")
def marks() -> torch.Tensor:
    image = crop_face(load_portrait(PORTRAIT)).image
    return read_marks(to_float(torch.from_numpy(image))[None])


def test_marks_lie_on_the_face(marks: torch.Tensor) -> None:
    assert marks.shape == (1, NUM_MARKS, 3)
    left, right, lips = marks[0, eye_marks(1), :2], marks[0, eye_marks(0), :2], marks[0, list(LIPS_OUTLINE), :2]
    assert right[:, 0].max() < lips[:, 0].mean() < left[:, 0].min()  # the person's right is on the picture's left
    assert max(left[:, 1].max(), right[:, 1].max()) < lips[:, 1].min()
    assert 0.2 < marks[0, :, :2].min() and marks[0, :, :2].max() < 0.9


def test_no_face_no_marks() -> None:
    assert not read_marks(torch.zeros(1, 3, 64, 64)).any()


def test_polygons_are_filled() -> None:
    square = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]])
    places = torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.1, 0.5], [0.8, 0.5], [0.5, 0.9]])
    assert inside(square, places).tolist() == [[1, 1, 0, 0, 0]]


def test_what_lies_between_the_lips_gives_way_and_is_covered_when_they_meet() -> None:
    autoencoder = load_model().autoencoder
    portrait = to_float(torch.from_numpy(crop_face(load_portrait(PHOTOGRAPH)).image))[None]
    marks, fields = read_marks(portrait), autoencoder.surface(portrait)
    between = between_lips(marks, fields.cover.shape[-1])
    assert 20 < between.sum() < 400
    teeth = with_teeth(fields, marks)
    assert torch.equal(teeth.behind > 0, between > 0)
    assert not (teeth.components * between).any() and torch.equal(teeth.point, fields.point)
    lips = Lips.of(fields, marks, portrait)
    code, error = autoencoder.code, autoencoder.portrait_reader.error
    rest = code.motion_to_coordinates(torch.zeros(1, len(code.scale)))
    own = fit_lips(autoencoder.surface, fields, marks, code.coordinates_to_motion, rest, error)
    motion = code.coordinates_to_motion(own)
    closed = motion.clone()
    closed[:, UNIT_INDEX["jawForward"] : UNIT_INDEX["mouthUpperUpRight"] + 1] = 0
    as_it_is, covered = (lips.closing_over(autoencoder.surface, portrait, state) for state in (motion, closed))
    torch.testing.assert_close(as_it_is, portrait)
    changed = (covered - portrait).abs().amax(1) > 0.05
    ys, xs = torch.nonzero(changed[0], as_tuple=True)
    mouth = marks[0, list(LIPS_OUTLINE), :2] * portrait.shape[-1]
    assert changed.any() and (ys.min() > mouth[:, 1].min() - 8) and (ys.max() < mouth[:, 1].max() + 8)
    assert (xs.min() > mouth[:, 0].min() - 8) and (xs.max() < mouth[:, 0].max() + 8)


def test_shape_does_not_depend_on_place_and_size(marks: torch.Tensor) -> None:
    moved = 0.7 * marks + torch.tensor([0.1, 0.05, 0.02])
    torch.testing.assert_close(normalised(moved)[0], normalised(marks)[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(measures(moved), measures(marks), atol=1e-4, rtol=0)


def test_a_new_reader_changes_nothing_and_no_marks_neither(marks: torch.Tensor) -> None:
    config = AutoencoderConfig()
    reader, read, places = PortraitReader(config), torch.randn(1, config.motion_size), torch.rand(1, 3, 2)
    reading = reader.combined(marks, read, places)
    torch.testing.assert_close(reading.coordinates, read)
    torch.testing.assert_close(reading.landmarks, places)
    reader.trust.fill_(1)
    reading = reader.combined(torch.zeros_like(marks), read, places)
    torch.testing.assert_close(reading.coordinates, read)
    reading = reader.combined(marks, read, places)
    assert not torch.allclose(reading.coordinates, read)


def test_noise_moves_marks_a_little(marks: torch.Tensor) -> None:
    noisy = with_noise(marks.repeat(50, 1, 1))
    assert 0 < (noisy - marks).abs().mean() < 0.003


def test_what_the_model_is_told_of_a_portrait_is_at_rest() -> None:
    code = load_model().autoencoder.code
    motion = torch.zeros(2, len(code.scale))
    motion[:, UNIT_INDEX["mouthSmileLeft"]] = 0.5 * MOTION_SCALES["face_units"]
    motion[1, UNIT_INDEX["jawOpen"]] = 0.8 * MOTION_SCALES["face_units"]
    motion[1, HEAD_POSE.start] = 28 * MOTION_SCALES["head_pose"]
    rest = code.latents_to_motion(at_rest(code.motion_to_latents(motion), code))
    torch.testing.assert_close(rest[0], code.latents_to_motion(code.motion_to_latents(motion))[0], atol=1e-4, rtol=0)
    assert rest[1, UNIT_INDEX["jawOpen"]] == pytest.approx(0.1 * MOTION_SCALES["face_units"], abs=1e-3)
    assert rest[1, HEAD_POSE.start] == pytest.approx(15 * MOTION_SCALES["head_pose"], abs=1e-3)


def test_checkpoints_without_a_portrait_reader_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    save_model(TalkingHeadModel(TINY), folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "portrait_reader" not in key}, folder / "model.safetensors"
    )
    assert not load_model(folder).autoencoder.portrait_reader.trust.any()


def test_lips_are_read_as_far_apart_as_they_stand(marks: torch.Tensor) -> None:
    """The marks of a shut mouth, with the lower lip lowered by known distances."""
    autoencoder = load_model().autoencoder
    portrait = to_float(torch.from_numpy(crop_face(load_portrait(PORTRAIT)).image))[None]
    fields, code = autoencoder.surface(portrait), autoencoder.code
    closed = code.motion_to_coordinates(torch.zeros(1, len(code.scale)))
    jaws = []
    for lowered in (0.0, 0.02, 0.04):  # of the crop
        moved = marks.clone()
        moved[:, LOWER_INNER, 1] = moved[:, UPPER_INNER, 1] + lowered + 0.003
        error = autoencoder.portrait_reader.error
        found = fit_lips(autoencoder.surface, fields, moved, code.coordinates_to_motion, closed, error)
        assert torch.equal(found[:, HEAD_POSE], closed[:, HEAD_POSE])
        jaws.append(float(code.coordinates_to_motion(found)[0, UNIT_INDEX["jawOpen"]] / MOTION_SCALES["face_units"]))
    assert abs(jaws[0]) < 0.05 and 0.1 < jaws[1] < jaws[2] - 0.1
