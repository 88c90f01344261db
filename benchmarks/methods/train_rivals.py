"""Train ours, its ablations and its rivals for the same time on the same data:

    python -m benchmarks.methods.train_rivals --data data/latents --free-data data/latents-free \\
        --speech data/speech/train --val-speech data/speech/val \\
        --portraits data/stills/train --val-portraits data/stills/val --minutes 20 --out runs/rivals

`--data` is made by `eartalking.training.encode --checkpoint default --decoder default --keep-statistics`: the shipped
autoencoder's latents, so that all decode by it. `--free-data` likewise with `--jump-share 0`, for those that are not
told of controls: heads that jump because they were asked to would teach them to jump. Everything that hears starts with
the shipped audio encoder. Each gets `--minutes` of this machine, all its stages together: give each one core
(`taskset`, OMP_NUM_THREADS=1), and let nothing else run. The rate falls at the end, and the moving average of the
weights is what is kept, of all alike. What is trained is gone on with when the command is run again.

Leaves the runs, `OUT/budgets.json` (minutes, steps, frames seen, parameters, what was held out) and the learning
curves, `OUT/budgets.png`. The rivals' weights are `OUT/NAME.safetensors`: `benchmarks.compare --methods
NAME=motion_ar:OUT/motion_ar.safetensors` has them in a row, and in benchmarks/methods/weights they are what ships.
Other seeds: `--seed 1` and another `--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eartalking.checkpoint import CONFIG_NAME, DEFAULT_CHECKPOINT, resolve, weight_files
from eartalking.config import ModelConfig, from_json, to_json
from eartalking.training.curves import draw_curves

ENDLESS = 10**7  # steps: minutes say when a stage is over
LATENTS, FREE = ("--data", "{data}"), ("--data", "{free_data}")
OURS = ("--checkpoint", "{data}/checkpoint", "--audio", DEFAULT_CHECKPOINT, "--batch-size", "12")
RIVAL = (*FREE, "--checkpoint", DEFAULT_CHECKPOINT, "--audio", DEFAULT_CHECKPOINT, "--weights")
CLIP_WEIGHTS, MOTION_WEIGHTS = "{out}/clip_diffusion.safetensors", "{out}/motion_ar.safetensors"
PEOPLE = ("--portraits", "{portraits}", "--val-portraits", "{val_portraits}")
SPOKEN = ("--speech", "{speech}", "--val", "{val_speech}", *PEOPLE, "--spans", "120")


@dataclass(frozen=True)
class Stage:
    """A trainer, its share of the minutes, and how many frames one of its steps sees. `change` of the shipped
    configuration: a new model of ours; `{out}` in `arguments` is the folder of the runs."""

    name: str
    module: str
    minutes: float
    frames: int
    arguments: tuple[str, ...]
    change: dict[str, Any] | None = None


def _ours(name: str, minutes: float, *arguments: str, **change: Any) -> Stage:
    change = {"departure": None, "emission": "regression"} | change
    return Stage(name, "eartalking.training.teacher_forcing", minutes, 12 * 16, (*LATENTS, *OURS, *arguments), change)


# The ablations show their mean, so they are trained as long as the mean of ours is.
MEAN = 0.75
STAGES = (
    _ours("ours_mean", MEAN),
    Stage(
        "ours", "eartalking.training.departure", 1 - MEAN, 256, ("--checkpoint", "{out}/ours_mean/checkpoint", *SPOKEN)
    ),
    _ours("no_sink", MEAN, sink_size=0),
    _ours("clean_history", MEAN, "--clean-history", history_level=0.0),
    _ours("masked_ar", 1.0, emission="masked_ar", num_steps=25, temperature=1.0),
    Stage("clip_diffusion", "benchmarks.methods.train_clip_diffusion", 1.0, 64 * 16, (*RIVAL, CLIP_WEIGHTS)),
    Stage(
        "clip_diffusion_few_steps",
        "benchmarks.methods.distil_clip_diffusion",
        0.25,
        64 * 16,
        (*FREE, "--checkpoint", DEFAULT_CHECKPOINT, "--teacher", CLIP_WEIGHTS),
    ),
    Stage("motion_ar", "benchmarks.methods.train_motion_ar", 1.0, 32 * 24, (*RIVAL, MOTION_WEIGHTS)),
)


@dataclass
class Plan:
    """What the command was told; `places` fill the stages' arguments."""

    out: Path
    minutes: float
    places: dict[str, str]
    common: list[str] = field(default_factory=list)

    def command(self, stage: Stage) -> list[str]:
        """How the stage is started, its configuration written where it needs one."""
        given = [word.format(**self.places) for word in stage.arguments]
        if stage.change is not None:
            path = self.out / f"{stage.name}.json"
            path.write_text(to_json(changed(stage.change)), encoding="utf-8")
            given += ["--config", str(path)]
        length = ["--steps", str(ENDLESS), "--minutes", f"{self.minutes * stage.minutes:g}"]
        return [sys.executable, "-m", stage.module, *given, "--out", str(self.out / stage.name), *length, *self.common]

    def run(self, stages: list[Stage]) -> None:
        """Train the stages one after the other. Raises RuntimeError: one failed; its own message stands above."""
        self.out.mkdir(parents=True, exist_ok=True)
        for stage in stages:
            print(f"{stage.name}: {self.minutes * stage.minutes:g} min", flush=True)
            if subprocess.run(self.command(stage), check=False).returncode:
                raise RuntimeError(f"{stage.name} failed; run the command again to go on")


