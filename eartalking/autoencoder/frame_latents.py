"""Latents of frames that are learnt from pixels, relative to a portrait, beside a face code or in its place.

Three kinds, of the same networks, so that they can be compared:

    face_code   no learnt latents: what the face code's geometry decodes to is finished by the decoder's network
    learned     the same, and what the frame shows besides is read from its pixels
    pixels      no face code at all: every frame is the portrait, changed by what was read from pixels

What is read first is how the start has to be warped to look like the frame (`modules.registration`), on a grid of
32 x 32 places, in the directions in which that varies most: whitened principal components, measured, then trained
further together with all the rest. A network reads and draws what a warp in these directions does not say.

Notation: B batch, H W pixels, h w grid places of a quarter of the pixels, Z latents, L coordinates of the face code.
Images are in [-1, 1].
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.autoencoder.decoder import WarpHead
from eartalking.modules.registration import register
from eartalking.modules.res_block import ResBlock, norm_groups, upsample
from eartalking.modules.warp import warp_image

Kind = Literal["face_code", "learned", "pixels"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STEM = 4  # pixel-unshuffle factor
FLOW_SIDE = 32  # grid places a side of the warps that the latents speak of
# Registration's pixels per place and windows: what a face code leaves over is a few pixels, a turned head many.
POOLS: dict[Kind, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "learned": ((8, 4, 2), (3, 5, 5)),
    "pixels": ((16, 8, 4, 2), (5, 5, 5, 5)),
}
WIDTHS = (32, 48, 64, 96, 128)  # of the encoder, from h x w down
COND_DIM = 96
MAP_SIDE, MAP_WIDTHS = 8, (48, 48, 32, 24)  # of what the latents draw: the coarsest map, and each finer one's channels
NOISE = 0.1  # spread of the noise on the whitened latents while they are learnt
BLEND_BIAS = 3.0  # a new decoder keeps the warped picture
READ_UNIT = 0.3  # of what the encoder's network adds to the components
WARP_UNIT = 30.0  # brings a warp to the size of colours
# Of the components' weights, which are measured and small: an optimizer's step for all other weights would undo them.
COMPONENT_UNIT = 0.005


class Start(NamedTuple):
    """What a frame is decoded from: `image` (B, 3, H, W), what is shown without latents; `portrait` (B, 3, H, W);
    `warp` (B, 2, h, w), by which the one came from the other; `known` (B, K), what is known of the frame's motion."""

    image: Tensor
    portrait: Tensor
    warp: Tensor
    known: Tensor

    @classmethod
    def still(cls, portrait: Tensor) -> Start:
        """The portrait itself, of whose motion nothing is known."""
        count, side = len(portrait), portrait.shape[-1] // STEM
        return cls(portrait, portrait, portrait.new_zeros(count, 2, side, side), portrait.new_zeros(count, 0))

    @classmethod
    def moved(cls, image: Tensor, portrait: Tensor, warp: Tensor, coordinates: Tensor, own: Tensor) -> Start:
        """What the face code decoded: coordinates (B, L) of the frame and, `own`, of the portrait."""
        return cls(image, portrait, warp, torch.cat([coordinates, coordinates - own], dim=1))


class Drawn(NamedTuple):
    """image (B, 3, H, W); flow (B, 2, h, w), the warp of the start that it was blended from; blend (B, 1, H, W) in
    0..1, the share of the warped start."""

    image: Tensor
    flow: Tensor
    blend: Tensor


