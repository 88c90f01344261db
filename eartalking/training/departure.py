"""Stage 10, the departure head: `python -m eartalking.training.departure --checkpoint DIR --speech DIR --val DIR
--out RUN`.

The model as the stage before left it streams long spans of speech once, all controls released; what its articulated
mean leaves over of the true motion is the departure that the head learns to draw. Nothing else of the model is trained,
so an hour on one core is enough. Resumes; the spans are kept in the run's folder.

A head that only sees true pasts drifts away from them when it runs by itself. So the past is moved in training: by
errors of the innovations' own size, which the head learns to correct, and by offsets of the departure's size, which it
learns to leave to the decay of r_t = A r_{t-1} + e_t.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from eartalking.checkpoint import load_model, save_model
from eartalking.config import FPS, DepartureConfig
from eartalking.model import TalkingHeadModel
from eartalking.modules.departure_head import DepartureHead
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, GAZE, HEAD_POSE, TRANSLATION
from eartalking.training.head_sway import fit_sway
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.motion_spans import MotionSpans, Portraits, make_spans
from eartalking.training.rollout import correlation

DRAWS = 2  # noises per backbone pass
SMALLEST = 1e-3  # spread that is told from none
MOVES = 1e-3  # spread in coordinates below which one counts as still
# Largest persistence per frame. Tracks of the face fade sooner than the data's, or what is seldom true (a squint) piles
# up. A head must keep its turns: told to come home faster, it cannot know which of them were its own, and shakes.
POSE_KEEPS, FACE_KEEPS = 0.998, 0.98
MOST_MOMENTUM = 0.95
# Share of the coordinates that are moved away in training, of the pose and of the face, and how far, in departure_std.
AWAY_SHARE, AWAY_POSE, AWAY_FACE, AWAY = 0.6, 0.3, 0.6, 1.5
# How `settle` goes about it: the spread below which a coordinate is none, and how much faster one fades that is drawn
# e times too strongly.
SETTLE_ROUNDS, SETTLE_RATE, SMALLEST_SETTLED = 6, 0.01, 0.03
# How `rest` goes about it: what it moves the network's constants by at first, and the least that they move a head by.
REST_ROUNDS, REST_PROBE, REST_LEAST = 6, 0.1, 0.5
JUMP = 8.0  # medians from which on a step counts as a jump
JAW = UNIT_INDEX["jawOpen"]
# How much of the noise each group gets at a stream's temperature 1, set by the spreads that `evaluate` measures: smiles
# and frowns of their own come too often. Of a mouth nothing is drawn: what it does follows from the voice, so what the
# mean does not know of it is not to be invented. Drawn, lips were rounded without regard to the voice (correlation of
# mouthFunnel and mouthPucker with the truth 0.2, of the mean 0.7).
NOISE = {"pose": 1.1, "eyes": 1.2, "mouth": 0.0, "corners": 0.5, "brows": 0.5}


class Windows(NamedTuple):
    """M frames: the past (M, K, L) newest first, the frame, its mean and its features, the mean before."""

    past: Tensor
    frame: Tensor
    mean: Tensor
    features: Tensor
    mean_before: Tensor


def groups(size: int) -> dict[str, Tensor]:
    """The coordinates (L,) bool of each part of the face."""
    index = torch.arange(size)
    pose = torch.zeros(size, dtype=torch.bool)
    pose[HEAD_POSE] = pose[TRANSLATION] = True
    eyes = torch.zeros(size, dtype=torch.bool)
    eyes[GAZE] = True
    eyes |= index < UNIT_INDEX["jawForward"]  # the eyes' units come first
    mouth = (index >= UNIT_INDEX["jawForward"]) & (index < UNIT_INDEX["browDownLeft"])
    mouth[UNIT_INDEX["tongueOut"]] = True
    corners = (index >= UNIT_INDEX["mouthLeft"]) & (index <= UNIT_INDEX["mouthDimpleRight"])
    rest = ~(pose | eyes | mouth)
    return {"pose": pose, "eyes": eyes, "mouth": mouth & ~corners, "corners": corners, "brows": rest}


@torch.no_grad()
def measure(head: DepartureHead, spans: MotionSpans) -> Tensor:
    """Set the head's statistics from spans; returns the innovations' spread without jumps (L,)."""
    size = spans.mean.shape[-1]
    part = groups(size)
    pose = part["pose"]
    fit_sway(head.sway, spans.coordinates, head.neutral)
    moves = spans.coordinates.flatten(0, 1).std(0) > MOVES
    head.at_home.copy_(pose)
    for name, chosen in part.items():
        head.noise_scale[chosen] = NOISE[name]
    head.noise_scale[~moves] = 0
    departure, steps = spans.coordinates - head.centre(spans.mean, head.neutral), spans.coordinates.diff(dim=1)
    keeps = torch.where(pose, POSE_KEEPS, FACE_KEEPS)
    head.persistence.copy_(torch.minimum(_follows(departure), keeps) * moves)
    head.momentum.copy_(_follows(steps).clamp_max(MOST_MOMENTUM) * (pose & moves))
    kept = head.persistence * departure[:, 1:-1] + head.momentum * steps[:, :-1]
    innovation = (departure[:, 2:] - kept).flatten(0, 1)
    small = _without_jumps(innovation)
    spread = innovation.std(0)
    std = torch.where(pose, small, torch.maximum(small, 0.5 * spread))
    std[list(BLINK_COLUMNS)] = spread[list(BLINK_COLUMNS)]  # a blink is nothing but jumps
    head.innovation_std.copy_(torch.where(moves, std, 1.0))
    head.step_std.copy_(torch.where(pose & moves, _without_jumps(steps.flatten(0, 1)), head.innovation_std))
    head.departure_std.copy_(torch.where(moves, departure.flatten(0, 1).std(0).clamp_min(1e-2), 1.0))
    return small


def _follows(values: Tensor) -> Tensor:
    """How much of a value (S, T, L) the next frame still has: the regression on the frame before, in 0..1."""
    return ((values[:, 1:] * values[:, :-1]).mean((0, 1)) / values.square().mean((0, 1))).nan_to_num(0).clamp(0, 1)


def _without_jumps(values: Tensor) -> Tensor:
    """Root mean square (L,) of values (M, L) within JUMP medians of what moves."""
    spreads = []
    for column in values.T:
        sizes = column.abs()
        moved = sizes[sizes > 1e-4]
        median = moved.median() if len(moved) > 0.005 * len(sizes) else torch.tensor(1e-2)
        spreads.append(column[sizes < JUMP * median].square().mean().sqrt())
    return torch.stack(spreads).clamp_min(SMALLEST)


def draw_windows(spans: MotionSpans, memory: int, count: int, generator: torch.Generator) -> Windows:
    """`count` frames, each with the `memory` frames before it."""
    number, length = spans.mean.shape[:2]
    span = torch.randint(number, (count,), generator=generator)
    at = torch.randint(memory, length, (count,), generator=generator)
    past = torch.stack([spans.coordinates[span, at - 1 - k] for k in range(memory)], dim=1)
    features = spans.features[span, at].float()
    return Windows(past, spans.coordinates[span, at], spans.mean[span, at], features, spans.mean[span, at - 1])


def head_losses(
    head: DepartureHead, windows: Windows, small: Tensor, emphasis: Tensor, generator: torch.Generator
) -> Losses:
    """The velocity's error on a moved past, weighted by `emphasis` (L,). `small` is what `measure` gave."""
    past, frame, mean, features, mean_before = windows
    count, size = frame.shape

    def often(*shape: int, share: float) -> Tensor:
        return (torch.rand(shape, generator=generator) < share).float()

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    spread = 2 * torch.rand(count, 1, generator=generator).square() * often(count, 1, share=0.7)
    error = normal(count, size) * small * spread
    far = AWAY * torch.rand(count, 1, generator=generator) * often(count, 1, share=AWAY_SHARE)
    far = far * torch.where(head.at_home, often(count, size, share=AWAY_POSE), often(count, size, share=AWAY_FACE))
    offset = normal(count, size) * head.departure_std * far
    jitter = 0.15 * normal(*past.shape) * small * often(count, 1, 1, share=0.5)
    centre = head.centre(mean, head.neutral)
    moved = past + (error + offset)[:, None] + jitter
    before = moved[:, 0] - head.centre(mean_before, head.neutral)
    # What is left to draw: an error is corrected at once, an offset fades by itself.
    innovation = frame - centre + head.persistence * offset - head.carried_on(before, moved)
    condition = head.condition(features, moved, centre, before, head.neutral.expand(count, -1))
    each = head.loss(innovation, condition, DRAWS)
    return {"loss": (each * emphasis).mean(), "velocity": each.mean()}


