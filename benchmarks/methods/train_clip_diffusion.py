"""Train the clip-diffusion baseline:

    python -m benchmarks.methods.train_clip_diffusion --data data/latents --checkpoint data/latents/checkpoint \\
        --audio runs/audio/checkpoint --out runs/clip_diffusion

The same latents, voices and portraits as ours (eartalking.training.encode). The audio features are computed once and
kept in the run's folder. Resumes; `--max-minutes` cuts it into slices. The weights go to benchmarks/methods/weights,
with steps and minutes beside them. Without `--audio` the audio trunk is the one that lies there already, which
the other baseline was trained with.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.methods.clip_diffusion import OVERLAP, WINDOW, ClipDenoiser, ClipSizes
from benchmarks.methods.latent import (
    AUDIO_TRUNK_NAME,
    WEIGHTS,
    load_audio_trunk,
    make_audio_trunk,
    save_audio_trunk,
    save_weights,
    training_record,
)
from eartalking.audio import AudioEncoder
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.checkpoint import load_model
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.training.data import LatentClips
from eartalking.training.loop import Losses, RunOptions, train
from eval.metrics.signals import correlation

WARMUP_STEPS = 50
EVAL_CLIPS = 64
EVAL_STEPS = 12


class Windows(NamedTuple):
    """Windows of WINDOW frames: latents (B, T, N, C), audio features (B, T, A), the portraits' latents (B, N, C)."""

    latents: Tensor
    audio: Tensor
    portrait: Tensor


class ClipsWithAudio:
    """Encoded clips with the audio features of all their frames, made once and kept in `folder`."""

    def __init__(self, clips: LatentClips, trunk: AudioEncoder, folder: Path, split: str) -> None:
        self.clips = clips
        path = folder / f"heard_{split}.safetensors"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": _audio_features(clips, trunk, split)}, path)
        self.features = load_file(path)["features"]
        if len(self.features) != clips.frame_offsets[-1]:
            raise ValueError(f"{path} was made from other clips: delete it")

    def sample(self, batch_size: int, rng: np.random.Generator) -> Windows:
        """A random batch; a quarter of the windows at the clip's start, where streams begin."""
        tensors = self.clips.tensors
        rows: list[Any] = []
        while len(rows) < batch_size:
            clip = int(rng.integers(len(self.clips)))
            spare = self.clips.num_frames(clip) - WINDOW
            if spare < 0:
                continue
            first = self.clips.frame_offsets[clip] + (0 if rng.random() < 0.25 else int(rng.integers(spare + 1)))
            window = slice(first, first + WINDOW)
            parts = (tensors["latents"][window], self.features[window], tensors["reference_latents"][clip])
            rows.append([part.float() for part in parts])
        return Windows(*(torch.stack(column) for column in zip(*rows, strict=True)))


@torch.inference_mode()
def _audio_features(clips: LatentClips, trunk: AudioEncoder, split: str) -> Tensor:
    """(all frames, A) half precision; each clip is encoded from its start, as a stream would hear it."""
    rows = []
    for clip in tqdm(range(len(clips)), desc=f"hearing {split}", unit="clip", mininterval=5):
        features = trunk(clips.waveform(clip)[None]).flatten(2)[0]
        frames = clips.num_frames(clip)  # the sound of a clip may end within its last frame
        rows.append(torch.cat([features, features[-1:].expand(max(0, frames - len(features)), -1)])[:frames].half())
    return torch.cat(rows)


def make_losses(generator: torch.Generator):  # noqa: ANN201 (a closure)
    """Windows with nothing known, and windows that go on from known frames, half and half."""

    def losses(net: nn.Module, windows: Windows, progress: float) -> Losses:
        known = torch.where(torch.rand(len(windows.latents), generator=generator) < 0.5, OVERLAP, 0)
        return {"loss": net.loss(windows.latents, windows.audio, windows.portrait, known)}

    return losses


def evaluate(
    net: ClipDenoiser, autoencoder: FrameAutoencoder, windows: Windows, num_steps: int = EVAL_STEPS
) -> dict[str, float]:
    """What is held out, with the right sound and with another clip's (`shuffled`).

    error: of the window expected from noise alone, beside that of the mean of all frames. A *sample* is not the
    expectation: one drawn from the true distribution would be off by twice what cannot be known. Hence jaw: correlation
    over time of the samples' jaws with the truth's, which is what lips are judged by.
    """
    noise = torch.randn(windows.latents.shape, generator=torch.Generator().manual_seed(0))
    nothing, start = torch.zeros(windows.latents.shape[:2], dtype=torch.bool), torch.zeros(len(noise))
    truth = autoencoder.code.latents_to_motion(windows.latents)[..., UNIT_INDEX["jawOpen"]].numpy()
    mean = windows.latents.mean((0, 1), keepdim=True)
    found = {"mean_frame": float((windows.latents - mean).square().mean())}
    for suffix, audio in (("", windows.audio), ("_shuffled", windows.audio.roll(1, 0))):
        expected = net(noise, start, nothing, audio, windows.portrait)
        made = net.sample(audio, windows.portrait, None, noise, num_steps)
        jaws = autoencoder.code.latents_to_motion(made)[..., UNIT_INDEX["jawOpen"]].numpy()
        found[f"error{suffix}"] = float((expected - windows.latents).square().mean())
        found[f"jaw{suffix}"] = float(np.nanmean([correlation(*pair) for pair in zip(jaws, truth, strict=True)]))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods.train_clip_diffusion", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=3000, batch_size=64, learning_rate=1e-3, warmup_steps=WARMUP_STEPS)
    parser.add_argument("--data", type=Path, required=True, help="folder made by eartalking.training.encode")
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint whose motion code reads the latents, for the evaluation"
    )
    parser.add_argument(
        "--audio", help="checkpoint whose audio encoder's trunk is used (default: the one beside --weights)"
    )
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS / "clip_diffusion.safetensors", help="where the result goes"
    )
    args = parser.parse_args(argv)
    if args.audio is None and not args.weights.with_name(AUDIO_TRUNK_NAME).is_file():
        parser.error(f"there is no audio trunk in {args.weights.parent}: name a checkpoint by --audio")
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    if args.audio is None:
        trunk = load_audio_trunk(args.weights)
    else:
        trunk = make_audio_trunk(load_model(args.audio).audio_encoder)
    clips, held_out = (
        ClipsWithAudio(LatentClips(args.data / f"{split}.safetensors"), trunk, options.out, split)
        for split in ("train", "val")
    )
    num_latents, channels = clips.clips.tensors["latents"].shape[1:]
    sizes = ClipSizes(num_latents, channels, trunk.dim)
    rng, generator = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    fixed, autoencoder = held_out.sample(EVAL_CLIPS, np.random.default_rng(0)), load_model(args.checkpoint).autoencoder
    net = train(
        ClipDenoiser(sizes),
        lambda: clips.sample(options.batch_size, rng),
        make_losses(generator),
        lambda module, _: evaluate(module, autoencoder, fixed),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    if args.audio is not None:
        save_audio_trunk(trunk, args.weights)
    save_weights(
        net, args.weights, {"config": dataclasses.asdict(sizes), **training_record(options.out, len(clips.clips))}
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
