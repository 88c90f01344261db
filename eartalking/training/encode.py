"""Stage 3, training latents: `python -m eartalking.training.encode --checkpoint DIR --guide FILE --speech DIR --portraits DIR ...`.

For SynthTalk nothing has to be rendered here: an utterance is animated (motion.py), and the guide of the autoencoder stage
turns each frame's exact labels into the latents that stand for them, thousands of frames a second. Each clip gets a portrait
from the `stills`. Clips of real video (`--clips`, from training.prepare) go through the frame encoder instead.

The latents' mean and spread over the training split are written into a copy of the checkpoint (`out/checkpoint`); the
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

from eartalking.autoencoder import FrameAutoencoder
from eartalking.checkpoint import load_model, save_model
from eartalking.controls import SCALAR_TRACKS
from eartalking.data import find_clips, motion_vector, to_float
from eartalking.synth.clips import cut
from eartalking.synth.motion import make_motion
from eartalking.synth.speech import Utterance, augment_waveform, corpus_files
from eartalking.training.autoencoder import Guide

# A dimension that hardly varies carries noise only: whitening must not blow it up.
STD_FLOOR_SHARE = 0.3
CLIP_SECONDS = 4.0
JUMP_SHARE = 0.4  # clips whose controls jump, so that a step takes effect in the very next frame
AUGMENTED_SHARE = 0.75

Rows = dict[str, Tensor]


@torch.inference_mode()
def portrait_rows(autoencoder: FrameAutoencoder, folder: Path, device: torch.device) -> list[Rows]:
    """Latents and coarsest features of every portrait of a folder of clips."""
    rows = []
    for path in tqdm(find_clips(folder), desc="portraits", unit="clip", mininterval=5):
        clip = load_file(path)
        images = [clip[name] for name in ("reference", "twin_reference") if name in clip]
        rows += [_portrait(autoencoder, image, device) for image in images]
    return rows


def _portrait(autoencoder: FrameAutoencoder, image: Tensor, device: torch.device) -> Rows:
    pixels = to_float(image)[None].to(device)
    features = autoencoder.reference(pixels).pyramid[-1].flatten(2).transpose(1, 2)
    return {"reference_latents": autoencoder.encode(pixels, pixels).cpu(), "reference_features": features.cpu()}


@torch.inference_mode()
def speech_rows(guide: Guide, corpus: Path, portraits: list[Rows], rng: np.random.Generator) -> Iterator[Rows]:
    """Animated utterances, in clips of a few seconds."""
    for path in tqdm(corpus_files(corpus), desc="speech", unit="utterance", mininterval=5):
        utterance = Utterance.load(path)
        for start in np.arange(0.0, max(utterance.seconds - 1.0, 0.1), CLIP_SECONDS):
            span = cut(utterance, float(start), float(min(start + CLIP_SECONDS, utterance.seconds)))
            motion = make_motion(span, rng, control_jumps=bool(rng.random() < JUMP_SHARE))
            labels = {item.name: torch.from_numpy(np.asarray(getattr(motion, item.name))) for item in dataclasses.fields(motion)}
            waveform = augment_waveform(span.waveform, rng) if rng.random() < AUGMENTED_SHARE else span.waveform
            rows = _label_rows(labels, torch.from_numpy(np.ascontiguousarray(waveform, np.float32)))
            portrait = portraits[int(rng.integers(len(portraits)))]
            yield rows | portrait | {"latents": guide(rows["labels"])}


@torch.inference_mode()
def clip_rows(autoencoder: FrameAutoencoder, folder: Path, device: torch.device, batch_size: int = 64) -> Iterator[Rows]:
    """Clips with frames, read by the frame encoder."""
    for path in tqdm(find_clips(folder), desc="clips", unit="clip", mininterval=5):
        clip = load_file(path)
        labels = {name[len("labels."):]: value for name, value in clip.items() if name.startswith("labels.")}
        portrait = to_float(clip["reference"])[None].to(device)
        latents = [
            autoencoder.encode(to_float(chunk.to(device)), portrait.expand(len(chunk), -1, -1, -1)).cpu()
            for chunk in clip["frames"].split(batch_size)
        ]
        rows = _label_rows(labels, clip["waveform"]) | _portrait(autoencoder, clip["reference"], device)
        yield rows | {"latents": torch.cat(latents)}


def _label_rows(labels: dict[str, Tensor], waveform: Tensor) -> Rows:
    return {
        "waveform": (waveform.clamp(-1, 1) * 32767).to(torch.int16),
        "values": control_values(labels),
        "emotion": labels["emotion"].to(torch.int32),
        "intensity": labels["emotion_intensity"].float(),
        "labels": motion_vector(labels),
    }


def control_values(labels: dict[str, Tensor]) -> Tensor:
    """(T, 9): the scalar control tracks of a clip in the order of `SCALAR_TRACKS`."""
    pose, gaze = labels["head_pose"].float(), labels["gaze"].float()
    columns = {"yaw": pose[:, 0], "pitch": pose[:, 1], "roll": pose[:, 2], "gaze_yaw": gaze[:, 0], "gaze_pitch": gaze[:, 1]}
    columns |= {name: labels[name].float() for name in ("blink", "brow", "smile", "mouth_scale")}
    return torch.stack([columns[track] for track in SCALAR_TRACKS], dim=1)


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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.encode", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="checkpoint with a trained autoencoder")
    parser.add_argument("--guide", type=Path, required=True, help="guide.safetensors of the same run")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus, training split")
    parser.add_argument("--val-speech", type=Path, required=True, help="speech corpus, validation split")
    parser.add_argument("--portraits", type=Path, required=True, help="folder of clips whose portraits to use, training split")
    parser.add_argument("--val-portraits", type=Path, required=True, help="the same, validation split")
    parser.add_argument("--clips", type=Path, help="folder of clips of real video to add to the training split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(args.checkpoint, device)
    autoencoder = model.autoencoder
    autoencoder.latent_mean.zero_()
    autoencoder.latent_std.fill_(1)
    guide = Guide(autoencoder.config)
    guide.load_state_dict(load_file(args.guide))
    splits: dict[str, Rows] = {}
    for index, (name, speech, folder) in enumerate(
        (("train", args.speech, args.portraits), ("val", args.val_speech, args.val_portraits))
    ):
        portraits = portrait_rows(autoencoder, folder, device)
        clips = list(speech_rows(guide, speech, portraits, np.random.default_rng([args.seed, index])))
        if name == "train" and args.clips:
            clips += clip_rows(autoencoder, args.clips, device)
        splits[name] = pack(clips)
    latents = splits["train"]["latents"]
    mean, std = latents.mean(0), latents.std(0)
    std = std.clamp_min(STD_FLOOR_SHARE * float(std.median()))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in splits.items():
        tensors = normalise(tensors, mean, std)
        save_file({key: value.contiguous() for key, value in tensors.items()}, args.out / f"{name}.safetensors")
        print(f"{name}: {len(tensors['frame_offsets']) - 1} clips, {len(tensors['latents'])} frames")
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std)
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
