"""The like-for-like diffusion baseline: clip by clip, over the same latents, the same portrait and the same audio as
ours.

A bidirectional transformer denoises a window of 16 frames in many steps; it sees the sound of the whole window, the
portrait, and the last frames of the window before as they are (the overlap), so windows join. Trained by
`python -m benchmarks.methods.train_clip_diffusion`; `benchmarks.methods.distil_clip_diffusion` makes one of few steps
out of it. Controls are set and added on its latents, frame by frame.

Notation: B batch, T = 16 frames, P tokens a frame, N latents of C channels, D width. x_0 is noise, x_1 data,
x_t = (1 - t) x_0 + t x_1.

The network answers with x_1, not with the velocity x_1 - x_0. Motion fills some 40 of a frame's 256 latent dimensions,
noise
fills all of them: a network that must give the velocity spends itself on passing on noise (after 725 steps of it, its
samples were further from the truth than the mean frame). For the same reason a frame is one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.methods.base import Request, Sound
from benchmarks.methods.latent import LatentBaseline, Portrait, expressed, stream_audio_features
from eartalking.controls import ControlBatch, Controls
from eartalking.modules.emission import TIME_FREQUENCIES, time_features
from eartalking.modules.frame_noise import frame_noise
from eartalking.modules.transformer import MODULATION_PARTS, Block, zero_init
from eartalking.motion.steering import impose

WINDOW = 16  # frames
OVERLAP = 4  # of them, those that the window before has shown already
NUM_STEPS = 50
FEW_STEPS = 4  # of the distilled one
# Mean of logit(t) in training. Below 0: frames of a window are much alike, so half noise hides little and is little to
# learn from.
NOISE_LEVEL = -0.8


@dataclass(frozen=True)
class ClipSizes:
    """latents (N, C) of a frame, of which `latents_per_token` make a token; `audio_dim` features of the audio trunk a
    frame.
    """

    num_latents: int
    latent_channels: int
    audio_dim: int
    latents_per_token: int = 16
    dim: int = 192
    depth: int = 3
    num_heads: int = 6


class ClipDenoiser(nn.Module):
    """The frames of a window, denoised together."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        dim, channels = sizes.dim, sizes.latent_channels * sizes.latents_per_token
        self.num_tokens = sizes.num_latents // sizes.latents_per_token
        self.from_latents = nn.Linear(channels, dim)
        self.from_audio = nn.Linear(sizes.audio_dim, dim)
        self.from_portrait = nn.Linear(channels, dim)
        self.from_time = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.frame_embedding = nn.Parameter(0.1 * torch.randn(WINDOW, 1, dim))
        self.token_embedding = nn.Parameter(0.1 * torch.randn(self.num_tokens, dim))
        self.known_embedding = nn.Parameter(0.1 * torch.randn(dim))
        self.blocks = nn.ModuleList(
            Block(dim, sizes.num_heads, residual_scale=(2 * sizes.depth) ** -0.5) for _ in range(sizes.depth)
        )
        self.to_modulation = zero_init(nn.Linear(dim, MODULATION_PARTS * dim))
        self.to_latents = zero_init(nn.Linear(dim, channels))

    def forward(self, x_t: Tensor, t: Tensor, known: Tensor, audio: Tensor, portrait: Tensor) -> Tensor:
        """x_t (B, T, N, C), in which the frames `known` (B, T) bool are as they are; t (B,); audio (B, T, A); portrait
        (B, N, C) -> the expected x_1 (B, T, N, C)."""
        per_token = self.sizes.latents_per_token
        tokens = self.from_latents(x_t.unflatten(2, (-1, per_token)).flatten(3))  # (B, T, P, D)
        tokens = tokens + self.from_audio(audio)[:, :, None] + self.frame_embedding + self.token_embedding
        tokens = tokens + known[:, :, None, None] * self.known_embedding
        sink = self.from_portrait(portrait.unflatten(1, (-1, per_token)).flatten(2)) + self.token_embedding  # (B, P, D)
        x = torch.cat([sink, tokens.flatten(1, 2)], dim=1)
        modulation = self.to_modulation(F.silu(self.from_time(time_features(t)))).unflatten(-1, (MODULATION_PARTS, -1))
        for block in self.blocks:
            x = block(x, modulation)
        x = F.layer_norm(x[:, self.num_tokens :], x.shape[-1:])
        latents = self.to_latents(x).unflatten(1, (WINDOW, self.num_tokens))  # (B, T, P, per_token C)
        return latents.unflatten(-1, (per_token, -1)).flatten(2, 3)

    def loss(self, latents: Tensor, audio: Tensor, portrait: Tensor, known_frames: Tensor) -> Tensor:
        """Squared error of x_1 on true windows (B, T, N, C); the first `known_frames` (B,) of each are given as they
        are.
        """
        known = torch.arange(WINDOW) < known_frames[:, None]
        t = torch.sigmoid(torch.randn(len(latents)) + NOISE_LEVEL)
        x_t = torch.where(
            known[:, :, None, None], latents, torch.lerp(torch.randn_like(latents), latents, t[:, None, None, None])
        )
        error = (self(x_t, t, known, audio, portrait).float() - latents).square().mean((2, 3))
        return (error * ~known).sum() / (~known).sum()

    @torch.no_grad()
    def sample(
        self, audio: Tensor, portrait: Tensor, before: Tensor | None, noise: Tensor, num_steps: int = NUM_STEPS
    ) -> Tensor:
        """Windows (B, T, N, C) from noise of that shape; `before` (B, OVERLAP, N, C): the end of the window before."""
        x = noise.clone()
        known = torch.zeros(len(x), WINDOW, dtype=torch.bool)
        if before is not None:
            x[:, :OVERLAP], known[:, :OVERLAP] = before, True
        for step in range(num_steps):
            expected = self(x, torch.full((len(x),), step / num_steps), known, audio, portrait)
            # A step of 1 / num_steps along the velocity (expected - x) / (1 - t); the last one arrives.
            x = torch.where(known[:, :, None, None], x, torch.lerp(x, expected, 1 / (num_steps - step)))
        return x