@torch.no_grad()
def settle(head: DepartureHead, spans: MotionSpans, num_steps: int, rounds: int = SETTLE_ROUNDS) -> None:
    """Let brows and corners of the mouth fade faster, until they are drawn no more strongly than they are.

    A smile is seldom, and its innovations are nearly always none: what the head draws too much of them adds up before
    it fades, to twice or three times the truth. How much noise it gets changes nothing of that; how fast it fades does.
    """
    part = groups(len(head.persistence))
    true = spans.coordinates.std(1).mean(0)
    chosen = (part["corners"] | part["brows"]) & (true > SMALLEST_SETTLED)
    for number in range(rounds):
        drawn = run(head, spans, num_steps, seed=number).std(1).mean(0)
        excess = (drawn / true.clamp_min(SMALLEST)).log()
        faded = head.persistence * torch.exp(-SETTLE_RATE * excess)
        head.persistence.copy_(torch.where(chosen, faded.clamp(0, FACE_KEEPS), head.persistence))


@torch.no_grad()
def rest(head: DepartureHead, spans: MotionSpans, num_steps: int, rounds: int = REST_ROUNDS) -> dict[str, list[float]]:
    """Let what is drawn of heads, and of brows and corners of the mouth, rest where people's does; returns of both the
    largest distance from there before each round and after the last, in coordinates. The best round is kept.

    A head that is heavy makes much of little: a constant error of a fifth of an innovation let heads look down by five
    degrees, and brows rise by half of their spread. So the network's constant is moved against it, by how far it moves
    them (secant method).
    """
    part = groups(len(head.persistence))
    drawn = (head.noise_scale > 0) & ~head.sway.sways
    chosen = {"head": head.at_home & drawn, "face": (part["brows"] | part["corners"]) & drawn}
    return {name: _rest(head, spans, num_steps, rounds, columns) for name, columns in chosen.items()}


