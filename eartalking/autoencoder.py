"""Frame autoencoder relative to a portrait: one frame <-> a small grid of motion latents.

The encoder sees the frame and the portrait; the decoder owns the portrait's feature pyramid (computed once per
stream), predicts a warp and a visibility coarse to fine, and blends the warped portrait with what it paints itself.
Texture and identity therefore come from the portrait, and the latents need to carry motion only.

Nothing is convolved at full resolution: a pixel-unshuffle stem goes in, a pixel-shuffle comes out.

Notation: B batch, H W pixels, h w grid of a level, C latent channels, N = latent_grid² tokens. Images are in [-1, 1].
A warp is a displacement in normalised coordinates: position (x, y) in [-1, 1] of the output is sampled from the
portrait at (x, y) + warp (`grid_sample`, align_corners=False).
"""
from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.config import AutoencoderConfig


class Reference(NamedTuple):
    """What the decoder keeps of a portrait: the image (B, 3, H, W) and its pyramid, finest level first."""

    image: Tensor
    pyramid: list[Tensor]


class Geometry(NamedTuple):
    """Where things go, before any pixel is made: `warps` and `visibility` as in `Decoded`; the finest features
    (B, D, h, w) that the painting goes on from."""

    warps: list[Tensor]
    visibility: Tensor
    hidden: Tensor


class Decoded(NamedTuple):
    """A decoded frame and what it was blended from.

    image (B, 3, H, W); warped (B, 3, H, W), the warped portrait; painted (B, 3, H, W); blend (B, 1, H, W) in 0..1, the
    share of the warped portrait; warps, one (B, 2, h, w) per level, coarse to fine; visibility (B, 1, h, w) logits.
    """

    image: Tensor
    warped: Tensor
    painted: Tensor
    blend: Tensor
    warps: list[Tensor]
    visibility: Tensor


def identity_grid(size: int, device: torch.device | None = None) -> Tensor:
    """Pixel centres in [-1, 1]: (1, size, size, 2), x right and y down."""
    axis = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def warp_image(image: Tensor, warp: Tensor) -> Tensor:
    """Sample `image` (B, C, H, W) at the identity grid plus `warp` (B, 2, h, w); returns (B, C, h, w) in float32."""
    grid = identity_grid(warp.shape[-1], warp.device) + warp.float().permute(0, 2, 3, 1)
    return F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _upsample(x: Tensor, factor: int = 2) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with group norm; `cond` (B, cond_dim) scales and shifts the second norm."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(_groups(out_channels), out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.modulation = nn.Linear(cond_dim, 2 * out_channels) if cond_dim else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.norm2(hidden)
        if self.modulation is not None:
            scale, shift = self.modulation(cond)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(hidden))


def _groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


