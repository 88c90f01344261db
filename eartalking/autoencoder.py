"""Frame autoencoder relative to a portrait: one frame <-> a small grid of motion latents.

Latents are a fixed linear code of motion (`MotionCode`): what the face does, in coordinates of unit spread, spread over the
grid. The encoder reads the frame's code from pixels. The decoder has the portrait's feature pyramid and the portrait's own
code (both computed once per stream), corrects the warp that follows from the portrait's surface (`eartalking.surface`), and blends
the warped portrait with what it paints itself. Texture and identity therefore come from the portrait.

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
from eartalking.frame_encoder import FrameEncoder
from eartalking.modules.res_block import ResBlock, for_convolution, norm_groups, upsample
from eartalking.motion_fit import fit_motion
from eartalking.part_refiner import PartRefiner
from eartalking.surface import BASE_CHANNELS, Base, SurfaceEncoder, SurfaceFields, background_plate, identity_grid


class Reference(NamedTuple):
    """What the decoder keeps of a portrait: the image (B, 3, H, W); its pyramid, finest level first; its surface, and where that is
    before it moves (`SurfaceEncoder.home`); its two layers, the image with the person's matte (B, 4, H, W) and the background without
    the person (B, 3, H, W); the normalised latents (B, N, C) of the portrait itself; and where its eyes and its mouth are (B, 3, 2), in
    fractions of the frame."""

    image: Tensor
    pyramid: list[Tensor]
    surface: SurfaceFields
    home: Tensor
    person: Tensor
    plate: Tensor
    latents: Tensor
    landmarks: Tensor

    def expand(self, count: int) -> Reference:
        """One portrait (B = 1) for a batch of `count` frames."""

        def wider(value: Tensor) -> Tensor:
            return value.expand(count, *value.shape[1:])

        surface = SurfaceFields(*(wider(value) for value in self.surface))
        others = (wider(value) for value in (self.home, self.person, self.plate, self.latents, self.landmarks))
        return Reference(wider(self.image), [wider(level) for level in self.pyramid], surface, *others)


class Geometry(NamedTuple):
    """Where things go, before any pixel is made: `warps` and `visibility` as in `Decoded`; the last level's features (B, D, h, w),
    which the painting goes on from; where the person may be (B, 1, h, w)."""

    warps: list[Tensor]
    visibility: Tensor
    hidden: Tensor
    reach: Tensor


class Decoded(NamedTuple):
    """A decoded frame and what it was blended from.

    image (B, 3, H, W), the blend, with eyes and mouth refined if `FrameAutoencoder` made it; warped (B, 3, H, W), the warped person
    before the background; painted (B, 3, H, W); blend (B, 1, H, W) in 0..1, the share of `warped`; warps, one (B, 2, h, w) per level,
    coarse to fine; visibility (B, 1, h, w) logits.
    """

    image: Tensor
    warped: Tensor
    painted: Tensor
    blend: Tensor
    warps: list[Tensor]
    visibility: Tensor

    def pixels(self) -> Tensor:
        """The frames as a stream puts them out: (B, H, W, 3) uint8."""
        levels = (self.image * 127.5).add_(128).clamp_(0, 255)  # 127.5 and a half: cut off, it is rounded
        return levels.to(torch.uint8).permute(0, 2, 3, 1)


def warp_image(image: Tensor, warp: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample `image` (B, C, H, W) at the identity grid plus `warp` (B, 2, h, w); returns (B, C, h, w) in float32."""
    grid = identity_grid(warp.shape[-1], warp.device) + warp.float().permute(0, 2, 3, 1)
    return F.grid_sample(image.float(), grid, mode=mode, padding_mode="border", align_corners=False)


