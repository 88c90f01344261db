"""From voice to pixels: `python -m eartalking.training.joint --checkpoint DIR --data DIR --val DIR --out RUN`.

The stages before learnt motion from motion. Here audio encoder, backbone and emission learn, at small rates, from what
people see: rendered clips of speech, short windows of them through the decoder, pixel and feature losses on the mouth.
The history is the model's own (free-running, no gradient, made anew every few hundred steps), so what is learnt is
learnt on the pasts that a stream has. Eyes, brows and pose are the true ones: a voice does not say where a head is, and
a mouth beside its place teaches nothing.

`--pixels 0` is the same stage without pictures, on the mouths' motion alone: what the pixels themselves are worth is
the difference. The autoencoder and the departure head stay as they are.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from eartalking.autoencoder.part_refiner import corners, cut
from eartalking.autoencoder.reference import Reference
from eartalking.checkpoint import load_model, save_model
from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.modules.pixels import to_float
from eartalking.motion.steering import articulate
from eartalking.motion.vector import clip_motion
from eartalking.training.data import find_clips
from eartalking.training.encode import portrait_features
from eartalking.training.evaluation import psnr, to_strip
from eartalking.training.latents import known_reference
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.losses import PerceptualFeatures
from eartalking.training.motion_spans import encode_audio, stream_means
from eartalking.training.rollout import JAW, correlation
from eartalking.training.voice import mouth_columns

MOUTH = 0.16  # half the side of the square around a mouth that is looked at, of the frame
FRAMES = 4  # of a window that is decoded
REFRESH_EVERY = 150  # steps after which the histories are made anew
MOTION_WEIGHT, PIXEL_WEIGHT, PERCEPTUAL_WEIGHT = 1.0, 2.0, 0.5


@dataclass(frozen=True)
class SpokenClips:
    """M rendered clips of T frames: pictures (M, T, S, S, 3) and portraits (M, S, S, 3) uint8, motion vectors (M, T, L)
    and the portraits' (M, 1, L), places of the mouths in fractions of the frame (M, T, 2), waveforms (M, samples) with
    the look-ahead, the portraits' features (M, N, D_r)."""

    frames: Tensor
    portraits: Tensor
    motion: Tensor
    own: Tensor
    mouths: Tensor
    waveforms: Tensor
    looks: Tensor

    @classmethod
    def load(cls, model: TalkingHeadModel, folder: Path, length: int) -> SpokenClips:
        """The first `length` frames of every `speech` clip (synth.clips) that is so long.

        Raises FileNotFoundError or ValueError: there is none.
        """
        rows: list[list[Tensor]] = []
        samples = (length + model.config.audio.lookahead) * SAMPLES_PER_FRAME
        for path in tqdm(find_clips(folder), desc="clips", unit="clip", mininterval=5):
            clip = load_file(path)
            if "waveform" not in clip or len(clip["frames"]) < length:
                continue
            waveform = torch.nn.functional.pad(clip["waveform"].float(), (0, samples))[:samples]
            looks = portrait_features(model.autoencoder, clip["reference"], torch.device("cpu"))[0]
            motion, own = clip_motion(clip)[:length], clip_motion(clip, "reference_labels")
            mouths = clip["landmarks"][:length, 2].float()
            rows.append([clip["frames"][:length], clip["reference"], motion, own, mouths, waveform, looks])
        if not rows:
            raise ValueError(f"{folder}: no clip of speech has {length} frames")
        return cls(*(torch.stack(column) for column in zip(*rows, strict=True)))


