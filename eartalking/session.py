"""StreamSession: a portrait, then audio in, frames out. The one way to run the model.

Audio is consumed in units of one frame (640 samples), whatever the caller's chunks, so any chunking gives the same
frames. Frame t comes out once the audio up to the end of frame t + lookahead is known, or at `flush`.

Where more audio is known, the frames that follow are computed while the caller looks at this one (`workers`), under the
controls that are in force so far; where the caller changes these, the frames ahead are dropped and computed again. So
the frames are the same as if they were computed one by one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eartalking.audio import AudioState
from eartalking.autoencoder.canvas import Canvas
from eartalking.autoencoder.decoder import Geometry
from eartalking.autoencoder.reference import Reference
from eartalking.config import SAMPLES_PER_FRAME, to_json
from eartalking.controls import ControlBatch, ControlFrame, Controls
from eartalking.errors import InputError, check_file
from eartalking.io.portrait import Box
from eartalking.io.threads import granted_cores
from eartalking.level import LevelState, float_mono, normalise_level
from eartalking.model import StreamState, TalkingHeadModel
from eartalking.modules.frame_noise import frame_noise
from eartalking.modules.pixels import to_float
from eartalking.motion.blinks import with_blink
from eartalking.output import Look, Output, framed
from eartalking.workers import UNDER_WAY, submit

MAX_TEMPERATURE = 1.5
NEARLY_SHUT = 0.6  # 0 open, 1 shut


@dataclass(frozen=True)
class Frame:
    """One frame of the stream: `image` (H, W, 3) uint8, `index` from 0, `applied` the controls that were in force,
    `seconds` that the stream took for it: from when it was begun, or the frame before was done, until it was done."""

    image: np.ndarray
    index: int
    applied: ControlFrame
    seconds: float = 0.0


@dataclass(frozen=True)
class _Moment:
    """A stream between two units of audio. It is never written to, so what follows can be computed again."""

    audio: AudioState
    level: LevelState
    model: StreamState

    @property
    def units(self) -> int:
        """Units of audio heard so far."""
        return int(self.audio.frames_seen)


@dataclass(frozen=True)
class _Coming:
    """A unit of audio on its way through the stages. `index` is that of its frame, below 0 while the lookahead fills:
    then there is no `image`, as where the frame is not to be shown."""

    index: int
    applied: ControlFrame
    begun: float
    moved: Future[tuple[Tensor | None, _Moment]]
    image: Future[tuple[np.ndarray, float]] | None

    def cancel(self) -> None:
        """Compute no more of it than has been started."""
        for future in (self.moved, self.image):
            if future is not None:
                future.cancel()


class StreamSession:
    """One running stream. Weights are shared between sessions, all state is here.

    Args:
        portrait: a file, a PIL image or an array, as `load_portrait` takes it.
        seed: the same seed with the same voice and controls gives the same frames.
        temperature: how far what is drawn may go, 0 to 1.5: 0 moves the head hardly at all, 1 as people do.
        crop: "auto" frames a face, "center" takes the picture's middle; or a square of it, as `FaceCrop.box`.
        face: which face, of several: "largest", "left", "right", or a number that counts from the left, 1 first.
        threads: 1 computes one frame after the other; more computes up to three at once. Default: the number of cores.
        look: size, frame and background, see `output.Look`.

    Raises:
        InputError: the portrait or the background cannot be used.
        ValueError: temperature, seed, threads or crop cannot be used, or frames cannot look so.
    """

    def __init__(
        self,
        model: TalkingHeadModel,
        portrait: str | os.PathLike[str] | Image.Image | np.ndarray,
        seed: int = 0,
        crop: str | Box = "auto",
        face: str | int = "largest",
        temperature: float = 1.0,
        threads: int | None = None,
        **look: Unpack[Look],
    ) -> None:
        if not 0 <= temperature <= MAX_TEMPERATURE:
            raise ValueError(f"temperature must be 0 to {MAX_TEMPERATURE}, not {temperature}")
        if int(seed) != seed or (threads is not None and threads < 1):
            raise ValueError(f"seed must be a whole number, threads at least 1, not {seed} and {threads}")
        self.model = model
        self.seed, self.temperature = int(seed), float(temperature)
        picture, cut = framed(portrait, model.config.autoencoder.image_size, crop, face, look.get("frame", "crop"))
        self._start(cut.image, Output.of(picture, cut, **look), threads)

    def _start(self, portrait: np.ndarray, output: Output, threads: int | None = None) -> None:
        self.portrait = portrait  # (H, W, 3) uint8, the crop that the model animates
        self._output = output
        self._ahead = 0 if (threads or granted_cores()) == 1 else UNDER_WAY
        self._device = next(self.model.parameters()).device
        self._reference, self._canvas, self._initial = submit(self._encode, portrait).result()
        self.reset()

    def _encode(self, portrait: np.ndarray) -> tuple[Reference, Canvas | None, StreamState]:
        """All that is computed of a portrait, once per stream."""
        pixels = to_float(torch.from_numpy(portrait.copy()).to(self._device))[None]
        reference = self.model.autoencoder.reference(pixels)
        canvas = self._output.canvas(reference, len(portrait), self._device)
        return reference, canvas, self.model.prefill(self.model.autoencoder.resting(reference), reference.look)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self._output.frame_shape

    @property
    def eyes_stay_shut(self) -> bool:
        """Whether the portrait's eyes are nearly shut: what is behind the lids is not known, and they do not open."""
        return bool(self._reference.narrow.max() > NEARLY_SHUT)

    @property
    def next_index(self) -> int:
        """Index of the frame that comes next."""
        return self._moment.model.frame_index

    @property
    def samples_heard(self) -> int:
        """How much audio the model has heard, whole frames of it; `lookahead_samples` more than has been shown."""
        return self._moment.units * SAMPLES_PER_FRAME

    @property
    def lookahead_samples(self) -> int:
        """Samples beyond a frame's own end that must be known before it can come out."""
        return self.model.config.audio.lookahead * SAMPLES_PER_FRAME

    def reset(self) -> None:
        """Back to the start: same portrait and seed, no audio, all controls released."""
        self._moment = _Moment(self.model.audio_encoder.init_state(1), LevelState(), self._initial)
        self._pending = np.zeros(0, np.float32)  # pushed and not heard yet; replaced, never written to
        self._samples = 0
        self._controls = ControlFrame()
        self._flushed = False

    def clone(self) -> StreamSession:
        """An independent stream from here on; only the weights and the portrait's features are shared."""
        return copy.copy(self)

    def set(self, **tracks: Any) -> None:
        """Set control tracks from the next frame on. Raises ValueError for an unknown track or a value out of range."""
        self._controls = self._controls.with_values(**tracks)

    def release(self, *tracks: str) -> None:
        """Give tracks back to the model; without names, all of them."""
        self._controls = self._controls.with_values(**{track: None for track in tracks}) if tracks else ControlFrame()

    def push(
        self, waveform: np.ndarray, controls: Controls | None = None, show: Callable[[int], bool] | None = None
    ) -> Generator[Frame, None, None]:
        """Feed float mono 16 kHz audio of any length and yield the frames that it completes, one by one. Closed before
        its end, it leaves the stream where the last frame left it.

        `controls` gives every frame its values by frame index; without it, what `set` and `release` left in force.
        `show` says of a frame index whether it is wanted: of other frames only the motion is computed, a quarter of the
        work, and they are not yielded.

        Raises:
            ValueError: not floating-point, not one-dimensional, not finite, or the stream was flushed.
        """
        if self._flushed:
            raise ValueError("this stream was flushed; reset() starts it again")
        waveform = float_mono(waveform)
        self._samples += len(waveform)
        self._pending = np.concatenate([self._pending, waveform])
        return self._run(controls, show)

    def flush(self, controls: Controls | None = None) -> Generator[Frame, None, None]:
        """End the audio and yield the remaining frames, up to the one that holds the last sample."""
        self._flushed = True
        return self._run(controls)

    def pass_over(self, end: int, controls: Controls | None = None) -> None:
        """Go on to frame `end` without making the frames before it: only their motion is computed. It ends sooner where
        the audio that was pushed does; `controls` as for `push`."""
        while self.next_index < end and (samples := self._unit(0)) is not None:
            index = self._moment.units - self.model.config.audio.lookahead
            asked = self._asked(index, self._applied(index, controls))
            moved = submit(self._move, samples, self._moment, asked, self._noise(index))
            self._moment, self._pending = moved.result()[1], self._pending[SAMPLES_PER_FRAME:]

    def interrupt(self) -> None:
        """Forget the audio that was pushed and not heard yet, as when somebody speaks over a voice; any time, any
        number of times, after `flush` too. The stream goes on with what is pushed next: silence, or another utterance.

        What has been heard ahead of the next frame (the look-ahead, two frames) still moves the lips.
        """
        self._moment = dataclasses.replace(self._moment)  # frames under way came after another one: they are dropped
        self._pending = np.zeros(0, np.float32)
        self._samples = self.samples_heard
        self._flushed = False

    def _run(
        self, controls: Controls | None, show: Callable[[int], bool] | None = None
    ) -> Generator[Frame, None, None]:
        """The frames of what is pending, while more of them are under way."""
        coming: deque[_Coming] = deque()
        done_before = 0.0
        try:
            while True:
                self._begin(coming, max(self._ahead, 1), controls, show)
                if not coming:
                    return
                unit = coming.popleft()
                moment = unit.moved.result()[1]
                image, done = (None, 0.0) if unit.image is None else unit.image.result()
                self._moment, self._pending = moment, self._pending[SAMPLES_PER_FRAME:]
                if image is None:
                    continue
                self._begin(coming, self._ahead, controls, show)
                yield Frame(image, unit.index, unit.applied, max(done - max(unit.begun, done_before), 0.0))
                done_before = max(done, done_before)  # a frame may be done before the one that it follows
                self._drop_outdated(coming, moment, controls)
        finally:
            for unit in coming:
                unit.cancel()

    def _begin(
        self, coming: deque[_Coming], count: int, controls: Controls | None, show: Callable[[int], bool] | None
    ) -> None:
        """Have units computed until `count` of them are under way, or nothing more is known of the audio."""
        while len(coming) < count and (samples := self._unit(len(coming))) is not None:
            before = coming[-1].moved if coming else self._moment
            index = self._moment.units + len(coming) - self.model.config.audio.lookahead
            applied, begun = self._applied(index, controls), perf_counter()
            moved = submit(self._move, samples, before, self._asked(index, applied), self._noise(index))
            image = None
            if index >= 0 and (show is None or show(index)):
                image = submit(self._draw, moved, submit(self._place, moved))
            coming.append(_Coming(index, applied, begun, moved, image))

    def _unit(self, ahead: int) -> np.ndarray | None:
        """The unit of audio (640,) that is heard after `ahead` others; silence after the end; None if not known yet."""
        samples = self._pending[ahead * SAMPLES_PER_FRAME : (ahead + 1) * SAMPLES_PER_FRAME]
        if len(samples) == SAMPLES_PER_FRAME:
            return samples
        last = -(-self._samples // SAMPLES_PER_FRAME) + self.model.config.audio.lookahead
        if not self._flushed or not self._samples or self._moment.units + ahead >= last:
            return None
        return np.pad(samples, (0, SAMPLES_PER_FRAME - len(samples)))

    def _drop_outdated(self, coming: deque[_Coming], moment: _Moment, controls: Controls | None) -> None:
        """Forget the units under way that would be computed otherwise by now, after the caller changed something."""
        valid = 0
        if self._moment is moment:
            while valid < len(coming) and coming[valid].applied == self._applied(coming[valid].index, controls):
                valid += 1
        while len(coming) > valid:
            coming.pop().cancel()

    def _applied(self, index: int, controls: Controls | None) -> ControlFrame:
        return self._controls if controls is None or index < 0 else controls.at(index)

    def _asked(self, index: int, applied: ControlFrame) -> ControlBatch:
        # An emotion that is asked for decides the lids (motion.steering): its blinks are not drawn either.
        drawn = self.model.draws_blinks and applied["emotion"] is None
        blinking = applied if drawn else with_blink(applied, self.seed, max(index, 0))
        return ControlBatch.of_frame(blinking, self._device)

    def _move(
        self,
        samples: np.ndarray,
        before: _Moment | Future[tuple[Tensor | None, _Moment]],
        asked: ControlBatch,
        noise: Tensor,
    ) -> tuple[Tensor | None, _Moment]:
        """First stage: latents (1, N, C) of the frame that a unit of audio completes, if any, and the moment after."""
        if isinstance(before, Future):
            before = before.result()[1]
        samples, level = normalise_level(samples, before.level)
        waveform = torch.from_numpy(samples)[None].to(self._device)
        audio, audio_state = self.model.audio_encoder.step(waveform, before.audio)
        if audio is None:
            return None, _Moment(audio_state, level, before.model)
        state = before.model.clone()
        latents = self.model.step(audio, asked, noise, state)
        return self.model.autoencoder.possible(latents, self._reference), _Moment(audio_state, level, state)

    def _place(self, moved: Future[tuple[Tensor, _Moment]]) -> Geometry:
        """Second stage."""
        return self.model.autoencoder.geometry(moved.result()[0], self._reference)

    def _draw(self, moved: Future[tuple[Tensor, _Moment]], geometry: Future[Geometry]) -> tuple[np.ndarray, float]:
        """Third stage: the picture (H, W, 3) uint8, and when it was done."""
        decoded = self.model.autoencoder.draw(geometry.result(), moved.result()[0], self._reference, self._canvas)
        return self._output.place(np.ascontiguousarray(decoded.pixels()[0].cpu().numpy())), perf_counter()

    def _noise(self, index: int) -> Tensor:
        autoencoder = self.model.config.autoencoder
        shape = (1, autoencoder.num_latent_tokens, autoencoder.latent_channels)
        return self.temperature * frame_noise(self.seed, index, shape).to(self._device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state of the stream (not the weights) to one safetensors file."""
        tensors = {f"state.{name}": value for name, value in self._moment.model.to_tensors().items()}
        tensors |= self._moment.audio.to_tensors("audio.")
        tensors["portrait"] = torch.from_numpy(self.portrait.copy())
        tensors |= self._output.to_tensors()
        tensors["pending"] = torch.from_numpy(self._pending.copy())
        about = {
            "seed": self.seed,
            "temperature": self.temperature,
            "samples": self._samples,
            "flushed": self._flushed,
            "controls": self._controls.given(),
            "level": dataclasses.asdict(self._moment.level),
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
    def restore(
        cls, model: TalkingHeadModel, path: str | os.PathLike[str], threads: int | None = None
    ) -> StreamSession:
        """A stream that goes on exactly where `save` left it; `threads` as for a new one.

        Raises:
            InputError: no such file, not a saved stream, or saved from a model of other sizes.
        """
        check_file(path)
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["session"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if about["config"] != to_json(model.config):
                raise InputError(path, "saved from a model of another configuration")
            session = cls.__new__(cls)
            session.model, session.seed, session.temperature = model, about["seed"], about["temperature"]
            session._start(tensors["portrait"].numpy(), Output.from_tensors(tensors), threads)
            session._load(tensors, about)
        except InputError:
            raise
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(path, "not a saved stream, or a damaged one") from error
        return session

    def _load(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """What `save` wrote, into a stream that has just been started."""
        state = self._initial.clone()
        state.load_tensors({n.removeprefix("state."): v for n, v in tensors.items() if n.startswith("state.")})
        audio, level = self._moment.audio.from_tensors(tensors, "audio."), LevelState(**about["level"])
        self._moment = _Moment(audio, level, state)
        self._pending = tensors["pending"].numpy()
        self._samples, self._flushed = about["samples"], about["flushed"]
        self._controls = ControlFrame(about["controls"])
