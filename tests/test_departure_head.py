"""The departure head: what it draws stays around its mean, comes home, repeats, and learns what it is shown."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_model import DRAWN, tiny_model

from eartalking.checkpoint import load_model, save_model
from eartalking.config import TINY
from eartalking.controls import ControlBatch, ControlFrame
from eartalking.modules.departure_head import DepartureHead
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, GAZE, HEAD_POSE
from eartalking.training.departure import groups, rest, run, settle, with_head
from eartalking.training.motion_spans import MotionSpans

SIZE, FEATURES = 4, 8


def make_head(persistence: float = 0.5) -> DepartureHead:
    torch.manual_seed(0)
    head = DepartureHead(SIZE, memory=3, features=FEATURES, dim=32, depth=1)
    head.persistence.fill_(persistence)
    return head


def spans(length: int, mean: float = 0.0) -> MotionSpans:
    level = torch.full((2, length, SIZE), mean)
    return MotionSpans(level, level, torch.zeros(2, length, FEATURES, dtype=torch.float16))


def test_what_is_not_drawn_is_the_mean() -> None:
    head = make_head()
    head.noise_scale[:] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    shown = run(head, spans(5, 3.0), 2, seed=0)
    assert (shown[..., :2] == 3).all() and (shown[..., 2:] != 3).any()


def test_what_is_not_drawn_still_fades_from_where_it_began() -> None:
    """A smiling portrait's lips go over into speech, whatever the network would draw of them."""
    head = make_head(0.5)
    torch.nn.init.normal_(head.to_velocity.weight)
    head.noise_scale[:] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    state, mean = head.start(torch.full((1, SIZE), 4.0)), torch.zeros(1, SIZE)
    state.departure = torch.full((1, SIZE), 4.0)
    for faded in (2.0, 1.0, 0.5):
        shown = head.draw(torch.zeros(1, FEATURES), mean, torch.randn(1, SIZE), state, 2)
        head.remember(shown, mean, state)
        torch.testing.assert_close(shown[0, :2], torch.full((2,), faded))
    assert (shown[0, 2:] != 0.5).all()


def test_a_departure_fades_and_what_is_at_home_goes_home() -> None:
    head = make_head(0.5)
    head.noise_scale.fill_(1)
    head.innovation_std.fill_(0)  # nothing is drawn: only what is carried on is seen
    head.at_home[0] = True
    home = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    state = head.start(home)
    mean = torch.zeros(1, SIZE)
    state.departure = home - head.centre(mean, home)
    head.innovation_std.fill_(1e-9)
    frames = []
    for _ in range(12):
        frames.append(head.draw(torch.zeros(1, FEATURES), mean, torch.randn(1, SIZE), state, 2))
        head.remember(frames[-1], mean, state)
    shown = torch.cat(frames)
    torch.testing.assert_close(shown[:3, 1], torch.tensor([2.5, 1.25, 0.625]))
    assert shown[-1, 1:].abs().max() < 2e-3, "to the mean"
    torch.testing.assert_close(shown[:, 0], torch.full((12,), 5.0))  # the portrait's own place


def test_a_turned_portrait_moves_like_one_that_looks_ahead() -> None:
    head = make_head()
    head.at_home[:] = True
    conditions = []
    for home in (torch.zeros(1, SIZE), torch.full((1, SIZE), 7.0)):
        recent = home[:, None] + torch.randn(1, 3, SIZE, generator=torch.Generator().manual_seed(1))
        conditions.append(head.condition(torch.zeros(1, FEATURES), recent, home, torch.full((1, SIZE), 0.3), home))
    torch.testing.assert_close(*conditions)


def test_a_head_that_is_far_away_comes_back_soon() -> None:
    head = make_head(1.0)
    head.at_home[:2] = True
    head.departure_std.fill_(0.5)
    away = torch.full((1, SIZE), 5.0)
    state = head.start(torch.zeros(1, SIZE))
    for _ in range(100):
        away = head.carried_on(away, state.recent)
    assert away[0, :2] == pytest.approx([1.0, 1.0], abs=0.1) and (away[0, 2:] == 5).all()


