"""Stage 8, the autoregressive model: `python -m eartalking.training.teacher_forcing --data DIR --checkpoint DIR --out
RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 128 --steps 20000 --max-minutes 9` (resumes slice by slice).

Teacher forcing with a history that cannot be trusted. At 25 fps the previous frame explains nearly all of the next, so
a model that may copy never listens: in a third of the clips the history is pure noise, elsewhere each frame of it is
noised with p = 0.5, and every control is released or given at random switch times. Where an expression is given, the
goal is the face without it (`motion.steering.expression`), and the history may have another one added.
`--resample-share` adds the
cure for exposure bias: the history of that share of the clips is the model's own prediction (one pass without
gradient).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from eartalking.audio import Wav2Vec2AudioEncoder
from eartalking.checkpoint import load_model, save_model
from eartalking.config import from_json
from eartalking.controls import BROW, EMOTIONS, SMILE, ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.steering import expression
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES, units_of
from eartalking.training.data import LatentClips, Sequence
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.rollout import JAW, audio_tokens, correlation, evaluation_batch, measure_articulation, rollout

NO_HISTORY_SHARE = 0.35
# Of the clips and expression tracks that are given: the history has another expression added.
OTHER_EXPRESSION_SHARE = 0.4


class TeacherForcingTrainer(nn.Module):
    """The model over whole windows, from voice to condition. With `learns_expressions` it shall emit those that are
    given, too, by their tokens alone; else they are added afterwards (`motion.steering.expression`)."""

    def __init__(self, model: TalkingHeadModel, learns_expressions: bool = False) -> None:
        super().__init__()
        self.model = model
        self.learns_expressions = learns_expressions

    def added(self, controls: ControlBatch) -> ControlBatch:
        """The controls whose expressions are not the network's to emit."""
        return controls.without_expressions() if self.learns_expressions else controls

    def forward(
        self,
        sequence: Sequence,
        controls: ControlBatch,
        history: Tensor,
        noise_level: Tensor,
        speakers: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> cond (B, T, P, D), sink (B, D), what the voice adds (B, T, N, C). speakers: as of `audio_tokens`."""
        audio = audio_tokens(self.model, sequence, speakers)
        cond, sink = self.model(
            audio, controls, history, noise_level, sequence.reference_latents, sequence.reference_features
        )
        return cond, sink, self.model.heard(audio)


def draw_controls(sequence: Sequence, generator: torch.Generator) -> ControlBatch:
    """True values with a random subset given: each track is given in half of the clips, and switches at random
    times.
    """
    batch, length = sequence.values.shape[:2]
    tracks = sequence.values.shape[2] + 1

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    given = uniform(batch, 1, tracks) < 0.5
    switch = (uniform(batch, 1, tracks) * length * 2).long()  # half of the tracks switch inside the window
    given = given ^ (torch.arange(length)[None, :, None] >= switch)
    # Whole clips without any control, and with all of them, are the two cases that users meet most.
    kind = uniform(batch, 1, 1)
    given = torch.where(kind < 0.2, False, torch.where(kind > 0.95, True, given))
    return ControlBatch(sequence.values, sequence.emotion, sequence.intensity, given.to(sequence.values.device))


def true_history(model: TalkingHeadModel, sequence: Sequence, controls: ControlBatch) -> Tensor:
    """What a stream would have of the frame before each frame (B, T, N, C): without the expressions that were given
    then and still are. The window starts with whatever the clip's frame before wore."""
    before = controls.map(lambda value: value[:, :-1])
    after = controls.map(lambda value: value[:, 1:])
    still = ControlBatch(before.values, before.emotion, before.intensity, before.given & after.given)
    return torch.cat(
        [
            sequence.previous[:, None],
            sequence.latents[:, :-1] - expression(sequence.labels[:, :-1], still, model.autoencoder.code),
        ],
        dim=1,
    )


def targets(model: TalkingHeadModel, sequence: Sequence, controls: ControlBatch) -> Tensor:
    """What the network shall emit (B, T, N, C): the true latents without the expressions that are given."""
    return sequence.latents - expression(sequence.labels, controls, model.autoencoder.code)


def noised(history: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """History with noise, and its level (B, T): frame by frame with p = 0.5; total for a share of the clips.

    Part of the noise is shared by all frames of a clip, because a drifting stream's errors are.
    """
    batch, length = history.shape[:2]
    device = history.device
    level = torch.rand(batch, length, generator=generator) * (torch.rand(batch, length, generator=generator) < 0.5)
    level[torch.rand(batch, generator=generator) < NO_HISTORY_SHARE] = 1.0
    level = level.to(device)
    shared = torch.rand(batch, 1, 1, 1, generator=generator).to(device)
    noise = (1 - shared).sqrt() * torch.randn_like(history) + shared.sqrt() * torch.randn_like(history[:, :1])
    weight = level[:, :, None, None]
    return (1 - weight) * history + weight * noise, level


def with_other_expressions(
    model: TalkingHeadModel, history: Tensor, labels: Tensor, controls: ControlBatch, generator: torch.Generator
) -> Tensor:
    """History (B, T, N, C) of faces that move like `labels` (B, T, L), with expressions of its own added where the
    track is given; over a whole window, or here and there.

    What was asked for before stays in the history when the track is released, and what the model itself showed when it
    is given: a model that never met either lets an expression fade in and out over a second.
    """
    batch, length = history.shape[:2]
    tracks = torch.tensor([BROW, SMILE, -1])

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    everywhere = uniform(batch, 1, 3) < 0.5
    chosen = (everywhere | (uniform(batch, length, 3) < 0.3)) & (uniform(batch, 1, 3) < OTHER_EXPRESSION_SHARE)
    other = ControlBatch.released(batch, length)
    other.values[..., [BROW, SMILE]] = 2 * uniform(batch, 1, 2) - 1
    other.emotion[:] = torch.randint(len(EMOTIONS), (batch, 1), generator=generator)
    other.intensity[:] = uniform(batch, 1)
    other.given[..., tracks] = chosen & controls.given[..., tracks].cpu()
    return history + expression(labels, other.map(lambda value: value.to(history.device)), model.autoencoder.code)


def compute_losses(
    trainer: nn.Module,
    sequence: Sequence,
    generator: torch.Generator,
    resample_share: float = 0.0,
    clean_history: bool = False,
) -> Losses:
    inner = trainer_inside(trainer)
    model = inner.model
    controls = draw_controls(sequence, generator)
    added = inner.added(controls)
    goal, history = targets(model, sequence, added), true_history(model, sequence, added)
    if resample_share > 0:
        history = resampled(trainer, sequence, controls, history, generator, resample_share)
    if clean_history:
        level = history.new_zeros(history.shape[:2])
    else:
        history, level = noised(with_other_expressions(model, history, sequence.labels, added, generator), generator)
    cond, sink, heard = trainer(sequence, controls, history, level, generator)
    losses = model.emission_head.loss(
        model.to_tokens(goal - heard).flatten(0, 1), cond.flatten(0, 1), sink.repeat_interleave(level.shape[1], 0)
    )
    return {"loss": 0.5 * losses.residual + losses.regression, **losses._asdict()}


def trainer_inside(trainer: nn.Module) -> TeacherForcingTrainer:
    """The trainer, whether or not it is wrapped for several processes."""
    return getattr(trainer, "module", trainer)


@torch.no_grad()
def resampled(
    trainer: nn.Module,
    sequence: Sequence,
    controls: ControlBatch,
    history: Tensor,
    generator: torch.Generator,
    share: float,
) -> Tensor:
    """In a share of the clips, the model's own samples, made from a noised history, in place of the true one."""
    model = trainer_inside(trainer).model
    start, level = noised(history, generator)
    cond, sink, heard = trainer(sequence, controls, start, level, generator)
    batch, length = level.shape
    own = model.emission_head.sample(
        cond.flatten(0, 1), sink.repeat_interleave(length, 0), num_steps=2, temperature=model.config.temperature
    )
    own = model.from_tokens(own).unflatten(0, (batch, length)) + heard
    own = torch.cat([history[:, :1], own[:, :-1]], dim=1)
    chosen = (torch.rand(batch, generator=generator) < share).to(history.device)
    return torch.where(chosen[:, None, None, None], own, history)


@torch.no_grad()
def evaluate(trainer: TeacherForcingTrainer, sequence: Sequence) -> dict[str, float]:
    """Against copying and against shuffled audio, teacher-forced and free-running; and whether controls act."""
    model = trainer.model
    batch, length = sequence.latents.shape[:2]
    device = sequence.latents.device
    released = ControlBatch.released(batch, length, device=device)
    history = true_history(model, sequence, released)
    given = ControlBatch(sequence.values, sequence.emotion, sequence.intensity, torch.ones_like(released.given))
    none, clean = torch.ones(batch, length, device=device), torch.zeros(batch, length, device=device)
    noise = torch.randn(history.shape, generator=torch.Generator().manual_seed(0)).to(device)
    shuffled = Sequence(**{**vars(sequence), "waveform": sequence.waveform.roll(1, 0)})

    def error(source: Sequence, controls: ControlBatch, past: Tensor, level: Tensor) -> float:
        cond, _, heard = trainer(source, controls, past, level)
        emitted = model.from_tokens(model.emission_head.mean(cond)).float() + heard
        return float((emitted - targets(model, source, trainer.added(controls))).pow(2).mean())

    free, free_shuffled, free_given = (
        rollout(model, source, controls)
        for source, controls in ((sequence, released), (shuffled, released), (sequence, given))
    )
    read, read_shuffled, read_given = (
        model.autoencoder.code.latents_to_motion(latents) for latents in (free, free_shuffled, free_given)
    )
    given_units, asked_units = (units_of(motion) for motion in (read_given, sequence.labels))
    pose, asked = (
        read_given[..., HEAD_POSE] / MOTION_SCALES["head_pose"],
        sequence.labels[..., HEAD_POSE] / MOTION_SCALES["head_pose"],
    )
    blink = UNIT_INDEX["eyeBlinkLeft"]
    return {
        "forced": error(sequence, released, history, clean),
        "copy": float((history - sequence.latents).pow(2).mean()),
        "no_history": error(sequence, released, noise, none),
        "no_history_shuffled": error(shuffled, released, noise, none),
        "no_history_given": error(sequence, given, noise, none),
        "mouth_free": correlation(read[..., JAW], sequence.labels[..., JAW]),
        "mouth_shuffled": correlation(read_shuffled[..., JAW], sequence.labels[..., JAW]),
        "pose_error_given": float((pose - asked).abs().mean()),
        "blink_given": correlation(read_given[..., blink], sequence.labels[..., blink]),
        "units_error_given": float((given_units - asked_units).abs().mean()),
        "jaw_spread": float(read[..., JAW].std(1).mean() / sequence.labels[..., JAW].std(1).mean()),
        "free_rms": float(free.pow(2).mean().sqrt()),
        "free_jitter": _motion_energy(free) / _motion_energy(sequence.latents),
    }


def _motion_energy(latents: Tensor) -> float:
    return float((latents[:, 1:] - latents[:, :-1]).pow(2).mean())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.training.teacher_forcing", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=6000, batch_size=16, learning_rate=6e-4)
    parser.add_argument("--data", type=Path, required=True, help="folder made by eartalking.training.encode")
    parser.add_argument("--checkpoint", required=True, help="where the autoencoder comes from (the encode stage's)")
    parser.add_argument("--audio", help="checkpoint whose audio encoder to take")
    parser.add_argument(
        "--wav2vec2", metavar="NAME", help="hub id or folder whose weights a `wav2vec2` encoder starts with, and keeps"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init", help="checkpoint to take everything but the autoencoder from")
    start.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a new model of these sizes (a config.json), but for the autoencoder",
    )
    parser.add_argument("--length", type=int, default=16, help="frames per training window")
    parser.add_argument(
        "--resample-share", type=float, default=0.0, help="share of the clips with the model's own history"
    )
    parser.add_argument(
        "--clean-history", action="store_true", help="the ablation: true histories, without noise or other expressions"
    )
    parser.add_argument(
        "--learn-expressions",
        action="store_true",
        help="the ablation: brow, smile and emotion emitted by their tokens alone; a stream would add them once more",
    )
    parser.add_argument("--eval-length", type=int, default=60, help="frames of the held-out windows")
    return parser


def starting_model(args: argparse.Namespace) -> TalkingHeadModel:
    """The model that training starts from, its autoencoder that of `--checkpoint`.

    Raises:
        ValueError: what a flag names cannot be used; the message begins with the flag and what it names.
    """
    model = load_model(args.checkpoint)
    autoencoder = model.autoencoder
    try:
        if args.init:
            model = load_model(args.init)
        elif args.config:
            model = TalkingHeadModel(from_json(args.config.read_text(encoding="utf-8")))
        model.autoencoder.load_state_dict(autoencoder.state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        flag = f"--init {args.init}" if args.init else f"--config {args.config}"
        raise ValueError(f"{flag}: {' '.join(str(error).split())}") from error
    if args.audio:
        model.audio_encoder.load_state_dict(load_model(args.audio).audio_encoder.state_dict())
    model.requires_grad_(True)
    if args.wav2vec2:
        if not isinstance(model.audio_encoder, Wav2Vec2AudioEncoder):
            raise ValueError(f"--wav2vec2: the audio encoder of {args.checkpoint} is {model.config.audio.encoder}")
        try:
            model.audio_encoder.load_pretrained(args.wav2vec2)
        except (OSError, ValueError) as error:
            raise ValueError(f"--wav2vec2: {error}") from error
        model.audio_encoder.backbone.requires_grad_(False)
    model.autoencoder.requires_grad_(False).eval()
    return model


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    try:
        model = starting_model(args)
    except ValueError as error:
        parser.error(str(error))
    trainer = TeacherForcingTrainer(model, args.learn_expressions).train()
    model.autoencoder.eval()
    clips, held_out = LatentClips(args.data / "train.safetensors"), LatentClips(args.data / "val.safetensors")
    fixed = evaluation_batch(held_out, args.eval_length).to(accelerator.device)
    rng, generator = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    average = train(
        trainer,
        lambda: clips.sample(options.batch_size, args.length, rng).to(accelerator.device),
        lambda module, batch, progress: compute_losses(
            module, batch, generator, args.resample_share, args.clean_history
        ),
        lambda module, step: evaluate(module, fixed),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        many = evaluation_batch(held_out, args.eval_length, count=96).to(accelerator.device)
        average.model.articulation.copy_(measure_articulation(average.model, many))
        save_model(average.model, options.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
