"""Self-attention whose mask is a pure function of frame positions, the same in training and streaming.

Notation: B batch, H heads, S tokens, Sq/Sk query/key tokens (or frames), D dim, Dh head_dim.

Time enters only as ALiBi (Press et al. 2022): a bias that grows linearly with the distance in frames. Keys of
the sink get the constant 0, so an hour-long stream meets no number that a ten-second clip did not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.modules.kv_cache import SinkWindowCache


def alibi_slopes(num_heads: int) -> Tensor:
    """Fixed positive slopes (H,), geometric from 2^(-8/H) to 2^-8: near-sighted heads first."""
    return torch.exp2(-8.0 * torch.arange(1, num_heads + 1, dtype=torch.float32) / num_heads)


def frame_causal_bias(pos_q: Tensor, pos_k: Tensor, sink_size: int, window_size: int, slopes: Tensor) -> Tensor:
    """Additive attention bias (H, Sq, Sk): 0 or below where a query may look, -inf elsewhere.

    Slot filled (pos_k >= 0) and pos_k <= pos_q and (pos_k < sink_size or pos_q - pos_k < window_size).
    Positions (Sq,), (Sk,) are absolute frame indices, one per token or one per frame as the caller likes; all
    tokens of a frame share one, so attention is bidirectional inside a frame. slopes: (H,).
    """
    distance = pos_q[:, None] - pos_k[None, :]  # (Sq, Sk)
    is_sink = (pos_k < sink_size)[None, :]
    allowed = (pos_k >= 0)[None, :] & (distance >= 0) & (is_sink | (distance < window_size))
    penalty = distance.masked_fill(is_sink, 0).to(slopes.dtype)
    bias = -slopes[:, None, None] * penalty  # (H, Sq, Sk)
    return bias.masked_fill(~allowed, float("-inf"))


def expand_to_tokens(bias: Tensor, tokens_per_frame: int) -> Tensor:
    """Frame-level bias (H, T, T) -> token-level (1, H, T*K, T*K), cheaper than computing it per token."""
    num_heads, frames_q, frames_k = bias.shape
    k = tokens_per_frame
    bias = bias[:, :, None, :, None].expand(num_heads, frames_q, k, frames_k, k)
    return bias.reshape(1, num_heads, frames_q * k, frames_k * k)


def rms_norm(x: Tensor, scale: Tensor | None = None) -> Tensor:
    """RMS norm over the last axis, then a scale; in x's own dtype under autocast too."""
    scale = None if scale is None else scale.to(x.dtype)
    return F.rms_norm(x, x.shape[-1:], scale, eps=1e-6)


class CausalSelfAttention(nn.Module):
    """Multi-head attention with normalised queries and keys. What it may see is decided by `bias` alone."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        # Scaling the keys too would change nothing: only the product of the two scales enters the logits.
        self.query_scale = nn.Parameter(torch.ones(self.head_dim))
        self.to_out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        cache: SinkWindowCache | None = None,
        frame_index: int | None = None,
    ) -> Tensor:
        """x (B, S, D) -> (B, S, D).

        bias: broadcastable to (B or 1, H, Sq, Sk) with 4 dimensions, or None for full attention.
        cache: x is then exactly the frame `frame_index`; it is appended and the whole cache attended to.
        """
        batch, length, dim = x.shape
        qkv = self.to_qkv(x).view(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        (q, k), v = rms_norm(qkv[:2]), qkv[2]  # each (B, H, S, Dh)
        q = q * self.query_scale.to(q.dtype)
        if cache is not None:
            if frame_index is None:
                raise ValueError("attention with a cache needs the frame_index of x")
            k, v, _ = cache.append(k, v, frame_index)
            q = q.to(k.dtype)
        if bias is not None:
            # 4 dimensions, q's dtype and no gradient: anything else falls back to the slow unfused kernel.
            bias = bias.detach().to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, H, S, Dh)
        return self.to_out(out.transpose(1, 2).reshape(batch, length, dim))
