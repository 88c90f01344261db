"""Every gate of the default checkpoint: `python -m benchmarks.quality --suite quick`.

Measured on identities, voices and texts held out of training, through the same StreamSession that everything else uses.
Prints one line per gate, passed or missed, beside its floor; writes all numbers, with hardware, checkpoint hash, commit
and date, to a JSON, and strips of pictures of what was measured beside it. The last stdout line is JSON.

    --suite quick   a few clips, drift over 60 s: about eight minutes on two cores
    --suite full    more clips, drift and motion over an hour
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gates.control import measure_control
from benchmarks.gates.material import SUITES, Material
from benchmarks.gates.motion import measure_motion
from benchmarks.gates.next_frame import measure_next_frame
from benchmarks.gates.photographs import measure_photographs
from benchmarks.gates.picture import measure_autoencoder
from benchmarks.gates.stream import measure_drift, measure_identity, measure_speed
from benchmarks.gates.streams import Context, save_pictures
from benchmarks.gates.table import ALL_GATES, GATES, GateRow, Unavailable, table
from benchmarks.gates.tokens import measure_tokens
from benchmarks.gates.voice import measure_lip_sync, measure_real_speech, measure_silence
from benchmarks.record import ROOT, provenance, write_result
from eartalking import load_model
from eartalking.errors import run_program

# The speed comes first: later gates would find the processor warm and the memory full of frames.
MEASURES: dict[str, Callable[[Context], list[GateRow]]] = {
    "speed": measure_speed,
    "autoencoder": measure_autoencoder,
    "next_frame": measure_next_frame,
    "tokens": measure_tokens,
    "motion": measure_motion,
    "lip_sync": measure_lip_sync,
    "real_speech": measure_real_speech,
    "silence": measure_silence,
    "identity": measure_identity,
    "drift": measure_drift,
    "control": measure_control,
    "photographs": measure_photographs,
}


def run(context: Context, groups: list[str]) -> tuple[list[GateRow], dict[str, float]]:
    """The rows of the groups in the order of GATES, and the seconds that each group took."""
    rows: dict[str, list[GateRow]] = {}
    seconds = {}
    for group, measure in MEASURES.items():
        if group in groups:
            started = time.monotonic()
            rows[group] = measure(context)
            seconds[group] = round(time.monotonic() - started, 1)
            print(f"{group}: {seconds[group]:.0f} s", file=sys.stderr)
    return [row for group in GATES if group in rows for row in rows[group]], seconds


def report(context: Context, rows: list[GateRow], about: dict[str, Any]) -> dict[str, Any]:
    """The result file's content."""
    try:
        accuracy = context.reader.accuracy
    except Unavailable:
        accuracy = None  # every row that needs the reader has said so
    return counted({**about, "face_reader_accuracy": accuracy, "gates": [dataclasses.asdict(row) for row in rows]})


def counted(result: dict[str, Any]) -> dict[str, Any]:
    """A result with how many of its gates passed, were missed, and could not be measured."""
    states = {"passed": True, "missed": False, "not_measured": None}
    return result | {word: sum(row["passed"] is state for row in result["gates"]) for word, state in states.items()}


def with_kept(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """A result with the gates that only an earlier one has, if that is of the same weights, suite and seed; of each
    group of these, `kept_from` says when it was measured and by which commit."""
    if any(earlier.get(name) != result[name] for name in ("checkpoint_sha256", "suite", "seed")):
        return result
    rows = {row["name"]: row for source in (earlier, result) for row in source["gates"]}
    seconds = earlier["seconds_by_group"] | result["seconds_by_group"]
    old = {group: {"date": earlier["date"], "commit": earlier["commit"]} for group in earlier["seconds_by_group"]}
    old |= earlier.get("kept_from", {})
    kept = {group: when for group, when in old.items() if group not in result["seconds_by_group"]}
    gates = [rows[name] for name in ALL_GATES if name in rows]
    return counted(result | {"seconds_by_group": seconds, "kept_from": kept, "gates": gates})


def _groups(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(MEASURES))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown gates {', '.join(unknown) or text!r}; known: {', '.join(MEASURES)}")
    return names


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--suite", choices=sorted(SUITES), default="quick")
    parser.add_argument("--gates", type=_groups, default=list(MEASURES), metavar="A,B,C", help=", ".join(MEASURES))
    parser.add_argument(
        "--stills", type=Path, help="folder of `stills` clips of the test split; default: rendered here"
    )
    parser.add_argument("--clips", type=Path, help="folder of `speech` clips of the test split; default: rendered here")
    parser.add_argument("--speech", type=Path, help="speech corpus of the test split; default: synthesised here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quality_<checkpoint>_<suite>.json")
    parser.add_argument(
        "--keep", action="store_true", help="keep the file's other gates, if of the same weights, suite and seed"
    )
    parser.add_argument("--pictures", type=Path, help="folder for the strips; default: beside the JSON, same name")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    about = {**provenance(args.checkpoint, args.threads), "suite": args.suite, "seed": args.seed}
    model = load_model(args.checkpoint)
    suite = SUITES[args.suite]
    material = Material(suite, model.config.autoencoder.image_size, args.stills, args.clips, args.speech)
    context = Context(model, suite, material, args.seed)
    rows, seconds = run(context, args.gates)
    about |= {"seconds": round(time.monotonic() - started, 1), "seconds_by_group": seconds}
    result = report(context, rows, about)
    out = args.out or ROOT / "benchmarks" / "results" / f"quality_{Path(args.checkpoint).name}_{args.suite}.json"
    if args.keep and out.is_file():
        result = with_kept(result, json.loads(out.read_text(encoding="utf-8")))
    write_result(out, result)
    save_pictures(context.pictures, args.pictures or out.with_suffix(""))
    print(table(rows))
    print(
        json.dumps(
            {key: value for key, value in result.items() if key != "gates"}
            | {"values": {row.name: row.value for row in rows}}
        )
    )
    return 0


if __name__ == "__main__":
    run_program(main)
