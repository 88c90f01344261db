"""Train a checkpoint further, for as long as there is a machine: `python -m eartalking.training.further --minutes 14
--out RUN`.

A *round* goes through the stages, each on from the checkpoint that the one before left, each for its share of the
minutes, at the end of which its rate has fallen: RUN/001, RUN/002, ... The next call goes on with a round that was cut
off, and starts a new one from the last one's checkpoint when it is whole. What a round leaves is a checkpoint
(RUN/001/checkpoint), the stages' logs and pictures, and their curves (RUN/001/curves.png).

Data is looked for in `--data` and, with `--make`, made there first: what renders and speaks on this machine says what
is possible, so on one without the engines take the folders along.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from eartalking.training.curves import draw_curves

ENDLESS = 10**9  # steps: minutes say when a stage is over


@dataclass(frozen=True)
class Stage:
    """A stage's share of a round, the data that it takes, and what it is told besides, on a GPU and without."""

    module: str  # of eartalking.training
    share: float
    data: dict[str, str]  # of DATA, by the flags that name the training and the validation split
    arguments: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()


# Only stages that go from a whole checkpoint to a whole checkpoint.
STAGES = {
    "encoder": Stage("encoder", 0.15, {"--data --val": "stills"}, ("--learning-rate", "3e-4"), ("--batch-size", "256")),
    "surface": Stage(
        "surface", 0.25, {"--data --val": "portraits"}, ("--learning-rate", "5e-4"), ("--batch-size", "128")
    ),
    "decoder": Stage(
        "decoder",
        0.25,
        {"--data --val": "stills"},
        ("--learning-rate", "4e-4", "--keep-reference"),
        ("--batch-size", "128"),
    ),
    "refiner": Stage("refiner", 0.15, {"--data --val": "stills"}, ("--learning-rate", "6e-4"), ("--batch-size", "256")),
    "departure": Stage(
        "departure",
        0.20,
        {"--speech --val": "speech", "--portraits --val-portraits": "stills"},
        ("--learning-rate", "5e-4"),
        ("--batch-size", "1024"),
    ),
}
# What makes each kind of data: the arguments for the training split, and for the validation split.
STILLS, PORTRAITS = ("--kind", "stills", "--frames", "6"), ("--kind", "portraits", "--frames", "4")
DATA: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "stills": ("clips", (*STILLS, "--count", "600"), (*STILLS, "--count", "16")),
    "portraits": ("clips", (*PORTRAITS, "--count", "1000"), (*PORTRAITS, "--count", "24")),
    "speech": ("speech", ("--hours", "2.5"), ("--hours", "0.2")),
}
TRAINING = 0.75  # of the minutes; the rest goes to loading, looking and writing
PLAN, CHECKPOINT = "plan.json", "checkpoint"