class JointTrainer(nn.Module):
    """The model, from voices to the mouths of short windows."""

    def __init__(self, model: TalkingHeadModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mouth", mouth_columns(len(model.autoencoder.code.mean)), persistent=False)

    def means(self, clips: SpokenClips, chosen: Tensor, histories: Tensor) -> Tensor:
        """Mean latents (B, T, N, C) of whole clips, on histories (B, T, N, C) that a stream would have."""
        model = self.model
        audio = model.audio_encoder(clips.waveforms[chosen])[:, : histories.shape[1]]
        level = histories.new_full(histories.shape[:2], model.config.history_level)
        released = ControlBatch.released(*level.shape)
        own = model.autoencoder.code.motion_to_latents(clips.own[chosen, 0])
        history = (1 - model.config.history_level) * histories
        cond, _ = model(audio, released, history, level, own, clips.looks[chosen])
        return model.mean(cond, audio)

    def spoken(self, latents: Tensor, motion: Tensor) -> Tensor:
        """True motion vectors (T, L) with the mouths of mean latents (T, N, C), as those are shown."""
        model = self.model
        code = model.autoencoder.code
        shown = articulate(latents, ControlBatch.released(len(latents)), code, model.articulation)
        return torch.where(self.mouth, code.latents_to_motion(shown), motion)

    def draw(self, motion: Tensor, reference: Reference) -> Tensor:
        """Pictures (K, 3, S, S) of motion vectors (K, L) on one portrait."""
        autoencoder = self.model.autoencoder
        return autoencoder.decode(autoencoder.code.motion_to_latents(motion), reference.expand(len(motion))).image


@torch.no_grad()
def own_means(model: TalkingHeadModel, clips: SpokenClips) -> Tensor:
    """Mean latents (M, T, N, C) of free-running streams of all clips."""
    audio = encode_audio(model, list(clips.waveforms))[:, : clips.motion.shape[1]]
    own = model.autoencoder.code.motion_to_latents(clips.own[:, 0])
    return torch.stack([mean for mean, _ in stream_means(model, audio, own, clips.looks)], dim=1).clone()


def own_histories(model: TalkingHeadModel, clips: SpokenClips) -> Tensor:
    """What these streams remember (M, T, N, C) before each frame."""
    own = model.autoencoder.code.motion_to_latents(clips.own)
    return torch.cat([own, own_means(model, clips)[:, :-1]], dim=1)


@torch.no_grad()
def known_references(model: TalkingHeadModel, clips: SpokenClips) -> list[Reference]:
    """The clips' portraits, as a stream has them, their motion known."""
    pairs = zip(clips.portraits, clips.own, strict=True)
    bar = tqdm(pairs, total=len(clips.own), desc="portraits", unit="portrait", mininterval=5)
    references = [known_reference(model.autoencoder, portrait, own) for portrait, own in bar]
    # PyTorch 2.13's backward of a channels-last group norm crashes the process where its input needs no gradient.
    return [one._replace(pyramid=[level.clone().requires_grad_() for level in one.pyramid]) for one in references]


def around_mouths(images: Tensor, mouths: Tensor) -> Tensor:
    """Pictures (K, 3, S, S), mouths (K, 2) in fractions of the frame -> the squares around them, 2 MOUTH a side."""
    size = images.shape[-1]
    box = (2 * round(MOUTH * size),) * 2
    return cut(images, corners(mouths, box, size), box)


class Windows:
    """Draws windows of clips, and keeps the histories young."""

    def __init__(
        self, model: TalkingHeadModel, clips: SpokenClips, references: list[Reference], batch_size: int, seed: int
    ) -> None:
        """Without `references` nothing is drawn."""
        self.clips, self.references, self.batch_size = clips, references, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.histories = own_histories(model, clips)
        self.steps = 0

    def losses(self, trainer: JointTrainer, perceptual: PerceptualFeatures | None) -> Losses:
        """The mouths' errors: in motion, and, with `perceptual`, in pictures."""
        if self.steps and self.steps % REFRESH_EVERY == 0:
            self.histories = own_histories(trainer.model, self.clips)
        self.steps += 1
        clips, code = self.clips, trainer.model.autoencoder.code
        chosen = torch.randint(len(clips.frames), (self.batch_size,), generator=self.generator)
        means = trainer.means(clips, chosen, self.histories[chosen])
        error = code.latents_to_coordinates(means) - code.motion_to_coordinates(clips.motion[chosen])
        losses = {"motion": error[..., trainer.mouth].square().mean()}
        total = MOTION_WEIGHT * losses["motion"]
        if perceptual is not None:
            made, true = [], []
            starts = torch.randint(clips.motion.shape[1] - FRAMES + 1, (self.batch_size,), generator=self.generator)
            for row, (clip, start) in enumerate(zip(chosen.tolist(), starts.tolist(), strict=True)):
                window = slice(start, start + FRAMES)
                motion = trainer.spoken(means[row, window], clips.motion[clip, window])
                image = trainer.draw(motion, self.references[clip])
                made.append(around_mouths(image, clips.mouths[clip, window]))
                true.append(around_mouths(to_float(clips.frames[clip, window]), clips.mouths[clip, window]))
            ours, target = torch.cat(made).clamp(-1, 1), torch.cat(true)
            losses |= {"pixels": (ours - target).abs().mean(), "perceptual": perceptual.distance(ours, target)}
            total = total + PIXEL_WEIGHT * losses["pixels"] + PERCEPTUAL_WEIGHT * losses["perceptual"]
        return losses | {"loss": total}


@torch.no_grad()
def evaluate(
    trainer: JointTrainer,
    clips: SpokenClips,
    references: list[Reference],
    perceptual: PerceptualFeatures,
    out: Path,
    step: int,
) -> dict[str, float]:
    """Held-out people and voices, free-running: the mouths' PSNR in dB and distance of features, with the true motion
    too; the jaw's correlation and spread, what of the mouths' motion is explained; a strip of portrait, truth, true
    motion, and what is said."""
    model, code = trainer.model, trainer.model.autoencoder.code
    means = own_means(model, clips)
    spoken = torch.stack([trainer.spoken(mean, true) for mean, true in zip(means, clips.motion, strict=True)])
    true = code.motion_to_coordinates(clips.motion)[..., trainer.mouth]
    rest = true - code.motion_to_coordinates(spoken)[..., trainer.mouth]
    scores = {
        "jaw": correlation(spoken[..., JAW], clips.motion[..., JAW]),
        "jaw_spread": float(spoken[..., JAW].std(1).mean() / clips.motion[..., JAW].std(1).mean()),
        "mouth_explained": float(1 - rest.square().mean() / (true - true.mean((0, 1))).square().mean()),
    }
    sums: dict[str, list[float]] = {}
    strip: list[list[Tensor]] = []
    for clip in range(len(clips.frames)):
        reference = references[clip]
        some = slice(5, None, 5)
        target, places = to_float(clips.frames[clip, some]), clips.mouths[clip, some]
        pictures = {
            "known_": trainer.draw(clips.motion[clip, some], reference),
            "": trainer.draw(spoken[clip, some], reference),
        }
        cut = around_mouths(target, places)
        for name, image in pictures.items():
            mouth = around_mouths(image, places)
            sums.setdefault(f"{name}mouth_psnr", []).append(psnr(mouth, cut))
            sums.setdefault(f"{name}perceptual", []).append(float(perceptual.distance(mouth.clamp(-1, 1), cut)))
        if len(strip) < 8:
            still = around_mouths(to_float(clips.portraits[clip])[None], places[:1])
            strip.append([still, cut[-1:], *(around_mouths(image, places)[-1:] for image in pictures.values())])
    (out / "samples").mkdir(parents=True, exist_ok=True)
    columns = [torch.cat(column) for column in zip(*strip, strict=True)]
    to_strip(columns).save(out / "samples" / f"{step:06d}.jpg")
    return scores | {name: float(np.mean(values)) for name, values in sums.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.joint", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=600, batch_size=3, learning_rate=3e-5, warmup_steps=30, precision="no")
    parser.add_argument("--checkpoint", required=True, help="a whole model")
    parser.add_argument("--data", type=Path, required=True, help="folder of `speech` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `speech` clips, validation split")
    parser.add_argument("--length", type=int, default=50, help="frames of a clip")
    parser.add_argument("--pixels", type=int, choices=(0, 1), default=1, help="0: motion alone, to compare")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    model = load_model(args.checkpoint).requires_grad_(True)
    model.autoencoder.requires_grad_(False)
    if model.departure_head is not None:
        model.departure_head.requires_grad_(False)
    try:
        clips, held_out = (SpokenClips.load(model, folder, args.length) for folder in (args.data, args.val))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    perceptual = PerceptualFeatures()
    drawn = known_references(model, clips) if args.pixels else []
    held_out_drawn = known_references(model, held_out)
    trainer = JointTrainer(model)
    windows = Windows(model, clips, drawn, options.batch_size, options.seed)
    average = train(
        trainer,
        lambda: None,
        lambda module, batch, progress: windows.losses(module, perceptual if args.pixels else None),
        lambda module, step: evaluate(module, held_out, held_out_drawn, perceptual, options.out, step),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    save_model(average.model, options.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
