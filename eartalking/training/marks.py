"""Marks of the faces in clips' portraits, read once and kept beside the clips: `python -m eartalking.training.marks
--data DIR`.

`training.portrait_reader` reads what is missing by itself; the command is there to do it beforehand. `FOLDER/marks`
holds one file per clip, with `frames` (T, K, 3) of `portraits` clips, or `reference` and `twin_reference` (K, 3) of
others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from eartalking.modules.pixels import to_float
from eartalking.perception.face_marks import read_marks
from eartalking.synth.clips import write_clip
from eartalking.training.data import find_clips

PICTURES = ("reference", "twin_reference")


def clip_marks(folder: Path) -> list[dict[str, Tensor]]:
    """The marks of every clip in a folder, in the order of `find_clips`."""
    paths = find_clips(folder)
    kept = [path.parent / "marks" / path.name for path in paths]
    missing = [(path, file) for path, file in zip(paths, kept, strict=True) if not file.exists()]
    for path, file in tqdm(missing, unit="clip", desc="marks", mininterval=5, disable=not missing):
        file.parent.mkdir(exist_ok=True)
        write_clip(file, {name: value.numpy() for name, value in _read(path).items()}, {})
    return [load_file(file) for file in kept]


def with_noise(marks: Tensor) -> Tensor:
    """Marks (B, K, 3) as they are read from photographs, a little beside their places."""
    return marks + 0.002 * torch.randn_like(marks[:, :1]) + 0.0008 * torch.randn_like(marks)


@torch.inference_mode()
def _read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as clip:
        names = set(clip.keys())
        if "reference" not in names:
            return {"frames": read_marks(to_float(clip.get_tensor("frames")))}
        pictures = [name for name in PICTURES if name in names]
        return {name: read_marks(to_float(clip.get_tensor(name))[None])[0] for name in pictures}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.marks", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clips")
    for folder in parser.parse_args().data:
        clip_marks(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
