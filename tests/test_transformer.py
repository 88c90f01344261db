"""Causal; streamed equals offline; resumable; sessions apart; stable for ten thousand frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eartalking.modules.transformer import CausalTransformer, TransformerState

DIM, HEADS, TOKENS = 16, 2, 3


def make_transformer(sink_size: int = 1, window_size: int = 4, depth: int = 2, dim: int = DIM) -> CausalTransformer:
    model = CausalTransformer(dim, depth, HEADS, sink_size, window_size).eval()
    torch.nn.init.normal_(model.to_modulation.weight, std=0.2)  # so that the condition matters
    return model


def stream(model: CausalTransformer, x: Tensor, cond: Tensor, state: TransformerState, start: int = 0) -> Tensor:
    with torch.no_grad():
        outputs = [model(x[:, t : t + 1], cond, state, start + t) for t in range(x.shape[1])]
    return torch.cat(outputs, dim=1)


def test_is_causal_between_frames_and_bidirectional_inside() -> None:
    model = make_transformer()
    x, cond = torch.randn(1, 8, TOKENS, DIM), torch.randn(1, DIM)
    changed = x.clone()
    changed[:, 5, -1] = torch.randn(DIM)
    with torch.no_grad():
        before, after = model(x, cond), model(changed, cond)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5, 0], after[:, 5, 0])


def test_forgets_what_left_the_window_but_not_the_sink() -> None:
    model = make_transformer(depth=1)
    x, cond = torch.randn(1, 12, TOKENS, DIM), torch.randn(1, DIM)
    with torch.no_grad():
        before = model(x, cond)[:, -1]
        for frame, seen in ((0, True), (5, False), (7, False), (8, True)):
            changed = x.clone()
            changed[:, frame] += torch.randn(TOKENS, DIM)
            assert torch.allclose(model(changed, cond)[:, -1], before, atol=1e-6) != seen


@pytest.mark.parametrize(("sink_size", "window_size"), [(1, 1), (1, 4), (1, 10), (2, 3), (0, 5)])
def test_streamed_equals_offline(sink_size: int, window_size: int) -> None:
    model = make_transformer(sink_size, window_size, depth=3)
    x, cond = torch.randn(2, 26, TOKENS, DIM), torch.randn(2, DIM)
    with torch.no_grad():
        offline = model(x, cond)
    streamed = stream(model, x, cond, model.init_state(2, TOKENS))
    torch.testing.assert_close(streamed, offline, atol=1e-5, rtol=1e-4)


def test_resumed_equals_uninterrupted() -> None:
    model = make_transformer()
    x, cond = torch.randn(1, 20, TOKENS, DIM), torch.randn(1, DIM)
    state = model.init_state(1, TOKENS)
    stream(model, x[:, :9], cond, state)
    copy, restored = state.clone(), model.init_state(1, TOKENS)
    restored.load_tensors(state.to_tensors("backbone."), "backbone.")
    expected = stream(model, x[:, 9:], cond, state, start=9)
    assert torch.equal(stream(model, x[:, 9:], cond, copy, start=9), expected)
    assert torch.equal(stream(model, x[:, 9:], cond, restored, start=9), expected)


def test_reset_starts_over() -> None:
    model = make_transformer()
    x, cond = torch.randn(1, 7, TOKENS, DIM), torch.randn(1, DIM)
    state = model.init_state(1, TOKENS)
    first = stream(model, x, cond, state)
    state.reset()
    assert torch.equal(stream(model, x, cond, state), first)


def test_sessions_do_not_touch() -> None:
    model = make_transformer()
    x, cond = torch.randn(2, 12, TOKENS, DIM), torch.randn(2, DIM)
    alone = [stream(model, x[i : i + 1], cond[i : i + 1], model.init_state(1, TOKENS)) for i in range(2)]
    states = [model.init_state(1, TOKENS) for _ in range(2)]
    with torch.no_grad():
        for t in range(12):
            for i in range(2):
                y = model(x[i : i + 1, t : t + 1], cond[i : i + 1], states[i], t)
                assert torch.equal(y, alone[i][:, t : t + 1])


def test_condition_reaches_the_output_and_gradients_reach_everything() -> None:
    model = make_transformer()
    x = torch.randn(2, 6, TOKENS, DIM)
    with torch.no_grad():
        assert not torch.allclose(model(x, torch.zeros(2, DIM)), model(x, torch.ones(2, DIM)))
    model(x, torch.randn(2, DIM)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_bfloat16_autocast_streams_and_trains() -> None:
    model = make_transformer()
    x, cond = torch.randn(1, 8, TOKENS, DIM), torch.randn(1, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        offline = model(x, cond)
        streamed = stream(model, x, cond, model.init_state(1, TOKENS, dtype=torch.bfloat16))
    torch.testing.assert_close(streamed.float(), offline.float(), atol=0.1, rtol=0.1)


def test_ten_thousand_frames() -> None:
    model = make_transformer(depth=1, window_size=10, dim=8)
    cond = torch.randn(1, 8)
    state = model.init_state(1, 1)
    sizes = {name: tensor.shape for name, tensor in state.to_tensors().items()}
    x = torch.randn(1, 1, 1, 8)
    with torch.inference_mode():
        for index in range(10_000):
            x = model(x, cond, state, index)  # fed back, as in generation
            if index % 500 == 0:
                assert x.isfinite().all() and x.abs().max() < 10
    assert {name: tensor.shape for name, tensor in state.to_tensors().items()} == sizes
    assert state.caches[0].positions.tolist()[0] == 0
    assert sorted(state.caches[0].positions.tolist()[1:]) == list(range(9_990, 10_000))


def test_rejects_misuse() -> None:
    model = make_transformer()
    cond, state = torch.randn(1, DIM), model.init_state(1, TOKENS)
    with pytest.raises(ValueError, match="one frame"):
        model(torch.randn(1, 2, TOKENS, DIM), cond, state, 0)
    with pytest.raises(ValueError, match="together"):
        model(torch.randn(1, 1, TOKENS, DIM), cond, state)
    with pytest.raises(RuntimeError, match="no_grad"):
        model(torch.randn(1, 1, TOKENS, DIM), cond, state, 0)