def changed(change: dict[str, Any]) -> ModelConfig:
    """The shipped configuration with some fields changed."""
    shipped = from_json((resolve(DEFAULT_CHECKPOINT) / CONFIG_NAME).read_text(encoding="utf-8"))
    return dataclasses.replace(shipped, **change)


def budget(stage: Stage, out: Path) -> dict[str, Any] | None:
    """What a stage's run took and reached, from its log; None where there is none."""
    log = out / stage.name / "log.jsonl"
    if not log.is_file():
        return None
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    held_out = [row for row in rows if any(key.startswith("eval_") for key in row)]
    steps = rows[-1]["step"]
    return {
        "minutes": round(rows[-1]["seconds"] / 60, 1),
        "steps": steps,
        "frames": steps * stage.frames,
        "parameters": parameters(stage, out),
        "held_out": {key[5:]: value for key, value in held_out[-1].items() if key.startswith("eval_")},
    }


def parameters(stage: Stage, out: Path) -> int | None:
    """Numbers in the weights that the stage left, without an autoencoder's; None where there are none."""
    checkpoint, weights = out / stage.name / "checkpoint", out / f"{stage.name}.safetensors"
    files = weight_files(checkpoint) if checkpoint.is_dir() else [weights] if weights.is_file() else []
    count = 0
    for file in files:
        with safe_open(file, "pt") as tensors:
            names = [name for name in tensors.keys() if not name.startswith("autoencoder.")]
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return count or None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods.train_rivals", description=__doc__.split("\n")[0]
    )
    names = [stage.name for stage in STAGES]
    parser.add_argument("--data", type=Path, required=True, help="folder made by eartalking.training.encode")
    parser.add_argument("--free-data", type=Path, required=True, help="the same, of controls that do not jump")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus, training split")
    parser.add_argument("--val-speech", type=Path, required=True, help="speech corpus, validation split")
    parser.add_argument("--portraits", type=Path, required=True, help="folder of stills, whose portraits speak")
    parser.add_argument("--val-portraits", type=Path, required=True, help="the same of held-out people")
    parser.add_argument("--minutes", type=float, required=True, help="of each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="of the stages, in their order")
    args, common = parser.parse_known_args(argv)  # what is not known here is told to every stage
    chosen = [stage for stage in STAGES if stage.name in args.only]
    places = {
        "data": args.data,
        "free_data": args.free_data,
        "speech": args.speech,
        "val_speech": args.val_speech,
        "portraits": args.portraits,
        "val_portraits": args.val_portraits,
        "out": args.out,
    }
    try:
        Plan(args.out, args.minutes, {name: str(path) for name, path in places.items()}, common).run(chosen)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    budgets = {stage.name: found for stage in STAGES if (found := budget(stage, args.out)) is not None}
    (args.out / "budgets.json").write_text(json.dumps(budgets, indent=1) + "\n", encoding="utf-8")
    draw_curves({name: args.out / name / "log.jsonl" for name in budgets}).save(args.out / "budgets.png")
    print(json.dumps(budgets))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
