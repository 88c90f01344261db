"""Clips on disk -> training batches.

`StillPairs` serves the two halves of the autoencoder: a frame, its portrait, and what both do. `LatentClips` serves the
autoregressive model: the latents of whole clips, encoded once by `python -m eartalking.training.encode`, with waveforms
and labels, held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eartalking.modules.pixels import to_float
from eartalking.modules.warp import identity_grid
from eartalking.motion.vector import clip_motion


def find_clips(folder: Path) -> list[Path]:
    """All clips of a folder, sorted by name.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no clips (*.safetensors) here; render some with eartalking.synth.clips")
    return paths


class StillPairs(Dataset):
    """One item per still of a folder of `stills` clips: a state of one of the clip's two people, and that person's
    portrait.

    dict of `frame`, `portrait` (H, W, 3) uint8, `correspondence` (M, M, 2), `visibility` (M, M) in 0..1, `motion` and
    `portrait_motion` (NUM_MOTION_LABELS,), `landmarks` and `portrait_landmarks` (3, 2). The files stay mapped into
    memory; only what an item needs is read.
    """

    def __init__(self, folder: Path) -> None:
        self.clips = [load_file(path) for path in find_clips(folder)]
        self.frames_per_clip = len(self.clips[0]["frames"])
        self.motion = [clip_motion(clip) for clip in self.clips]
        self.portrait_motion = {
            prefix: [clip_motion(clip, prefix + "reference_labels")[0] for clip in self.clips]
            for prefix in ("", "twin_")
        }

    def __len__(self) -> int:
        return 2 * len(self.clips) * self.frames_per_clip

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, row = divmod(index % (len(self) // 2), self.frames_per_clip)
        prefix = "" if index < len(self) // 2 else "twin_"
        clip = self.clips[number]
        return {
            "frame": clip[prefix + "frames"][row],
            "portrait": clip[prefix + "reference"],
            "correspondence": clip[prefix + "correspondence"][row].float(),
            "visibility": clip[prefix + "visibility"][row].float() / 255,
            "motion": self.motion[number][row],
            "portrait_motion": self.portrait_motion[prefix][number],
            "landmarks": clip[prefix + "landmarks"][row],
            "portrait_landmarks": clip[prefix + "reference_landmarks"][0],
        }


@dataclass
class Sequence:
    """A window of T frames of one clip, or a batch of them (leading B).

    latents (T, N, C); previous (N, C), the latents before the window (the portrait's at a clip's start);
    reference_latents (N, C); reference_features (N, D_r); waveform (samples,), the clip's from its start, padded;
    start (), the window's first frame; values (T, 9), the scalar controls; emotion (T,) index; intensity (T,);
    labels (T, NUM_MOTION_LABELS).
    """

    latents: Tensor
    previous: Tensor
    reference_latents: Tensor
    reference_features: Tensor
    waveform: Tensor
    start: Tensor
    values: Tensor
    emotion: Tensor
    intensity: Tensor
    labels: Tensor

    @staticmethod
    def collate(items: list[Sequence]) -> Sequence:
        return Sequence(**{name: torch.stack([getattr(item, name) for item in items]) for name in vars(items[0])})

    def to(self, device: torch.device) -> Sequence:
        return Sequence(**{name: value.to(device) for name, value in vars(self).items()})


class LatentClips:
    """All encoded clips of a split, in memory; `sample` draws a training batch."""

    def __init__(self, path: Path) -> None:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no encoded clips here; make them with eartalking.training.encode")
        self.tensors = load_file(path)
        self.frame_offsets = self.tensors["frame_offsets"].tolist()
        self.sample_offsets = self.tensors["sample_offsets"].tolist()

    def __len__(self) -> int:
        return len(self.frame_offsets) - 1

    def num_frames(self, clip: int) -> int:
        return self.frame_offsets[clip + 1] - self.frame_offsets[clip]

    def waveform(self, clip: int) -> Tensor:
        """(samples,) float."""
        return self.tensors["waveform"][self.sample_offsets[clip] : self.sample_offsets[clip + 1]].float() / 32767

    def window(self, clip: int, start: int, length: int, num_samples: int) -> Sequence:
        """Frames `start` to `start + length` of a clip; the waveform is cut or padded to `num_samples`."""
        first = self.frame_offsets[clip] + start
        rows = slice(first, first + length)
        frames = {name: self.tensors[name][rows] for name in ("latents", "values", "emotion", "intensity", "labels")}
        reference = self.tensors["reference_latents"][clip].float()
        previous = self.tensors["latents"][first - 1].float() if start else reference
        waveform = torch.zeros(num_samples)
        voice = self.waveform(clip)[:num_samples]
        waveform[: len(voice)] = voice
        return Sequence(
            latents=frames["latents"].float(),
            previous=previous,
            reference_latents=reference,
            reference_features=self.tensors["reference_features"][clip].float(),
            waveform=waveform,
            start=torch.tensor(start),
            values=frames["values"].float(),
            emotion=frames["emotion"].long(),
            intensity=frames["intensity"].float(),
            labels=frames["labels"].float(),
        )

    def sample(self, batch_size: int, length: int, rng: np.random.Generator) -> Sequence:
        """A random batch of windows of `length` frames; a quarter of them at the clip's start.

        Raises:
            ValueError: no clip is that long.
        """
        longest = max(self.num_frames(clip) for clip in range(len(self)))
        if longest < length:
            raise ValueError(f"windows of {length} frames are asked for, and the longest clip has {longest}")
        items: list[Sequence] = []
        while len(items) < batch_size:
            clip = int(rng.integers(len(self)))
            spare = self.num_frames(clip) - length
            if spare < 0:
                continue
            start = 0 if rng.random() < 0.25 else int(rng.integers(spare + 1))
            items.append(self.window(clip, start, length, longest * 640))
        return Sequence.collate(items)


def prepare(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """uint8 images to channels-last floats; the correspondence to a warp (B, 2, M, M)."""
    out = {name: value.to(device) for name, value in batch.items()}
    for name in ("frame", "portrait"):
        out[name] = to_float(out[name]).contiguous(memory_format=torch.channels_last)
    grid = identity_grid(out["correspondence"].shape[1], device)
    out["warp"] = (out["correspondence"] - grid).permute(0, 3, 1, 2)
    out["visibility"] = out["visibility"][:, None]
    return out


def fixed_batch(stills: StillPairs, device: torch.device, count: int = 48) -> dict[str, Tensor]:
    """`count` stills spread over all, prepared."""
    rows = np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)
    items = [stills[int(row)] for row in rows]
    return prepare({name: torch.stack([item[name] for item in items]) for name in items[0]}, device)


def endless(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader
