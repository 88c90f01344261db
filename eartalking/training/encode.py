"""Stage 7, training latents: `python -m eartalking.training.encode --checkpoint DIR --speech DIR --portraits DIR ...`.

For SynthTalk nothing has to be rendered here: an utterance is animated (motion.py), and the fixed code turns each
frame's exact labels into the latents that stand for them, thousands of frames a second. Each clip gets a portrait from
the `stills`. Clips of real video (`--clips`, from training.prepare) go through the frame encoder instead.

`--decoder`, `--encoder` and `--refiner` name the checkpoints of stages 2 to 5; they are put together here. Without them
the
autoregressive model can start at once, beside them: the latents stay the same, only the portraits' features are still
zero.

The latents' mean and spread over the training split (`--keep-statistics`: those that the checkpoint has already) are
written into a copy of the checkpoint (`out/checkpoint`); the
normalised latents, with voices and labels, into one file per split (`out/train.safetensors`, `out/val.safetensors`).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.checkpoint import load_model, save_model
from eartalking.controls import control_values
from eartalking.errors import run_program
from eartalking.modules.pixels import to_float
from eartalking.motion.vector import clip_motion, motion_vector
from eartalking.synth.clips import cut
from eartalking.synth.performance import make_performance
from eartalking.synth.speech import Utterance, augment_waveform, corpus_files
from eartalking.training.data import find_clips

READING_NOISE = 0.2  # of the portraits' latents, which a stream reads from pixels
CLIP_SECONDS = 4.0
JUMP_SHARE = 0.4  # clips whose controls jump, so that a step takes effect in the very next frame
AUGMENTED_SHARE = 0.75

Rows = dict[str, Tensor]


@torch.inference_mode()
def portrait_rows(autoencoder: FrameAutoencoder, folder: Path, device: torch.device, with_features: bool) -> list[Rows]:
    """Latents and coarsest features of every portrait of a folder of clips."""
    rows = []
    for path in tqdm(find_clips(folder), desc="portraits", unit="clip", mininterval=5):
        clip = load_file(path)
        for prefix in ("", "twin_"):
            if prefix + "reference" in clip:
                motion = clip_motion(clip, prefix + "reference_labels")
                features = portrait_features(autoencoder, clip[prefix + "reference"], device)
                latents = autoencoder.code.motion_to_latents(motion.to(device)).cpu()
                rows.append({"reference_latents": latents, "reference_features": features * with_features})
    return rows


def portrait_features(autoencoder: FrameAutoencoder, image: Tensor, device: torch.device) -> Tensor:
    """(1, N, D_r) of a portrait (H, W, 3) uint8."""
    return autoencoder.reference_encoder(to_float(image)[None].to(device))[-1].flatten(2).transpose(1, 2).cpu()


@torch.inference_mode()
def speech_rows(
    autoencoder: FrameAutoencoder,
    corpus: Path,
    portraits: list[Rows],
    rng: np.random.Generator,
    jump_share: float = JUMP_SHARE,
) -> Iterator[Rows]:
    """Animated utterances, in clips of a few seconds; in `jump_share` of them controls jump."""
    for path in tqdm(corpus_files(corpus), desc="speech", unit="utterance", mininterval=5):
        utterance = Utterance.load(path)
        for start in np.arange(0.0, max(utterance.seconds - 1.0, 0.1), CLIP_SECONDS):
            span = cut(utterance, float(start), float(min(start + CLIP_SECONDS, utterance.seconds)))
            motion = make_performance(span, rng, control_jumps=bool(rng.random() < jump_share))
            labels = {
                item.name: torch.from_numpy(np.asarray(getattr(motion, item.name)))
                for item in dataclasses.fields(motion)
            }
            waveform = augment_waveform(span.waveform, rng) if rng.random() < AUGMENTED_SHARE else span.waveform
            rows = label_rows(labels, torch.from_numpy(np.ascontiguousarray(waveform, np.float32)))
            portrait = portraits[int(rng.integers(len(portraits)))]
            noise = READING_NOISE * torch.from_numpy(
                rng.standard_normal(portrait["reference_latents"].shape, np.float32)
            )
            portrait = portrait | {"reference_latents": portrait["reference_latents"] + noise}
            yield (
                rows
                | portrait
                | {
                    "latents": autoencoder.code.motion_to_latents(
                        rows["labels"].to(autoencoder.code.basis.device)
                    ).cpu()
                }
            )


@torch.inference_mode()
def clip_rows(
    autoencoder: FrameAutoencoder, folder: Path, device: torch.device, batch_size: int = 16
) -> Iterator[Rows]:
    """Clips with frames, read by the frame encoder."""
    for path in tqdm(find_clips(folder), desc="clips", unit="clip", mininterval=5):
        clip = load_file(path)
        reference = autoencoder.reference(to_float(clip["reference"])[None].to(device))
        latents = [
            autoencoder.encode(to_float(chunk.to(device)), reference.expand(len(chunk))).cpu()
            for chunk in clip["frames"].split(batch_size)
        ]
        rows = label_rows(clip_labels(clip), clip["waveform"]) | {"latents": torch.cat(latents)}
        rows["reference_latents"] = reference.latents.cpu()
        yield rows | {"reference_features": portrait_features(autoencoder, clip["reference"], device)}


def clip_labels(clip: Rows) -> Rows:
    """The labels of a clip's frames, by their names."""
    return {name.removeprefix("labels."): value for name, value in clip.items() if name.startswith("labels.")}


