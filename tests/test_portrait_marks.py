"""Marks of a portrait's face, and what they say of its lips."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from eartalking.autoencoder.lips import LOWER_INNER, UPPER_INNER, Lips, fit_lips, with_teeth
from eartalking.autoencoder.mark_maps import NUM_MARK_MAPS, NUM_MESH_MAPS, between_lips, inside, mark_maps, mesh_maps
from eartalking.checkpoint import load_model
from eartalking.io.portrait import load_portrait
from eartalking.modules.pixels import to_float
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.rest import at_rest
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_detector import crop_face
from eartalking.perception.face_marks import LIPS_OUTLINE, NUM_MARKS, eye_marks, read_marks
from eartalking.perception.face_mesh import NUM_POINTS

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


# Where the original run-time finds the corners of the mouth and the middles of the lips' edges, from above to below, in
# the crop of a portrait, in pixels of 256. It cuts the face out by another finder.
SEEN_LIPS = {
    PORTRAIT: ((104.7, 165.4), (148.7, 167.0), (125.9, 164.0), (125.9, 169.8), (125.9, 169.7), (125.7, 178.6)),
    PHOTOGRAPH: ((102.4, 160.3), (154.1, 161.6), (128.1, 161.2), (127.9, 164.8), (127.5, 173.4), (127.2, 180.1)),
}


@pytest.mark.parametrize("path", SEEN_LIPS)
def test_lips_are_where_the_original_finds_them(path: Path) -> None:
    marks = read_marks(to_float(torch.from_numpy(crop_face(load_portrait(path)).image))[None])
    found = 256 * marks[0, [61, 291, 0, 13, 14, 17], :2]
    assert (found - torch.tensor(SEEN_LIPS[path])).norm(dim=1).max() < 1.2


def test_no_face_no_marks() -> None:
    assert not read_marks(torch.zeros(1, 3, 64, 64)).any()


def test_polygons_are_filled() -> None:
    square = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]])
    places = torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.1, 0.5], [0.8, 0.5], [0.5, 0.9]])
    assert inside(square, places).tolist() == [[1, 1, 0, 0, 0]]


def test_maps_show_lips_and_eyes(marks: torch.Tensor) -> None:
    opened = marks.clone()
    opened[:, LOWER_INNER, 1] += 0.03
    maps = mark_maps(opened, 128)
    assert maps.shape == (1, NUM_MARK_MAPS, 128, 128) and set(maps.unique().tolist()) == {0, 1}
    upper, lower, between, eyes = (torch.nonzero(one)[:, 0].float().mean() for one in maps[0])
    assert eyes < upper < between < lower  # rows, from the top
    assert torch.equal(maps[:, 2:3], between_lips(opened, 128))
    assert not mark_maps(torch.zeros_like(marks), 128).any()


def test_maps_show_which_place_of_a_head_each_place_of_a_face_is(marks: torch.Tensor) -> None:
    points = torch.cat([marks[0, :NUM_POINTS, :2], torch.zeros(NUM_POINTS, 1)], dim=1)  # each marks its own place
    maps = mesh_maps(marks, points, 64)
    assert maps.shape == (1, NUM_MESH_MAPS, 64, 64)
    face = maps[0, -1] == 1
    y, x = torch.meshgrid((torch.arange(64) + 0.5) / 64, (torch.arange(64) + 0.5) / 64, indexing="ij")
    assert 300 < face.sum() < 2000
    beside = torch.stack([maps[0, 0] - x, maps[0, 1] - y])[:, face].norm(dim=0)
    assert beside.median() < 0.01 and beside.max() < 0.05, "at its edge a face is as its last points"
    nose, ear = (marks[0, index, :2] * 64 for index in (1, 234))
    depth = [maps[0, 3, int(place[1]), int(place[0])] for place in (nose, ear)]
    assert depth[0] > 0 > depth[1], "a nose is nearer than an ear"
    both = mesh_maps(torch.cat([torch.zeros_like(marks), marks]), points, 64)
    assert not both[0].any(), "no face"
    torch.testing.assert_close(both[1], maps[0])


def test_a_surface_of_a_checkpoint_that_knew_no_marks_is_as_it_was(marks: torch.Tensor) -> None:
    surface = copy.deepcopy(load_model().autoencoder.surface)
    torch.nn.init.zeros_(surface.marks_in.weight)
    torch.nn.init.zeros_(surface.mesh_in.weight)
    portrait = torch.rand(1, 3, 256, 256) * 2 - 1
    for with_marks, without in zip(surface(portrait, marks), surface(portrait, torch.zeros_like(marks)), strict=True):
        torch.testing.assert_close(with_marks, without)


def test_what_lies_between_the_lips_gives_way_and_is_covered_when_they_meet() -> None:
    autoencoder = load_model().autoencoder
    portrait = to_float(torch.from_numpy(crop_face(load_portrait(PHOTOGRAPH)).image))[None]
    marks = read_marks(portrait)
    fields = autoencoder.surface(portrait, marks)
    lips = Lips.of(fields, marks, portrait)
    between = lips.between
    assert torch.equal(between, between_lips(marks, fields.cover.shape[-1]))
    assert 20 < between.sum() < 400
    teeth = with_teeth(fields, between)
    assert torch.equal(teeth.behind > 0, between > 0)
    assert not (teeth.components * between).any() and torch.equal(teeth.point, fields.point)
    code, error = autoencoder.code, autoencoder.encoder.error
    rest = code.motion_to_coordinates(torch.zeros(1, len(code.scale)))
    own = fit_lips(autoencoder.surface, lips.red, marks, code, rest, error)
    motion = code.coordinates_to_motion(own)
    closed = motion.clone()
    closed[:, UNIT_INDEX["jawForward"] : UNIT_INDEX["mouthUpperUpRight"] + 1] = 0
    as_it_is, covered = (
        lips.closing_over(portrait, lips.places(autoencoder.surface, state, motion)) for state in (motion, closed)
    )
    torch.testing.assert_close(as_it_is, portrait)
    changed = (covered - portrait).abs().amax(1) > 0.05
    ys, xs = torch.nonzero(changed[0], as_tuple=True)
    mouth = marks[0, list(LIPS_OUTLINE), :2] * portrait.shape[-1]
    assert changed.any() and (ys.min() > mouth[:, 1].min() - 8) and (ys.max() < mouth[:, 1].max() + 8)
    assert (xs.min() > mouth[:, 0].min() - 8) and (xs.max() < mouth[:, 0].max() + 8)


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


def test_lips_are_read_as_far_apart_as_they_stand(marks: torch.Tensor) -> None:
    """The marks of a shut mouth, with the lower lip lowered by known distances."""
    autoencoder = load_model().autoencoder
    portrait = to_float(torch.from_numpy(crop_face(load_portrait(PORTRAIT)).image))[None]
    code, error = autoencoder.code, autoencoder.encoder.error
    red = Lips.of(autoencoder.surface(portrait, marks), marks, portrait).red
    closed = code.motion_to_coordinates(torch.zeros(1, len(code.scale)))
    jaws = []
    for lowered in (0.0, 0.02, 0.04):  # of the crop
        moved = marks.clone()
        moved[:, LOWER_INNER, 1] = moved[:, UPPER_INNER, 1] + lowered + 0.003
        found = fit_lips(autoencoder.surface, red, moved, code, closed, error)
        assert torch.equal(found[:, HEAD_POSE], closed[:, HEAD_POSE])
        jaws.append(float(code.coordinates_to_motion(found)[0, UNIT_INDEX["jawOpen"]] / MOTION_SCALES["face_units"]))
    assert jaws[0] == 0 and 0.1 < jaws[1] < jaws[2] - 0.1
    nothing_seen = torch.zeros_like(marks)
    assert torch.equal(fit_lips(autoencoder.surface, red, nothing_seen, code, closed, error), closed)


def test_frames_are_read_as_the_portrait_was() -> None:
    """A photograph through its own reference: what the marks say of it, they say of it as a frame, too."""
    autoencoder = load_model().autoencoder
    photograph = to_float(torch.from_numpy(crop_face(load_portrait(PHOTOGRAPH)).image))[None]
    with torch.inference_mode():
        reference = autoencoder.reference(photograph)
        read = autoencoder.code.latents_to_motion(autoencoder.encode(photograph, reference))
        own = autoencoder.code.latents_to_motion(reference.latents)
    assert own[0, UNIT_INDEX["jawOpen"]] > 0.2 * MOTION_SCALES["face_units"]  # she laughs
    torch.testing.assert_close(read, own, atol=0.2, rtol=0)


def test_between_shut_lips_nothing_shows(marks: torch.Tensor) -> None:
    autoencoder = load_model().autoencoder
    portrait = to_float(torch.from_numpy(crop_face(load_portrait(PORTRAIT)).image))[None]
    fields, shut = autoencoder.surface(portrait, marks), marks.clone()
    shut[:, LOWER_INNER, 1] = shut[:, UPPER_INNER, 1] + 0.003
    lips = Lips.of(fields, shut, portrait)
    assert not with_teeth(fields, lips.between).behind.any()
    still = torch.zeros(1, 60)
    assert lips.closing_over(portrait, lips.places(autoencoder.surface, still, still)) is portrait


def test_a_face_with_marks_is_not_refined_and_one_without_is() -> None:
    """The part refiner has seen rendered eyes and teeth alone: it draws where no marks say how they look."""
    autoencoder = load_model().autoencoder
    photograph = to_float(torch.from_numpy(crop_face(load_portrait(PHOTOGRAPH)).image))[None]
    with torch.inference_mode():
        marked = autoencoder.reference(photograph)._replace(mouth=None)
        bare = autoencoder.reference_of(photograph, marked.latents, marked.landmarks)
        for reference, refined in ((marked, False), (bare, True)):
            geometry = autoencoder.geometry(reference.latents, reference)
            painted = autoencoder.paint(geometry, reference.latents, reference).image
            drawn = autoencoder.draw(geometry, reference.latents, reference).image
            assert bool((painted - drawn).abs().max() > 0.01) == refined


def test_networks_learn_on_faces_that_nothing_is_drawn_into() -> None:
    """Where latents are given, as in training, lips count, and eyes and mouths are the networks' own."""
    autoencoder = load_model().autoencoder
    photograph = to_float(torch.from_numpy(crop_face(load_portrait(PHOTOGRAPH)).image))[None]
    with torch.inference_mode():
        stream = autoencoder.reference(photograph)
        known = autoencoder.reference_of(photograph, stream.latents, stream.landmarks, stream.eyes.marks)
    assert stream.eyes is not None and stream.mouth is not None
    for reference in (known, known.expand(2)):
        assert reference.lips is not None and reference.eyes is None and reference.mouth is None
