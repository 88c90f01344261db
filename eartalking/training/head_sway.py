"""How people's heads sway, measured: `python -m eartalking.training.head_sway --checkpoint DIR --speech DIR --out RUN`.

Fits `modules.head_sway` to yaw and roll of performances by least squares, in seconds, and takes the distribution of
what is left over. (Pitch is not among them: nods go with the voice, so the departure head's network draws it.)
`training.departure` does the same to a head that it trains.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from eartalking.checkpoint import load_model, save_model
from eartalking.config import FPS
from eartalking.modules.head_sway import FRAMES, QUANTILES, REACH, HeadSway
from eartalking.motion.vector import HEAD_POSE
from eartalking.training.motion_spans import speak

SWAYING = (HEAD_POSE.start, HEAD_POSE.start + 2)  # yaw, roll
LAG = 2 * FPS  # a head has come home by what it has after so long
OWN = 0.9999  # share of people's speeds, and of their changes, that are no larger than the largest that is a head's own
ROUNDS = 3


@torch.no_grad()
def fit_sway(sway: HeadSway, coordinates: Tensor, neutral: Tensor) -> None:
    """Measure the process on performances (S, T, L) of people whose heads are at home where `neutral` (L,) is."""
    sway.sways[list(SWAYING)] = True
    away, lag = (coordinates - neutral).double(), min(LAG, coordinates.shape[1] // 2)
    for column in SWAYING:
        one = away[..., column]
        kept = ((one[:, lag:] * one[:, :-lag]).mean() / one.square().mean()).clamp_min(1e-3) ** (1 / lag)
        speeds = one[:, 1:] - kept * one[:, :-1]
        last, before, first = (speeds[:, 2 - k : -1 - k] for k in range(FRAMES - 1))
        terms = torch.stack([last, last - before, last - 2 * before + first], dim=-1).flatten(0, 1)
        new = speeds[:, FRAMES - 1 :].flatten()
        weights = torch.linalg.lstsq(terms, new[:, None]).solution[:, 0]
        sway.persistence[column] = kept
        sway.friction[column] = 1 - weights[0]
        sway.follows[:, column] = weights[1:]
        sizes = speeds.abs().flatten(), speeds.diff(dim=1).abs().flatten()
        sway.most[:, column] = torch.stack([_quantiles(size, torch.tensor([OWN]))[0] for size in sizes])
        normal = torch.linspace(-REACH, REACH, QUANTILES, dtype=torch.float64)
        sway.quantiles[:, column] = _quantiles(new - terms @ weights, torch.special.ndtr(normal)).float()
    _settle(sway, coordinates)


def sway_alone(sway: HeadSway, home: Tensor, frames: int, seed: int) -> Tensor:
    """Heads that start at home (S, L) and sway by themselves: (S, T, L)."""
    generator = torch.Generator().manual_seed(seed)
    shown = [home] * FRAMES
    for _ in range(frames):
        recent = torch.stack(shown[: -FRAMES - 1 : -1], dim=1)
        shown.append(sway(recent, home, torch.randn(home.shape, generator=generator)))
    return torch.stack(shown[FRAMES:], dim=1)


def likeness(made: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Spread and mean speed of motion (S, T, L) over those of the true motion: (L,) each."""
    spreads = [one.std(1).mean(0) for one in (made, true)]
    speeds = [one.diff(dim=1).abs().mean((0, 1)) for one in (made, true)]
    return spreads[0] / spreads[1].clamp_min(1e-9), speeds[0] / speeds[1].clamp_min(1e-9)


def _settle(sway: HeadSway, coordinates: Tensor) -> None:
    """Weaken or strengthen the pushes until spread and speed are people's, as far as one number allows: errors of both
    are then each other's opposite."""
    columns = list(SWAYING)
    home = torch.zeros(len(coordinates), coordinates.shape[-1])
    for number in range(ROUNDS):
        made = sway_alone(sway, home, coordinates.shape[1], seed=number)
        spread, speed = likeness(made, coordinates)
        sway.quantiles[:, columns] /= (spread * speed).sqrt()[columns]


def _quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """As `torch.quantile`, of any number of values."""
    ordered = values.sort().values
    place = shares.double() * (len(ordered) - 1)
    below = place.floor().long().clamp(max=len(ordered) - 2)
    return torch.lerp(ordered[below].double(), ordered[below + 1].double(), place - below)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.head_sway", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="model with a departure head")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus (eartalking.synth.speech)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a span")
    parser.add_argument("--spans", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    model = load_model(args.checkpoint).requires_grad_(False)
    head = model.departure_head
    if head is None:
        parser.error(f"--checkpoint {args.checkpoint}: that checkpoint has no departure head")
    try:
        spans = speak(model.autoencoder.code, args.speech, args.seconds, args.spans, args.seed)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    fit_sway(head.sway, spans.coordinates, head.neutral)
    made = sway_alone(
        head.sway, head.neutral.expand(len(spans.coordinates), -1), spans.coordinates.shape[1], seed=ROUNDS
    )
    spread, speed = likeness(made, spans.coordinates)
    for name, column in zip(("yaw", "roll"), SWAYING, strict=True):
        print(json.dumps({name: {"spread": float(spread[column]), "speed": float(speed[column])}}))
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
