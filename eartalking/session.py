"""StreamSession: a portrait, then audio in, frames out. The one way to run the model.

Audio is consumed in units of one frame (640 samples), whatever the caller's chunks, so any chunking gives the same
frames. Frame t comes out once the audio up to the end of frame t + lookahead is known, or at `flush`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eartalking.config import SAMPLES_PER_FRAME, to_json
from eartalking.controls import ControlBatch, ControlFrame, Controls
from eartalking.errors import InputError
from eartalking.io.portrait import load_portrait
from eartalking.level import LevelState, normalise_level
from eartalking.model import TalkingHeadModel
from eartalking.modules.pixels import to_float
from eartalking.motion.blinks import with_blink
from eartalking.perception.face_detector import crop_face

MAX_TEMPERATURE = 1.5


@dataclass(frozen=True)
class Frame:
    """One frame of the stream: `image` (H, W, 3) uint8, `index` from 0, `applied` the controls that were in force."""

    image: np.ndarray
    index: int
    applied: ControlFrame


class StreamSession:
    """One running stream. Weights are shared between sessions, all state is here.

    Args:
        portrait: a file, a PIL image or an array, as `load_portrait` takes it.
        seed: the same seed with the same voice and controls gives the same frames.
        temperature: how far what is drawn may go, 0 to 1.5: 0 moves the head hardly at all, 1 as people do.
        crop: "auto" frames a face, "center" takes the picture's middle.
        face: which face, of several: "largest", "left", "right", or a number that counts from the left, 1 first.

    Raises:
        InputError: the portrait cannot be used.
        ValueError: the temperature is out of range.
    """

    def __init__(
        self,
        model: TalkingHeadModel,
        portrait: str | os.PathLike[str] | Image.Image | np.ndarray,
        seed: int = 0,
        crop: str = "auto",
        face: str = "largest",
        temperature: float = 1.0,
    ) -> None:
        if not 0 <= temperature <= MAX_TEMPERATURE:
            raise ValueError(f"temperature must be 0 to {MAX_TEMPERATURE}, not {temperature}")
        self.model = model
        self.seed, self.temperature = int(seed), float(temperature)
        size = model.config.autoencoder.image_size
        image = crop_face(load_portrait(portrait), size=size, mode=crop, face=face).image
        self._start(image)

    @torch.inference_mode()
    def _start(self, portrait: np.ndarray) -> None:
        self.portrait = portrait  # (H, W, 3) uint8, the crop that the stream animates
        self._device = next(self.model.parameters()).device
        autoencoder = self.model.autoencoder
        pixels = to_float(torch.from_numpy(portrait.copy()).to(self._device))[None]
        self._reference = autoencoder.reference(pixels)
        features = self._reference.pyramid[-1].flatten(2).transpose(1, 2)  # (1, N, D_r)
        self._initial = self.model.prefill(self._reference.latents, features)
        self.reset()

    @property
    def next_index(self) -> int:
        """Index of the frame that comes next."""
        return self._state.frame_index

    @property
    def lookahead_samples(self) -> int:
        """Samples beyond a frame's own end that must be known before it can come out."""
        return self.model.config.audio.lookahead * SAMPLES_PER_FRAME

    def reset(self) -> None:
        """Back to the start: same portrait and seed, no audio, all controls released."""
        self._state = self._initial.clone()
        self._audio_state = self.model.audio_encoder.init_state(1)
        self._level = LevelState()
        self._pending = np.zeros(0, np.float32)
        self._samples = 0
        self._controls = ControlFrame()
        self._flushed = False

    def clone(self) -> StreamSession:
        """An independent stream from here on; only the weights and the portrait's features are shared."""
        other = copy.copy(self)
        other._state = self._state.clone()
        other._pending = self._pending.copy()
        return other

    def set(self, **tracks: Any) -> None:
        """Set control tracks from the next frame on. Raises ValueError for an unknown track or a value out of range."""
        self._controls = self._controls.with_values(**tracks)

    def release(self, *tracks: str) -> None:
        """Give tracks back to the model; without names, all of them."""
        self._controls = self._controls.with_values(**{track: None for track in tracks}) if tracks else ControlFrame()

    def push(self, waveform: np.ndarray, controls: Controls | None = None) -> Iterator[Frame]:
        """Feed float mono 16 kHz audio of any length and yield the frames that it completes, one by one.

        `controls` gives every frame its values by frame index; without it, what `set` and `release` left in force.

        Raises:
            ValueError: not one-dimensional, not finite, or the stream was flushed.
        """
        if self._flushed:
            raise ValueError("this stream was flushed; reset() starts it again")
        waveform = np.asarray(waveform, np.float32)
        if waveform.ndim != 1 or not np.isfinite(waveform).all():
            raise ValueError(f"push takes a finite mono waveform (samples,), got shape {waveform.shape}")
        self._samples += len(waveform)
        self._pending = np.concatenate([self._pending, waveform])
        return self._run(controls)

    def flush(self, controls: Controls | None = None) -> Iterator[Frame]:
        """End the audio and yield the remaining frames, up to the one that holds the last sample."""
        self._flushed = True
        return self._drain(controls)

    def _run(self, controls: Controls | None) -> Iterator[Frame]:
        while len(self._pending) >= SAMPLES_PER_FRAME:
            chunk, self._pending = np.split(self._pending, [SAMPLES_PER_FRAME])
            yield from self._advance(chunk, controls)

    def _drain(self, controls: Controls | None) -> Iterator[Frame]:
        yield from self._run(controls)
        total = -(-self._samples // SAMPLES_PER_FRAME)
        while self.next_index < total:
            chunk = np.zeros(SAMPLES_PER_FRAME, np.float32)
            chunk[: len(self._pending)] = self._pending
            self._pending = self._pending[:0]
            yield from self._advance(chunk, controls)

    def _advance(self, samples: np.ndarray, controls: Controls | None) -> Iterator[Frame]:
        """One frame's worth of audio; nothing comes out while the lookahead fills."""
        samples, self._level = normalise_level(samples, self._level)
        with torch.inference_mode():
            audio, self._audio_state = self.model.audio_encoder.step(
                torch.from_numpy(samples)[None].to(self._device), self._audio_state
            )
            if audio is None:
                return
            index = self.next_index
            applied = self._controls if controls is None else controls.at(index)
            blinking = applied if self.model.draws_blinks else with_blink(applied, self.seed, index)
            asked = ControlBatch.of_frame(blinking, self._device)
            latents = self.model.step(audio, asked, self._noise(index), self._state)
            pixels = self.model.autoencoder.decode(latents, self._reference).pixels()[0].cpu().numpy()
        yield Frame(np.ascontiguousarray(pixels), index, applied)

    def _noise(self, index: int) -> Tensor:
        """The frame's noise, a function of seed and index alone: there is no generator state to carry."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) % 2**63)
        autoencoder = self.model.config.autoencoder
        shape = (1, autoencoder.num_latent_tokens, autoencoder.latent_channels)
        return self.temperature * torch.randn(shape, generator=generator).to(self._device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state of the stream (not the weights) to one safetensors file."""
        tensors = {f"state.{name}": value for name, value in self._state.to_tensors().items()}
        tensors |= self._audio_state.to_tensors("audio.")
        tensors["portrait"] = torch.from_numpy(self.portrait.copy())
        tensors["pending"] = torch.from_numpy(self._pending.copy())
        about = {
            "seed": self.seed,
            "temperature": self.temperature,
            "samples": self._samples,
            "flushed": self._flushed,
            "controls": self._controls.given(),
            "level": dataclasses.asdict(self._level),
            "config": to_json(self.model.config),
        }
        partial = f"{os.fspath(path)}.{os.getpid()}.partial"
        try:
            save_file(
                {name: value.contiguous() for name, value in tensors.items()},
                partial,
                metadata={"session": json.dumps(about)},
            )
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            Path(partial).unlink(missing_ok=True)
            raise InputError(path, f"the stream could not be saved: {error}") from error

    @classmethod
    @torch.inference_mode()
    def restore(cls, model: TalkingHeadModel, path: str | os.PathLike[str]) -> StreamSession:
        """A stream that goes on exactly where `save` left it.

        Raises:
            InputError: not a saved stream, or saved from a model of other sizes.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["session"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if about["config"] != to_json(model.config):
                raise InputError(path, "saved from a model of another configuration")
            session = cls.__new__(cls)
            session.model, session.seed, session.temperature = model, about["seed"], about["temperature"]
            session._start(tensors["portrait"].numpy())
            session._load(tensors, about)
        except InputError:
            raise
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(path, "not a saved stream, or a damaged one") from error
        return session

    def _load(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """What `save` wrote, into a stream that has just been started."""
        prefix = "state."
        self._state.load_tensors({n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)})
        self._audio_state = self._audio_state.from_tensors(tensors, "audio.")
        self._pending = tensors["pending"].numpy()
        self._samples, self._flushed = about["samples"], about["flushed"]
        self._controls = ControlFrame(about["controls"])
        self._level = LevelState(**about["level"])
