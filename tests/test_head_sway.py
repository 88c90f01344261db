"""How a head sways: what is fitted to planted motion moves like it, whatever else a head is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import kstest, kurtosis
from tiny_model import sway_somehow

from eartalking.checkpoint import load_model, save_model
from eartalking.modules.departure_head import DepartureHead
from eartalking.modules.head_sway import FRAMES, OUTERMOST, QUANTILES, HeadSway
from eartalking.training.head_sway import SWAYING, fit_sway, likeness, sway_alone

SIZE = 60
YAW, ROLL = SWAYING


def planted(seed: int, spans: int = 64, frames: int = 1500) -> torch.Tensor:
    """Heads (S, T, L) whose yaw and roll are a known process with pushes of heavy tails."""
    rng = np.random.default_rng(seed)
    coordinates = np.zeros((spans, frames, SIZE))
    for column, size in ((YAW, 0.002), (ROLL, 0.001)):
        pushes = size * rng.standard_t(3, (spans, frames + 500))
        speeds = lfilter([1], [1, -(0.97 + 0.7 + 0.5), 0.7 + 2 * 0.5, -0.5], pushes)
        coordinates[..., column] = lfilter([1], [1, -0.99], speeds)[:, 500:]
    return torch.from_numpy(coordinates).float()


@pytest.fixture(scope="module")
def fitted() -> HeadSway:
    sway = HeadSway(SIZE)
    fit_sway(sway, planted(0), torch.zeros(SIZE))
    return sway


def test_the_planted_process_is_found(fitted: HeadSway) -> None:
    assert fitted.sways.nonzero().flatten().tolist() == [YAW, ROLL]
    assert fitted.persistence[YAW] == pytest.approx(0.99, abs=0.004)
    assert fitted.friction[YAW] == pytest.approx(0.03, abs=0.01)
    assert fitted.follows[:, YAW].tolist() == pytest.approx([0.7, 0.5], abs=0.02)
    pushes = fitted.pushes(torch.randn(50_000, SIZE, generator=torch.Generator().manual_seed(0)))
    assert kurtosis(pushes[:, YAW].numpy()) > 5, "seldom and large, as they were planted"
    assert float(pushes[:, YAW].abs().median() / pushes[:, ROLL].abs().median()) == pytest.approx(2, rel=0.1)


def test_it_moves_as_people_do_and_comes_home(fitted: HeadSway) -> None:
    true, home = planted(1), torch.full((64, SIZE), 0.7)
    made = sway_alone(fitted, home, 1500, seed=1)
    farthest = (made - home[:, None]).abs().amax((0, 1))[list(SWAYING)] / fitted.reach[list(SWAYING)]
    assert (farthest < 1.3).all() and (farthest > 0.8).all()
    for ratio in likeness(made, true):
        assert ratio[list(SWAYING)].tolist() == pytest.approx([1, 1], rel=0.2)
    assert (made.mean((0, 1)) - 0.7)[list(SWAYING)].abs().max() < 0.05
    torch.testing.assert_close(sway_alone(fitted, home, 50, seed=1), made[:, :50])


def test_pushes_are_the_quantiles_that_the_noise_is() -> None:
    sway = HeadSway(1)
    sway.quantiles.copy_(torch.special.ndtr(torch.linspace(-OUTERMOST, OUTERMOST, QUANTILES))[:, None])
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sway.pushes(noise), torch.special.ndtr(noise), atol=2e-4, rtol=0)
    assert sway.pushes(torch.tensor([[-9.0], [9.0]])).flatten().tolist() == pytest.approx([0, 1], abs=1e-4)


def test_the_face_chooses_which_noise_it_is() -> None:
    sway = HeadSway(SIZE)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, SIZE, generator=generator)
    step, other = (torch.randn(4000, SIZE, generator=generator) for _ in range(2))
    chosen = sway.chosen(noise, step)
    assert kstest(chosen[:, YAW].numpy(), "norm").pvalue > 0.01
    for one in (chosen[:, ROLL], sway.chosen(noise, other)[:, YAW]):
        assert abs(float(torch.corrcoef(torch.stack([chosen[:, YAW], one]))[0, 1])) < 0.06
    torch.testing.assert_close(sway.chosen(noise, torch.zeros(4000, SIZE)), noise)  # a still face has the noise itself


def test_a_head_that_was_taken_elsewhere_stays_and_then_comes_home(fitted: HeadSway) -> None:
    home, silent = torch.zeros(1, SIZE), torch.zeros(1, SIZE)
    quiet = HeadSway(SIZE)
    quiet.load_state_dict(fitted.state_dict())
    quiet.quantiles.zero_()
    shown = [home] * FRAMES + [torch.full((1, SIZE), 2.4)]  # of a sudden 24 degrees
    for _ in range(1500):
        shown.append(quiet(torch.stack(shown[: -FRAMES - 1 : -1], dim=1), home, silent))
    yaw = torch.cat(shown)[FRAMES:, YAW]
    assert yaw[1:10].min() > 0.85 * 2.4 and (yaw[1:] <= 2.4).all(), "it does not swing on"
    assert yaw[-1].abs() < 0.05
    assert yaw.diff().abs().max() < 0.1


def test_eyes_are_drawn_as_they_go_with_a_head_that_sways() -> None:
    torch.manual_seed(0)
    head = DepartureHead(SIZE, memory=4, features=8, dim=16, depth=1).requires_grad_(False)
    for parameter in head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    sway_somehow(head.sway)
    condition, noise = torch.zeros(1, 16), torch.randn(1, SIZE)
    still, turned = (head.sample(condition, noise, 3, torch.full((1, SIZE), value)) for value in (0.0, 3.0))
    others = ~head.sway.sways
    assert (still - turned)[:, others].abs().min() > 0
    state = head.start(torch.zeros(1, SIZE))
    shown = head.draw(torch.zeros(1, 8), torch.zeros(1, SIZE), noise, state, 3)
    swayed = head.sway(state.recent, state.home, noise)
    torch.testing.assert_close(shown[:, head.sway.sways], swayed[:, head.sway.sways])
    head.sway.sways[:] = False
    torch.testing.assert_close(
        head.draw(torch.zeros(1, 8), torch.zeros(1, SIZE), noise, state, 3),
        head.carried_on(state.departure, state.recent) + head.sample(head.condition(torch.zeros(1, 8), state.recent,
        torch.zeros(1, SIZE), state.departure, state.home), noise, 3),
    )  # fmt: skip


def test_the_shipped_heads_sway_survives_half_precision(tmp_path) -> None:
    model = load_model("default")
    save_model(model, tmp_path)
    kept, own = load_model(tmp_path).departure_head.sway, model.departure_head.sway
    home = torch.zeros(8, SIZE)
    torch.testing.assert_close(sway_alone(kept, home, 500, 0), sway_alone(own, home, 500, 0))
