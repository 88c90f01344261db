"""Clips on disk -> training batches.

`StillPairs` serves the autoencoder: a frame and its portrait, and the frame and portrait to decode on (its own, or the
twin's: the same motion on another identity). `LatentClips` serves the autoregressive model: the latents of whole clips,
encoded once by `python -m eartalking.training.encode`, with waveforms and labels, held in memory.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

# Scales that bring every label to a spread of about one. Motion is the same for everybody; how wide a mouth opens by it
# depends on the mouth.
MOTION_SCALES = {"face_units": 4.0, "head_pose": 1 / 12, "gaze": 1 / 10, "translation": 20.0}
NUM_MOTION_LABELS = 52 + 3 + 2 + 3
HEAD_POSE = slice(52, 55)  # columns of the motion vector
LABEL_SCALES = MOTION_SCALES | {"mouth_open": 25.0}
NUM_LABELS = NUM_MOTION_LABELS + 1


def find_clips(folder: Path) -> list[Path]:
    """All clips of a folder, sorted by name.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no clips (*.safetensors) here; render some with eartalking.synth.clips")
    return paths


def to_float(images: Tensor) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) float in [-1, 1]."""
    return images.movedim(-1, -3).float() / 127.5 - 1


def motion_vector(labels: dict[str, Tensor]) -> Tensor:
    """The motion of T frames as one scaled vector each: (T, NUM_MOTION_LABELS)."""
    return _scaled(labels, MOTION_SCALES)


def label_vector(labels: dict[str, Tensor]) -> Tensor:
    """Motion and mouth opening of T frames: (T, NUM_LABELS)."""
    return _scaled(labels, LABEL_SCALES)


def _scaled(labels: dict[str, Tensor], scales: dict[str, float]) -> Tensor:
    return torch.cat([labels[name].float().reshape(len(labels[name]), -1) * scale for name, scale in scales.items()], dim=1)


class StillPairs(Dataset):
    """One item per still: dict of `frame`, `portrait`, `target`, `target_portrait` (H, W, 3) uint8,
    `correspondence` (M, M, 2), `visibility` (M, M) in 0..1 of the target, and `labels` (NUM_LABELS,)."""

    def __init__(self, folder: Path, twin_share: float, seed: int = 0) -> None:
        self.paths = find_clips(folder)
        self.twin_share = twin_share
        self.rng = np.random.default_rng(seed)
        with safe_open(self.paths[0], "pt") as clip:
            self.frames_per_clip = clip.get_slice("frames").get_shape()[0]

    def __len__(self) -> int:
        return len(self.paths) * self.frames_per_clip

    def motion_vectors(self) -> Tensor:
        """(len, NUM_MOTION_LABELS) of all stills, in their order."""
        rows = []
        for path in self.paths:
            with safe_open(path, "pt") as clip:
                rows.append(motion_vector({name: clip.get_tensor(f"labels.{name}") for name in MOTION_SCALES}))
        return torch.cat(rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path, row = self.paths[index // self.frames_per_clip], index % self.frames_per_clip
        prefix = "twin_" if self.rng.random() < self.twin_share else ""
        with safe_open(path, "pt") as clip:
            labels = {name: clip.get_slice(f"labels.{name}")[row : row + 1] for name in LABEL_SCALES}
            return {
                "frame": clip.get_slice("frames")[row],
                "portrait": clip.get_tensor("reference"),
                "target": clip.get_slice(prefix + "frames")[row],
                "target_portrait": clip.get_tensor(prefix + "reference"),
                "correspondence": clip.get_slice(prefix + "correspondence")[row].float(),
                "visibility": clip.get_slice(prefix + "visibility")[row].float() / 255,
                "labels": label_vector(labels)[0],
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
        """A random batch of windows of `length` frames; a quarter of them at the clip's start."""
        longest = max(self.num_frames(clip) for clip in range(len(self)))
        items = []
        while len(items) < batch_size:
            clip = int(rng.integers(len(self)))
            spare = self.num_frames(clip) - length
            if spare < 0:
                continue
            start = 0 if rng.random() < 0.25 else int(rng.integers(spare + 1))
            items.append(self.window(clip, start, length, longest * 640))
        return Sequence.collate(items)
