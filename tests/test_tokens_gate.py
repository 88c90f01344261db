"""The gate of controls by tokens alone, on a network whose answer is known."""

import numpy as np
import pytest
import torch

from benchmarks.gates.tokens import obeyed, share_of, shown_of
from eartalking import TalkingHeadModel, load_model
from eartalking.controls import EMOTIONS, SCALAR_TRACKS, ControlBatch
from eartalking.motion.steering import expression, impose


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
    # What a voice adds is of mouths alone, but kept in 16 bits: 0.02 degrees of it are a head's.
    monkeypatch.setattr(model, "heard", lambda audio: torch.zeros(()))
    audio = torch.zeros(2, 4, 2, model.config.dim)
    np.testing.assert_allclose(obeyed(model, audio, track, asked, True), asked, atol=0.02)
    assert np.abs(obeyed(model, audio, track, asked, False) - asked).mean() > 1
    assert bool(controls[0].given.any()) and not bool(controls[-1].given.any())


def test_blinks_are_read_in_their_own_units(model):
    audio, asked = torch.zeros(1, 3, 2, model.config.dim), np.array([[0, 1, 0]], np.float32)
    said = obeyed(model, audio, SCALAR_TRACKS[5], asked, True)
    assert SCALAR_TRACKS[5] == "blink" and said.shape == (1, 3) and (np.abs(said) < 1.5).all()


@pytest.mark.parametrize(
    ("track", "levels"), [("smile", [1.0, 0.8, -0.9]), ("brow", [1.0, 1.0, -1.0]), ("emotion", [1, 4, 6])]
)
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_a_network_that_shows_half_of_an_expression_is_read_so(monkeypatch, model, track, levels, strength: float):
    """The mean has half of what a stream would add to the released face; the history stays without it."""
    code, step = model.autoencoder.code, model.step_mean
    released = ControlBatch.released(2, 1)

    def shown(audio, controls, state):
        mean = step(audio, released, state)
        added = expression(code.latents_to_motion(mean)[:, None], controls, code)  # (V, 1, N, C), or one zero
        return mean + strength * added.reshape(-1, *mean.shape[1:]) if added.dim() else mean

    monkeypatch.setattr(model, "step_mean", shown)
    asked = np.array([levels, levels[::-1]])
    assert track != "emotion" or max(levels) < len(EMOTIONS)
    change, added = shown_of(model, torch.zeros(2, 3, 2, model.config.dim), track, asked)
    assert share_of(change, added) == pytest.approx(strength, abs=0.01)
    assert share_of(change[:, ::2], added[:, ::2]) == pytest.approx(strength, abs=0.01)