class FrameEncoder(nn.Module):
    """(frame, portrait) -> latents (B, C, g, g)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.encoder_widths
        self.stem = config.stem
        # The stem's convolution already halves the grid: the finest level costs most and motion does not need it.
        self.conv_in = nn.Conv2d(6 * config.stem**2, widths[1], 3, stride=2, padding=1)
        blocks: list[nn.Module] = [ResBlock(widths[1], widths[1])]
        for before, after in pairwise(widths[1:]):
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), ResBlock(after, after)]
        self.blocks = nn.Sequential(*blocks, ResBlock(widths[-1], widths[-1]))
        self.norm_out = nn.GroupNorm(_groups(widths[-1]), widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 1)

    def forward(self, frame: Tensor, portrait: Tensor) -> Tensor:
        x = F.pixel_unshuffle(torch.cat([frame, portrait], dim=1), self.stem)  # (B, 6·stem², H/stem, W/stem)
        x = self.blocks(self.conv_in(x))  # (B, width, g, g)
        latents = self.conv_out(F.silu(self.norm_out(x)))  # (B, C, g, g)
        # A fixed total energy: noise on the latents (in training) then cannot be beaten by making them larger, nor can
        # it drive them towards zero before the decoder has learnt to use them.
        return F.rms_norm(latents, latents.shape[1:])


class ReferenceEncoder(nn.Module):
    """Portrait -> feature pyramid, finest level first."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.reference_widths
        self.stem = config.stem
        self.conv_in = nn.Conv2d(3 * config.stem**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList([ResBlock(width, width) for width in widths])
        self.downs = nn.ModuleList(
            [nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(widths)]
        )

    def forward(self, portrait: Tensor) -> list[Tensor]:
        x = self.conv_in(F.pixel_unshuffle(portrait, self.stem))
        pyramid = []
        for index, level in enumerate(self.levels):
            x = level(x)
            pyramid.append(x)
            if index < len(self.downs):
                x = self.downs[index](x)
        return pyramid


class WarpHead(nn.Module):
    """Features -> displacement (B, 2, h, w) in float32, zero at first.

    Normalised features, a pointwise convolution and a small unit: one optimizer step must not be able to throw the whole
    picture about. With a plain 3x3 convolution it could, by ten map pixels, and the warp never settled.
    """

    UNIT = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_groups(channels), channels)
        self.conv = nn.Conv2d(channels, 2, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.UNIT * self.conv(F.silu(self.norm(hidden))).float()


class FrameDecoder(nn.Module):
    """(latents, Reference) -> Decoded; the warp is refined at every level, the blend is made at the finest."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, reference_widths = config.decoder_widths, config.reference_widths
        self.stem = config.stem
        cond_dim = widths[-1]
        num_latents = config.latent_channels * config.num_latent_tokens
        self.motion = nn.Sequential(nn.Linear(num_latents, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim))
        # Where the motion vector's coordinates start and point; training measures them (`whiten_motion`).
        self.register_buffer("motion_mean", torch.zeros(num_latents))
        self.register_buffer("motion_basis", torch.eye(num_latents))
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.warp_heads = nn.ModuleList()
        for level in reversed(range(len(widths))):  # coarse to fine
            self.blocks.append(ResBlock(widths[level] + reference_widths[level], widths[level], cond_dim))
            self.warp_heads.append(WarpHead(widths[level]))
            self.ups.append(nn.Conv2d(widths[level], widths[level - 1], 1) if level else nn.Identity())
        finest = widths[0]
        self.visibility_head = nn.Conv2d(finest, 1, 3, padding=1)
        self.refine_in = nn.Conv2d(finest + 3 * config.stem**2, finest, 3, padding=1)
        self.refine = nn.Conv2d(finest, finest, 3, padding=1)
        self.conv_out = nn.Conv2d(finest, 4 * config.stem**2, 3, padding=1)

    def forward(self, latents: Tensor, reference: Reference) -> Decoded:
        return self.paint(self.geometry(latents, reference), reference)

    @torch.no_grad()
    def whiten_motion(self, latents: Tensor, noise: float, num_dims: int = 64) -> None:
        """Give the motion vector decorrelated coordinates of unit spread, measured on raw latents (M, C, g, g), without
        changing what the decoder does.

        In the latents as they are, turns of the head spread wide and a blink hardly at all, and the decoder learns them in
        that order: the face follows the pose while eyes and mouth stay at their average. Directions beyond the first
        `num_dims` hold little but `noise` (its standard deviation) and are dropped.
        """
        samples = latents.flatten(1).double()
        mean = samples.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(samples.T))  # ascending
        kept = directions[:, -num_dims:]
        spread = (variance[-num_dims:].clamp_min(0) + noise**2).sqrt()
        linear = self.motion[0]
        old_weight = linear.weight.double() @ self.motion_basis.double().T  # acts on latents - motion_mean
        linear.bias += (old_weight @ (mean - self.motion_mean.double())).to(linear.bias)
        linear.weight.zero_()
        linear.weight[:, :num_dims] = (old_weight @ (kept * spread)).to(linear.weight)
        self.motion_mean.copy_(mean)
        self.motion_basis.zero_()
        self.motion_basis[:, :num_dims] = (kept / spread).to(self.motion_basis)

    def geometry(self, latents: Tensor, reference: Reference) -> Geometry:
        """Latents (B, C, g, g) on a portrait -> warps and visibility; training can ask for this alone."""
        coordinates = (latents.flatten(1) - self.motion_mean) @ self.motion_basis
        motion = F.silu(self.motion(coordinates))
        hidden = self.conv_in(latents)
        warps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            features = reference.pyramid[len(self.blocks) - 1 - index]
            if warps:
                warp = _upsample(warps[-1])
                features = warp_image(features, warp).to(hidden.dtype)
            else:
                warp = hidden.new_zeros(1, dtype=torch.float32)
            hidden = block(torch.cat([hidden, features], dim=1), motion)
            warps.append(warp + self.warp_heads[index](hidden))
            if index + 1 < len(self.blocks):
                hidden = _upsample(self.ups[index](hidden))
        return Geometry(warps, self.visibility_head(hidden).float(), hidden)

    def paint(self, geometry: Geometry, reference: Reference) -> Decoded:
        """The warped portrait, blended with what it cannot show."""
        warps, visibility, hidden = geometry
        warped = warp_image(reference.image, _upsample(warps[-1], self.stem))  # (B, 3, H, W)
        refined = torch.cat([hidden, F.pixel_unshuffle(warped, self.stem).to(hidden.dtype)], dim=1)
        refined = hidden + self.refine(F.silu(self.refine_in(refined)))
        out = F.pixel_shuffle(self.conv_out(F.silu(refined)), self.stem).float()  # (B, 4, H, W)
        painted = out[:, :3]
        blend = torch.sigmoid(out[:, 3:] + _upsample(visibility, self.stem))
        image = blend * warped + (1 - blend) * painted
        return Decoded(image, warped, painted, blend, warps, visibility)


class FrameAutoencoder(nn.Module):
    """Encoder, reference encoder and decoder, with the latents' statistics as buffers of the checkpoint.

    `encode` returns and `decode` takes *normalised* latents as tokens (B, N, C): zero mean and unit variance per token
    and channel over the training set, once `latent_mean` and `latent_std` have been measured.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = FrameEncoder(config)
        self.reference_encoder = ReferenceEncoder(config)
        self.decoder = FrameDecoder(config)
        shape = (config.num_latent_tokens, config.latent_channels)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    def encode(self, frame: Tensor, portrait: Tensor) -> Tensor:
        """Frames and portraits (B, 3, H, W) -> normalised latents (B, N, C)."""
        tokens = self.encoder(frame, portrait).flatten(2).transpose(1, 2)  # (B, N, C)
        return (tokens - self.latent_mean) / self.latent_std

    def reference(self, portrait: Tensor) -> Reference:
        """Portrait (B, 3, H, W) -> its pyramid, once per stream."""
        return Reference(portrait, self.reference_encoder(portrait))

    def decode(self, latents: Tensor, reference: Reference) -> Decoded:
        """Normalised latents (B, N, C) on a portrait -> Decoded."""
        return self.decoder(self._to_grid(latents), reference)

    def geometry(self, latents: Tensor, reference: Reference) -> Geometry:
        """The part of `decode` that makes no pixels yet."""
        return self.decoder.geometry(self._to_grid(latents), reference)

    def _to_grid(self, latents: Tensor) -> Tensor:
        tokens = latents * self.latent_std + self.latent_mean
        grid = self.config.latent_grid
        return tokens.transpose(1, 2).unflatten(2, (grid, grid))
