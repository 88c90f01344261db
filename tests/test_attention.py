"""The mask is the one-sentence rule; the fused kernel runs; distances never grow."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from eartalking.modules.attention import CausalSelfAttention, alibi_slopes, expand_to_tokens, frame_causal_bias
from eartalking.modules.kv_cache import SinkWindowCache


@pytest.mark.parametrize(("sink_size", "window_size"), [(0, 1), (0, 4), (1, 3), (2, 5), (3, 1)])
def test_bias_is_the_rule(sink_size: int, window_size: int) -> None:
    pos_q, pos_k = torch.arange(12), torch.tensor([-1, *range(12), -1])
    slopes = alibi_slopes(3)
    bias = frame_causal_bias(pos_q, pos_k, sink_size, window_size, slopes)
    assert bias.shape == (3, 12, 14)
    for i, q in enumerate(pos_q.tolist()):
        for j, k in enumerate(pos_k.tolist()):
            allowed = k >= 0 and k <= q and (k < sink_size or q - k < window_size)
            distance = 0 if k < sink_size else q - k
            expected = -slopes * distance if allowed else torch.full((3,), float("-inf"))
            torch.testing.assert_close(bias[:, i, j], expected)


def test_bias_does_not_grow_with_time() -> None:
    slopes = alibi_slopes(2)
    rows = []
    for now in (50, 1_000_000):
        pos_k = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(now - 5, now + 1)])
        rows.append(frame_causal_bias(torch.tensor([now]), pos_k, 1, 4, slopes))
    assert torch.equal(rows[0], rows[1])


def test_expansion_equals_token_level_bias() -> None:
    frames, tokens = torch.arange(6), torch.arange(6).repeat_interleave(3)
    slopes = alibi_slopes(4)
    expanded = expand_to_tokens(frame_causal_bias(frames, frames, 1, 3, slopes), 3)
    assert torch.equal(expanded[0], frame_causal_bias(tokens, tokens, 1, 3, slopes))


def test_slopes() -> None:
    torch.testing.assert_close(alibi_slopes(8), 2.0 ** -torch.arange(1, 9).float())
    assert (alibi_slopes(6) > 0).all()


@pytest.mark.parametrize(("sink_size", "window_size"), [(0, 1), (1, 1), (1, 4), (2, 3), (3, 7)])
def test_ring_equals_masked_attention(sink_size: int, window_size: int) -> None:
    frames, tokens, dim, heads = 30, 2, 16, 2
    attention = CausalSelfAttention(dim, heads).eval()
    slopes = alibi_slopes(heads)
    x = torch.randn(2, frames * tokens, dim)
    positions = torch.arange(frames)
    bias = frame_causal_bias(positions, positions, sink_size, window_size, slopes)
    with torch.no_grad():
        offline = attention(x, expand_to_tokens(bias, tokens))
        cache = SinkWindowCache.init(2, heads, dim // heads, tokens, sink_size, window_size)
        for index, frame in enumerate(x.split(tokens, dim=1)):
            held = cache.positions_with(index)
            bias = frame_causal_bias(torch.tensor([index]), held, sink_size, window_size, slopes)[None]
            streamed = attention(frame, bias, cache, index)
            torch.testing.assert_close(streamed, offline[:, index * tokens : (index + 1) * tokens])


@pytest.mark.parametrize("autocast", [False, True])
def test_training_uses_the_fused_kernel(autocast: bool) -> None:
    attention = CausalSelfAttention(32, 4)
    positions = torch.arange(5)
    bias = expand_to_tokens(frame_causal_bias(positions, positions, 1, 3, alibi_slopes(4)), 4)
    x = torch.randn(2, 20, 32, requires_grad=True)
    with (
        profile(activities=[ProfilerActivity.CPU]) as trace,
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        attention(x, bias).float().sum().backward()
    kernels = {event.key for event in trace.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu_backward" in kernels
    assert "aten::_scaled_dot_product_attention_math" not in kernels


def test_rejects_uneven_heads_and_missing_index() -> None:
    with pytest.raises(ValueError, match="multiple"):
        CausalSelfAttention(10, 3)
    cache = SinkWindowCache.init(1, 2, 4, 1, 1, 2)
    with torch.no_grad(), pytest.raises(ValueError, match="frame_index"):
        CausalSelfAttention(8, 2)(torch.randn(1, 1, 8), None, cache)
