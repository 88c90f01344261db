"""Frame-causal transformer: bidirectional inside a frame block, causal between blocks, one sink and a window.

Notation: B batch, T frames, K tokens per frame, S = T*K, D dim, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.modules.attention import CausalSelfAttention, alibi_slopes, expand_to_tokens, frame_causal_bias
from eartalking.modules.kv_cache import SinkWindowCache

MODULATION_PARTS = 6  # shift, scale and gate, for the attention and for the MLP


@dataclass
class TransformerState:
    """Everything a stream must remember between frames: one cache per layer."""

    caches: list[SinkWindowCache]

    def clone(self) -> TransformerState:
        """An independent copy."""
        return TransformerState([cache.clone() for cache in self.caches])

    def reset(self) -> None:
        """Back to the state of a new stream, in place."""
        for cache in self.caches:
            cache.reset()

    def to_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Copies of all tensors under flat names, ready for safetensors."""
        tensors: dict[str, Tensor] = {}
        for index, cache in enumerate(self.caches):
            tensors |= cache.to_tensors(f"{prefix}layers.{index}.")
        return tensors

    def load_tensors(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Take over what `to_tensors` gave. Raises KeyError or ValueError if it does not fit."""
        for index, cache in enumerate(self.caches):
            cache.load_tensors(tensors, f"{prefix}layers.{index}.")


class Block(nn.Module):
    """Pre-norm attention and MLP, both modulated (adaLN).

    The modulation is a projection of the condition shared by all blocks plus this block's own offset, which
    costs a third fewer weights than one projection per block. A modulation of zero leaves a plain block.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int = 4, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(dim, num_heads)
        self.mlp_in = nn.Linear(dim, mlp_ratio * dim)
        self.mlp_out = nn.Linear(mlp_ratio * dim, dim)
        self.modulation_offset = nn.Parameter(torch.zeros(MODULATION_PARTS, dim))
        with torch.no_grad():  # keep the residual stream's variance independent of depth
            self.attention.to_out.weight.mul_(residual_scale)
            self.mlp_out.weight.mul_(residual_scale)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        bias: Tensor | None = None,
        cache: SinkWindowCache | None = None,
        frame_index: int | None = None,
    ) -> Tensor:
        """x (B, S, D), modulation (B, 6, D) -> (B, S, D). bias, cache, frame_index: see the attention."""
        parts = (modulation + self.modulation_offset).unsqueeze(2).unbind(1)  # 6 x (B, 1, D)
        attention_shift, attention_scale, attention_gate, mlp_shift, mlp_scale, mlp_gate = parts
        hidden = modulated_norm(x, attention_shift, attention_scale)
        x = x + (1 + attention_gate) * self.attention(hidden, bias, cache, frame_index)
        hidden = modulated_norm(x, mlp_shift, mlp_scale)
        return x + (1 + mlp_gate) * self.mlp_out(F.gelu(self.mlp_in(hidden)))


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm over the last axis, then x * (1 + scale) + shift."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class CausalTransformer(nn.Module):
    """The backbone over frame blocks. One mask rule and one set of weights for training and streaming."""

    slopes: Tensor

    def __init__(
        self, dim: int, depth: int, num_heads: int, sink_size: int = 1, window_size: int = 10, mlp_ratio: int = 4
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_heads = num_heads
        self.sink_size = sink_size
        self.window_size = window_size
        residual_scale = (2 * depth) ** -0.5
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, residual_scale) for _ in range(depth))
        self.to_modulation = zero_init(nn.Linear(dim, MODULATION_PARTS * dim))
        self.out_norm = nn.LayerNorm(dim)
        self.register_buffer("slopes", alibi_slopes(num_heads), persistent=False)

    def init_state(
        self,
        batch: int,
        tokens_per_frame: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> TransformerState:
        """Empty caches; by default on the weights' device and in their dtype."""
        weight = self.out_norm.weight
        return TransformerState(
            [
                SinkWindowCache.init(
                    batch,
                    self.num_heads,
                    self.dim // self.num_heads,
                    tokens_per_frame,
                    self.sink_size,
                    self.window_size,
                    device or weight.device,
                    dtype or weight.dtype,
                )
                for _ in self.blocks
            ]
        )

    def forward(
        self, x: Tensor, cond: Tensor, state: TransformerState | None = None, frame_index: int | None = None
    ) -> Tensor:
        """x (B, T, K, D), cond (B, D) -> normalised features (B, T, K, D).

        Without a state, x is a whole sequence whose frames are at positions 0..T-1, the sink first. With one,
        x is the single frame `frame_index` (T = 1): the frame is appended to the state, and its features are
        those that the whole sequence would have given. Streaming needs torch.no_grad().
        """
        batch, frames, tokens_per_frame, dim = x.shape
        if (state is None) != (frame_index is None):
            raise ValueError("state and frame_index come together: both to stream, neither for a whole sequence")
        if state is not None and frames != 1:
            raise ValueError(f"streaming takes one frame at a time, got {frames}")
        bias = self._bias(x, state, frame_index)
        modulation = self.to_modulation(F.silu(cond)).view(batch, MODULATION_PARTS, dim)
        x = x.reshape(batch, frames * tokens_per_frame, dim)  # (B, S, D)
        caches = state.caches if state is not None else [None] * len(self.blocks)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, modulation, bias, cache, frame_index)
        return self.out_norm(x).view(batch, frames, tokens_per_frame, dim)

    def _bias(self, x: Tensor, state: TransformerState | None, frame_index: int | None) -> Tensor:
        """Bias (1, H, S, S), or (1, H, 1, L) when streaming; made once because all layers share it."""
        device_type = x.device.type
        dtype = x.dtype
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        if state is None or frame_index is None:
            positions = torch.arange(x.shape[1], device=x.device)
            bias = frame_causal_bias(positions, positions, self.sink_size, self.window_size, self.slopes)
            return expand_to_tokens(bias.to(dtype), x.shape[2])
        positions = state.caches[0].positions_with(frame_index)
        query = torch.full((1,), frame_index, dtype=torch.int64, device=x.device)
        bias = frame_causal_bias(query, positions, self.sink_size, self.window_size, self.slopes)
        return bias.to(dtype)[None]


def zero_init(layer: nn.Linear) -> nn.Linear:
    """The same layer, giving zero until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
