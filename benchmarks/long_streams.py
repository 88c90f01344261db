"""What holds a stream over minutes: checkpoints side by side on voices that go on for long, the paper's sink and its
noised histories above all.

    python -m benchmarks.long_streams with=runs/rivals/ours_mean/checkpoint no_sink=runs/rivals/no_sink/checkpoint

No picture is made: what is compared is the motion that they emit when nothing is asked of them, against what
SynthTalk's people do who say the same, in windows of ten seconds. All hear the same voices and draw the same noise, so
they are compared voice by voice with the first one that is named. Writes a JSON, and a plot beside it; the last stdout
line is JSON.

Notation: V voices, W windows, T frames.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gates.material import SUITES, Material
from benchmarks.gates.motion import STANDS, Moved, emitted, spoken
from benchmarks.gates.table import Unavailable
from benchmarks.record import ROOT, provenance, write_result
from eartalking import load_model
from eartalking.config import FPS
from eartalking.errors import run_program
from eval.metrics.signals import correlation

WINDOW = 10  # seconds
HORIZONS = (10, 60, 300)  # seconds: the windows that end there are told
RESAMPLES = 2000
# What is measured of every window, and how the plot calls it.
MEASURES = {
    "lips": "jaw: correlation with the true one",
    "opening": "jaw: spread, of people's",
    "away_deg": "head beside its portrait, degrees",
}


@dataclass(frozen=True)
class Course:
    """How streams go on: each of MEASURES in every window (V, W)."""

    lips: np.ndarray
    opening: np.ndarray
    away_deg: np.ndarray

    @classmethod
    def of(cls, made: Moved, true: Moved) -> Course:
        """One stream of each voice, against one performance of it."""
        jaw, true_jaw = _windows(made.jaw[:, 0]), _windows(true.jaw[:, 0])
        lips = [[correlation(*pair) for pair in zip(*voice, strict=True)] for voice in zip(jaw, true_jaw, strict=True)]
        stands = np.resize(np.array(STANDS), (len(jaw), 1, 3))
        away = np.abs(made.pose[:, 0] - stands).max(-1)  # (V, T)
        opening = jaw.std(2) / np.maximum(true_jaw.std(2), 1e-6)
        return cls(np.array(lips), opening, _windows(away).mean(2))


def _windows(tracks: np.ndarray) -> np.ndarray:
    """(V, T) -> (V, W, frames of a window), what is left over not counted."""
    length = WINDOW * FPS
    count = tracks.shape[1] // length
    return tracks[:, : count * length].reshape(len(tracks), count, length)


def told(values: np.ndarray) -> dict[str, list[float]]:
    """Of (V, W): mean over the voices, and its 95 % interval by bootstrap over them, of the windows at HORIZONS."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    found = {}
    for seconds in HORIZONS:
        index = seconds // WINDOW - 1
        if index < values.shape[1]:
            column = values[:, index]
            low, high = np.percentile(column[draws].mean(1), [2.5, 97.5])
            found[f"{seconds} s"] = [round(float(number), 3) for number in (column.mean(), low, high)]
    return found


def compared(courses: dict[str, Course]) -> dict[str, Any]:
    """Every course at HORIZONS, and how it differs there from the first one's."""
    first = next(iter(courses.values()))
    return {
        name: {
            measure: {"at": told(getattr(course, measure))}
            | ({} if course is first else {"less_first": told(getattr(course, measure) - getattr(first, measure))})
            for measure in MEASURES
        }
        for name, course in courses.items()
    }


def draw(courses: dict[str, Course], path: Path) -> None:
    """Each measure over the seconds, mean of the voices, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(MEASURES), 1, figsize=(8, 3 * len(MEASURES)), sharex=True)
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for name, course in courses.items():
            values = getattr(course, measure).mean(0)
            axis.plot(WINDOW * (np.arange(len(values)) + 1), values, marker=".", label=name)
        axis.set(title=title)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    axes[-1].set(xlabel="seconds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    Image.open(path).convert("RGB").quantize(64).save(path)  # lines need few colours


def _named(text: str) -> tuple[str, str]:
    name, equals, checkpoint = text.partition("=")
    if not (name and equals and checkpoint):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=CHECKPOINT")
    return name, checkpoint


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_streams", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=_named, metavar="NAME=CHECKPOINT")
    parser.add_argument("--seconds", type=int, default=300, help=f"of each voice, {WINDOW} at least (default: 300)")
    parser.add_argument("--voices", type=int, default=12)
    parser.add_argument("--speech", type=Path, help="speech corpus of the test split; default: synthesised here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "long_streams.json")
    args = parser.parse_args(argv)
    if args.seconds < WINDOW:
        parser.error(f"--seconds {args.seconds}: a window has {WINDOW}")
    torch.set_num_threads(args.threads)
    courses: dict[str, Course] = {}
    about = {}
    try:
        models = {name: load_model(checkpoint) for name, checkpoint in args.checkpoints}
        speech = Material(SUITES["quick"], 256, speech=args.speech).speech_folder()
        voices, true = spoken(speech, args.voices, args.seconds, 1)
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    waveforms = [voice.waveform for voice in voices]
    for name, checkpoint in args.checkpoints:
        about[name] = provenance(checkpoint, args.threads)
        seeds = range(args.seed, args.seed + 1)
        courses[name] = Course.of(emitted(models[name], waveforms, seeds, args.seconds * FPS, name), true)
    result = {"checkpoints": about, "seconds": args.seconds, "voices": args.voices, "seed": args.seed}
    result["compared"] = compared(courses)
    write_result(args.out, result)
    draw(courses, args.out.with_suffix(".png"))
    print(json.dumps(result["compared"]))
    return 0


if __name__ == "__main__":
    run_program(main)
