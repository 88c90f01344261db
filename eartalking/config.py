"""Sizes of every part, as small frozen dataclasses saved beside the weights.

Each default has one home: here. `from_dict` is strict: an unknown key, a missing section or a wrong type is an
error, so a typo in a `config.json` can never vanish. What can be derived is a property, not a field.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
EMISSIONS = ("flow", "masked_ar")
AUDIO_ENCODERS = ("conv", "wav2vec2")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Frame autoencoder: `image_size` pixels; levels at image_size/4, /8, ... with these channel widths."""

    image_size: int = 256
    stem: int = 4  # pixel-unshuffle factor: nothing is convolved at full resolution
    encoder_widths: tuple[int, ...] = (32, 64, 80)  # of the trunks that look at the face and its parts
    reference_widths: tuple[int, ...] = (24, 48, 96, 128, 128)
    decoder_widths: tuple[int, ...] = (32, 64, 128)  # the finest levels only: the surface says where things go
    surface_widths: tuple[int, ...] = (32, 64, 96, 128, 128)  # of the network that reads the portrait's surface
    surface_components: int = 40
    latent_channels: int = 16
    motion_size: int = 60  # coordinates of the motion code

    @property
    def latent_grid(self) -> int:
        """Side of the latent grid; the coarsest level of the portrait's pyramid."""
        return self.image_size // self.stem // 2 ** (len(self.reference_widths) - 1)

    @property
    def num_latent_tokens(self) -> int:
        return self.latent_grid**2

    def __post_init__(self) -> None:
        if self.motion_size > self.num_latent_tokens * self.latent_channels:
            raise ValueError(
                f"motion_size {self.motion_size} does not fit into {self.num_latent_tokens * self.latent_channels} latents"
            )


@dataclass(frozen=True)
class AudioConfig:
    """Causal audio encoder; `lookahead` is in frames of 40 ms and is part of the reported latency."""

    encoder: str = (
        "conv"  # our own small one; or "wav2vec2", for large models: wav2vec 2.0 base at dim 768 and 12 layers
    )
    dim: int = 192
    tokens_per_frame: int = 2
    lookahead: int = 2
    wav2vec2_layers: int = 12
    wav2vec2_past: int = 24  # frames of sound that it hears before a frame's own

    def __post_init__(self) -> None:
        if self.encoder not in AUDIO_ENCODERS:
            raise ValueError(f"encoder must be one of {', '.join(AUDIO_ENCODERS)}, not {self.encoder!r}")


@dataclass(frozen=True)
class ModelConfig:
    """The whole talking-head model; `window_size` and `sink_size` count frames."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    latents_per_token: int = 4  # neighbouring latents that the model handles as one token
    dim: int = 256
    depth: int = 4
    num_heads: int = 8
    sink_size: int = 1
    window_size: int = 10
    head_dim: int = 192
    head_depth: int = 2
    head_num_heads: int = 4
    emission: str = "flow"  # how a frame is drawn: all tokens at once by a flow, or "masked_ar", the paper's own (slow; for ablation)
    masked_steps: int = 36  # of masked_ar: passes over a frame, as many as it has tokens at most
    num_steps: int = 4  # of the flow, or of each token's denoising
    temperature: float = 0.0  # of the noise that a frame is drawn from; at 0 the frame is the regression alone
    # How little a stream trusts its own history, in 0..1: the history is scaled as training scales it at this noise
    # level, and the model is told the level. At 0.1, 0.3 and 0.5 the next frame is foretold with errors of 0.107, 0.115
    # and 0.148 (copying: 0.160), and after 60 s a face's distance to its portrait has changed by 27, 4 and 0.06 %.
    history_level: float = 0.5

    def __post_init__(self) -> None:
        if self.sink_size not in (0, 1):
            raise ValueError(
                f"sink_size must be 1 (the portrait's block) or 0 (only the decoder has the portrait), not {self.sink_size}"
            )
        if self.emission not in EMISSIONS:
            raise ValueError(f"emission must be one of {', '.join(EMISSIONS)}, not {self.emission!r}")
        if min(self.num_steps, self.masked_steps) < 1:
            raise ValueError(f"need num_steps and masked_steps >= 1, got {self.num_steps} and {self.masked_steps}")
        if not 0 <= self.history_level <= 1 or self.temperature < 0:
            raise ValueError(
                f"need history_level in 0..1 and temperature >= 0, got {self.history_level} and {self.temperature}"
            )
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.autoencoder.num_latent_tokens % self.latents_per_token:
            raise ValueError(
                f"latents_per_token {self.latents_per_token} does not divide {self.autoencoder.num_latent_tokens} latents"
            )


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


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a config, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Build the dataclass `cls` from a plain dict.

    Raises:
        ValueError: an unknown key, or a value whose type does not fit, with its name.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__}: expected an object, got {type(values).__name__}")
    types = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown key {unknown[0]!r}; known keys: {', '.join(sorted(types))}")
    return cls(**{key: _convert(f"{cls.__name__}.{key}", types[key], value) for key, value in values.items()})


def _convert(name: str, kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name}: expected a list, got {value!r}")
        return tuple(_convert(name, typing.get_args(kind)[0], item) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}")
    return value
