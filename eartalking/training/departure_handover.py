"""A departure head for another backbone: `python -m eartalking.training.departure_handover --checkpoint DIR --teacher
DIR --speech DIR --val DIR --out RUN`.

A departure head looks at the features of the backbone that it was trained for, and of another one sees nothing that it
knows. One that is trained anew from true motion needs hours, and drifts when it runs by itself. So the head of
`--teacher` is taught to the backbone of `--checkpoint`: both models hear the same speech, both heads are given the same
past and the same noise, and the new one learns to draw what the old one draws. The pasts are the heads' own
(the teacher's first, then the new head's: dataset aggregation, Ross, Gordon and Bagnell 2011), so what is learnt is
learnt where it will be needed, and with the noise given nothing is left to chance.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from eartalking.checkpoint import load_model, save_model
from eartalking.model import TalkingHeadModel
from eartalking.modules.departure_head import DepartureHead
from eartalking.motion.vector import HEAD_POSE
from eartalking.training.departure import evaluate, run, with_head
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.motion_spans import KeptTensors, MotionSpans, Portraits, listen, speak
from eartalking.training.ridge import ridge_regression

REFRESH_EVERY = 1500  # steps after which the pasts are the new head's own again
RIDGE = 1e-2
# Pasts are moved about, as in `training.departure`: by errors of the innovations' size, and away by the departure's.
ERROR_SHARE, AWAY_SHARE, AWAY = 0.5, 0.3, 1.0


@dataclasses.dataclass(frozen=True)
class HeardTwice(KeptTensors):
    """S spans of T frames as two models hear them: true coordinates (S, T, L), the new model's articulated mean
    (S, T, L), both backbones' features (S, T, F) half, and the portraits' coordinates (S, L)."""

    coordinates: Tensor
    mean: Tensor
    features: Tensor
    teacher_features: Tensor
    home: Tensor

    @property
    def own(self) -> MotionSpans:
        """As the new model hears them."""
        return MotionSpans(self.coordinates, self.mean, self.features)

    @property
    def teachers(self) -> MotionSpans:
        """The same with the teacher's features."""
        return MotionSpans(self.coordinates, self.mean, self.teacher_features)


def hear_twice(
    model: TalkingHeadModel,
    teacher: TalkingHeadModel,
    folder: Path,
    portraits: Portraits,
    seconds: float,
    count: int,
    seed: int,
) -> HeardTwice:
    """Up to `count` spans from a speech corpus, spoken by some of the portraits.

    Raises:
        ValueError: the corpus is shorter than one span.
    """
    code = model.autoencoder.code
    spoken = speak(code, folder, seconds, count, seed).seen(portraits, seed)
    teacher_features = listen(teacher, spoken)[1]
    home = code.latents_to_coordinates(spoken.portraits)
    return HeardTwice(spoken.coordinates, *listen(model, spoken), teacher_features, home)


@torch.no_grad()
def look_alike(head: DepartureHead, teacher: DepartureHead, spans: HeardTwice, ridge: float = RIDGE) -> None:
    """Start the head as its teacher, what it sees of the features refitted by least squares to what the teacher sees of
    its own."""
    head.load_state_dict(teacher.state_dict())
    features = head.features_norm(spans.features.flatten(0, 1)[::4].float())
    seen = teacher.from_features(teacher.features_norm(spans.teacher_features.flatten(0, 1)[::4].float()))
    weight, bias = ridge_regression(features, seen, ridge)
    head.from_features.weight.copy_(weight)
    head.from_features.bias.copy_(bias)


