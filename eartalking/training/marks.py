"""Marks of the faces in clips' portraits, read once and kept beside the clips.

`FOLDER/marks` holds one file per clip, with `frames` (T, K, 3) of `portraits` clips, or `reference` and
`twin_reference` (K, 3) of others.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from eartalking.modules.pixels import to_float
from eartalking.perception.face_marks import read_marks
from eartalking.synth.clips import write_clip
from eartalking.training.data import StillPairs, find_clips

ABSENT = 0.1  # of the samples: no face was certain in so many portraits, and the networks have to do without


class MarkedStills(StillPairs):
    """`StillPairs` whose items hold `portrait_marks` (K, 3), too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.marks = clip_marks(folder)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        clip = self.marks[index % (len(self) // 2) // self.frames_per_clip]
        marks = clip["reference" if index < len(self) // 2 else "twin_reference"]
        return super().__getitem__(index) | {"portrait_marks": marks}


def clip_marks(folder: Path) -> list[dict[str, Tensor]]:
    """The marks of every clip in a folder, in the order of `find_clips`."""
    paths = find_clips(folder)
    kept = [path.parent / "marks" / path.name for path in paths]
    missing = [(path, file) for path, file in zip(paths, kept, strict=True) if not file.exists()]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [pool.submit(_keep, path, file) for path, file in missing]
        for job in tqdm(jobs, unit="clip", desc="marks", mininterval=5, disable=not jobs):
            job.result()
    return [load_file(file) for file in kept]


def as_of_a_photograph(marks: Tensor) -> Tensor:
    """Marks (B, K, 3) as they are read from photographs: a little beside their places, and now and then not at all."""
    beside = marks + 0.002 * torch.randn_like(marks[:, :1]) + 0.0008 * torch.randn_like(marks)
    known = marks.abs().amax((1, 2), keepdim=True) > 0
    return beside * (known & (torch.rand_like(marks[:, :1, :1]) > ABSENT))


@torch.inference_mode()
def _keep(path: Path, file: Path) -> None:
    with safe_open(path, "pt") as clip:
        pictures = [name for name in ("reference", "twin_reference") if name in clip.keys()]
        if pictures:
            marks = {name: read_marks(to_float(clip.get_tensor(name))[None])[0] for name in pictures}
        else:
            marks = {"frames": read_marks(to_float(clip.get_tensor("frames")))}
    file.parent.mkdir(exist_ok=True)
    write_clip(file, {name: value.numpy() for name, value in marks.items()}, {})
