"""Can an autoregression foretell these latents? `python -m eartalking.training.latent_motion --latents FILE
--checkpoint DIR --clips DIR --val DIR --out RUN`.

Encodes rendered clips of speech by one kind of frame latents (training.latents), trains a backbone of the checkpoint's
sizes on them from scratch, the mean alone and all controls released, and lets it run freely on held-out voices and
people: errors against copying and against the clip's own mean, and, with `--videos`, what it looks like, as pairs for
`eval.run`. The audio encoder is the checkpoint's and stays as it is. So kinds of latents can be compared at equal
budget.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.frame_latents import FrameLatents
from eartalking.autoencoder.reference import Reference
from eartalking.checkpoint import load_model
from eartalking.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import ControlBatch
from eartalking.errors import run_program
from eartalking.io.sound import SpokenSound
from eartalking.io.video_writer import VideoWriter
from eartalking.model import TalkingHeadModel
from eartalking.modules.pixels import to_float, to_uint8
from eartalking.motion.vector import clip_motion
from eartalking.training.data import LatentClips, Sequence, find_clips
from eartalking.training.encode import Rows, clip_labels, label_rows, pack, portrait_features
from eartalking.training.latents import known_reference, load_latents, start_of
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.rollout import audio_tokens, evaluation_batch
from eartalking.training.teacher_forcing import noised

HISTORY_LEVEL = 0.3  # of the streams that are measured: the same for all kinds
AT_ONCE = 10  # frames that are encoded or decoded together


class FrameCode(nn.Module):
    """A frame's numbers (..., D), a face code's coordinates first and learnt latents after them, as the backbone takes
    them: whitened, the rest of (N, C) zero."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, shape: tuple[int, int]) -> None:
        super().__init__()
        if size > shape[0] * shape[1]:
            raise ValueError(f"{size} numbers do not fit into {shape[0]} tokens of {shape[1]}")
        self.size, self.shape = size, shape
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))  # 0: never moves, and is not part of it

    def measure(self, numbers: Tensor) -> None:
        """Fit mean and spread to (M, D)."""
        spread = numbers.std(0)
        self.mean.copy_(numbers.mean(0))
        self.std.copy_(torch.where(spread > 1e-3, spread, 0.0))

    def to_tokens(self, numbers: Tensor) -> Tensor:
        """(..., D) -> (..., N, C)."""
        white = torch.where(self.std > 0, (numbers - self.mean) / self.std.clamp_min(1e-6), 0.0)
        return F.pad(white, (0, self.shape[0] * self.shape[1] - self.size)).unflatten(-1, self.shape)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """(..., N, C) -> (..., D)."""
        return self.whitened(tokens) * self.std + self.mean

    def whitened(self, tokens: Tensor) -> Tensor:
        """(..., N, C) -> (..., D), of unit variance; 0 where nothing moves."""
        return tokens.flatten(-2)[..., : self.size] * (self.std > 0)


@torch.inference_mode()
def encode_clip(autoencoder: FrameAutoencoder, latents: FrameLatents, path: Path, device: torch.device) -> Rows:
    """A clip of speech: its numbers (T, D) as `latents`, those of its portrait (1, D) as `reference_latents`, and what
    else training takes."""
    clip = load_file(path)
    motion, own = clip_motion(clip).to(device), clip_motion(clip, "reference_labels").to(device)
    code, has_code = autoencoder.code, latents.kind != "pixels"
    parts = [code.motion_to_coordinates(motion).cpu()] if has_code else []
    if latents.size:
        parts.append(_learnt(autoencoder, latents, clip, motion, own))
    still = code.motion_to_coordinates(own).cpu() if has_code else torch.zeros(1, 0)
    return label_rows(clip_labels(clip), clip["waveform"]) | {
        "latents": torch.cat(parts, dim=1),
        "reference_latents": F.pad(still, (0, latents.size)),
        "reference_features": portrait_features(autoencoder, clip["reference"], device),
    }


def _learnt(autoencoder: FrameAutoencoder, latents: FrameLatents, clip: Rows, motion: Tensor, own: Tensor) -> Tensor:
    """The learnt latents (T, Z) of a clip's frames."""
    reference, learnt = known_reference(autoencoder, clip["reference"], own), []
    for frames, moved in zip(clip["frames"].split(AT_ONCE), motion.split(AT_ONCE), strict=True):
        start = start_of(autoencoder, latents.kind, reference, moved)
        read = latents.encode(to_float(frames).to(motion.device), start)
        assert read is not None
        learnt.append(read.cpu())
    return torch.cat(learnt)


