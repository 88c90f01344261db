"""The cache holds the sink and the latest window, whatever came before, in constant memory."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from eartalking.modules.kv_cache import SinkWindowCache

HEADS, HEAD_DIM, TOKENS = 2, 4, 3


def make_cache(sink_size: int = 1, window_size: int = 4) -> SinkWindowCache:
    return SinkWindowCache.init(1, HEADS, HEAD_DIM, TOKENS, sink_size, window_size)


def frame(value: float) -> Tensor:
    return torch.full((1, HEADS, TOKENS, HEAD_DIM), float(value))


@pytest.mark.parametrize("sink_size", [0, 1, 3])
@pytest.mark.parametrize("window_size", [1, 2, 5])
def test_holds_sink_and_window(sink_size: int, window_size: int) -> None:
    cache = make_cache(sink_size, window_size)
    for index in range(25):
        keys, values, positions = cache.append(frame(index), frame(-index), index)
        expected = {f for f in range(index + 1) if f < sink_size or index - f < window_size}
        assert expected <= set(positions.tolist()) - {-1}
        held = positions >= 0
        assert torch.equal(keys[0, 0, held, 0], positions[held].float())
        assert torch.equal(values[0, 1, held, 2], -positions[held].float())
        assert all((positions == f).sum() == TOKENS for f in expected)


def test_starts_empty_and_finite() -> None:
    cache = make_cache()
    assert (cache.positions == -1).all()
    assert not cache.keys.any() and not cache.values.any()


def test_memory_is_constant() -> None:
    cache = make_cache()
    pointers = (cache.keys.data_ptr(), cache.values.data_ptr(), cache.positions.data_ptr())
    for index in range(50):
        cache.append(frame(index), frame(index), index)
    assert pointers == (cache.keys.data_ptr(), cache.values.data_ptr(), cache.positions.data_ptr())
    assert cache.keys.shape[2] == (1 + 4) * TOKENS


def test_positions_with_tells_what_append_will_give_and_changes_nothing() -> None:
    cache = make_cache()
    for index in range(12):
        before = cache.positions.clone()
        told = cache.positions_with(index)
        assert torch.equal(cache.positions, before)
        assert torch.equal(cache.append(frame(index), frame(index), index)[2], told)


def test_clone_is_independent_and_reset_forgets() -> None:
    cache = make_cache()
    cache.append(frame(1), frame(1), 0)
    copy = cache.clone()
    cache.append(frame(2), frame(2), 1)
    assert copy.positions.max() == 0
    cache.reset()
    assert torch.equal(cache.positions, make_cache().positions) and not cache.keys.any()
    assert copy.keys.any()


def test_survives_safetensors(tmp_path) -> None:
    cache = make_cache()
    for index in range(9):
        cache.append(torch.randn(1, HEADS, TOKENS, HEAD_DIM), frame(index), index)
    save_file(cache.to_tensors("layer."), tmp_path / "state.safetensors")
    restored = make_cache()
    restored.load_tensors(load_file(tmp_path / "state.safetensors"), "layer.")
    for ours, theirs in zip(cache.append(frame(9), frame(9), 9), restored.append(frame(9), frame(9), 9), strict=True):
        assert torch.equal(ours, theirs)


def test_rejects_what_does_not_fit() -> None:
    cache = make_cache()
    with pytest.raises(ValueError, match="one frame"):
        cache.append(torch.cat([frame(0), frame(1)], dim=2), torch.cat([frame(0), frame(1)], dim=2), 0)
    with pytest.raises(ValueError, match="frame_index"):
        cache.append(frame(0), frame(0), -1)
    with pytest.raises(RuntimeError, match="no_grad"):
        cache.append(frame(0).requires_grad_(), frame(0), 0)
    with pytest.raises(ValueError, match="expected"):
        cache.load_tensors(make_cache(window_size=7).to_tensors())
    with pytest.raises(KeyError):
        cache.load_tensors({})
    with pytest.raises(ValueError, match="window_size"):
        make_cache(window_size=0)
