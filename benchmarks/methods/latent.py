"""What the trained baselines share: audio trunk, portrait as latents, pictures from latents, weights, data.

A baseline makes the same latents as ours and they are decoded by the same checkpoint. Its audio trunk is that of the
audio stage (eartalking.training.audio), frozen and kept with it, so that it does not depend on what later training does
to ours.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.methods.base import Method, NotReady, content
from eartalking import TalkingHeadModel, load_model
from eartalking.audio import AudioEncoder
from eartalking.autoencoder.reference import Reference
from eartalking.checkpoint import DEFAULT_CHECKPOINT, resolve, weight_files
from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import MOUTH_SCALE, ControlBatch
from eartalking.errors import InputError
from eartalking.modules.pixels import to_float
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.steering import expression, units_to_latents
from eartalking.motion.vector import units_of
from eartalking.training.data import Sequence

WEIGHTS = Path(__file__).parent / "weights"
# The face units that speak; mouth_scale stretches these.
_MOUTH = slice(UNIT_INDEX["jawForward"], UNIT_INDEX["browDownLeft"])
AUDIO_TRUNK_NAME = "audio_trunk.safetensors"  # beside the weights; the baselines of one folder share them


def make_audio_trunk(encoder: AudioEncoder) -> AudioEncoder:
    """The trunk of an audio encoder alone: its features come out as they are, (B, T, 2, dim / 2)."""
    trunk = AudioEncoder(encoder.dim, encoder.dim // 2, 2, encoder.lookahead)
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("to_tokens.")}
    with torch.no_grad():
        trunk.to_tokens.weight.copy_(torch.eye(encoder.dim))
        trunk.to_tokens.bias.zero_()
    identity = {f"to_tokens.{name}": value for name, value in trunk.to_tokens.state_dict().items()}
    trunk.load_state_dict(weights | identity)
    return trunk.eval().requires_grad_(False)


def save_audio_trunk(trunk: AudioEncoder, weights: Path) -> None:
    """Half precision, into the folder of a baseline's weights; the sizes go into the metadata."""
    path = weights.with_name(AUDIO_TRUNK_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"dim": str(trunk.dim), "lookahead": str(trunk.lookahead)}
    save_file({name: value.half().contiguous() for name, value in trunk.state_dict().items()}, path, metadata=sizes)


def load_audio_trunk(weights: Path) -> AudioEncoder:
    """The audio trunk that lies beside a baseline's weights."""
    with safe_open(weights.with_name(AUDIO_TRUNK_NAME), "pt") as file:
        sizes = {name: int(value) for name, value in file.metadata().items()}
        trunk = AudioEncoder(sizes["dim"], sizes["dim"] // 2, 2, sizes["lookahead"])
        trunk.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})
    return trunk.eval().requires_grad_(False)


@torch.inference_mode()
def stream_audio_features(trunk: AudioEncoder, sound: Iterable[np.ndarray], num_frames: int) -> Iterator[Tensor]:
    """The features (1, A) of every frame, as soon as the look-ahead allows; silence after the end."""
    state = trunk.init_state(1)
    pieces, made = iter(sound), 0
    while made < num_frames:
        piece = next(pieces, np.zeros(SAMPLES_PER_FRAME, np.float32))
        tokens, state = trunk.step(torch.from_numpy(piece)[None], state)
        if tokens is not None:
            made += 1
            yield tokens.flatten(1)


@torch.no_grad()
def audio_features(trunk: AudioEncoder, sequence: Sequence) -> Tensor:
    """The features (B, T, A) of a training window, encoded from the clip's start as a stream would."""
    tokens = trunk(sequence.waveform).flatten(2)
    index = sequence.start[:, None] + torch.arange(sequence.latents.shape[1])
    return torch.take_along_dim(tokens, index[:, :, None], dim=1)


def expressed(latents: Tensor, asked: ControlBatch, code: MotionCode) -> Tensor:
    """Latents (B, N, C) as they are shown under controls (B,): mouths stretched by `mouth_scale`, and what brow, smile
    and emotion add. Pose, gaze and blink are set before (`motion.steering.impose`), because the next frame goes on from
    these and not from an expression.
    """
    units = units_of(code.latents_to_motion(latents))
    factor = torch.where(asked.given[..., MOUTH_SCALE], asked.values[..., MOUTH_SCALE], 1.0)
    change = torch.zeros_like(units)
    change[..., _MOUTH] = (units[..., _MOUTH] * factor[..., None]).clamp(0, 1) - units[..., _MOUTH].clamp(0, 1)
    latents = latents + units_to_latents(change, code)
    return latents + expression(code.latents_to_motion(latents), asked, code)