def encode_splits(
    autoencoder: FrameAutoencoder, latents: FrameLatents, folders: dict[str, Path], out: Path, device: torch.device
) -> FrameCode:
    """Write `out/SPLIT.safetensors` for `LatentClips`, whitened by the training split; a run that goes on has them."""
    config, kept = autoencoder.config, out / "code.safetensors"
    shape = (config.num_latent_tokens, config.latent_channels)
    if kept.exists():
        code = FrameCode(len(load_file(kept)["mean"]), shape)
        code.load_state_dict(load_file(kept))
        return code
    splits = {}
    for split, folder in folders.items():
        paths = tqdm(find_clips(folder), unit="clip", desc=f"encode {split}", mininterval=5)
        splits[split] = pack([encode_clip(autoencoder, latents, path, device) for path in paths])
    code = FrameCode(splits["train"]["latents"].shape[1], shape)
    code.measure(splits["train"]["latents"])
    out.mkdir(parents=True, exist_ok=True)
    for split, tensors in splits.items():
        tensors |= {name: code.to_tokens(tensors[name]) for name in ("latents", "reference_latents")}
        save_file({name: value.contiguous() for name, value in tensors.items()}, out / f"{split}.safetensors")
    (out / "val.txt").write_text("\n".join(map(str, find_clips(folders["val"]))), encoding="utf-8")
    save_file(code.state_dict(), kept)
    return code


class MotionTrainer(nn.Module):
    """A backbone over one kind of latents, all controls released."""

    def __init__(self, model: TalkingHeadModel, code: FrameCode) -> None:
        super().__init__()
        self.model, self.code = model, code

    def forward(self, sequence: Sequence, history: Tensor, level: Tensor) -> Tensor:
        """The mean of every frame (B, T, N, C), from history (B, T, N, C) of noise level (B, T)."""
        model = self.model
        with torch.no_grad():
            audio = audio_tokens(model, sequence)
        released = ControlBatch.released(*level.shape, device=level.device)
        portrait = sequence.reference_latents, sequence.reference_features
        cond, _ = model(audio, released, history, level, *portrait)
        return model.mean(cond, audio)

    @torch.no_grad()
    def run(self, sequence: Sequence) -> Tensor:
        """Free-running means (B, T, N, C), from the portraits on."""
        model = self.model
        audio = audio_tokens(model, sequence)
        state = model.prefill(sequence.reference_latents, sequence.reference_features)
        released = ControlBatch.released(len(audio), 1, device=audio.device)
        frames = []
        for index in range(audio.shape[1]):
            frames.append(model.step_mean(audio[:, index], released, state))
        return torch.stack(frames, dim=1)


def compute_losses(trainer: nn.Module, sequence: Sequence, generator: torch.Generator) -> Losses:
    """Squared error of the means on histories that cannot be trusted."""
    history, level = noised(_history(sequence), generator)
    code = getattr(trainer, "module", trainer).code
    error = code.whitened(trainer(sequence, history, level) - sequence.latents)
    return {"loss": error.square().mean() * code.size / (code.std > 0).sum()}


def _history(sequence: Sequence) -> Tensor:
    return torch.cat([sequence.previous[:, None], sequence.latents[:, :-1]], dim=1)


@torch.no_grad()
def evaluate(trainer: MotionTrainer, sequence: Sequence, coordinates: int) -> dict[str, float]:
    """Held-out clips: mean squared errors of what is foretold from the true past (`forced`), of copying (`copy`), of
    the clip's own mean (`mean`), of a stream of its own (`free`); R² against the clip's mean. For the learnt latents,
    which come after the first `coordinates`, too (`learnt_`)."""
    history = _history(sequence)
    level = torch.zeros(history.shape[:2], device=history.device)
    truth = trainer.code.whitened(sequence.latents)
    guesses = {
        "forced": trainer.code.whitened(trainer(sequence, history, level)),
        "copy": trainer.code.whitened(history),
        "mean": truth.mean(1, keepdim=True).expand_as(truth),
        "free": trainer.code.whitened(trainer.run(sequence)),
    }
    moves = trainer.code.std > 0
    learnt = moves & (torch.arange(len(moves), device=moves.device) >= coordinates)
    scores: dict[str, float] = {}
    for prefix, chosen in (("", moves), ("learnt_", learnt)):
        if not chosen.any():
            continue
        errors = {name: float((guess - truth)[..., chosen].square().mean()) for name, guess in guesses.items()}
        scores |= {prefix + name: error for name, error in errors.items()}
        scores |= {f"{prefix}r2_{name}": 1 - errors[name] / errors["mean"] for name in ("forced", "free")}
    return scores


