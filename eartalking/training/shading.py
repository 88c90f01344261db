"""The light in portraits: `python -m eartalking.training.shading --checkpoint DIR --data DIR --val DIR --out RUN`.

A still shows the same person as its portrait, turned and otherwise bent, in the same light; the renderer says which
place of the portrait each pixel shows. So the logarithm of how much brighter it is there is known, and which way the
place faced before and faces now: least squares give the portrait's light. `autoencoder.shading` has only the portrait
itself, and what it fits to that; from this to the light leads a linear map, by least squares over all portraits at
once. One pass over the stills, a quarter of an hour of one core at most; nothing else of the checkpoint changes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.shading import brightness, coarser, facing, fits, harmonics
from eartalking.checkpoint import load_model, save_model
from eartalking.training.data import prepare
from eartalking.training.marks import MarkedStills

BATCH = 8
RIDGE = 1e-3  # of the fits' mean square
WRONG = 0.5  # a change of brightness, in logarithms, that no light makes: another place is seen
STILL = 1e-3  # in [-1, 1]: what moves less is background


class Lit(NamedTuple):
    """Of B stills, what a portrait's light (HARMONICS,) has to explain: its fits (B, F); the normal equations of its
    light, (B, K, K) and (B, K), K = HARMONICS; and the squares that there are, (B,)."""

    fitted: Tensor
    normal: Tensor
    right: Tensor
    squares: Tensor


@torch.inference_mode()
def lit(autoencoder: FrameAutoencoder, batch: dict[str, Tensor]) -> Lit:
    """Of a batch of prepared, marked stills."""
    surface, grid = autoencoder.surface, batch["correspondence"]
    fields = coarser(surface(batch["portrait"], batch["portrait_marks"]))
    size = fields.cover.shape[-1]
    before, after = (harmonics(facing(surface, fields, batch[name])) for name in ("portrait_motion", "motion"))

    def smooth(pictures: Tensor) -> Tensor:
        return F.avg_pool2d(F.adaptive_avg_pool2d(pictures, size), 3, 1, 1, count_include_pad=False)

    def fetched(maps: Tensor) -> Tensor:
        return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)

    change = fetched(after - before)  # (B, K, M, M)
    frame = F.adaptive_avg_pool2d(smooth(batch["frame"]), grid.shape[1])
    brighter = brightness(frame) - brightness(fetched(smooth(batch["portrait"])))  # (B, M, M)
    moves = batch["warp"].abs().sum(1, keepdim=True) > STILL
    counts = (batch["visibility"] * moves * fetched(fields.cover))[:, 0] * (brighter.abs() < WRONG)
    return Lit(
        fits(batch["portrait"], fields.cover, before),
        torch.einsum("bkhw,blhw,bhw->bkl", change, change, counts),
        torch.einsum("bkhw,bhw->bk", change, counts * brighter),
        (counts * brighter.square()).sum((1, 2)),
    )


def fit_light(stills: Lit, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """From fits to light: weight (F, K) and bias (K,)."""
    inputs = torch.cat([torch.ones_like(stills.fitted[:, :1]), stills.fitted], dim=1).double()  # (B, 1 + F)
    size, terms = inputs.shape[1], stills.normal.shape[1]
    left = torch.einsum("bf,bg,bkl->fkgl", inputs, inputs, stills.normal.double()).reshape(size * terms, -1)
    right = (inputs.T @ stills.right.double()).flatten()
    left += ridge * left.diagonal().mean() * torch.eye(len(left), dtype=left.dtype)
    found = torch.linalg.solve(left, right).view(size, terms).float()
    return found[1:], found[0]


def left_over(stills: Lit, weight: Tensor, bias: Tensor) -> float:
    """Which share of the squared changes of brightness this light does not explain."""
    light = stills.fitted @ weight + bias
    explained = 2 * (light * stills.right).sum() - torch.einsum("bk,bkl,bl->", light, stills.normal, light)
    return float(1 - explained / stills.squares.sum())


def gathered(autoencoder: FrameAutoencoder, folder: Path, count: int | None) -> Lit:
    """Of up to `count` stills of a folder, chosen at random."""

    def batches() -> Iterator[Lit]:
        stills = MarkedStills(folder)
        order = torch.randperm(len(stills), generator=torch.Generator().manual_seed(0))[:count].tolist()
        loader = DataLoader(stills, BATCH, sampler=order)
        for batch in tqdm(loader, desc=str(folder), unit="batch", mininterval=5):
            yield lit(autoencoder, prepare(batch, torch.device("cpu")))

    return Lit(*(torch.cat(parts) for parts in zip(*batches(), strict=True)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.shading", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="checkpoint with a trained surface encoder")
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stills", type=int, default=6000, help="of the training split, at most")
    args = parser.parse_args(argv)
    model = load_model(args.checkpoint).requires_grad_(False)
    try:
        stills, held_out = (
            gathered(model.autoencoder, folder, count) for folder, count in ((args.data, args.stills), (args.val, None))
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    weight, bias = fit_light(stills)
    print(json.dumps({"left_over": left_over(stills, weight, bias), "held_out": left_over(held_out, weight, bias)}))
    model.autoencoder.shading.light.copy_(weight)
    model.autoencoder.shading.average.copy_(bias)
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