@dataclass(frozen=True)
class Portrait:
    """A portrait as its latents (1, N, C), and what decoding on it needs; as a stream of ours has them."""

    latents: Tensor
    reference: Reference

    @classmethod
    @torch.inference_mode()
    def of(cls, model: TalkingHeadModel, image: np.ndarray) -> Portrait:
        """image (S, S, 3) uint8 of the model's size."""
        reference = model.autoencoder.reference(to_float(torch.from_numpy(image.copy()))[None])
        return cls(model.autoencoder.resting(reference), reference)

    @torch.inference_mode()
    def picture(self, model: TalkingHeadModel, latents: Tensor) -> np.ndarray:
        """Latents (1, N, C) -> (H, W, 3) uint8."""
        possible = model.autoencoder.possible(latents, self.reference)
        return model.autoencoder.decode(possible, self.reference).pixels()[0].contiguous().numpy()


def save_weights(net: nn.Module, path: Path, about: dict[str, object]) -> None:
    """Half precision, and beside it a JSON with the sizes and how it was trained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().half().contiguous() for name, value in net.state_dict().items()}, path)
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load_about(path: Path, command: str) -> dict[str, Any]:
    """The JSON beside a baseline's weights. Raises NotReady, naming the command that trains it."""
    if not all(part.is_file() for part in (path, path.with_suffix(".json"), path.with_name(AUDIO_TRUNK_NAME))):
        raise NotReady(f"not trained: run {command}")
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def baseline_about(about: str, weights: Path) -> str:
    """The line on a baseline, with how long it was trained: a short training must not pass for a fair one."""
    record = weights.with_suffix(".json")
    if not record.is_file():
        return about
    trained = json.loads(record.read_text(encoding="utf-8"))["trained"]
    return f"{about}; trained for {trained['steps']} steps"


def load_weights(net: nn.Module, path: Path) -> None:
    """Into a net of the same sizes; it is then ready for use."""
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    net.eval().requires_grad_(False)


def load_decoder(checkpoint: str, latent_shape: tuple[int, int]) -> TalkingHeadModel:
    """The checkpoint whose autoencoder decodes. Raises NotReady when there is none or its latents have another
    shape.
    """
    try:
        model = load_model(checkpoint)
    except InputError as error:
        raise NotReady(str(error)) from error
    autoencoder = model.config.autoencoder
    if (autoencoder.num_latent_tokens, autoencoder.latent_channels) != tuple(latent_shape):
        name = Path(checkpoint).name
        raise NotReady(
            f"the baseline was trained on latents of shape {tuple(latent_shape)}, those of {name} are others: "
            "train it again"
        )
    return model


def baseline_version(weights: Path, checkpoint: str, *more: str) -> str:
    """Changes with the weights, the audio trunk and the decoder; "missing" without them."""
    try:
        decoder = weight_files(resolve(checkpoint))
    except InputError:
        return "missing"
    trunk = weights.with_name(AUDIO_TRUNK_NAME)
    return content(weights, trunk, *decoder, *more) if weights.is_file() and trunk.is_file() else "missing"


class LatentBaseline(Method):
    """A trained baseline: its net, its audio trunk, and the model whose autoencoder decodes its latents.

    A class says its `name`, `about`, the command that trains it (`train`), what else changes its videos (`settings`),
    and makes its net from the sizes beside the weights.
    """

    train: ClassVar[str]
    settings: ClassVar[str]

    def __init__(
        self, checkpoint: str = DEFAULT_CHECKPOINT, weights: Path | None = None, name: str | None = None
    ) -> None:
        """weights: others than those that ship; such a row has a `name` of its own."""
        self.checkpoint = checkpoint
        self.weights = WEIGHTS / f"{self.name}.safetensors" if weights is None else weights
        self.name = name or type(self).name
        self.about = baseline_about(type(self).about, self.weights)

    @abstractmethod
    def make_net(self, config: dict[str, int]) -> nn.Module:
        """The net of these sizes, in its first state; it has them as `sizes`."""

    def prepare(self) -> None:
        self.net = self.make_net(load_about(self.weights, self.train)["config"])
        load_weights(self.net, self.weights)
        self.audio_trunk = load_audio_trunk(self.weights)
        self.model = load_decoder(self.checkpoint, (self.net.sizes.num_latents, self.net.sizes.latent_channels))

    def version(self) -> str:
        return baseline_version(self.weights, self.checkpoint, self.settings)


def training_record(run: Path, clips: int) -> dict[str, object]:
    """What the log of a finished run says about it."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [row for row in rows if any(key.startswith("eval_") for key in row)]
    last = {key: value for key, value in (evaluations[-1] if evaluations else {}).items() if key.startswith("eval_")}
    return {
        "trained": {"clips": clips, "steps": rows[-1]["step"], "minutes": round(rows[-1]["seconds"] / 60, 1), **last}
    }