@torch.inference_mode()
def write_videos(
    autoencoder: FrameAutoencoder, latents: FrameLatents, trainer: MotionTrainer, folder: Path, out: Path, length: int
) -> None:
    """Held-out clips as videos with sound: `out/truth`, `out/decoded`, from their own latents, and `out/foretold`, a
    stream of its own."""
    device = next(trainer.parameters()).device
    clips = LatentClips(folder / "val.safetensors")
    chosen = [clip for clip in range(len(clips)) if clips.num_frames(clip) >= length]
    paths = load_paths(folder)
    for clip in tqdm(chosen, unit="clip", desc="videos", mininterval=5):
        sequence = Sequence.collate([clips.window(clip, 0, length, (length + 2) * SAMPLES_PER_FRAME)]).to(device)
        source = load_file(paths[clip])
        own = clip_motion(source, "reference_labels").to(device)
        reference = known_reference(autoencoder, source["reference"], own)
        waveform = sequence.waveform[0, : length * SAMPLES_PER_FRAME].cpu().numpy()
        made = {"truth": source["frames"][:length].numpy()}
        for name, tokens in (("decoded", sequence.latents[0]), ("foretold", trainer.run(sequence)[0])):
            numbers = trainer.code.from_tokens(tokens)
            made[name] = np.concatenate(
                [_decode(autoencoder, latents, reference, some) for some in numbers.split(AT_ONCE)]
            )
        for name, frames in made.items():
            _write(out / name / f"{paths[clip].stem}.mp4", frames, waveform)


def load_paths(folder: Path) -> list[Path]:
    """The held-out clips' files, in the order of `val.safetensors`."""
    return [Path(line) for line in (folder / "val.txt").read_text(encoding="utf-8").splitlines()]


def _decode(autoencoder: FrameAutoencoder, latents: FrameLatents, reference: Reference, numbers: Tensor) -> np.ndarray:
    learnt = numbers[:, len(numbers[0]) - latents.size :] if latents.size else None
    coordinates = numbers[:, : len(numbers[0]) - latents.size]
    motion = autoencoder.code.coordinates_to_motion(coordinates) if latents.kind != "pixels" else coordinates
    start = start_of(autoencoder, latents.kind, reference, motion)
    return to_uint8(latents.decode(learnt, start).image).cpu().numpy()


def _write(path: Path, frames: np.ndarray, waveform: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = SpokenSound(SAMPLE_RATE)
    sound.add(waveform)
    with VideoWriter(path, frames.shape[1:3], audio=sound) as video:
        for frame in frames:
            video.write(frame)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.training.latent_motion", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=2000, batch_size=16, learning_rate=6e-4, warmup_steps=100)
    parser.add_argument("--latents", type=Path, required=True, help="RUN/latents.safetensors of training.latents")
    parser.add_argument("--checkpoint", required=True, help="checkpoint that the latents were trained with")
    parser.add_argument("--clips", type=Path, required=True, help="folder of `speech` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `speech` clips, validation split")
    parser.add_argument("--length", type=int, default=16, help="frames per training window")
    parser.add_argument("--eval-length", type=int, default=50, help="frames of the held-out streams")
    parser.add_argument("--videos", action="store_true", help="write the held-out clips to RUN/videos")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    device, shipped = accelerator.device, load_model(args.checkpoint, accelerator.device)
    latents = load_latents(args.latents, shipped.autoencoder).to(device)
    folders = {"train": args.clips, "val": args.val}
    code = encode_splits(shipped.autoencoder, latents, folders, options.out, device)
    config = dataclasses.replace(shipped.config, emission="regression", departure=None, history_level=HISTORY_LEVEL)
    model = TalkingHeadModel(config)
    model.audio_encoder.load_state_dict(shipped.audio_encoder.state_dict())
    for fixed in (model.audio_encoder, model.autoencoder):
        fixed.requires_grad_(False)
    trainer = MotionTrainer(model, code).to(device).train()
    clips = LatentClips(options.out / "train.safetensors")
    held_out = evaluation_batch(LatentClips(options.out / "val.safetensors"), args.eval_length).to(device)
    rng, generator = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    coordinates = code.size - latents.size
    average = train(
        trainer,
        lambda: clips.sample(options.batch_size, args.length, rng).to(device),
        lambda module, batch, progress: compute_losses(module, batch, generator),
        lambda module, step: evaluate(module, held_out, coordinates),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        if args.videos:
            write_videos(shipped.autoencoder, latents, average, options.out, options.out / "videos", args.eval_length)
        print(json.dumps(evaluate(average, held_out, coordinates)))
    return 0


if __name__ == "__main__":
    run_program(main)