class Handover:
    """Draws windows out of the pasts, and asks the teacher."""

    def __init__(self, teacher: DepartureHead, spans: HeardTwice, num_steps: int, batch_size: int, seed: int) -> None:
        self.teacher, self.spans, self.num_steps, self.batch_size = teacher, spans, num_steps, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.pasts = run(teacher, spans.teachers, num_steps, seed, spans.home)
        self.steps = 0

    def losses(self, head: DepartureHead) -> Losses:
        """The innovation's squared error, in units of its spread, of what is drawn at all."""
        self.steps += 1
        if self.steps % REFRESH_EVERY == 0:
            own = copy.deepcopy(head).eval()
            half = len(self.pasts) // 2  # half of the pasts stay those of before
            chosen = torch.randperm(len(self.pasts), generator=self.generator)[:half]
            some = HeardTwice(*(value[chosen] for value in vars(self.spans).values()))
            self.pasts[chosen] = run(own, some.own, self.num_steps, self.steps, some.home)
        spans, memory, count = self.spans, head.memory, self.batch_size
        number, length, size = spans.mean.shape
        span = torch.randint(number, (count,), generator=self.generator)
        at = torch.randint(memory, length, (count,), generator=self.generator)
        past = torch.stack([self.pasts[span, at - 1 - k] for k in range(memory)], dim=1)
        past = past + self._moved(head, count, size)[:, None]
        home, mean = spans.home[span], spans.mean[span, at]
        departure = past[:, 0] - head.centre(spans.mean[span, at - 1], home)
        noise = torch.randn(count, size, generator=self.generator)
        rest = past, head.centre(mean, home), departure, home
        with torch.no_grad():
            seen = self.teacher.condition(spans.teacher_features[span, at].float(), *rest)
            wanted = self.teacher.sample(seen, noise, self.num_steps)
        drawn = head.sample(head.condition(spans.features[span, at].float(), *rest), noise, self.num_steps)
        error = ((drawn - wanted) / head.innovation_std).square().mean(0)
        spread = ((wanted - wanted.mean(0)) / head.innovation_std).square().mean(0)
        return {"loss": error.mean(), "unexplained": error.mean() / spread.mean()}

    def _moved(self, head: DepartureHead, count: int, size: int) -> Tensor:
        def often(*shape: int, share: float) -> Tensor:
            return (torch.rand(shape, generator=self.generator) < share).float()

        near = torch.randn(count, size, generator=self.generator) * head.innovation_std
        far = torch.randn(count, size, generator=self.generator) * head.departure_std * AWAY
        moves = head.persistence > 0
        return moves * (near * often(count, 1, share=ERROR_SHARE) + far * often(count, size, share=AWAY_SHARE)
                        * often(count, 1, share=AWAY_SHARE))  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.training.departure_handover", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=4000, batch_size=256, learning_rate=5e-4, precision="no")
    parser.add_argument("--checkpoint", required=True, help="the model that gets the head")
    parser.add_argument("--teacher", required=True, help="the model whose head it is")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus (eartalking.synth.speech)")
    parser.add_argument("--val", type=Path, required=True, help="held-out speech corpus")
    Portraits.add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of a span")
    parser.add_argument("--spans", type=int, default=192, help="spans to train on; one takes 130 kB a second")
    parser.add_argument(
        "--pose-noise", type=float, nargs=3, metavar=("YAW", "PITCH", "ROLL"), help="its noise; default: the teacher's"
    )
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    model, teacher = load_model(args.checkpoint), load_model(args.teacher).requires_grad_(False)
    if teacher.departure_head is None or teacher.config.departure is None:
        parser.error(f"--teacher {args.teacher}: that checkpoint has no departure head")
    model.config = dataclasses.replace(model.config, departure=teacher.config.departure)
    model = with_head(model)
    head, num_steps = model.departure_head, teacher.config.departure.num_steps
    assert head is not None
    try:
        spans = _heard(model, teacher, args, args.speech, "train", args.spans)
        held_out = _heard(model, teacher, args, args.val, "val", 24)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    look_alike(head, teacher.departure_head, spans)
    handover = Handover(teacher.departure_head, spans, num_steps, options.batch_size, options.seed)
    average = train(
        head.requires_grad_(True),
        lambda: None,
        lambda module, batch, progress: handover.losses(module),
        lambda module, step: evaluate(module, held_out.own, model, num_steps),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    head.load_state_dict(average.state_dict())
    if args.pose_noise:
        head.noise_scale[HEAD_POSE] = torch.tensor(args.pose_noise)
    save_model(model, options.out / "checkpoint")
    return 0


def _heard(
    model: TalkingHeadModel, teacher: TalkingHeadModel, args: argparse.Namespace, folder: Path, name: str, count: int
) -> HeardTwice:
    """Made once, then read from the run's folder."""
    path = args.out / f"heard_{name}.safetensors"
    if not path.is_file():
        args.out.mkdir(parents=True, exist_ok=True)
        portraits = Portraits.of_stills(model, args.portraits if name == "train" else args.val_portraits)
        hear_twice(model, teacher, folder, portraits, args.seconds, count, args.seed + (name == "val")).save(path)
    return HeardTwice.load(path)


if __name__ == "__main__":
    raise SystemExit(main())
