"""The gate of next-frame prediction, against a stream's own state."""

import pytest
import torch

from benchmarks.gates.next_frame import _as_shown, foretell
from eartalking import TalkingHeadModel, load_model
from eartalking.controls import ControlBatch


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    return load_model()


@pytest.fixture(scope="module")
def portrait(model: TalkingHeadModel) -> tuple[torch.Tensor, torch.Tensor]:
    config = model.config.autoencoder
    latents = 0.3 * torch.randn(1, config.num_latent_tokens, config.latent_channels, generator=_seeded())
    return model.autoencoder.code.motion_to_latents(model.autoencoder.code.latents_to_motion(latents)), torch.zeros(
        1, config.num_latent_tokens, config.reference_widths[-1]
    )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _stream(model: TalkingHeadModel, portrait: tuple[torch.Tensor, torch.Tensor], told: bool) -> list[torch.Tensor]:
    """A stream of six frames; `told` again after each of them what it has just shown."""
    state, generator = model.prefill(*portrait), _seeded()
    audio = torch.randn(6, 1, 2, model.config.dim, generator=generator)
    shown: list[torch.Tensor] = []
    for tokens in audio:
        if shown and told:
            mean = state.previous
            _as_shown(model, state, shown[-1])
            state.previous = mean  # a stream's own history is the mean, the gate's is the truth
        noise = torch.randn(1, *portrait[0].shape[1:], generator=generator)
        shown.append(model.step(tokens, ControlBatch.released(1, 1), noise, state))
    return shown


def test_a_stream_that_is_told_what_it_showed_goes_on_as_it_would(model, portrait):
    with torch.inference_mode():
        by_itself, told = (torch.cat(_stream(model, portrait, told)) for told in (False, True))
    torch.testing.assert_close(by_itself, told, atol=2e-4, rtol=1e-3)


def test_means_are_nearer_than_draws_and_know_the_truth(model, portrait):
    """Of a face that keeps still, the mean of many draws is nearer to the truth than one of them."""
    truth = portrait[0].expand(8, -1, -1)
    audio = torch.zeros(8, 2, model.config.dim)
    released = [ControlBatch.released(1, 1)] * 8
    foretold = foretell(model, audio, released, truth, portrait, _seeded())
    assert foretold.mean.shape == truth.shape
    errors = [float((guess - truth).square().mean()) for guess in (foretold.mean, foretold.draw)]
    assert errors[0] < errors[1]
    again = foretell(model, audio, released, truth, portrait, _seeded())
    assert torch.equal(foretold.mean, again.mean)
