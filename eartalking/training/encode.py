"""Stage 3, clips to latents: `python -m eartalking.training.encode --checkpoint DIR --train DIR --val DIR --out DIR`.

Encodes every speech clip once with the trained autoencoder, measures the latents' mean and spread on the training split,
writes them into a copy of the checkpoint (`out/checkpoint`), and packs the normalised latents with voices and labels into
one file per split (`out/train.safetensors`, `out/val.safetensors`) that fits in memory.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from eartalking.autoencoder import FrameAutoencoder
from eartalking.checkpoint import load_model, save_model
from eartalking.controls import SCALAR_TRACKS
from eartalking.data import find_clips, label_vector, to_float

# A dimension that hardly varies carries noise only: whitening must not blow it up.
STD_FLOOR_SHARE = 0.3


@torch.inference_mode()
def encode_clips(autoencoder: FrameAutoencoder, paths: list[Path], device: torch.device, batch_size: int = 64) -> dict[str, Tensor]:
    """All clips as concatenated tensors, latents not yet normalised; offsets say where each clip starts."""
    parts: dict[str, list[Tensor]] = {}
    frame_offsets, sample_offsets = [0], [0]
    for path in tqdm(paths, unit="clip", mininterval=5):
        clip = load_file(path)
        labels = {name[len("labels."):]: value for name, value in clip.items() if name.startswith("labels.")}
        reference = to_float(clip["reference"])[None].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            latents = [
                autoencoder.encode(to_float(chunk.to(device)), reference.expand(len(chunk), -1, -1, -1))
                for chunk in clip["frames"].split(batch_size)
            ]
            features = autoencoder.reference(reference).pyramid[-1].flatten(2).transpose(1, 2)
            reference_latents = autoencoder.encode(reference, reference)
        rows = {
            "latents": torch.cat(latents).float().cpu(),
            "reference_latents": reference_latents.float().cpu(),
            "reference_features": features.float().cpu(),
            "waveform": (clip["waveform"].clamp(-1, 1) * 32767).to(torch.int16),
            "values": control_values(labels),
            "emotion": labels["emotion"].to(torch.int32),
            "intensity": labels["emotion_intensity"].float(),
            "speaking": labels["speaking"],
            "labels": label_vector(labels),
        }
        for name, value in rows.items():
            parts.setdefault(name, []).append(value)
        frame_offsets.append(frame_offsets[-1] + len(clip["frames"]))
        sample_offsets.append(sample_offsets[-1] + len(clip["waveform"]))
    out = {name: torch.cat(values) for name, values in parts.items()}
    return out | {"frame_offsets": torch.tensor(frame_offsets), "sample_offsets": torch.tensor(sample_offsets)}


def control_values(labels: dict[str, Tensor]) -> Tensor:
    """(T, 9): the scalar control tracks of a clip in the order of `SCALAR_TRACKS`."""
    pose, gaze = labels["head_pose"].float(), labels["gaze"].float()
    columns = {"yaw": pose[:, 0], "pitch": pose[:, 1], "roll": pose[:, 2], "gaze_yaw": gaze[:, 0], "gaze_pitch": gaze[:, 1]}
    columns |= {name: labels[name].float() for name in ("blink", "brow", "smile", "mouth_scale")}
    return torch.stack([columns[track] for track in SCALAR_TRACKS], dim=1)


def normalise(tensors: dict[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Latents whitened per token and channel, stored as float16."""
    changed = {name: ((tensors[name] - mean) / std).half() for name in ("latents", "reference_latents")}
    smaller = {name: tensors[name].half() for name in ("reference_features", "labels", "values", "intensity")}
    return tensors | changed | smaller


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.encode", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="checkpoint with a trained autoencoder")
    parser.add_argument("--train", type=Path, required=True, help="folder of `speech` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `speech` clips, validation split")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(args.checkpoint, device)
    autoencoder = model.autoencoder.to(memory_format=torch.channels_last)
    autoencoder.latent_mean.zero_()
    autoencoder.latent_std.fill_(1)
    splits = {name: encode_clips(autoencoder, find_clips(folder), device) for name, folder in (("train", args.train), ("val", args.val))}
    latents = splits["train"]["latents"]
    mean, std = latents.mean(0), latents.std(0)
    std = std.clamp_min(STD_FLOOR_SHARE * float(np.median(std.numpy())))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in splits.items():
        tensors = normalise(tensors, mean, std)
        save_file({key: value.contiguous() for key, value in tensors.items()}, args.out / f"{name}.safetensors")
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std)
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
