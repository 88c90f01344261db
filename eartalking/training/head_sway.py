"""How people's heads sway, measured.

Fits `modules.head_sway` to yaw and roll of performances by least squares, in seconds, and takes the distribution of
what is left over. (Pitch is not among them: nods go with the voice, so the departure head's network draws it.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from eartalking.config import FPS
from eartalking.modules.head_sway import FRAMES, OUTERMOST, QUANTILES, HeadSway
from eartalking.motion.vector import HEAD_POSE

SWAYING = (HEAD_POSE.start, HEAD_POSE.start + 2)  # yaw, roll
# How far a head turns and tilts by itself, in people's spreads (yaw: 12 degrees): beyond, the picture shows nothing.
FARTHEST = 1.7
SWINGS = round(0.8 * FPS)  # frames in which a push has turned a head
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
        sway.reach[column] = FARTHEST * one.square().mean().sqrt()
        sway.persistence[column] = kept
        sway.friction[column] = 1 - weights[0]
        sway.follows[:, column] = weights[1:]
        sway.ahead[:, column] = _foreseen(float(kept), float(1 - weights[0]), float(weights[1]), float(weights[2]))
        sizes = speeds.abs().flatten(), speeds.diff(dim=1).abs().flatten()
        sway.most[:, column] = torch.stack([_quantiles(size, torch.tensor([OWN]))[0] for size in sizes])
        normal = torch.linspace(-OUTERMOST, OUTERMOST, QUANTILES, dtype=torch.float64)
        sway.quantiles[:, column] = _quantiles(new - terms @ weights, torch.special.ndtr(normal)).float()
    _settle(sway, coordinates)


def _foreseen(kept: float, friction: float, follow: float, sharper: float) -> Tensor:
    """By how much of what is away, of three speeds and of a push (5,) a head is away after SWINGS frames."""
    state = torch.eye(5, dtype=torch.float64)[:, :4]  # away and three speeds, of each
    for frame in range(SWINGS):
        away, last, before, first = state.T
        speed = (1 - friction) * last + follow * (last - before) + sharper * (last - 2 * before + first)
        speed = speed + torch.eye(5, dtype=torch.float64)[4] * (frame == 0)
        state = torch.stack([kept * away + speed, speed, last, before], dim=1)
    return state[:, 0].float()


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
