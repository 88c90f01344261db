"""The gate of controls by tokens alone, on a network whose answer is known."""

import numpy as np
import pytest
import torch

from benchmarks.gates.tokens import obeyed
from eartalking import TalkingHeadModel, load_model
from eartalking.controls import SCALAR_TRACKS, ControlBatch
from eartalking.motion.steering import impose


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    return load_model()


@pytest.fixture
def asked() -> np.ndarray:
    return np.array([[10, 10, -10, -10], [-5, 5, -5, 5]], np.float32)


@pytest.mark.parametrize("track", ["yaw", "gaze_pitch"])
def test_a_network_that_obeys_is_read_as_asked(monkeypatch, model, asked, track: str):
    """The emission head's mean, replaced by what a stream sets, is read without error; released, it is not."""
    code, observe = model.autoencoder.code, model.observe
    controls: list[ControlBatch] = []
    monkeypatch.setattr(
        model, "observe", lambda audio, asking, state: (controls.append(asking), observe(audio, asking, state))[1]
    )
    mean = model.emission_head.mean
    monkeypatch.setattr(
        model.emission_head,
        "mean",
        lambda cond: model.to_tokens(impose(model.from_tokens(mean(cond)).float(), controls[-1], code)),
    )
    audio = torch.zeros(2, 4, 2, model.config.dim)
    np.testing.assert_allclose(obeyed(model, audio, track, asked, True), asked, atol=0.02)
    assert np.abs(obeyed(model, audio, track, asked, False) - asked).mean() > 1
    assert bool(controls[0].given.any()) and not bool(controls[-1].given.any())


def test_blinks_are_read_in_their_own_units(model):
    audio, asked = torch.zeros(1, 3, 2, model.config.dim), np.array([[0, 1, 0]], np.float32)
    said = obeyed(model, audio, SCALAR_TRACKS[5], asked, True)
    assert SCALAR_TRACKS[5] == "blink" and said.shape == (1, 3) and (np.abs(said) < 1.5).all()
