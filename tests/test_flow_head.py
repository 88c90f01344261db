"""The head learns means and distributions, and repeats itself when given the noise."""

from __future__ import annotations

import pytest
import torch
from toy_frames import CHANNELS, CLASS_MEAN, COND_DIM, MODE_OFFSET, MODE_STD, draw_toy, fit

from eartalking.modules.flow_head import FlowHead

TOKENS = 2


def make_head(depth: int = 2) -> FlowHead:
    return FlowHead(CHANNELS, TOKENS, dim=48, cond_dim=COND_DIM, num_heads=2, depth=depth)


@pytest.fixture(scope="module")
def fitted() -> FlowHead:
    torch.manual_seed(0)
    head = make_head()
    fit(head, TOKENS, steps=600, batch_size=256, learning_rate=4e-3)
    return head


def test_regression_is_the_conditional_mean(fitted: FlowHead) -> None:
    _, cond, label = draw_toy(64, TOKENS)
    mean = fitted.sample(cond, temperature=0.0)
    torch.testing.assert_close(mean, CLASS_MEAN[label][:, None].expand_as(mean), atol=0.2, rtol=0)


def test_samples_follow_the_distribution(fitted: FlowHead) -> None:
    _, cond, label = draw_toy(2000, TOKENS)
    residual = fitted.sample(cond, num_steps=16) - CLASS_MEAN[label][:, None]
    sign = residual[:, :1, :1].sign()
    assert 0.4 < (sign > 0).float().mean() < 0.6  # both modes
    error = residual - sign * MODE_OFFSET  # both tokens and both channels agree on the mode
    assert (error.abs().amax(dim=(1, 2)) < 5 * MODE_STD).float().mean() > 0.9
    torch.testing.assert_close(residual.std(dim=(0, 1)), MODE_OFFSET, atol=0.15, rtol=0)


def test_four_steps_are_enough_to_find_the_modes(fitted: FlowHead) -> None:
    _, cond, label = draw_toy(1000, TOKENS)
    residual = fitted.sample(cond) - CLASS_MEAN[label][:, None]
    sign = residual[:, :1, :1].sign()
    assert ((residual - sign * MODE_OFFSET).abs().amax(dim=(1, 2)) < 0.6).float().mean() > 0.8


def test_residual_std_is_learnt(fitted: FlowHead) -> None:
    expected = (MODE_OFFSET.square() + MODE_STD**2).sqrt()
    torch.testing.assert_close(fitted.residual_std, expected, atol=0.1, rtol=0)
    assert "residual_std" in fitted.state_dict()


def test_same_noise_same_answer(fitted: FlowHead) -> None:
    _, cond, _ = draw_toy(8, TOKENS)
    noise = torch.randn(8, TOKENS, CHANNELS)
    first = fitted.sample(cond, noise=noise)
    torch.randn(3)
    assert torch.equal(fitted.sample(cond, noise=noise), first)
    assert not torch.allclose(fitted.sample(cond, noise=-noise), first)


def test_weight_zero_takes_frames_out() -> None:
    latents, cond, _ = draw_toy(6, TOKENS)
    latents[3:] = 1e6
    weight = torch.tensor([1.0, 1, 1, 0, 0, 0])
    head = make_head().train()
    loss = head.loss(latents, cond, weight=weight)
    torch.testing.assert_close(loss.regression, latents[:3].square().mean())  # the mean starts at zero
    assert loss.residual < 100 and (head.residual_std < 10).all()
    per_token = head.loss(latents, cond, weight=weight[:, None, None].expand(-1, TOKENS, 1))
    torch.testing.assert_close(per_token.regression, loss.regression)


def test_residual_std_rests_in_eval_and_keeps_its_floor() -> None:
    head = make_head().eval()
    latents, cond, _ = draw_toy(4, TOKENS)
    head.loss(latents, cond)
    assert torch.equal(head.residual_std, torch.ones(CHANNELS))
    head.train()
    for _ in range(1600):
        head._update_residual_std(torch.zeros(1, TOKENS, CHANNELS), None)
    torch.testing.assert_close(head.residual_std, torch.full((CHANNELS,), 1e-3))


def test_the_flow_does_not_train_the_mean_but_both_train_the_condition() -> None:
    head = make_head()
    torch.nn.init.normal_(head.to_mean.weight)
    torch.nn.init.normal_(head.velocity.to_velocity.weight)
    latents, cond, _ = draw_toy(4, TOKENS)
    for part in ("residual", "regression"):
        head.zero_grad()
        trained_cond = cond.clone().requires_grad_()
        getattr(head.loss(latents, trained_cond), part).backward()
        assert trained_cond.grad.any()
        assert (head.to_mean.weight.grad is None) == (part == "residual")


def test_sink_matters() -> None:
    head = make_head().eval()
    torch.nn.init.normal_(head.velocity.to_velocity.weight)
    _, cond, _ = draw_toy(2, TOKENS)
    noise = torch.randn(2, TOKENS, CHANNELS)
    samples = [head.sample(cond, sink, noise=noise) for sink in (None, torch.ones(2, COND_DIM))]
    assert not torch.allclose(*samples)


def test_rejects_bad_sampling_arguments() -> None:
    _, cond, _ = draw_toy(1, TOKENS)
    with pytest.raises(ValueError, match="num_steps"):
        make_head().sample(cond, num_steps=0)
    with pytest.raises(ValueError, match="temperature"):
        make_head().sample(cond, temperature=-1.0)
