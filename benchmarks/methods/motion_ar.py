"""The like-for-like of earlier autoregressive systems: frame by frame over an intermediate representation, then a
warping decoder.

The representation is SynthTalk's motion vector itself (52 face units, head pose, gaze, translation: what others take
from a 3DMM), predicted from the voice and its own past; the checkpoint's motion code turns it into latents and the
decoder warps the portrait by them. Pose, gaze and blink are set, because they are columns of the representation;
mouth_scale and expressions are added by the formulas of its face units. Trained by
`python -m benchmarks.methods.train_motion_ar`.

Notation: B batch, T frames, L = 60 columns of the motion vector, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.methods.base import Request, Sound
from benchmarks.methods.latent import LatentBaseline, Portrait, expressed, stream_audio_features
from eartalking.controls import ControlBatch
from eartalking.modules.emission import EmissionLoss
from eartalking.modules.flow_head import FlowHead
from eartalking.modules.frame_noise import frame_noise
from eartalking.modules.transformer import CausalTransformer, TransformerState
from eartalking.motion.steering import impose
from eartalking.motion.vector import MOTION_SCALES, NUM_MOTION_LABELS

NUM_STEPS = 4
TEMPERATURE = 0.5
_UNITS = slice(0, 52)


@dataclass(frozen=True)
class MotionSizes:
    """`audio_dim` features of the audio trunk a frame; `window_size` frames of its own past, the one in the making
    included.
    """

    num_latents: int
    latent_channels: int
    audio_dim: int
    dim: int = 160
    depth: int = 3
    num_heads: int = 5
    window_size: int = 10
    head_dim: int = 96


class MotionModel(nn.Module):
    """Frame block: [sound of frame t | motion of frame t - 1]; block 0 holds the portrait's motion, for ever."""

    def __init__(self, sizes: MotionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        dim = sizes.dim
        self.from_audio = nn.Linear(sizes.audio_dim, dim)
        self.from_motion = nn.Linear(NUM_MOTION_LABELS, dim)
        self.from_level = nn.Linear(1, dim)
        self.to_sink = nn.Sequential(nn.Linear(NUM_MOTION_LABELS, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.null_audio = nn.Parameter(0.2 * torch.randn(dim))
        self.slot_embedding = nn.Parameter(0.2 * torch.randn(2, 2, dim))
        self.backbone = CausalTransformer(dim, sizes.depth, sizes.num_heads, 1, sizes.window_size)
        self.head = FlowHead(NUM_MOTION_LABELS, 1, dim=sizes.head_dim, cond_dim=dim, num_heads=4, depth=1)

    def sink_block(self, portrait: Tensor) -> Tensor:
        """The portrait's motion (B, L) -> (B, 1, 2, D)."""
        tokens = torch.stack([self.null_audio.expand(len(portrait), -1), self.from_motion(portrait)], dim=1)
        return (tokens + self.slot_embedding[1])[:, None]

    def frame_block(self, audio: Tensor, previous: Tensor, level: Tensor) -> Tensor:
        """audio (B, T, A), motion of the frames before (B, T, L), their noise level (B, T) -> (B, T, 2, D)."""
        history = self.from_motion(previous) + self.from_level(level[..., None])
        return torch.stack([self.from_audio(audio), history], dim=2) + self.slot_embedding[0]

    def loss(self, motion: Tensor, audio: Tensor, previous: Tensor, level: Tensor, portrait: Tensor) -> EmissionLoss:
        """The head's losses on true motion (B, T, L) given the past `previous`."""
        x = torch.cat([self.sink_block(portrait), self.frame_block(audio, previous, level)], dim=1)
        sink = self.to_sink(portrait)
        cond = self.backbone(x, sink)[:, 1:, 1]  # (B, T, D)
        return self.head.loss(
            motion.flatten(0, 1)[:, None], cond.flatten(0, 1)[:, None], sink.repeat_interleave(motion.shape[1], 0)
        )

    @torch.no_grad()
    def start(self, portrait: Tensor) -> MotionState:
        """A stream from the portrait's motion (B, L)."""
        state = self.backbone.init_state(len(portrait), 2)
        sink = self.to_sink(portrait)
        self.backbone(self.sink_block(portrait), sink, state, 0)
        return MotionState(state, sink, portrait, 0)

    @torch.no_grad()
    def step(self, audio: Tensor, noise: Tensor, state: MotionState) -> Tensor:
        """audio (B, A), noise (B, L) -> motion (B, L) of the next frame; the caller puts what is shown into
        `state.previous`.
        """
        block = self.frame_block(audio[:, None], state.previous[:, None], state.previous.new_zeros(len(audio), 1))
        state.frame_index += 1
        cond = self.backbone(block, state.sink, state.backbone, state.frame_index)[:, 0, 1:]
        return self.head.sample(cond, state.sink, NUM_STEPS, TEMPERATURE, noise[:, None])[:, 0]


@dataclass
class MotionState:
    """Caches, the portrait's summary (B, D), the motion of the last frame (B, L), frames made."""

    backbone: TransformerState
    sink: Tensor
    previous: Tensor
    frame_index: int


class MotionAr(LatentBaseline):
    """Motion, then pixels."""

    name = "motion_ar"
    about = "autoregressive over face units and pose, then the same warping decoder"
    train = (
        "python -m benchmarks.methods.train_motion_ar --data DIR --checkpoint CHECKPOINT --audio CHECKPOINT --out RUN"
    )
    settings = f"{NUM_STEPS} {TEMPERATURE}"

    def make_net(self, config: dict[str, int]) -> MotionModel:
        return MotionModel(MotionSizes(**config))

    @torch.inference_mode()
    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        portrait, code = Portrait.of(self.model, request.portrait), self.model.autoencoder.code
        state = self.net.start(code.latents_to_motion(portrait.latents))
        for index, audio in enumerate(stream_audio_features(self.audio_trunk, sound, request.num_frames)):
            motion = self.net.step(audio, frame_noise(request.seed, index, (1, NUM_MOTION_LABELS)), state)
            motion[:, _UNITS] = motion[:, _UNITS].clamp(0, MOTION_SCALES["face_units"])
            latents = code.motion_to_latents(motion)
            if request.controls is not None:
                asked = ControlBatch.of_frame(request.controls.at(index))
                latents = impose(latents, asked, code)
                motion = code.latents_to_motion(latents)
                latents = expressed(latents, asked.map(lambda value: value[:, 0]), code)
            state.previous = motion
            yield portrait.picture(self.model, latents)