class ClipDiffusion(LatentBaseline):
    """Windows of 16 frames, 4 of them known from the window before."""

    name = "clip_diffusion"
    num_steps = NUM_STEPS
    about = f"clip-by-clip diffusion over the same latents: windows of {WINDOW} frames, {NUM_STEPS} steps, "
    about += f"overlap {OVERLAP}"

    train = (
        "python -m benchmarks.methods.train_clip_diffusion "
        "--data DIR --checkpoint CHECKPOINT --audio CHECKPOINT --out RUN"
    )
    settings = f"{NUM_STEPS} {WINDOW} {OVERLAP}"

    def make_net(self, config: dict[str, int]) -> ClipDenoiser:
        return ClipDenoiser(ClipSizes(**config))

    @torch.inference_mode()
    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        portrait, code = Portrait.of(self.model, request.portrait), self.model.autoencoder.code
        features = stream_audio_features(self.audio_trunk, sound, request.num_frames)
        audio_rows: list[Tensor] = []
        before: Tensor | None = None
        shown = 0
        while shown < request.num_frames:
            first = shown if before is None else shown - OVERLAP
            while len(audio_rows) < min(first + WINDOW, request.num_frames):
                audio_rows.append(next(features))
            rows = audio_rows[first : first + WINDOW]
            audio = torch.stack(rows + [rows[-1]] * (WINDOW - len(rows)), dim=1)  # (1, T, A)
            noise = frame_noise(request.seed, first, (1, WINDOW, *portrait.latents.shape[1:]))
            window = self.net.sample(audio, portrait.latents, before, noise, self.num_steps)[0]
            frames = window
            if request.controls is not None:
                asked = asked_of(request.controls, first, WINDOW)
                window = impose(window, asked, code)
                frames = expressed(window, asked.map(lambda value: value[:, 0]), code)
            for latents in frames[shown - first : request.num_frames - first]:
                yield portrait.picture(self.model, latents[None])
                shown += 1
            before = window[None, -OVERLAP:]


class FewStepClipDiffusion(ClipDiffusion):
    """The same, distilled to few steps, as the fast ones of today are."""

    name, ships = "clip_diffusion_few_steps", False
    num_steps = FEW_STEPS
    about = f"the same clip diffusion, distilled to {FEW_STEPS} steps"
    train = "python -m benchmarks.methods.distil_clip_diffusion --data DIR --checkpoint CHECKPOINT --out RUN"
    settings = f"{FEW_STEPS} {WINDOW} {OVERLAP}"


def asked_of(controls: Controls, first: int, count: int) -> ControlBatch:
    """What `count` frames from `first` on are asked for, over (count, 1)."""
    frames = [ControlBatch.of_frame(controls.at(first + index)) for index in range(count)]
    return ControlBatch(*(torch.cat([getattr(frame, name) for frame in frames]) for name in vars(frames[0])))
