"""Teacher forcing: histories in disguise, along the expressions that the code knows."""
import pytest
import torch

from eartalking.config import TINY
from eartalking.controls import EMOTIONS, SCALAR_TRACKS
from eartalking.model import ControlBatch, TalkingHeadModel
from eartalking.motion_vector import MOTION_SCALES
from eartalking.synth.face_units import UNIT_INDEX
from eartalking.training.teacher_forcing import disguised, expression_directions


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    model = TalkingHeadModel(TINY)
    code = model.autoencoder.code
    code.scale.copy_(torch.linspace(0.5, 2, len(code.scale)))
    model.autoencoder.latent_std.fill_(0.7)
    return model


def test_directions_are_what_the_expression_changes(model: TalkingHeadModel) -> None:
    directions = expression_directions(model)
    assert directions.shape == (3, 2, len(EMOTIONS), 16, 4)
    autoencoder = model.autoencoder
    rest = autoencoder.to_motion(torch.zeros(16, 4))
    smile = (autoencoder.to_motion(directions[1, 0, 0]) - rest) / MOTION_SCALES["face_units"]
    assert smile[UNIT_INDEX["mouthSmileLeft"]] == pytest.approx(0.85, abs=1e-3)
    assert smile[UNIT_INDEX["jawOpen"]].abs() < 1e-3
    frown = (autoencoder.to_motion(directions[1, 1, 0]) - rest) / MOTION_SCALES["face_units"]
    assert frown[UNIT_INDEX["mouthFrownLeft"]] == pytest.approx(0.85, abs=1e-3)
    angry = (autoencoder.to_motion(directions[2, 0, EMOTIONS.index("angry")]) - rest) / MOTION_SCALES["face_units"]
    assert angry[UNIT_INDEX["browDownLeft"]] == pytest.approx(0.95, abs=1e-3)
    assert not directions[2, :, EMOTIONS.index("neutral")].any()


def test_only_a_given_expression_is_disguised(model: TalkingHeadModel) -> None:
    directions, generator = expression_directions(model), torch.Generator().manual_seed(0)
    history, controls = torch.randn(64, 12, 16, 4), ControlBatch.released(64, 12)
    torch.testing.assert_close(disguised(history, controls, directions, generator), history)
    controls.given[:, 6:, SCALAR_TRACKS.index("smile")] = True
    controls.given[:, :, SCALAR_TRACKS.index("yaw")] = True
    changed = (disguised(history, controls, directions, generator) - history).flatten(2)
    assert not changed[:, :6].any()
    worn = changed[:, 6:].norm(dim=-1) > 1e-4
    assert 0.1 < worn.float().mean() < 0.6
    # Along a smile or a frown, and nothing else.
    ways = torch.nn.functional.normalize(directions[1, :, 0].flatten(1), dim=1)
    along = (changed[:, 6:][worn] @ ways.T).abs().amax(1)
    torch.testing.assert_close(along, changed[:, 6:][worn].norm(dim=-1), atol=1e-3, rtol=1e-3)
