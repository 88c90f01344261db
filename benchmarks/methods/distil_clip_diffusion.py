"""Distil the clip-diffusion baseline to few steps:

    python -m benchmarks.methods.distil_clip_diffusion --data data/latents --checkpoint data/latents/checkpoint \\
        --out runs/few_steps

A copy of the trained network learns where the trained one's own many steps lead to, from each of the FEW_STEPS times
at which it will be asked (after knowledge distillation of iterative models: Luhman and Luhman 2021). The states it
starts from are true windows with noise, as in training. Resumes. The weights go beside the teacher's, which are read
from `--teacher`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.methods.clip_diffusion import (
    FEW_STEPS,
    OVERLAP,
    WINDOW,
    ClipDenoiser,
    ClipDiffusion,
    ClipSizes,
    FewStepClipDiffusion,
)
from benchmarks.methods.latent import WEIGHTS, load_about, load_audio_trunk, load_weights, save_weights, training_record
from benchmarks.methods.train_clip_diffusion import EVAL_CLIPS, ClipsWithAudio, Windows, evaluate
from eartalking.checkpoint import load_model
from eartalking.training.data import LatentClips
from eartalking.training.loop import Losses, RunOptions, train

TEACHER_STEPS = 8  # of the teacher from where a state is; a fourth of them from the last of four times


@torch.no_grad()
def arrive(teacher: ClipDenoiser, x_t: Tensor, first: int, known: Tensor, windows: Windows) -> Tensor:
    """Where the teacher's steps lead to from states x_t (B, T, N, C) at the time first / FEW_STEPS."""
    steps = TEACHER_STEPS * (FEW_STEPS - first) // FEW_STEPS
    x, start = x_t, first / FEW_STEPS
    for step in range(steps):
        t = torch.full((len(x),), start + (1 - start) * step / steps)
        expected = teacher(x, t, known, windows.audio, windows.portrait).float()
        x = torch.where(known[:, :, None, None], x, torch.lerp(x, expected, 1 / (steps - step)))
    return x


def compute_losses(
    net: nn.Module, windows: Windows, progress: float, *, teacher: ClipDenoiser, generator: torch.Generator
) -> Losses:
    """Squared error of the student against where the teacher arrives; every batch at one of the times."""
    count = len(windows.latents)
    begun = torch.rand(count, generator=generator) < 0.5
    known = (torch.arange(WINDOW) < OVERLAP) & begun[:, None]
    first = int(torch.randint(FEW_STEPS, (), generator=generator))
    noise = torch.randn(windows.latents.shape, generator=generator)
    x_t = torch.lerp(noise, windows.latents, first / FEW_STEPS)
    x_t = torch.where(known[:, :, None, None], windows.latents, x_t)
    goal = arrive(teacher, x_t, first, known, windows)
    t = torch.full((count,), first / FEW_STEPS)
    error = (net(x_t, t, known, windows.audio, windows.portrait).float() - goal).square().mean((2, 3))
    return {"loss": (error * ~known).sum() / (~known).sum()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods.distil_clip_diffusion", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=600, batch_size=64, learning_rate=3e-4, warmup_steps=50)
    parser.add_argument("--data", type=Path, required=True, help="folder made by eartalking.training.encode")
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint whose motion code reads the latents, for the evaluation"
    )
    parser.add_argument("--teacher", type=Path, default=WEIGHTS / f"{ClipDiffusion.name}.safetensors")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    sizes = ClipSizes(**load_about(args.teacher, ClipDiffusion.train)["config"])
    teacher, student = ClipDenoiser(sizes), ClipDenoiser(sizes)
    for net in (teacher, student):
        load_weights(net, args.teacher)
    trunk = load_audio_trunk(args.teacher)
    clips, held_out = (
        ClipsWithAudio(LatentClips(args.data / f"{split}.safetensors"), trunk, options.out, split)
        for split in ("train", "val")
    )
    rng, generator = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    fixed, autoencoder = held_out.sample(EVAL_CLIPS, np.random.default_rng(0)), load_model(args.checkpoint).autoencoder
    net = train(
        student.requires_grad_(True).train(),
        lambda: clips.sample(options.batch_size, rng),
        functools.partial(compute_losses, teacher=teacher, generator=generator),
        lambda module, _: evaluate(module, autoencoder, fixed, FEW_STEPS),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    about = {"config": dataclasses.asdict(sizes), **training_record(options.out, len(clips.clips))}
    save_weights(net, args.teacher.with_name(f"{FewStepClipDiffusion.name}.safetensors"), about)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