class MotionCode(nn.Module):
    """Motion vectors (..., L) <-> raw latents (..., N, C), fixed once and for all before anything is trained.

    Every coordinate is centred and brought to its spread over the data, then a random orthonormal map spreads them over the
    latents: a small movement that matters (a lid, a lip) takes up as much of the latents as a turn of the head. A code that
    is learnt together with the decoder gives nearly all of it to the head's pose, and mouth and eyes drown in noise.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.shape = (config.num_latent_tokens, config.latent_channels)
        size = config.motion_size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))  # coordinates = (motion - mean) · scale
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(self.shape[0] * self.shape[1], size, generator=generator, dtype=torch.float64)
        self.register_buffer("basis", torch.linalg.qr(square)[0].T.float())  # (L, N·C), orthonormal rows

    @torch.no_grad()
    def measure(self, motion: Tensor, emphasis: Tensor) -> None:
        """Fit the coordinates to motion vectors (M, L); `emphasis` (L,) is the spread that each shall have.

        A coordinate that never moves gets the scale 0: it is not part of the code.
        """
        spread = motion.std(0)
        self.mean.copy_(motion.mean(0))
        self.scale.copy_(torch.where(spread > 1e-3, emphasis / spread.clamp_min(1e-3), 0.0))

    def encode(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> raw latents (..., N, C)."""
        return self.spread(self.to_coordinates(motion))

    def to_coordinates(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> coordinates of about unit spread (..., L)."""
        return (motion - self.mean) * self.scale

    def spread(self, coordinates: Tensor) -> Tensor:
        """Coordinates (..., L) -> raw latents (..., N, C)."""
        return (coordinates @ self.basis).unflatten(-1, self.shape)

    def coordinates(self, latents: Tensor) -> Tensor:
        """Raw latents (..., N, C) -> coordinates of about unit spread (..., L); what is off the code's plane is dropped."""
        return latents.flatten(-2).float() @ self.basis.T

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`: raw latents (..., N, C) -> motion vectors (..., L)."""
        return self.motion(self.coordinates(latents))

    def motion(self, coordinates: Tensor) -> Tensor:
        """The inverse of `to_coordinates`: coordinates (..., L) -> motion vectors (..., L)."""
        return coordinates * torch.where(self.scale > 0, 1 / self.scale.clamp_min(1e-6), 0.0) + self.mean


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
        self.norm = nn.GroupNorm(norm_groups(channels), channels)
        self.conv = nn.Conv2d(channels, 2, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.UNIT * self.conv(F.silu(self.norm(hidden))).float()


class FrameDecoder(nn.Module):
    """(motion, portrait) -> Decoded; the warp that the portrait's surface gives is corrected level by level, coarse to fine, and
    the blend is made at the finest."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths, reference_widths = config.decoder_widths, config.reference_widths
        self.stem = config.stem
        cond_dim = widths[-1]
        # The frame's coordinates, and how they differ from the portrait's: no difference, no warp.
        self.motion = nn.Sequential(nn.Linear(2 * config.motion_size, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim))
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.warp_heads = nn.ModuleList()
        for level in reversed(range(len(widths))):  # coarse to fine
            known = reference_widths[level] + BASE_CHANNELS + (widths[level] if self.blocks else 0)
            self.blocks.append(ResBlock(known, widths[level], cond_dim))
            self.warp_heads.append(WarpHead(widths[level]))
            self.ups.append(nn.Conv2d(widths[level], widths[level - 1], 1) if level else nn.Identity())
        finest = widths[0]
        self.visibility_head = nn.Conv2d(finest, 1, 3, padding=1)
        self.refine_in = nn.Conv2d(finest + 3 * config.stem**2, finest, 3, padding=1)
        self.refine = nn.Conv2d(finest, finest, 3, padding=1)
        self.conv_out = nn.Conv2d(finest, 4 * config.stem**2, 3, padding=1)

    def geometry(self, motion: Tensor, reference_motion: Tensor, pyramid: list[Tensor], base: Base) -> Geometry:
        """Coordinates of the frame and of the portrait (B, L), the portrait's pyramid and what its surface says -> warps and
        visibility."""
        cond = F.silu(self.motion(torch.cat([motion, motion - reference_motion], dim=1)))
        warps: list[Tensor] = []
        hidden = correction = None
        for index, block in enumerate(self.blocks):
            features = pyramid[len(self.blocks) - 1 - index]
            here = base.at(features.shape[-1])
            warp = here.warp
            if correction is not None:
                correction = upsample(correction)
                warp = warp + correction
            features = warp_image(features, warp).to(features.dtype)
            known = [features, here.channels().to(features.dtype)]
            if hidden is not None:
                known.append(upsample(self.ups[index - 1](hidden)))
            hidden = block(for_convolution(torch.cat(known, dim=1)), cond)
            step = self.warp_heads[index](hidden)
            correction = step if correction is None else correction + step
            warps.append(here.warp + correction)
        return Geometry(warps, self.visibility_head(hidden).float(), hidden, base.reach)

    def paint(self, geometry: Geometry, reference: Reference) -> Decoded:
        """The warped person before the background, blended with what neither can show."""
        warps, visibility, hidden, reach = geometry
        # Bicubic: by the true warp, a bilinear one keeps 70 % of the portrait's sharpness, a bicubic one 98 %. (Bilinear sampling of a
        # portrait of three times the size keeps as much, and takes as long: its pixels no longer fit into the cache.)
        person, matte = warp_image(reference.person, upsample(warps[-1], self.stem), "bicubic").split([3, 1], dim=1)
        matte = matte.clamp(0, 1) * upsample(reach, self.stem)
        warped = torch.lerp(reference.plate, person, matte)  # (B, 3, H, W)
        refined = for_convolution(torch.cat([hidden, F.pixel_unshuffle(warped, self.stem).to(hidden.dtype)], dim=1))
        refined = hidden + self.refine(F.silu(self.refine_in(refined)))
        out = F.pixel_shuffle(self.conv_out(F.silu(refined)), self.stem).float()  # (B, 4, H, W)
        painted = out[:, :3]
        blend = torch.sigmoid(out[:, 3:] + upsample(visibility, self.stem))
        image = torch.lerp(painted, warped, blend)
        return Decoded(image, warped, painted, blend, warps, visibility)


class FrameAutoencoder(nn.Module):
    """Encoder, reference encoder and decoder, with the code and the latents' statistics as buffers of the checkpoint.

    `encode` returns and `decode` takes *normalised* latents as tokens (B, N, C): zero mean and unit variance per token
    and channel over the training set, once `latent_mean` and `latent_std` have been measured.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.code = MotionCode(config)
        self.encoder = FrameEncoder(config)
        self.reference_encoder = ReferenceEncoder(config)
        self.surface = SurfaceEncoder(config)
        self.decoder = FrameDecoder(config)
        self.refiner = PartRefiner(config)
        shape = (config.num_latent_tokens, config.latent_channels)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    @torch.no_grad()
    def encode(self, frame: Tensor, reference: Reference) -> Tensor:
        """Frames (B, 3, H, W) of people whose portraits are given -> normalised latents (B, N, C): read, then fitted to the pixels."""
        read = self.encoder(frame, reference.image).float()
        fitted = fit_motion(
            self.surface, reference.surface, reference.home, self.code.motion, frame, reference.image, read, self.encoder.error
        )
        return self.normalise(self.code.spread(fitted))

    def from_motion(self, motion: Tensor) -> Tensor:
        """Motion vectors (..., L) -> normalised latents (..., N, C)."""
        return self.normalise(self.code.encode(motion))

    def to_motion(self, latents: Tensor) -> Tensor:
        """Normalised latents (..., N, C) -> motion vectors (..., L)."""
        return self.code.decode(self.denormalise(latents))

    def reference(self, portrait: Tensor) -> Reference:
        """Portrait (B, 3, H, W) -> what decoding needs of it, once per stream."""
        look = self.encoder.look(portrait)
        latents = self.normalise(self.code.spread(self.encoder.read(look, look).float()))
        return self.reference_of(portrait, latents, look.landmarks.float())

    def reference_of(self, portrait: Tensor, latents: Tensor, landmarks: Tensor) -> Reference:
        """The same for portraits whose latents and landmarks are known."""
        surface = self.surface(portrait)
        scale = portrait.shape[-1] // surface.cover.shape[-1]
        matte = upsample(surface.cover, scale)
        plate = background_plate(portrait, surface.cover)
        return Reference(
            portrait, self.reference_encoder(portrait), surface, self.surface.home(surface, self.to_motion(latents)),
            torch.cat([portrait, matte], dim=1), plate, latents, landmarks,
        )  # fmt: skip

    def decode(self, latents: Tensor, reference: Reference) -> Decoded:
        """Normalised latents (B, N, C) on portraits -> Decoded, eyes and mouth refined."""
        decoded = self.decoder.paint(self.geometry(latents, reference), reference)
        motion, own = self.coordinates(latents), self.coordinates(reference.latents)
        return decoded._replace(image=self.refiner(decoded.image, reference.image, motion, own, reference.landmarks))

    def geometry(self, latents: Tensor, reference: Reference) -> Geometry:
        """The part of `decode` that makes no pixels yet."""
        motion, own = self.coordinates(latents), self.coordinates(reference.latents)
        size = reference.pyramid[0].shape[-1]
        base = self.surface.base(reference.surface, self.to_motion(latents), reference.home, size)
        return self.decoder.geometry(motion, own, reference.pyramid, base)

    def coordinates(self, latents: Tensor) -> Tensor:
        """Normalised latents (..., N, C) -> coordinates of the code (..., L)."""
        return self.code.coordinates(self.denormalise(latents))

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents (..., N, C) -> normalised."""
        return (latents - self.latent_mean) / self.latent_std

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents * self.latent_std + self.latent_mean
