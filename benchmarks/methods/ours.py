"""Our model through its StreamSession, and changes to it at inference.

The ablations here use the shipped weights, which were trained *with* what is taken away: they say how much the trained
model leans on a part, not how a model trained without it would do. A model retrained without it is a checkpoint like
any other: `benchmarks.compare --methods NAME=CHECKPOINT`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.methods.base import Method, NotReady, Request, Sound, content
from eartalking import StreamSession, TalkingHeadModel, load_model
from eartalking.checkpoint import CONFIG_NAME, DEFAULT_CHECKPOINT, resolve, weight_files
from eartalking.config import SAMPLES_PER_FRAME, DepartureConfig, from_json
from eartalking.errors import InputError
from eartalking.modules.pixels import to_float
from eartalking.motion.vector import MOTION_SCALES, motion_vector

INFERENCE_ONLY = "at inference only, with weights that were trained otherwise"


class Ours(Method):
    """A checkpoint driven by StreamSession.

    `config` replaces fields of the checkpoint's configuration that change no weight's shape.
    """

    def __init__(
        self,
        name: str = "ours",
        about: str = "this project's model, streamed",
        checkpoint: str = DEFAULT_CHECKPOINT,
        kind: str = "ours",
        **config: Any,
    ) -> None:
        self.name, self.about, self.kind = name, about, kind
        self.checkpoint, self.config = checkpoint, config

    def prepare(self) -> None:
        try:
            loaded = load_model(self.checkpoint)
        except InputError as error:
            raise NotReady(str(error)) from error
        self.model = TalkingHeadModel(dataclasses.replace(loaded.config, **self.config))
        kept = self.model.state_dict().keys()  # a part that is left out takes its weights with it
        self.model.load_state_dict({name: value for name, value in loaded.state_dict().items() if name in kept})
        self.model.eval().requires_grad_(False)

    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        threads = torch.get_num_threads()  # where processes share a machine, each has its part of the cores
        session = StreamSession(self.model, request.portrait, seed=request.seed, crop="center", threads=threads)
        # Sound that is all there goes in at once, as from the command line: frames can then be computed side by side.
        for piece in sound if sound.live else [np.concatenate(list(sound))]:
            for frame in session.push(piece, request.controls):
                yield frame.image
        for frame in session.flush(request.controls):
            yield frame.image

    def version(self) -> str:
        try:
            folder = resolve(self.checkpoint)
        except InputError:
            return "missing"
        return content(*weight_files(folder), folder / CONFIG_NAME, repr(sorted(self.config.items())))


class ShuffledAudio(Ours):
    """Ours listening to another clip's voice; the video is judged with the clip's own sound."""

    measurable = False  # as fast as ours

    def __init__(self, checkpoint: str = DEFAULT_CHECKPOINT) -> None:
        about = "ours, driven by another clip's voice: what sync is worth by chance"
        super().__init__("shuffled_audio", about, checkpoint, kind="reference")

    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        if request.other_voice is None:
            raise NotReady("shuffled audio needs a second clip in the set")
        # The other voice is repeated where it is shorter.
        other = np.resize(request.other_voice, request.num_frames * SAMPLES_PER_FRAME)
        yield from super().generate(request, Sound(other, live=sound.live))


class TrueMotion(Ours):
    """The decoder alone, told exactly what the true face does, where the set knows it: what is lost between motion and
    pixels, whoever makes the motion."""

    measurable = False  # nothing is heard

    def __init__(self, checkpoint: str = DEFAULT_CHECKPOINT) -> None:
        about = "our decoder, told what the true face does: what no better ear could change"
        super().__init__("true_motion", about, checkpoint, kind="reference")

    @torch.inference_mode()
    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        if request.labels is None:
            raise NotReady(f"{request.name}: nothing says what the true face does")
        with np.load(request.labels) as labels:
            motion = motion_vector({name: torch.from_numpy(labels[name]) for name in MOTION_SCALES})
        autoencoder = self.model.autoencoder
        reference = autoencoder.reference(to_float(torch.from_numpy(request.portrait))[None])
        for latents in autoencoder.code.motion_to_latents(motion).split(1)[: request.num_frames]:
            yield autoencoder.decode(autoencoder.possible(latents, reference), reference).pixels()[0].numpy()


def ablations(checkpoint: str = DEFAULT_CHECKPOINT) -> list[Ours]:
    """Ours with one thing changed each; a change that the checkpoint's own configuration has already is left out."""
    try:
        config = from_json((resolve(checkpoint) / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the methods say so themselves when they are prepared
        config = None

    def changed(name: str, about: str, **change: object) -> Ours:
        return Ours(f"ours_{name}", f"ours {about} ({INFERENCE_ONLY})", checkpoint, "ablation", **change)

    methods = [
        changed("no_sink", "without the portrait in its memory", sink_size=0),
        changed("clean_history", "that trusts its own history fully (history_level 0)", history_level=0.0),
        changed("window_2", "with a window of 2 frames", window_size=2),
        changed("averaged", "without drawing: the mean alone", departure=None, temperature=0.0),
    ]
    head = DepartureConfig() if config is None else config.departure
    if head is not None:
        one, many = (dataclasses.replace(head, num_steps=steps) for steps in (1, 16))
        methods += [changed("1_step", "with 1 step a draw", departure=one)]
        methods += [changed("16_steps", "with 16 steps a draw", departure=many)]
    return [m for m in methods if config is None or any(getattr(config, key) != m.config[key] for key in m.config)]