class LatentEncoder(nn.Module):
    """A frame, its start, the portrait, and the registration of the two first -> latents (B, Z)."""

    def __init__(self, size: int, image_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * FLOW_SIDE**2, size, bias=False)
        self.conv_in = nn.Conv2d(3 * 3 * STEM**2 + 2, WIDTHS[0], 1)
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, 1) for before, after in zip(WIDTHS, WIDTHS[1:], strict=False)
        )
        self.blocks = nn.ModuleList(ResBlock(width, width) for width in WIDTHS[1:-1])
        self.out = nn.Linear(WIDTHS[-1] * (image_size // STEM // 2 ** len(self.downs)) ** 2, size, bias=False)

    def forward(self, frame: Tensor, start: Tensor, portrait: Tensor, flow: Tensor) -> Tensor:
        stems = [_unshuffled(image) for image in (frame, start, portrait)]
        x = self.conv_in(torch.cat([*stems, WARP_UNIT * _to(flow, stems[0].shape[-1])], dim=1))
        x = self.downs[0](F.silu(x))
        for block, down in zip(self.blocks, self.downs[1:], strict=True):
            x = down(block(x))
        read = self.out(F.silu(x).flatten(1)).float()
        return READ_UNIT * read + self.components(flow)

    def components(self, flow: Tensor) -> Tensor:
        """What a registration (B, 2, FLOW_SIDE, FLOW_SIDE) says by itself: (B, Z)."""
        return F.linear(flow.flatten(1), COMPONENT_UNIT * self.project.weight.float())


class LatentDecoder(nn.Module):
    """A start, and latents (B, Z) if there are any -> Drawn: the start, warped by what the latents say and what the
    network adds, blended with what it paints. A new one shows the start, a little darker, as the latents warp it."""

    def __init__(self, size: int, known: int) -> None:
        super().__init__()
        colours = 3 * STEM**2
        fine, coarse, portrait = 32, 64, 24
        self.cond = nn.Sequential(
            nn.Linear(known + size, COND_DIM), nn.SiLU(), nn.Linear(COND_DIM, COND_DIM), nn.SiLU()
        )
        self.to_flow = nn.Linear(size, 2 * FLOW_SIDE**2, bias=False) if size else None
        if size:
            self.spread = nn.Linear(size, MAP_WIDTHS[0] * MAP_SIDE**2)
            self.maps = nn.ModuleList(
                ResBlock(before, after, COND_DIM) for before, after in zip(MAP_WIDTHS, MAP_WIDTHS[1:], strict=False)
            )
        self.of_portrait = nn.Conv2d(colours, portrait, 1)
        self.conv_in = nn.Conv2d(colours + portrait + (MAP_WIDTHS[-1] if size else 0), fine, 1)
        self.fine = ResBlock(fine, fine, COND_DIM)
        self.down = nn.Conv2d(fine, coarse, 3, 2, 1)
        self.coarse = nn.ModuleList(ResBlock(coarse, coarse, COND_DIM) for _ in range(2))
        self.down_again = nn.Conv2d(coarse, coarse, 3, 2, 1)
        self.deep = nn.ModuleList(ResBlock(coarse, coarse, COND_DIM) for _ in range(2))
        self.up_again = nn.Conv2d(coarse, coarse, 1)
        self.up = nn.Conv2d(coarse, fine, 1)
        self.warp_heads = nn.ModuleList(WarpHead(width) for width in (coarse, coarse, fine))
        self.mix = nn.Conv2d(fine + colours, fine, 1)
        self.last = ResBlock(fine, fine, COND_DIM)
        self.norm_out = nn.GroupNorm(norm_groups(fine), fine)
        self.conv_out = nn.Conv2d(fine, 4 * STEM**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)
        with torch.no_grad():
            self.conv_out.bias[colours:].fill_(BLEND_BIAS)

    def forward(self, start: Start, latents: Tensor | None) -> Drawn:
        cond = self.cond(start.known if latents is None else torch.cat([start.known, latents], dim=1))
        looks = self.of_portrait(_unshuffled(start.portrait))
        seen = [_unshuffled(start.image), warp_image(looks, start.warp).to(looks.dtype)]
        side = looks.shape[-1]
        if latents is not None:
            seen.append(_to(self._map(latents, cond), side).to(looks.dtype))
        x = self.fine(self.conv_in(torch.cat(seen, dim=1)), cond)
        coarse = self.coarse[0](self.down(x), cond)
        deep = self.down_again(coarse)
        for block in self.deep:
            deep = block(deep, cond)
        coarse = self.coarse[1](coarse + upsample(self.up_again(deep)), cond)
        x = x + upsample(self.up(coarse))
        flow = upsample(self.warp_heads[0](deep)) + self.warp_heads[1](coarse)
        if latents is not None:
            flow = flow + _to(self.flow(latents), flow.shape[-1])
        flow = upsample(flow) + self.warp_heads[2](x)
        moved = warp_image(start.image, upsample(flow, STEM), "bicubic")
        x = self.last(self.mix(torch.cat([x, _unshuffled(moved).to(x.dtype)], dim=1)), cond)
        out = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), STEM).float()
        blend = torch.sigmoid(out[:, 3:])
        return Drawn(torch.lerp(out[:, :3], moved, blend), flow, blend)

    def flow(self, latents: Tensor) -> Tensor:
        """What the latents (B, Z) say of the warp, without the network: (B, 2, FLOW_SIDE, FLOW_SIDE)."""
        assert self.to_flow is not None
        return F.linear(latents.float(), COMPONENT_UNIT * self.to_flow.weight.float()).unflatten(
            1, (2, FLOW_SIDE, FLOW_SIDE)
        )

    def _map(self, latents: Tensor, cond: Tensor) -> Tensor:
        x = self.maps[0](self.spread(latents).unflatten(1, (MAP_WIDTHS[0], MAP_SIDE, MAP_SIDE)), cond)
        for block in self.maps[1:]:
            x = block(upsample(x), cond)
        return x


