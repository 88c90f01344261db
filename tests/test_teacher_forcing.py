"""Teacher forcing: what the network shall emit where expressions are given, and histories with other expressions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eartalking.config import TINY
from eartalking.controls import BROW, EMOTIONS, SCALAR_TRACKS, SMILE, ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import MOTION_SCALES
from eartalking.training import rollout
from eartalking.training.data import LatentClips, Sequence
from eartalking.training.rollout import measure_articulation
from eartalking.training.teacher_forcing import TeacherForcingTrainer, targets, with_other_expressions


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    model = TalkingHeadModel(TINY)
    code = model.autoencoder.code
    code.scale.copy_(torch.linspace(0.5, 2, len(code.scale)))
    model.autoencoder.code.latent_std.fill_(0.7)
    return model


def test_the_goal_is_the_truth_without_what_is_given(model: TalkingHeadModel) -> None:
    labels, controls = torch.zeros(1, 3, len(model.autoencoder.code.scale)), ControlBatch.released(1, 3)
    controls.values[..., SMILE], controls.emotion[:], controls.intensity[:] = 1.0, EMOTIONS.index("angry"), 0.5
    controls.given[0, 1, SMILE] = controls.given[0, 2, -1] = True
    latents = model.autoencoder.code.motion_to_latents(labels)
    still = torch.zeros(1)
    tracks = controls.values, controls.emotion, controls.intensity
    sequence = Sequence(latents, latents[:, 0], latents[:, 0], still, still, still, *tracks, labels)
    units = (
        model.autoencoder.code.latents_to_motion(targets(model, sequence, controls))[0] / MOTION_SCALES["face_units"]
    )
    torch.testing.assert_close(units[0], torch.zeros(len(units[0])), atol=1e-4, rtol=0)
    assert units[1, UNIT_INDEX["mouthSmileLeft"]] == pytest.approx(-0.85, abs=1e-3)
    assert units[1, UNIT_INDEX["browDownLeft"]] == pytest.approx(0, abs=1e-3)
    assert units[2, UNIT_INDEX["browDownLeft"]] == pytest.approx(-0.95 * 0.5, abs=1e-3)


def test_one_that_learns_expressions_has_the_whole_truth_for_its_goal(model: TalkingHeadModel) -> None:
    controls = ControlBatch.released(2, 3)
    controls.given[:] = True
    kept = TeacherForcingTrainer(model).added(controls)
    assert kept is controls
    added = TeacherForcingTrainer(model, learns_expressions=True).added(controls)
    assert not added.given[..., [BROW, SMILE, -1]].any() and added.given.sum(-1).unique().tolist() == [7]
    assert bool(controls.given.all()), "the network is still told"


def test_only_a_given_expression_is_replaced_in_the_history(model: TalkingHeadModel) -> None:
    generator = torch.Generator().manual_seed(0)
    history, controls = torch.randn(64, 12, 16, 4), ControlBatch.released(64, 12)
    labels = torch.zeros(64, 12, len(model.autoencoder.code.scale))
    torch.testing.assert_close(with_other_expressions(model, history, labels, controls, generator), history)
    controls.given[:, 6:, SMILE] = True
    controls.given[:, :, SCALAR_TRACKS.index("yaw")] = True
    changed = with_other_expressions(model, history, labels, controls, generator) - history
    assert changed[:, :6].abs().max() < 1e-6
    replaced = changed.flatten(2).norm(dim=-1) > 1e-4
    assert 0.1 < replaced[:, 6:].float().mean() < 0.6
    # A smile or a frown, and nothing else.
    moved = (
        model.autoencoder.code.latents_to_motion(changed) - model.autoencoder.code.latents_to_motion(torch.zeros(16, 4))
    )[replaced].abs() > 1e-3
    names = {name for name, index in UNIT_INDEX.items() if moved[:, index].any()}
    assert names == {
        f"{unit}{side}" for unit in ("mouthSmile", "cheekSquint", "mouthFrown") for side in ("Left", "Right")
    }
    assert not moved[:, len(UNIT_INDEX) :].any()


def test_only_what_follows_the_voice_is_stretched(model: TalkingHeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(model.autoencoder.code.scale)
    truth = torch.zeros(8, 30, size)
    jaw, brow, sneer = (UNIT_INDEX[name] for name in ("jawOpen", "browInnerUp", "noseSneerLeft"))
    truth[..., [jaw, brow]] = torch.randn(8, 30, 2, generator=torch.Generator().manual_seed(0))
    predicted = truth.clone()
    predicted[..., jaw] = 0.625 * truth[..., jaw] + 3  # follows, but too little
    predicted[..., brow] = 0.5 * truth.roll(1, 0)[..., brow]  # moves when it should not
    predicted[..., sneer] = 1e-3 * truth[..., jaw]
    monkeypatch.setattr(rollout, "rollout", lambda *_: model.autoencoder.code.motion_to_latents(predicted))
    still = torch.zeros(1)
    latents = model.autoencoder.code.motion_to_latents(truth)
    sequence = Sequence(latents, latents[:, 0], latents[:, 0], *[still] * 3, torch.zeros(8, 30, 9), still, still, truth)
    factors = measure_articulation(model, sequence)
    torch.testing.assert_close(factors[:, jaw], torch.tensor([1.6, 1.6]), atol=1e-2, rtol=0)
    assert (factors > 1).sum() == 2


def test_windows_longer_than_every_clip_are_refused(tmp_path: Path) -> None:
    tensors = {"frame_offsets": torch.tensor([0, 4, 9]), "sample_offsets": torch.tensor([0, 2560, 5760])}
    save_file(tensors, tmp_path / "train.safetensors")
    with pytest.raises(ValueError, match="longest clip has 5"):
        LatentClips(tmp_path / "train.safetensors").sample(2, 6, np.random.default_rng(0))