def label_rows(labels: dict[str, Tensor], waveform: Tensor) -> Rows:
    return {
        "waveform": (waveform.clamp(-1, 1) * 32767).to(torch.int16),
        "values": control_values(labels),
        "emotion": labels["emotion"].to(torch.int32),
        "intensity": labels["emotion_intensity"].float(),
        "labels": motion_vector(labels),
    }


def pack(clips: list[Rows]) -> Rows:
    """Clips as concatenated tensors; offsets say where each clip starts."""
    packed = {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
    for name, key in (("frame_offsets", "labels"), ("sample_offsets", "waveform")):
        packed[name] = torch.tensor([0, *np.cumsum([len(clip[key]) for clip in clips])])
    return packed


def normalise(tensors: Rows, mean: Tensor, std: Tensor) -> Rows:
    """Latents whitened per token and channel; what is large as float16."""
    whitened = {name: (tensors[name] - mean) / std for name in ("latents", "reference_latents")}
    tensors = tensors | whitened
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.encode", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint with the motion code (eartalking.training.code)"
    )
    parser.add_argument("--decoder", help="checkpoint whose decoder, reference encoder, surface and shading to take")
    parser.add_argument("--encoder", help="checkpoint whose frame encoder to take")
    parser.add_argument("--refiner", help="checkpoint whose part refiner to take")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus, training split")
    parser.add_argument("--val-speech", type=Path, required=True, help="speech corpus, validation split")
    parser.add_argument(
        "--portraits", type=Path, required=True, help="folder of clips whose portraits to use, training split"
    )
    parser.add_argument("--val-portraits", type=Path, required=True, help="the same, validation split")
    parser.add_argument(
        "--clips", type=Path, help="folder of clips of real video to add to the training split; needs --encoder"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep-statistics",
        action="store_true",
        help="whiten by the checkpoint's own mean and spread, so that what is trained on these latents decodes by it",
    )
    parser.add_argument(
        "--jump-share",
        type=float,
        default=JUMP_SHARE,
        help="share of the clips whose controls jump; 0 for what is not told of controls, and shall not learn to jump",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.clips and not args.encoder:
        parser.error("--clips are read by the frame encoder: give --encoder, too")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(args.checkpoint, device)
    autoencoder = model.autoencoder
    sources = (
        (args.decoder, ("decoder", "reference_encoder", "surface", "shading")),
        (args.encoder, ("encoder",)),
        (args.refiner, ("refiner",)),
    )
    for source, parts in sources:
        if source:
            other = load_model(source, device).autoencoder
            if not torch.equal(other.code.scale, autoencoder.code.scale):
                parser.error(f"{source} was trained with another motion code than {args.checkpoint}")
            for part in parts:
                getattr(autoencoder, part).load_state_dict(getattr(other, part).state_dict())
    own = autoencoder.code.latent_mean.cpu().clone(), autoencoder.code.latent_std.cpu().clone()
    autoencoder.code.latent_mean.zero_()
    autoencoder.code.latent_std.fill_(1)
    splits: dict[str, Rows] = {}
    for index, (name, speech, folder) in enumerate(
        (("train", args.speech, args.portraits), ("val", args.val_speech, args.val_portraits))
    ):
        portraits = portrait_rows(autoencoder, folder, device, bool(args.decoder))
        clips = list(
            speech_rows(autoencoder, speech, portraits, np.random.default_rng([args.seed, index]), args.jump_share)
        )
        if name == "train" and args.clips:
            clips += clip_rows(autoencoder, args.clips, device)
        splits[name] = pack(clips)
    latents = splits["train"]["latents"]
    mean, std = own if args.keep_statistics else (latents.mean(0), latents.std(0))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in splits.items():
        tensors = normalise(tensors, mean, std)
        save_file({key: value.contiguous() for key, value in tensors.items()}, args.out / f"{name}.safetensors")
        print(f"{name}: {len(tensors['frame_offsets']) - 1} clips, {len(tensors['latents'])} frames")
    autoencoder.code.latent_mean.copy_(mean)
    autoencoder.code.latent_std.copy_(std)
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    run_program(main)
