"""Sizes of every part, as small frozen dataclasses saved beside the weights.

Each default has one home: here. Reading is strict: an unknown key, a missing key or a wrong type is an error, so a typo
in a `config.json` cannot vanish, and a checkpoint does not change when a default does. What can be derived is a
property, not a field.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_STRICT)
class AutoencoderConfig:
    """Frame autoencoder: `image_size` pixels; levels at image_size/4, /8, ... with these channel widths."""

    image_size: Count = 256
    stem: Count = 4  # pixel-unshuffle factor: nothing is convolved at full resolution
    encoder_widths: tuple[Count, ...] = (32, 64, 80)  # of the trunks that look at the face and its parts
    reference_widths: tuple[Count, ...] = (24, 48, 96, 128, 128)
    decoder_widths: tuple[Count, ...] = (32, 64, 128)  # the finest levels only: the surface says where things go
    surface_widths: tuple[Count, ...] = (32, 64, 96, 128, 128)  # of the network that reads the portrait's surface
    surface_components: Count = 40
    latent_channels: Count = 16
    motion_size: Count = 60  # columns of a motion vector

    @property
    def latent_grid(self) -> int:
        """Side of the latent grid; the coarsest level of the portrait's pyramid."""
        return self.image_size // self.stem // 2 ** (len(self.reference_widths) - 1)

    @property
    def num_latent_tokens(self) -> int:
        return self.latent_grid**2

    def __post_init__(self) -> None:
        room = self.num_latent_tokens * self.latent_channels
        if self.motion_size > room:
            raise ValueError(f"motion_size {self.motion_size} does not fit into {room} latents")


@dataclass(frozen=True, config=_STRICT)
class AudioConfig:
    """Causal audio encoder; `lookahead` is in frames of 40 ms and is part of the reported latency.

    `encoder` is our own small convolutional one, or wav2vec 2.0 for large models (its base size is dim 768, 12 layers).
    """

    encoder: Literal["conv", "wav2vec2"] = "conv"
    dim: Count = 192
    tokens_per_frame: Count = 2
    lookahead: Annotated[int, Field(ge=0)] = 2
    wav2vec2_layers: Count = 12
    wav2vec2_past: Annotated[int, Field(ge=0)] = 24  # frames of sound that it hears before a frame's own


@dataclass(frozen=True, config=_STRICT)
class DepartureConfig:
    """The head that draws how a face departs from its mean; `memory` counts the frames that it sees as shown."""

    memory: Annotated[int, Field(ge=4)] = 6  # as many as `modules.head_sway` takes
    dim: Count = 320
    depth: Count = 3
    num_steps: Count = 4


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The whole talking-head model; `window_size` and `sink_size` count frames.

    `sink_size` is 1 (the portrait's block) or 0 (only the decoder has the portrait). `emission` says how a frame is
    emitted: its mean alone by `regression`, all tokens at once by a `flow`, or by `masked_ar`, the paper's own (slow;
    for ablation). `departure` draws how what is shown departs from that.
    """

    autoencoder: AutoencoderConfig = dataclasses.field(default_factory=AutoencoderConfig)
    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    latents_per_token: Count = 4  # neighbouring latents that the model handles as one token
    dim: Count = 256
    depth: Count = 4
    num_heads: Count = 8
    sink_size: Annotated[int, Field(ge=0, le=1)] = 1
    window_size: Count = 10
    head_dim: Count = 192
    head_depth: Count = 2
    head_num_heads: Count = 4
    emission: Literal["regression", "flow", "masked_ar"] = "flow"
    masked_steps: Count = 36  # of masked_ar: passes over a frame, as many as it has tokens at most
    num_steps: Count = 4  # of the flow, or of each token's denoising
    # Scale of the noise that a frame is drawn from; at 0 the frame is the regression alone.
    temperature: Annotated[float, Field(ge=0)] = 0.0
    # How little a stream trusts its own history: the history is scaled as training scales it at this noise level, and
    # the model is told the level. At 0.1, 0.3 and 0.5 the next frame is predicted with errors of 0.107, 0.115 and 0.148
    # (copying: 0.160), and after 60 s a face's distance to its portrait has changed by 27, 4 and 0.06 %.
    history_level: Share = 0.5
    # Without one, a stream shows what the emission head emits.
    departure: DepartureConfig | None = None

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        latents = self.autoencoder.num_latent_tokens
        if latents % self.latents_per_token:
            raise ValueError(f"latents_per_token {self.latents_per_token} does not divide {latents} latents")


TINY = ModelConfig(
    autoencoder=AutoencoderConfig(
        image_size=64,
        encoder_widths=(8, 8, 16),
        reference_widths=(8, 8, 16),
        decoder_widths=(8, 16, 16),
        latent_channels=4,
        surface_widths=(8, 8, 16),
        surface_components=4,
    ),
    audio=AudioConfig(dim=32),
    dim=32,
    depth=2,
    num_heads=2,
    head_dim=32,
    head_depth=1,
    head_num_heads=2,
    num_steps=2,
    temperature=0.7,
)
PRESETS = {"tiny": TINY, "base": ModelConfig()}


def to_json(config: ModelConfig) -> str:
    """The text of a `config.json`, every field in it."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> ModelConfig:
    """Read the text of a `config.json`.

    Raises:
        ValueError: not JSON, an unknown or a missing key, or a value that does not fit; one line that names the key.
    """
    try:
        config = TypeAdapter(ModelConfig).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{key}: {first['msg']}" if key else first["msg"]) from None
    missing = _missing_key(config, json.loads(text))
    if missing:
        raise ValueError(f"{missing}: missing; a checkpoint says all of its sizes, defaults included")
    return config


def _missing_key(config: Any, values: dict[str, Any]) -> str | None:
    """The first field of a config that its JSON leaves out."""
    for field in dataclasses.fields(config):
        if field.name not in values:
            return field.name
        inner = getattr(config, field.name)
        missing = _missing_key(inner, values[field.name]) if dataclasses.is_dataclass(inner) else None
        if missing:
            return f"{field.name}.{missing}"
    return None