def _rest(head: DepartureHead, spans: MotionSpans, num_steps: int, rounds: int, chosen: Tensor) -> list[float]:
    bias, settled = head.to_velocity.bias, slice(len(spans.mean[0]) // 10, None)
    step = torch.where(chosen, REST_PROBE, 0.0)
    found, kept, before = [], bias.clone(), None
    for number in range(rounds + 1):
        beside = (run(head, spans, num_steps, seed=0) - spans.coordinates)[:, settled].mean((0, 1)) * chosen
        found.append(float(beside.abs().max()))
        if found[-1] == min(found):
            kept = bias.clone()
        if number == rounds:
            break
        if before is not None:
            moves = (beside - before) / torch.where(chosen, step, 1.0)
            step = torch.where(chosen, -beside / moves.clamp_min(REST_LEAST), 0.0)
        before = beside
        bias += step
    bias.copy_(kept)
    return found


@torch.no_grad()
def evaluate(head: DepartureHead, spans: MotionSpans, model: TalkingHeadModel, num_steps: int) -> dict[str, float]:
    """Two free-running draws of every span against the truth: spread and speed of pose and jaw, lip sync, seeds."""
    first, second = (run(head, spans, num_steps, seed) for seed in (0, 1))
    code = model.autoencoder.code
    true, one, two = (code.coordinates_to_motion(each) for each in (spans.coordinates, first, second))
    blinks, true_blinks = ((motion[..., BLINK_COLUMNS[0]] > 2).float().diff(dim=1) > 0 for motion in (one, true))
    minutes = true.shape[0] * true.shape[1] / FPS / 60
    pose, true_pose = one[..., HEAD_POSE], true[..., HEAD_POSE]
    return {
        "jaw": correlation(one[..., JAW], true[..., JAW]),
        "jaw_shuffled": correlation(one[..., JAW], true[..., JAW].roll(1, 0)),
        "jaw_spread": float(one[..., JAW].std(1).mean() / true[..., JAW].std(1).mean()),
        "pose_spread": float((pose.std(1).mean(0) / true_pose.std(1).mean(0)).mean()),
        "pose_speed": float((pose.diff(dim=1).abs().mean((0, 1)) / true_pose.diff(dim=1).abs().mean((0, 1))).mean()),
        "pose_seeds": sum(correlation(pose[..., axis], two[..., HEAD_POSE][..., axis]) for axis in range(3)) / 3,
        "blinks_a_minute": float(blinks.sum()) / minutes,
        "blinks_a_minute_true": float(true_blinks.sum()) / minutes,
        "units_error": float((one - true)[..., :NUM_FACE_UNITS].abs().mean()),
    }


@torch.no_grad()
def run(head: DepartureHead, spans: MotionSpans, num_steps: int, seed: int, home: Tensor | None = None) -> Tensor:
    """Free-running coordinates (S, T, L), every span from the neutral face, as if it had been speaking already; or, as
    a stream does, from its portrait's coordinates `home` (S, L)."""
    generator = torch.Generator().manual_seed(seed)
    state = head.start(head.neutral.expand(len(spans.mean), -1).clone() if home is None else home)
    if home is not None:
        state.departure = home - head.centre(spans.mean[:, 0], home)
    shown = []
    for index in range(spans.mean.shape[1]):
        mean = spans.mean[:, index]
        noise = torch.randn(mean.shape, generator=generator)
        shown.append(head.draw(spans.features[:, index].float(), mean, noise, state, num_steps))
        head.remember(shown[-1], mean, state)
    return torch.stack(shown, dim=1)


def _spans(model: TalkingHeadModel, args: argparse.Namespace, folder: Path, name: str, count: int) -> MotionSpans:
    """Made once, then read from the run's folder."""
    path = args.out / f"spans_{name}.safetensors"
    if not path.is_file():
        args.out.mkdir(parents=True, exist_ok=True)
        portraits = Portraits.of_stills(model, args.portraits if name == "train" else args.val_portraits)
        make_spans(model, folder, portraits, args.seconds, count, args.seed + (name == "val")).save(path)
    return MotionSpans.load(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.departure", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=20000, batch_size=256, learning_rate=1e-3, precision="no")
    parser.add_argument("--checkpoint", required=True, help="the model whose mean the head departs from")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus (eartalking.synth.speech)")
    parser.add_argument("--val", type=Path, required=True, help="held-out speech corpus")
    Portraits.add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of a span")
    parser.add_argument("--spans", type=int, default=320, help="spans to train on; one takes 84 kB a second")
    parser.add_argument("--init", help="checkpoint whose departure head to start from")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    model = with_head(load_model(args.checkpoint))
    head, shape = model.departure_head, model.config.departure
    assert head is not None and shape is not None
    if args.init:
        initial = load_model(args.init).departure_head
        if initial is None:
            parser.error(f"--init {args.init}: that checkpoint has no departure head")
        head.load_state_dict(initial.state_dict())
    head.neutral.copy_(model.autoencoder.code.motion_to_coordinates(torch.zeros(len(head.neutral))))
    try:
        spans = _spans(model, args, args.speech, "train", args.spans)
        held_out = _spans(model, args, args.val, "val", 24)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    small = measure(head, spans)
    part = groups(len(small))
    emphasis = 1 + 0.5 * len(small) * part["corners"] / part["corners"].sum()
    generator = torch.Generator().manual_seed(options.seed)
    average = train(
        head.requires_grad_(True),
        lambda: draw_windows(spans, shape.memory, options.batch_size, generator),
        lambda module, windows, step: head_losses(module, windows, small, emphasis, generator),
        lambda module, step: evaluate(module, held_out, model, shape.num_steps),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    head.load_state_dict(average.state_dict())
    settle(head, spans, shape.num_steps)
    rest(head, spans, shape.num_steps)
    save_model(model, options.out / "checkpoint")
    return 0


def with_head(model: TalkingHeadModel) -> TalkingHeadModel:
    """The model with a departure head, a fresh one where it has none; the weights of a flow at temperature 0, which
    no stream runs, are left out."""
    config = dataclasses.replace(model.config, departure=model.config.departure or DepartureConfig())
    if config.emission == "flow" and config.temperature == 0:
        config = dataclasses.replace(config, emission="regression")
    grown = TalkingHeadModel(config)
    own = grown.state_dict()
    grown.load_state_dict(own | {name: value for name, value in model.state_dict().items() if name in own})
    return grown.eval().requires_grad_(False)


if __name__ == "__main__":
    raise SystemExit(main())
