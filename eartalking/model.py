"""The talking-head model: sink, frame blocks, backbone and emission head over the latents of the frame autoencoder.

Frame block t holds [audio tokens of frame t | one token per control of frame t | latents of frame t-1], so that every
control can change at every frame (FCIC). Block 0 is the sink: the portrait's coarsest features and its latents, with
NULL audio and controls. It stays in the cache for ever and modulates all blocks by adaLN (SFA). The backbone's features
at the latent tokens of block t are the emission head's condition for the latents of frame t.

Notation: B batch, T frames, N latents of C channels, handled as P = N / latents_per_token tokens, A audio tokens, G + 1
control tokens, D width, K = A + G + 1 + P tokens per frame. The backbone's first position is the sink's, if there is
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eartalking.audio import build_encoder
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.config import ModelConfig
from eartalking.controls import CONTROL_RANGES, EMOTIONS, ControlBatch
from eartalking.modules.control_embedder import ControlEmbedder
from eartalking.modules.departure_head import DepartureHead, DepartureState
from eartalking.modules.emission import EmissionHead
from eartalking.modules.flow_head import FlowHead
from eartalking.modules.masked_ar_head import MaskedARHead
from eartalking.modules.regression_head import RegressionHead
from eartalking.modules.transformer import CausalTransformer, TransformerState, zero_init
from eartalking.modules.voice_to_latents import VoiceToLatents
from eartalking.motion.face_units import NUM_FACE_UNITS
from eartalking.motion.rest import at_rest
from eartalking.motion.steering import articulate, decided_by_expressions, expression, impose, within_range
from eartalking.motion.vector import BLINK_COLUMNS


@dataclass
class StreamState:
    """What the autoregression remembers: caches, the sink's summary (B, D), latents of the last frame (B, N, C) without
    the expressions that were asked for, the controls (B,) that asked for them, and how the face departs from them."""

    backbone: TransformerState
    sink: Tensor
    previous: Tensor
    controls: ControlBatch
    frame_index: int
    departure: DepartureState | None = None

    def clone(self) -> StreamState:
        controls = self.controls.map(torch.clone)
        departure = None if self.departure is None else self.departure.clone()
        tensors = (self.sink.clone(), self.previous.clone())
        return StreamState(self.backbone.clone(), *tensors, controls, self.frame_index, departure)

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat copies, ready for safetensors."""
        controls = {f"controls.{name}": value.clone() for name, value in vars(self.controls).items()}
        index = torch.tensor(self.frame_index)
        departure = {} if self.departure is None else self.departure.to_tensors("departure.")
        return (
            self.backbone.to_tensors("backbone.")
            | controls
            | departure
            | {"sink": self.sink.clone(), "previous": self.previous.clone(), "frame_index": index}
        )

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `to_tensors` gave; KeyError or ValueError if it does not fit."""
        self.backbone.load_tensors(tensors, "backbone.")

        def fitting(name: str, mine: Tensor) -> Tensor:
            if tensors[name].shape != mine.shape:
                raise ValueError(f"{name}: shape {tuple(tensors[name].shape)}, expected {tuple(mine.shape)}")
            return tensors[name].to(mine)

        self.sink, self.previous = fitting("sink", self.sink), fitting("previous", self.previous)
        self.controls = ControlBatch(
            **{name: fitting(f"controls.{name}", value) for name, value in vars(self.controls).items()}
        )
        if self.departure is not None:
            self.departure.load_tensors(tensors, "departure.")
        self.frame_index = int(tensors["frame_index"])


class TalkingHeadModel(nn.Module):
    """All weights of a checkpoint: autoencoder, audio encoder, controls, backbone, emission and departure head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, autoencoder = config.dim, config.autoencoder
        self.autoencoder = FrameAutoencoder(autoencoder)
        self.audio_encoder = build_encoder(config.audio, dim)
        self.control_embedder = ControlEmbedder(list(CONTROL_RANGES.values()), len(EMOTIONS), dim)
        channels = autoencoder.latent_channels * config.latents_per_token
        reference_dim = autoencoder.reference_widths[-1]
        num_tokens = autoencoder.num_latent_tokens // config.latents_per_token
        self.from_latents = nn.Linear(channels, dim)
        # The portrait's features are normalised, for their size changes with the decoder's training. Their projection
        # starts at zero: motion hardly depends on who moves, and the model may train before there is a decoder.
        self.reference_norm = nn.LayerNorm(reference_dim, elementwise_affine=False)
        self.from_reference = zero_init(nn.Linear(reference_dim, dim))
        self.null_audio = nn.Parameter(torch.randn(config.audio.tokens_per_frame, dim) * 0.2)
        self.num_condition_tokens = config.audio.tokens_per_frame + self.control_embedder.num_tokens
        # One embedding per slot of a block tells kind and place at once; the sink's slots have their own.
        self.slot_embedding = nn.Parameter(torch.randn(2, self.num_condition_tokens + num_tokens, dim) * 0.2)
        self.from_noise_level = nn.Sequential(nn.Linear(2, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.to_sink = nn.Sequential(nn.Linear(num_tokens * channels + dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        # Factors (2, U) by which face units are stretched, with mouth_scale released and given: steering.articulate.
        self.register_buffer("articulation", torch.ones(2, NUM_FACE_UNITS))
        self.backbone = CausalTransformer(dim, config.depth, config.num_heads, config.sink_size, config.window_size)
        sizes = {
            "dim": config.head_dim,
            "depth": config.head_depth,
            "num_heads": config.head_num_heads,
            "cond_dim": dim,
        }
        self.emission_head: EmissionHead
        if config.emission == "regression":
            self.emission_head = RegressionHead(channels, dim)
        elif config.emission == "flow":
            self.emission_head = FlowHead(channels, num_tokens, **sizes)
        else:
            self.emission_head = MaskedARHead(channels, num_tokens, **sizes, masked_steps=config.masked_steps)
        # What the voice of a frame says of it by itself. Through the backbone alone, lips followed the voice less
        # closely than the audio encoder hears it.
        heard = config.audio.tokens_per_frame * dim
        self.voice_to_latents = VoiceToLatents(heard, autoencoder.num_latent_tokens * autoencoder.latent_channels)
        self.departure_head = None
        if config.departure is not None:
            head = config.departure
            size = autoencoder.motion_size
            self.departure_head = DepartureHead(size, head.memory, num_tokens * dim, head.dim, head.depth)

    @property
    def draws_blinks(self) -> bool:
        """Whether the departure head shuts the eyes by itself."""
        return self.departure_head is not None and bool(self.departure_head.noise_scale[list(BLINK_COLUMNS)].any())

    def to_tokens(self, latents: Tensor) -> Tensor:
        """(..., N, C) -> (..., P, latents_per_token · C)."""
        return latents.unflatten(-2, (-1, self.config.latents_per_token)).flatten(-2)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """The inverse of `to_tokens`."""
        return tokens.unflatten(-1, (self.config.latents_per_token, -1)).flatten(-3, -2)

    def heard(self, audio: Tensor) -> Tensor:
        """Audio tokens (..., A, D) -> what they add to the mean of their frame's latents, (..., N, C)."""
        size = self.config.autoencoder
        return self.voice_to_latents(audio.flatten(-2)).unflatten(-1, (size.num_latent_tokens, size.latent_channels))

    def mean(self, cond: Tensor, audio: Tensor) -> Tensor:
        """cond (..., P, D) of the backbone, audio tokens (..., A, D) -> a frame's latents on average (..., N, C)."""
        return (self.from_tokens(self.emission_head.mean(cond)) + self.heard(audio)).float()

    def sink_block(self, reference_latents: Tensor, reference_features: Tensor) -> tuple[Tensor, Tensor]:
        """Portrait latents (B, N, C) and coarsest features (B, N, D_r) -> sink blocks (B, sink_size, K, D), summary (B,
        D); without a sink the summary is zero."""
        batch = len(reference_latents)
        reference_latents = at_rest(reference_latents, self.autoencoder.code)
        audio = self.null_audio.expand(batch, -1, -1)
        controls = self.control_embedder.null.expand(batch, -1, -1)
        features = reference_features.unflatten(1, (-1, self.config.latents_per_token)).mean(2)  # (B, P, D_r)
        features = self.from_reference(self.reference_norm(features))
        portrait = self.from_latents(self.to_tokens(reference_latents)) + features
        block = torch.cat([audio, controls, portrait], dim=1) + self.slot_embedding[1]
        summary = self.to_sink(torch.cat([reference_latents.flatten(1), features.mean(1)], dim=1))
        return block[:, None][:, : self.config.sink_size], summary * self.config.sink_size

    def frame_block(self, audio: Tensor, controls: ControlBatch, previous: Tensor, noise_level: Tensor) -> Tensor:
        """audio (B, T, A, D), controls over (B, T), latents of the frames before (B, T, N, C), their noise level
        (B, T) in 0..1 -> blocks (B, T, K, D)."""
        tokens = self.control_embedder(controls.values, controls.emotion, controls.intensity, controls.given)
        level = self.from_noise_level(torch.stack([noise_level, (noise_level == 0).float()], dim=-1))[:, :, None]
        history = self.from_latents(self.to_tokens(previous)) + level
        return torch.cat([audio, tokens.to(audio.dtype), history.to(audio.dtype)], dim=2) + self.slot_embedding[0]

    def forward(
        self,
        audio: Tensor,
        controls: ControlBatch,
        previous: Tensor,
        noise_level: Tensor,
        reference_latents: Tensor,
        reference_features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Whole sequences, for training -> cond (B, T, P, D) for the emission head and the sink's summary (B, D)."""
        sink, summary = self.sink_block(reference_latents, reference_features)
        blocks = self.frame_block(audio, controls, previous, noise_level)
        x = torch.cat([sink.to(blocks.dtype), blocks], dim=1)  # (B, sink_size + T, K, D)
        return self.backbone(x, summary)[:, sink.shape[1] :, self.num_condition_tokens :], summary

    @torch.no_grad()
    def prefill(self, reference_latents: Tensor, reference_features: Tensor) -> StreamState:
        """Start a stream: the sink enters the caches, and the portrait stands for the frame before the first."""
        sink, summary = self.sink_block(reference_latents, reference_features)
        state = self.backbone.init_state(len(sink), sink.shape[2])
        for index, block in enumerate(sink.unbind(1)):
            self.backbone(block[:, None], summary, state, index)
        released = ControlBatch.released(len(sink), device=sink.device)
        departure = None
        if self.departure_head is not None:
            departure = self.departure_head.start(self.autoencoder.code.latents_to_coordinates(reference_latents))
        return StreamState(state, summary, reference_latents, released, 0, departure)

    @torch.no_grad()
    def observe(self, audio: Tensor, controls: ControlBatch, state: StreamState) -> Tensor:
        """What the backbone says of the next frame: audio (B, A, D), controls over (B, 1) -> cond (B, P, D). Its caches
        move on, the rest of the state does not."""
        code = self.autoencoder.code
        level = audio.new_full((len(audio), 1), self.config.history_level)
        # An expression that is released in this frame is still on the face in the last one: the model goes on from
        # there.
        asked = controls.map(lambda value: value[:, 0])
        left = expression(code.latents_to_motion(state.previous), state.controls.released_by(asked), code)
        history = (1 - self.config.history_level) * (state.previous + left)[:, None]
        block = self.frame_block(audio[:, None], controls, history, level)
        features = self.backbone(block, state.sink, state.backbone, state.frame_index + self.config.sink_size)
        return features[:, 0, self.num_condition_tokens :]

    @torch.no_grad()
    def step(self, audio: Tensor, controls: ControlBatch, noise: Tensor, state: StreamState) -> Tensor:
        """One frame: audio (B, A, D), controls over (B, 1), noise (B, N, C) -> latents (B, N, C); state moves on."""
        code = self.autoencoder.code
        asked = controls.map(lambda value: value[:, 0])
        cond = self.observe(audio, controls, state)
        tokens = self.emission_head.sample(
            cond,
            state.sink,
            num_steps=self.config.num_steps,
            temperature=self.config.temperature,
            noise=self.to_tokens(noise),
        )
        latents = impose(self.from_tokens(tokens) + self.heard(audio), controls, code)
        shown = articulate(latents, asked, code, self.articulation)
        if self.departure_head is not None:
            shown = self._depart(cond, shown, controls, noise, state)
        state.previous, state.controls = latents, asked
        state.frame_index += 1
        return shown + expression(code.latents_to_motion(shown), asked, code)

    @torch.no_grad()
    def step_mean(self, audio: Tensor, controls: ControlBatch, state: StreamState) -> Tensor:
        """The same with nothing set, drawn or added: the frame on average (B, N, C), which is the history's next frame
        as it is."""
        cond = self.observe(audio, controls, state)
        state.previous = self.mean(cond, audio)
        state.controls = controls.map(lambda value: value[:, 0])
        state.frame_index += 1
        return state.previous

    def _depart(self, cond: Tensor, mean: Tensor, controls: ControlBatch, noise: Tensor, state: StreamState) -> Tensor:
        """Latents (B, N, C) of the frame that departs from its mean as articulated (B, N, C), drawn by the departure
        head."""
        head, own, code = self.departure_head, state.departure, self.autoencoder.code
        assert head is not None and own is not None and self.config.departure is not None
        around = code.latents_to_coordinates(mean)  # (B, L)
        if state.frame_index == 0:
            own.departure = own.home - head.centre(around, own.home)
        noise = noise.flatten(1)[:, : around.shape[1]]
        drawn = head.draw(cond.flatten(1), around, noise, own, self.config.departure.num_steps)
        asked = controls.map(lambda value: value[:, 0])
        drawn = torch.where(decided_by_expressions(asked, drawn.shape[1]), around, drawn)
        change = within_range(drawn, code) - around
        shown = impose(mean + code.change_to_latents(change), controls, code)
        head.remember(code.latents_to_coordinates(shown), around, own)
        return shown
