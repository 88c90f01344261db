"""Train the motion baseline:

    python -m benchmarks.methods.train_motion_ar --data data/latents --checkpoint data/latents/checkpoint \\
        --audio runs/audio/checkpoint --out runs/motion_ar

The same voices and labels as ours (eartalking.training.encode), the same cure against copying: the past is noised, in a
third of the windows altogether. Resumes; `--max-minutes` cuts it into slices. The weights go to
benchmarks/methods/weights.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.methods.latent import (
    WEIGHTS,
    audio_features,
    make_audio_trunk,
    save_audio_trunk,
    save_weights,
    training_record,
)
from benchmarks.methods.motion_ar import MotionModel, MotionSizes
from eartalking.audio import AudioEncoder
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.checkpoint import load_model
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import NUM_MOTION_LABELS
from eartalking.training.data import LatentClips, Sequence
from eartalking.training.loop import Losses, RunOptions, train
from eval.metrics.signals import correlation

WARMUP_STEPS = 50
WINDOW = 24  # frames of a training window
NO_HISTORY_SHARE = 0.35
EVAL_CLIPS, EVAL_FRAMES = 16, 60


class Teacher:
    """Turns training windows into losses: `autoencoder` reads the portrait's motion, `trunk` the voice."""

    def __init__(self, autoencoder: FrameAutoencoder, trunk: AudioEncoder, seed: int) -> None:
        self.autoencoder, self.audio_trunk = autoencoder, trunk
        self.generator = torch.Generator().manual_seed(seed)

    def losses(self, net: nn.Module, sequence: Sequence, progress: float) -> Losses:
        portrait, previous = self.motions(sequence)
        history = torch.cat([previous[:, None], sequence.labels[:, :-1]], dim=1)
        history, level = self.noised(history)
        loss = net.loss(sequence.labels, audio_features(self.audio_trunk, sequence), history, level, portrait)
        return {"loss": loss.regression + 0.5 * loss.residual, "regression": loss.regression, "residual": loss.residual}

    @torch.no_grad()
    def motions(self, sequence: Sequence) -> tuple[Tensor, Tensor]:
        """Motion of the portraits and of the frames before the windows, (B, L) each."""
        return self.autoencoder.code.latents_to_motion(
            sequence.reference_latents
        ), self.autoencoder.code.latents_to_motion(sequence.previous)

    def noised(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """History (B, T, L) with noise, and its level (B, T): half of the frames a little, some windows altogether."""
        batch, length = history.shape[:2]
        level = torch.rand(batch, length, generator=self.generator) * (
            torch.rand(batch, length, generator=self.generator) < 0.5
        )
        level[torch.rand(batch, generator=self.generator) < NO_HISTORY_SHARE] = 1.0
        noise = torch.randn(history.shape, generator=self.generator)
        return torch.lerp(history, noise, level[..., None]), level

    def evaluate(self, net: MotionModel, sequence: Sequence) -> dict[str, float]:
        """Free-running: correlation of the jaw with the truth, with the right voice and with another clip's."""
        audio = audio_features(self.audio_trunk, sequence)
        portrait, _ = self.motions(sequence)
        jaw = UNIT_INDEX["jawOpen"]

        def jaws(features: Tensor) -> float:
            state = net.start(portrait)
            generator, made = torch.Generator().manual_seed(0), []
            for index in range(features.shape[1]):
                state.previous = net.step(
                    features[:, index], torch.randn((len(features), NUM_MOTION_LABELS), generator=generator), state
                )
                made.append(state.previous[:, jaw])
            pairs = zip(torch.stack(made, 1).numpy(), sequence.labels[..., jaw].numpy(), strict=True)
            return float(np.nanmean([correlation(one, truth) for one, truth in pairs]))

        return {"jaw": jaws(audio), "jaw_shuffled": jaws(audio.roll(1, 0))}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods.train_motion_ar", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=3000, batch_size=32, learning_rate=1e-3, warmup_steps=WARMUP_STEPS)
    parser.add_argument("--data", type=Path, required=True, help="folder made by eartalking.training.encode")
    parser.add_argument("--checkpoint", required=True, help="checkpoint whose motion code reads the portraits' latents")
    parser.add_argument(
        "--audio", required=True, help="checkpoint whose audio encoder's trunk is used (training.audio)"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS / "motion_ar.safetensors", help="where the result goes")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    clips, held_out = LatentClips(args.data / "train.safetensors"), LatentClips(args.data / "val.safetensors")
    trunk = make_audio_trunk(load_model(args.audio).audio_encoder)
    teacher = Teacher(load_model(args.checkpoint).autoencoder, trunk, options.seed)
    num_latents, channels = clips.tensors["latents"].shape[1:]
    sizes = MotionSizes(num_latents, channels, trunk.dim)
    rng = np.random.default_rng(options.seed)
    fixed = held_out.sample(EVAL_CLIPS, EVAL_FRAMES, np.random.default_rng(0))
    net = train(
        MotionModel(sizes),
        lambda: clips.sample(options.batch_size, WINDOW, rng),
        teacher.losses,
        lambda module, _: teacher.evaluate(module, fixed),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    save_audio_trunk(trunk, args.weights)
    save_weights(net, args.weights, {"config": dataclasses.asdict(sizes), **training_record(options.out, len(clips))})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