def test_it_learns_the_spread_and_the_sign_that_features_tell() -> None:
    head = make_head(0.0)
    head.innovation_std.fill_(0.5)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    torch.manual_seed(1)
    zeros = torch.zeros(256, SIZE)

    def condition(sign: torch.Tensor) -> torch.Tensor:
        features = torch.zeros(len(sign), FEATURES)
        features[:, 0], features[:, 1] = sign, -sign
        still = zeros[: len(sign)]
        return head.condition(features, still[:, None].repeat(1, 3, 1), still, still, still)

    for _ in range(300):
        sign = torch.randint(0, 2, (256,)) * 2.0 - 1
        loss = head.loss(sign[:, None] + 0.2 * torch.randn(256, SIZE), condition(sign), draws=2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for sign in (-1.0, 1.0):
            drawn = head.sample(condition(torch.full((256,), sign)), torch.randn(256, SIZE), 8)
            assert drawn.mean() == pytest.approx(sign, abs=0.15)
            assert drawn.std() == pytest.approx(0.2, abs=0.1)


def test_a_control_is_obeyed_and_released_without_a_jump() -> None:
    model = tiny_model(DRAWN)
    head = model.departure_head
    head.sway.sways[:] = False
    head.persistence.fill_(0.9)
    head.innovation_std.fill_(1e-6)
    head.at_home.copy_(groups(len(head.at_home))["pose"])
    size = TINY.autoencoder
    reference = torch.zeros(1, size.num_latent_tokens, size.latent_channels)
    state = model.prefill(reference, torch.zeros(1, size.num_latent_tokens, size.reference_widths[-1]))
    noise = torch.randn(reference.shape)
    yaws = []
    for index in range(12):
        asked = ControlFrame(yaw=24.0) if 2 <= index < 6 else ControlFrame()
        latents = model.step(
            torch.zeros(1, TINY.audio.tokens_per_frame, TINY.dim), ControlBatch.of_frame(asked, "cpu"), noise, state
        )
        yaws.append(float(model.autoencoder.code.latents_to_motion(latents)[0, HEAD_POSE.start]) * 12)
    assert yaws[2:6] == pytest.approx([24] * 4, abs=1e-3)
    assert yaws[6] == pytest.approx(yaws[1] + 0.9 * (24 - yaws[1]), abs=0.1), "it turns back, it does not jump back"
    assert all(later < before for before, later in zip(yaws[5:], yaws[6:], strict=False))


def test_an_emotion_decides_brows_and_eyes_and_leaves_the_head_alive() -> None:
    """A smile alone leaves the eyes alive, too; released, everything is drawn."""
    model = tiny_model(DRAWN)
    head, size = model.departure_head, TINY.autoencoder
    head.innovation_std.fill_(2.0)
    code, columns = model.autoencoder.code, {"brow": UNIT_INDEX["browInnerUp"], "lid": BLINK_COLUMNS[0]}
    columns |= {"gaze": GAZE.start, "yaw": HEAD_POSE.start}
    reference = torch.zeros(1, size.num_latent_tokens, size.latent_channels)
    audio = torch.zeros(1, TINY.audio.tokens_per_frame, TINY.dim)

    def shown(asked: ControlFrame, seed: int) -> torch.Tensor:
        state = model.prefill(reference, torch.zeros(1, size.num_latent_tokens, size.reference_widths[-1]))
        for index in range(3):
            noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(10 * seed + index))
            latents = model.step(audio, ControlBatch.of_frame(asked, "cpu"), noise, state)
        return code.latents_to_motion(latents)[0]

    def drawn(asked: ControlFrame) -> set[str]:
        """Which columns differ between seeds."""
        apart = (torch.stack([shown(asked, seed) for seed in range(12)]).std(0)) > 1e-3
        return {name for name, column in columns.items() if apart[column]}

    assert drawn(ControlFrame()) == {"brow", "lid", "gaze", "yaw"}
    assert drawn(ControlFrame(smile=0.5)) == {"lid", "gaze", "yaw"}
    assert drawn(ControlFrame(emotion=("surprised", 1.0))) == {"yaw"}


def test_a_model_grows_a_head_and_leaves_out_what_no_stream_runs(tmp_path) -> None:
    plain = tiny_model(dataclasses.replace(TINY, temperature=0.0))
    grown = with_head(plain)
    assert grown.config.emission == "regression" and grown.departure_head is not None
    assert not any(name.startswith("emission_head.velocity") for name in grown.state_dict())
    save_model(grown, tmp_path)
    loaded = load_model(tmp_path)
    torch.testing.assert_close(
        loaded.emission_head.to_mean.weight, plain.emission_head.to_mean.weight, atol=1e-3, rtol=0
    )
    assert loaded.config == grown.config


def test_smiles_and_brows_are_drawn_no_more_strongly_than_they_are() -> None:
    torch.manual_seed(0)
    size = 60
    head = DepartureHead(size, memory=3, features=FEATURES, dim=32, depth=1)
    head.persistence.fill_(0.98)
    head.innovation_std.fill_(0.1)  # a fresh head draws noise alone, so its spread is 0.1 / sqrt(1 - 0.98²): 0.5
    true = 0.25 * torch.randn(8, 500, size)
    level = torch.zeros(8, 500, size)
    settle(head, MotionSpans(true, level, torch.zeros(8, 500, FEATURES, dtype=torch.float16)), num_steps=1, rounds=30)
    drawn = run(head, MotionSpans(level, level, torch.zeros(8, 500, FEATURES)), 1, seed=99).std(1).mean(0)
    part = groups(size)
    for name in ("corners", "brows"):
        assert drawn[part[name]].mean() == pytest.approx(0.25, rel=0.15)
    assert torch.equal(head.persistence[part["pose"]], torch.full_like(head.persistence[part["pose"]], 0.98))


def test_what_is_drawn_of_heads_and_faces_rests_where_peoples_does() -> None:
    torch.manual_seed(0)
    size = 60
    part = groups(size)
    head = DepartureHead(size, memory=3, features=FEATURES, dim=32, depth=1).requires_grad_(False)
    head.persistence.fill_(0.9)
    head.at_home |= part["pose"]
    head.momentum[part["pose"]] = 0.5
    head.innovation_std.fill_(0.1)
    head.to_velocity.bias.fill_(0.5)
    level = torch.full((8, 300, size), 0.3)
    planted = MotionSpans(level, level, torch.zeros(8, 300, FEATURES, dtype=torch.float16))
    found = rest(head, planted, num_steps=2)
    for name in ("head", "face"):
        assert found[name][0] > 0.15 and min(found[name]) < 0.05, name
    kept = (run(head, planted, 2, seed=0) - level)[:, 30:].mean((0, 1)).abs()
    assert kept[part["pose"] | part["brows"] | part["corners"]].max() < 0.06, "the best round is kept"
    assert (head.to_velocity.bias[part["eyes"] | part["mouth"]] == 0.5).all(), "and nothing else is moved"