class FrameLatents(nn.Module):
    """Encoder and decoder of one kind; the portrait's own latents are 0."""

    def __init__(self, kind: Kind, size: int, image_size: int, coordinates: int) -> None:
        """`size` latents (none of `face_code`), pictures of `image_size` pixels a side, face codes of so many
        `coordinates`."""
        super().__init__()
        self.kind, self.size = kind, 0 if kind == "face_code" else size
        self.encoder = LatentEncoder(self.size, image_size) if self.size else None
        self.decoder = LatentDecoder(self.size, 0 if kind == "pixels" else 2 * coordinates)

    def encode(self, frame: Tensor, start: Start) -> Tensor | None:
        """Frames (B, 3, H, W) -> latents (B, Z), about unit variance; None if the kind has none."""
        if self.encoder is None:
            return None
        flow = self.registered(frame, start)
        portrait = start.portrait
        return self.encoder(frame, start.image, portrait, flow) - self.encoder(
            portrait, portrait, portrait, torch.zeros_like(flow)
        )

    def decode(self, latents: Tensor | None, start: Start) -> Drawn:
        """Latents (B, Z) -> frames."""
        return self.decoder(start, latents)

    def forward(self, frame: Tensor, start: Start, noise: float = 0.0) -> tuple[Drawn, Tensor | None]:
        """Frames through their latents, with noise of this spread on them; and the latents."""
        latents = self.encode(frame, start)
        shown = latents if latents is None else latents + noise * torch.randn_like(latents)
        return self.decode(shown, start), latents

    def registered(self, frame: Tensor, start: Start) -> Tensor:
        """How the start has to be warped to look like the frame: (B, 2, FLOW_SIDE, FLOW_SIDE)."""
        return F.adaptive_avg_pool2d(register(start.image, frame, *POOLS[self.kind]), FLOW_SIDE)

    @torch.no_grad()
    def measure(self, flows: Tensor) -> None:
        """Let the latents be the whitened principal components of registrations (M, 2, FLOW_SIDE, FLOW_SIDE), M > Z;
        about zero, for what does not move shall have none."""
        assert self.encoder is not None and self.decoder.to_flow is not None
        flat = flows.flatten(1)
        _, strength, directions = torch.svd_lowrank(flat, self.size, niter=4)
        spread = (strength / len(flat) ** 0.5).clamp_min(1e-6)
        self.encoder.project.weight.copy_((directions / spread).T / COMPONENT_UNIT)
        self.decoder.to_flow.weight.copy_(directions * spread / COMPONENT_UNIT)


def _unshuffled(images: Tensor) -> Tensor:
    return F.pixel_unshuffle(images, STEM).contiguous(memory_format=torch.channels_last)


def _to(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