class Round:
    """One pass through the stages, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        self.start: str = plan["checkpoint"]
        self.minutes: dict[str, float] = plan["minutes"]

    @classmethod
    def next(cls, out: Path, checkpoint: str, stages: list[str], minutes: float) -> Round:
        """The round that is not whole yet, or a new one, from where the last one ended or from `checkpoint`."""
        rounds = sorted(out.glob(f"*/{PLAN}"))
        if rounds and not (rounds[-1].parent / CHECKPOINT).exists():
            return cls(rounds[-1].parent)
        start = str(rounds[-1].parent / CHECKPOINT) if rounds else checkpoint
        whole = sum(STAGES[name].share for name in stages)
        shares = {name: TRAINING * minutes * STAGES[name].share / whole for name in stages}
        folder = out / f"{len(rounds) + 1:03d}"
        folder.mkdir(parents=True)
        (folder / PLAN).write_text(json.dumps({"checkpoint": start, "minutes": shares}, indent=2), encoding="utf-8")
        return cls(folder)

    def run(self, data: Path, deadline: float, steps: int | None, common: list[str]) -> bool:
        """Train until `time.monotonic()` is past the deadline; whether the round is whole.

        Raises RuntimeError: a stage failed; its own message stands above.
        """
        checkpoint = self.start
        for name, minutes in self.minutes.items():
            out = self.folder / name
            left = (deadline - time.monotonic()) / 60
            if not self._is_over(name, steps):
                if left <= 0:
                    return False
                print(f"{self.folder.name}: {name}, {minutes:.1f} min", flush=True)
                length = ["--steps", str(steps)] if steps else ["--steps", str(ENDLESS), "--minutes", str(minutes)]
                length += ["--max-minutes", str(left)]
                command = [*_command(STAGES[name], checkpoint, data), "--out", str(out), *length, *common]
                if subprocess.run(command, check=False).returncode:
                    raise RuntimeError(f"{name} failed; run the command again to go on from {out}")
                if not self._is_over(name, steps):
                    return False
            checkpoint = str(out / CHECKPOINT)
        partial = self.folder / f".{CHECKPOINT}"
        shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
        partial.rename(self.folder / CHECKPOINT)
        return True

    def _is_over(self, name: str, steps: int | None) -> bool:
        path = self.folder / name / "state.pt"
        if not path.exists() or not (self.folder / name / CHECKPOINT).exists():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state["step"] >= (steps or ENDLESS) or state["elapsed_seconds"] >= 60 * self.minutes[name]


def _command(stage: Stage, checkpoint: str, data: Path) -> list[str]:
    command = [sys.executable, "-m", f"eartalking.training.{stage.module}", "--checkpoint", checkpoint]
    for flags, kind in stage.data.items():
        for flag, split in zip(flags.split(), ("train", "val"), strict=True):
            command += [flag, str(data / kind / split)]
    if stage.module == "departure":
        command += ["--init", checkpoint]
    return [*command, *stage.arguments, *(stage.gpu if torch.cuda.is_available() else ())]


def make_data(data: Path, kinds: set[str]) -> None:
    """Make what is missing of these kinds of data; what was begun is gone on with.

    Raises RuntimeError: it cannot be made here; the maker's own message stands above.
    """
    for kind in sorted(kinds):
        module, *splits = DATA[kind]
        for split, arguments in zip(("train", "val"), splits, strict=True):
            out = data / kind / split
            if (out / ".whole").exists():
                continue
            command = [
                sys.executable,
                "-m",
                f"eartalking.synth.{module}",
                "--out",
                str(out),
                "--split",
                split,
                *arguments,
            ]
            if subprocess.run(command, check=False).returncode:
                raise RuntimeError(f"{out} cannot be made here")
            (out / ".whole").touch()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.further", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the rounds")
    parser.add_argument("--minutes", type=float, required=True, help="how long this machine is there, all included")
    parser.add_argument("--checkpoint", default="default", help="where the first round starts")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with KIND/train and KIND/val")
    parser.add_argument("--make", action="store_true", help="make the data that is missing")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="of a new round")
    parser.add_argument("--steps", type=int, help="of every stage, whatever the minutes: to rehearse")
    args, common = parser.parse_known_args(argv)  # what is not known here is told to every stage
    if args.minutes <= 0:
        parser.error(f"--minutes {args.minutes:g}: no time")
    deadline = time.monotonic() + 60 * args.minutes
    try:
        kinds = {kind for name in args.stages for kind in STAGES[name].data.values()}
        if args.make:
            make_data(args.data, kinds)
        missing = [str(folder) for kind in sorted(kinds) if not (folder := args.data / kind / "train").is_dir()]
        if missing:
            parser.error(f"no data in {', '.join(missing)}; --make makes it")
        current = Round.next(args.out, args.checkpoint, args.stages, args.minutes)
        whole = current.run(args.data, deadline, args.steps, common)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    curves = draw_curves({name: current.folder / name / "log.jsonl" for name in current.minutes})
    curves.save(current.folder / "curves.png")
    report = {"round": str(current.folder), "whole": whole}
    print(json.dumps(report | ({"checkpoint": str(current.folder / CHECKPOINT)} if whole else {})))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
