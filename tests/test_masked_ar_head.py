"""The paper's emission: tokens that agree because they see each other, the order that a frame's noise gives, streaming
in a model.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_model import MASKED_AR, tiny_model
from torch import Tensor
from toy_frames import CHANNELS, CLASS_MEAN, COND_DIM, MODE_OFFSET, MODE_STD, draw_toy, fit

from eartalking.config import TINY, from_json, to_json
from eartalking.modules.masked_ar_head import MaskedARHead

TOKENS = 3


def make_head(masked_steps: int = 36) -> MaskedARHead:
    return MaskedARHead(CHANNELS, TOKENS, dim=48, cond_dim=COND_DIM, num_heads=2, depth=2, masked_steps=masked_steps)


@pytest.fixture(scope="module")
def fitted() -> MaskedARHead:
    torch.manual_seed(0)
    head = make_head()
    fit(head, TOKENS, steps=500, batch_size=128, learning_rate=3e-3)
    return head


def signs(head: MaskedARHead, count: int = 1000) -> tuple[Tensor, Tensor]:
    """Samples' sign per token (count, N), and their distance from the mode of that sign (count, N, C)."""
    _, cond, label = draw_toy(count, TOKENS)
    residual = head.sample(cond, num_steps=25) - CLASS_MEAN[label][:, None]
    sign = residual.mean(2, keepdim=True).sign()
    return sign[..., 0], (residual - sign * MODE_OFFSET).abs()


def test_tokens_agree_because_later_ones_see_the_earlier(fitted: MaskedARHead) -> None:
    sign, distance = signs(fitted)
    agree = (sign == sign[:, :1]).all(1).float().mean()
    assert agree > 0.95
    assert 0.4 < (sign[:, 0] > 0).float().mean() < 0.6  # both modes are met
    assert (distance < 5 * MODE_STD).float().mean() > 0.9
    at_once = make_head(masked_steps=1).eval()
    at_once.load_state_dict(fitted.state_dict())
    sign, _ = signs(at_once)
    assert (
        0.15 < (sign == sign[:, :1]).all(1).float().mean() < 0.4
    )  # one pass: each token decides for itself, 1/4 agree by chance


def test_every_step_draws_a_token_at_least() -> None:
    head = MaskedARHead(CHANNELS, 16, dim=16, cond_dim=COND_DIM, num_heads=2, depth=1, masked_steps=5).eval()
    drawn: list[Tensor] = []
    condition = head._condition
    head._condition = lambda x_1, known, *rest: drawn.append(known.sum(1)) or condition(x_1, known, *rest)
    head.sample(torch.randn(4, 16, COND_DIM), num_steps=2)
    counts = torch.stack(drawn + [torch.full((4,), 16)])
    assert (counts == counts[:, :1]).all() and counts[0, 0] == 0
    new = counts[:, 0].diff()
    assert len(new) == 5 and (new >= 1).all() and new[0] < new[-1]  # few at first, more when more is known
    assert MaskedARHead(CHANNELS, 4, dim=16, cond_dim=COND_DIM, num_heads=2).masked_steps == 4


def test_the_same_noise_gives_the_same_frame_whatever_stands_beside_it(fitted: MaskedARHead) -> None:
    _, cond, _ = draw_toy(6, TOKENS)
    noise = torch.randn(6, TOKENS, CHANNELS)
    first = fitted.sample(cond, noise=noise, num_steps=8)
    torch.testing.assert_close(fitted.sample(cond[2:3], noise=noise[2:3], num_steps=8), first[2:3])
    assert not torch.allclose(fitted.sample(cond, noise=-noise, num_steps=8), first, atol=0.1)
    torch.testing.assert_close(fitted.sample(cond, temperature=0.0), fitted.mean(cond))


def test_what_has_no_weight_is_not_learnt() -> None:
    latents, cond, _ = draw_toy(6, TOKENS)
    latents[3:] = 1e6
    head = make_head().train()
    loss = head.loss(latents, cond, weight=torch.tensor([1.0, 1, 1, 0, 0, 0]))
    assert loss.residual < 10 and (head.residual_std < 10).all()


def test_a_config_says_which_head_a_model_has() -> None:
    assert from_json(to_json(MASKED_AR)) == MASKED_AR
    model = tiny_model(MASKED_AR)
    assert isinstance(model.emission_head, MaskedARHead)
    with pytest.raises(RuntimeError):
        model.load_state_dict(tiny_model().state_dict())


@pytest.mark.parametrize("changes", [{"emission": "gan"}, {"masked_steps": 0}, {"num_steps": 0}])
def test_bad_configs_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(TINY, **changes)
