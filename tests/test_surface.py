"""The portrait's surface: its geometry is the renderer's, its warp is the true one, and the network only has to read
it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields, background_plate, movers, splat
from eartalking.config import AutoencoderConfig
from eartalking.modules.warp import identity_grid
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.motion.head_space import rotation
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES, TRANSLATION, motion_vector
from eartalking.perception.face_marks import NUM_MARKS
from eartalking.perception.face_mesh import NUM_POINTS
from eartalking.synth import render
from eartalking.synth.head import load_bundle
from eartalking.synth.identity import sample_identity
from eartalking.synth.performance import Performance, neutral_portrait, random_stills
from eartalking.synth.surface_maps import mover_components, surface_maps
from eartalking.training.surface import BACKGROUND, SurfaceTrainer, in_the_pose_of, mark_points, strengths

CONFIG = AutoencoderConfig(surface_widths=(8, 16, 16))


def vectors(motion: Performance) -> torch.Tensor:
    return motion_vector({name: torch.from_numpy(np.asarray(getattr(motion, name))) for name in MOTION_SCALES})


@pytest.fixture(scope="module")
def trainer() -> SurfaceTrainer:
    torch.manual_seed(0)
    return SurfaceTrainer(SurfaceEncoder(CONFIG)).eval()


def true_fields(trainer: SurfaceTrainer, maps: dict[str, np.ndarray]) -> SurfaceFields:
    return trainer.truth({name: torch.from_numpy(value) for name, value in maps.items()})


def test_turns_have_the_signs_of_the_controls() -> None:
    nose, crown = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    yaw, pitch, roll = rotation(90 * torch.eye(3))
    torch.testing.assert_close(yaw @ nose, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)  # the viewer's right
    torch.testing.assert_close(pitch @ nose, crown, atol=1e-6, rtol=0)  # looks up
    torch.testing.assert_close(roll @ crown, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)  # clockwise as seen
    both = rotation(torch.tensor([30.0, 20.0, 10.0]))
    parts = rotation(torch.diag(torch.tensor([30.0, 20.0, 10.0])))
    torch.testing.assert_close(both, parts[0] @ parts[1] @ parts[2])


def test_lids_follow_the_gaze_as_in_the_renderer() -> None:
    motion = random_stills(20, np.random.default_rng(0))
    moving = movers(vectors(motion))
    torch.testing.assert_close(
        moving[:, :NUM_FACE_UNITS], torch.from_numpy(render._face_units(motion)), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        moving[:, NUM_FACE_UNITS:], torch.deg2rad(torch.from_numpy(motion.gaze)), atol=1e-5, rtol=1e-4
    )


def test_components_keep_what_the_units_do() -> None:
    bundle = load_bundle()
    components, basis = mover_components(bundle, 40)
    units = random_stills(50, np.random.default_rng(1)).face_units
    exact = np.einsum("tm,mvc->tvc", units, bundle.deltas)
    kept = np.einsum("tm,vk,kmc->tvc", units, components, basis[:, :NUM_FACE_UNITS])
    skin = bundle.vertices_of("skin")
    error = np.linalg.norm(exact - kept, axis=-1)[:, skin] * 160  # pixels of 256 in a usual portrait
    assert (
        error.mean() < 0.15
        and np.quantile(error, 0.99) < 1.0
        and np.linalg.norm(exact, axis=-1)[:, skin].mean() * 160 > 0.5
    )


def test_the_true_surface_gives_the_true_warp(trainer: SurfaceTrainer) -> None:
    renderer = render.Renderer(256, 64)
    for seed in range(3):
        person = sample_identity(seed, "val", renderer.bundle)
        renderer.set_identity(person)
        rng = np.random.default_rng(seed)
        portrait, motion = neutral_portrait(rng), random_stills(3, rng)
        fields = true_fields(trainer, surface_maps(renderer, person, portrait))
        own, there = vectors(portrait), vectors(motion)
        shown = fields.cover > 0
        home = trainer.encoder.home(fields, own)
        landed = home - identity_grid(128).permute(0, 3, 1, 2)
        assert 128 * (landed.abs() * shown).max() < 2, "every pixel's point is seen where the pixel is"
        renderer.set_reference(portrait)
        correspondence, visible = renderer.correspondence(motion)
        true_warp = (torch.from_numpy(correspondence) - identity_grid(64)).permute(0, 3, 1, 2)
        for index in range(3):
            base = trainer.encoder.bases(trainer.encoder.pixels(fields, own), there[index : index + 1])[0]
            seen = torch.from_numpy(visible[index] > 0) & (true_warp[index].abs().sum(0) > 1e-3)
            error = 128 * (base.warp[0] - true_warp[index]).norm(dim=0)[seen]
            assert error.median() < 0.5 and (error < 2).float().mean() > 0.85
            assert (base.occupied[0, 0][seen] > 0.5).float().mean() > 0.9


def test_the_portraits_own_motion_moves_nothing(trainer: SurfaceTrainer) -> None:
    fields = trainer.encoder(torch.rand(2, 3, 256, 256) * 2 - 1, torch.zeros(2, NUM_MARKS, 3))
    motion = vectors(random_stills(2, np.random.default_rng(0)))
    home = trainer.encoder.home(fields, motion)
    moved, _ = trainer.encoder.displace(fields, motion, home)
    assert moved.shape == (2, 2, 128, 128) and not moved.any()
    assert not trainer.encoder.bases(trainer.encoder.pixels(fields, motion), motion)[0].warp.any()
    other = motion.clone()
    other[:, GAZE] += 1.0
    assert trainer.encoder.displace(fields, other, home)[0].any()


def test_units_that_move_too_little_are_found_and_by_how_much() -> None:
    renderer = render.Renderer(256, 64)
    person = sample_identity(0, "val", renderer.bundle)
    renderer.set_identity(person)
    maps = surface_maps(renderer, person, neutral_portrait(np.random.default_rng(0)))
    batch = {name: torch.from_numpy(value) for name, value in maps.items()}
    trainer = SurfaceTrainer(SurfaceEncoder(CONFIG))
    trainer.forward = lambda portrait, marks: trainer.truth(batch)  # type: ignore[method-assign]
    weak = UNIT_INDEX["browOuterUpLeft"]
    exact = strengths(trainer, [batch | {"portrait": torch.zeros(1), "marks": torch.zeros(1)}])
    trainer.encoder.basis[:, weak] /= 2
    found = strengths(trainer, [batch | {"portrait": torch.zeros(1), "marks": torch.zeros(1)}])
    for name in ("jawOpen", "mouthSmileLeft", "browDownRight", "browOuterUpLeft"):
        assert exact[UNIT_INDEX[name]] == pytest.approx(1, abs=0.05)
    assert found[weak] == pytest.approx(2 * float(exact[weak]), rel=1e-3)
    rest = [index for index in range(NUM_FACE_UNITS) if index != weak]
    torch.testing.assert_close(found[rest], exact[rest])


def grid(side: int) -> torch.Tensor:
    return identity_grid(side).permute(0, 3, 1, 2)


def test_splat_turns_a_movement_round() -> None:
    moved, near, cover = torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    cover[..., 4:8, 4:8] = 1
    moved[:, 0] = 4 * 2 / 16  # everything goes four pixels, two cells of a map of 8, to the right
    warp, occupied = splat(grid(16), moved, near, cover, 8, 4)
    there = torch.zeros(8, 8, dtype=torch.bool)
    there[2:4, 4:6] = True
    assert torch.equal(occupied[0, 0] > 0.9, there)
    torch.testing.assert_close(warp[0, 0][there], torch.full((4,), -0.5))
    assert not warp[0, :, ~there].any()


def test_splat_lets_what_is_in_front_hide_what_is_behind() -> None:
    moved, near = torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 16, 16)
    cover = torch.ones(1, 1, 16, 16)
    cover[..., 8:] = 0  # the right half is background; the left quarter is nearer and lands on the quarter beside it
    near[..., :4] = 0.5
    moved[:, 0, :, :4] = 0.5
    warp, _ = splat(grid(16), moved, near, cover, 8, 4)
    torch.testing.assert_close(warp[0, 0, :, 2:4], torch.full((8, 2), -0.5), atol=1e-3, rtol=0)


def test_what_leaves_the_picture_is_dropped() -> None:
    ones = torch.ones(1, 1, 8, 8)
    warp, occupied = splat(grid(8), torch.full((1, 2, 8, 8), 5.0), 0 * ones, ones, 4, 4)
    assert not warp.any() and not occupied.any()


def test_the_plate_is_the_background_and_fills_what_the_person_hid() -> None:
    portrait, cover = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 32, 32)
    torch.testing.assert_close(background_plate(portrait, cover), portrait)
    cover[..., 8:24, 8:24] = 1
    wall = torch.full((1, 3, 64, 64), 0.3)
    wall[..., 16:48, 16:48] = -1.0  # the person, who leaves no trace
    torch.testing.assert_close(background_plate(wall, cover), torch.full((1, 3, 64, 64), 0.3), atol=0.02, rtol=0)
    assert torch.isfinite(background_plate(portrait, torch.ones(1, 1, 32, 32))).all()


def test_the_base_goes_on_beyond_the_edge_and_no_farther(trainer: SurfaceTrainer) -> None:
    fields = trainer.encoder(torch.rand(1, 3, 256, 256) * 2 - 1, torch.zeros(1, NUM_MARKS, 3))
    cover = torch.zeros_like(fields.cover)
    cover[..., 32:96, 32:96] = 1
    motion = vectors(random_stills(2, np.random.default_rng(1)))
    pixels = trainer.encoder.pixels(fields._replace(cover=cover), motion[1:])
    base, finer = trainer.encoder.bases(pixels, motion[:1])
    inside, moved = base.occupied[0, 0] > 0.5, base.warp[0].abs().sum(0) > 0
    assert (moved & ~inside).any() and not (inside & ~moved).any() and not moved.all()
    inside, reach = finer.occupied[0, 0] > 0.5, finer.reach[0, 0] > 0
    assert (reach & ~inside).any() and not (inside & ~reach).any() and not finer.warp[0, :, ~inside].any()
    assert base.at(16).warp.shape == (1, 2, 16, 16)


def test_lips_and_lids_weigh_more_than_a_cheek_and_this_more_than_a_shoulder(trainer: SurfaceTrainer) -> None:
    weights = trainer.importance
    bundle = load_bundle()
    lips, torso = weights[torch.from_numpy(bundle.lip_upper)], weights[bundle.vertices_of("torso")]
    assert lips.min() > 5 > weights[:-2].median() > torso.median() == 0.5
    assert weights[-2] == 0  # the background
    own, other = torch.zeros(1, 60), torch.ones(1, 60)
    kept = in_the_pose_of(own, other)
    assert not kept[:, HEAD_POSE].any() and not kept[:, TRANSLATION].any() and kept[:, GAZE].all()


def test_the_places_that_marks_stand_for_are_those_that_are_seen_there() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    marks = torch.rand(NUM_MARKS, 3)
    pictures = []
    for offset in (0.0, 1.0, 100.0):  # the last one is another person altogether
        point = torch.stack([x + offset, y, 0 * x], dim=-1)
        vertices = torch.full((16, 16, 3), 5, dtype=torch.int16)
        vertices[:8] = BACKGROUND
        pictures.append({"marks": marks, "surface_point": point, "surface_vertices": vertices})
    pictures.append(pictures[0] | {"marks": torch.zeros_like(marks)})  # no face was certain
    found = mark_points(pictures)
    seen = marks[:NUM_POINTS, 1] >= 0.5
    expected = torch.stack([(16 * marks[:NUM_POINTS, 0]).floor() + 1, (16 * marks[:NUM_POINTS, 1]).floor()], dim=1)
    torch.testing.assert_close(found[seen, :2], expected[seen])
    assert not found[~seen].any(), "what is never on the person stands for nothing"
    assert not mark_points([pictures[-1]]).any()
