"""Key/value cache of fixed size: the sink's frames pinned for ever, the latest frames in a ring.

Notation: B batch, H heads, K tokens per frame, Dh head_dim, L slots = (sink_size + window_size) * K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SinkWindowCache:
    """The state of one attention layer of one batch of streams.

    Memory and cost per frame are constant: slots are allocated once, start at zero (a masked slot must not
    hold NaN, 0 * NaN would poison the output) and are overwritten in place. Frame f < sink_size owns slot f;
    a later frame takes slot sink_size + (f - sink_size) % window_size, which is where frame f - window_size
    was, just out of the window. Only whole frames are written, one at a time: a longer chunk would overwrite
    keys that its first queries still need.
    """

    keys: Tensor  # (B, H, L, Dh)
    values: Tensor  # (B, H, L, Dh)
    positions: Tensor  # (L,) int64: absolute frame index held by each slot, -1 when empty
    sink_size: int  # frames
    window_size: int  # frames, the current one included
    tokens_per_frame: int

    @classmethod
    def init(
        cls,
        batch: int,
        num_heads: int,
        head_dim: int,
        tokens_per_frame: int,
        sink_size: int,
        window_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> SinkWindowCache:
        """An empty cache. Raises ValueError for a window below one frame or a negative sink."""
        if window_size < 1 or sink_size < 0 or tokens_per_frame < 1:
            raise ValueError(
                f"need window_size >= 1, sink_size >= 0 and tokens_per_frame >= 1, "
                f"got {window_size}, {sink_size} and {tokens_per_frame}"
            )
        slots = (sink_size + window_size) * tokens_per_frame
        keys = torch.zeros(batch, num_heads, slots, head_dim, device=device, dtype=dtype)
        positions = torch.full((slots,), -1, dtype=torch.int64, device=device)
        return cls(keys, torch.zeros_like(keys), positions, sink_size, window_size, tokens_per_frame)

    def slots(self, frame_index: int) -> slice:
        """The slots that the tokens of a frame live in."""
        if frame_index < 0:
            raise ValueError(f"frame_index must be >= 0, got {frame_index}")
        place = frame_index
        if frame_index >= self.sink_size:
            place = self.sink_size + (frame_index - self.sink_size) % self.window_size
        return slice(place * self.tokens_per_frame, (place + 1) * self.tokens_per_frame)

    def positions_with(self, frame_index: int) -> Tensor:
        """The positions (L,) that `append` of this frame will return; the cache is left as it is."""
        positions = self.positions.clone()
        positions[self.slots(frame_index)] = frame_index
        return positions

    def append(self, keys: Tensor, values: Tensor, frame_index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Write one frame's keys and values (B, H, K, Dh) and return everything that is held.

        Returns keys and values (B, H, L, Dh) and positions (L,), the cache's own tensors: do not write to
        them. Which slots a query may see is for the mask to say (`attention.frame_causal_bias`).
        Raises ValueError on a wrong shape, RuntimeError when a gradient would have to flow through the cache.
        """
        batch, num_heads, _, head_dim = self.keys.shape
        expected = (batch, num_heads, self.tokens_per_frame, head_dim)
        if keys.shape != expected or values.shape != expected:
            raise ValueError(
                f"the cache takes one frame of shape {expected}, got {tuple(keys.shape)}, {tuple(values.shape)}"
            )
        if keys.requires_grad or values.requires_grad:
            raise RuntimeError("the cache is written in place: stream under torch.no_grad()")
        slots = self.slots(frame_index)
        self.keys[:, :, slots] = keys.to(self.keys.dtype)
        self.values[:, :, slots] = values.to(self.values.dtype)
        self.positions[slots] = frame_index
        return self.keys, self.values, self.positions

    def clone(self) -> SinkWindowCache:
        """An independent copy."""
        return SinkWindowCache(
            self.keys.clone(),
            self.values.clone(),
            self.positions.clone(),
            self.sink_size,
            self.window_size,
            self.tokens_per_frame,
        )

    def reset(self) -> None:
        """Forget everything, the sink too."""
        self.keys.zero_()
        self.values.zero_()
        self.positions.fill_(-1)

    def to_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Copies of the state's tensors under flat names, ready for safetensors."""
        return {f"{prefix}{name}": getattr(self, name).detach().clone() for name in _TENSORS}

    def load_tensors(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Take over what `to_tensors` gave. Raises KeyError or ValueError if it does not fit this cache."""
        for name in _TENSORS:
            own, given = getattr(self, name), tensors[f"{prefix}{name}"]
            if own.shape != given.shape:
                raise ValueError(f"{prefix}{name}: expected {tuple(own.shape)}, got {tuple(given.shape)}")
        for name in _TENSORS:
            getattr(self, name).copy_(tensors[f"{prefix}{name}"])


_TENSORS = ("keys", "values", "positions")
