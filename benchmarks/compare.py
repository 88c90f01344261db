"""The leaderboard, from nothing: `python -m benchmarks.compare --methods all --suite quick`.

Every method makes the videos of a test set, eval.run's `score` judges them by one protocol (the truth as well), each
method is timed in a process of its own, and one row per method goes into `leaderboard.csv`, with a table
(`leaderboard.md`), plots, and what the methods made of the first clip as a picture.

Videos, features and timings are kept under `--work` by content: a second run does what changed, and a run that was cut
off goes on. With several processes, of one machine (`torchrun --nproc-per-node 2 -m benchmarks.compare ...`) or of
many that see one `--work` (`benchmarks/compare.sbatch`), the videos and their features are shared out among them;
timing is then done by one process, alone on its machine.

Suites: `quick` is the small set in the repository; `full`, `controls`, `longform` and `photographs` are made by
eval.testset when they are not in `data/testset`; `--testset DIR` takes any set, of real videos too. The last stdout
line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import PartialState
from tqdm import tqdm

from benchmarks.leaderboard.headline import method_name
from benchmarks.leaderboard.method_latency import KEYS as LATENCY_KEYS
from benchmarks.leaderboard.plots import draw
from benchmarks.leaderboard.requests import load_requests
from benchmarks.leaderboard.rows import (
    MEASURED,
    Row,
    latency_cells,
    markdown,
    merged,
    metric_cells,
    paper_rows,
    read_csv,
    write_csv,
)
from benchmarks.leaderboard.side_by_side import QUALITY, side_by_side
from benchmarks.leaderboard.suites import SUITES, SUSTAINED_SECONDS, find_testset, judged, metrics_of, protocol_of
from benchmarks.methods import argument, choose
from benchmarks.methods.base import Method, NotReady, Request, Sound, content
from eartalking.checkpoint import DEFAULT_CHECKPOINT
from eartalking.errors import InputError, printable
from eartalking.io.sound import read_audio
from eartalking.io.video_writer import VideoWriter
from eval.networks.canonical_weights import WeightsStore
from eval.protocol import Protocol
from eval.provenance import ROOT, git_commit, hardware
from eval.run import fill_cache, score
from eval.testset import MANIFEST

RESULTS = ROOT / "benchmarks" / "results"
# A process waits so long for the others: a share of a large suite takes hours.
PATIENCE = datetime.timedelta(days=2)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one call does. testset: folder of the set, `set_key` names its content; work: where videos are kept."""

    suite: str
    testset: Path
    set_key: str
    work: Path
    checkpoint: str
    seed: int
    threads: int

    @functools.cache  # noqa: B019 (a plan lives as long as the program; versions hash whole checkpoints)
    def folder(self, method: Method) -> Path:
        """The videos of this version of the method on this set."""
        return self.work / f"{self.suite}-{self.set_key}" / method.name / f"{method.version()}-seeds-{self.seed}"

    @property
    def features(self) -> Path:
        """Where features are kept, of every set and method, by content."""
        return self.work / "features"

    def video(self, method: Method, request: Request) -> Path:
        """Where the method's video of a clip lies."""
        return self.folder(method) / f"{request.name}.mp4"


def generate(plan: Plan, methods: list[Method], requests: list[Request], state: PartialState) -> dict[str, str]:
    """Make the videos that are missing, this process its share; why a method or a clip of it could not be made, by
    method.
    """
    problems: dict[str, str] = {}
    missing = [
        (method, request) for method in methods for request in requests if not plan.video(method, request).is_file()
    ]
    share = missing[state.process_index :: state.num_processes]
    prepared: dict[str, str] = {}
    with tqdm(total=len(share), unit="video", desc="videos", disable=not state.is_main_process, mininterval=1) as bar:
        for method, request in share:
            bar.set_postfix_str(method.name, refresh=False)
            if method.name not in prepared:
                prepared[method.name] = _attempt(method.prepare)
            reason = prepared[method.name] or _attempt(functools.partial(_make, plan, method, request))
            if reason:
                problems[method.name] = reason if prepared[method.name] else f"{request.name}: {reason}"
            bar.update()
    return problems


def _attempt(action: Callable[[], None]) -> str:
    """Why the action failed, in one line; empty when it did not."""
    try:
        action()
    except (NotReady, InputError) as error:
        return printable(str(error))
    return ""


def _make(plan: Plan, method: Method, request: Request) -> None:
    """One video, with the clip's own sound whatever the method listened to."""
    path = plan.video(method, request)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert request.audio_path is not None, "requests of a test set name their sound"
    frames = method.generate(request, Sound(read_audio(request.audio_path)))
    first = next(iter(frames), None)
    if first is None:
        raise NotReady("no frame was made")
    with VideoWriter(path, first.shape[:2], audio=request.audio_path) as writer:
        writer.write(first)
        for image in frames:
            writer.write(image)


def time_method(plan: Plan, method: Method, externals: dict[str, Path], seconds: float) -> Row:
    """What `benchmarks.leaderboard.method_latency` says of the method in a fresh process; kept beside the videos.
    `error` where it failed.
    """
    kept = plan.folder(method) / f"latency-{plan.threads}-{seconds:g}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    named = ["--external", str(externals[method.name])] if method.name in externals else ["--method", argument(method)]
    command = [
        sys.executable,
        "-m",
        "benchmarks.leaderboard.method_latency",
        *named,
        "--testset",
        str(plan.testset),
        "--checkpoint",
        plan.checkpoint,
        "--threads",
        str(plan.threads),
        "--seconds",
        str(seconds),
    ]
    # Not the load average: that remembers for minutes what this program itself did before.
    load = psutil.cpu_percent(interval=1.0) / 100 * (os.cpu_count() or 1)
    environment = {
        name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
    }  # torchrun sets it to 1
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return {"error": (done.stderr.strip() or "no message").splitlines()[-1]}
    if "error" not in found:
        found["latency_load"] = round(load, 2)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def about_row(plan: Plan, method: Method, clips: int, command: str) -> Row:
    """The part of a row that tells where it comes from."""
    machine = hardware(plan.threads)
    return {
        "method": method.name,
        "kind": method.kind,
        "about": method.about,
        "suite": plan.suite,
        "source": MEASURED,
        "clips": clips,
        "seed": plan.seed,
        "version": method.version(),
        "testset": plan.set_key,
        "hardware": f"{machine['processor']}, {machine['cores']} cores, {plan.threads} threads, "
        f"torch {machine['torch']}",
        "commit": git_commit() or "",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command,
    }


def compare(
    plan: Plan,
    methods: list[Method],
    externals: dict[str, Path],
    metrics: list[str] | None,
    timed: bool,
    command: str,
    store: WeightsStore | None = None,
) -> tuple[list[Row], dict[str, list[dict[str, Any]]]]:
    """One row per method, and per method its per-clip rows. In all processes but the first, nothing."""
    state = PartialState(cpu=True)
    requests, _ = load_requests(plan.testset, plan.seed)
    problems = generate(plan, methods, requests, state)
    state.wait_for_everyone()
    protocol = protocol_of(plan.suite, plan.seed)
    made = {method.name: sum(plan.video(method, request).is_file() for request in requests) for method in methods}
    if state.num_processes > 1:
        for method in methods:
            if made[method.name]:
                title = f"features of {method.name}" if state.is_main_process else None
                fill_cache(
                    plan.folder(method),
                    plan.testset / MANIFEST,
                    plan.features,
                    (state.process_index, state.num_processes),
                    protocol,
                    metrics,
                    store=store,
                    title=title,
                )
        state.wait_for_everyone()
    rows: list[Row] = []
    clips: dict[str, list[dict[str, Any]]] = {}
    if not state.is_main_process:
        return rows, clips
    for number, method in enumerate(methods, start=1):
        row, notes = (
            about_row(plan, method, len(requests), command),
            [problems[method.name]] if method.name in problems else [],
        )
        if made[method.name]:
            title = f"scores {number}/{len(methods)} {method.name}"
            truth = plan.testset / MANIFEST
            scores = score(plan.folder(method), truth, protocol, metrics, cache=plan.features, store=store, title=title)
            row |= metric_cells(scores.rows) | {"protocol": scores.rows[0]["protocol"]}
            clips[method.name] = scores.clips
            notes += [f"{made[method.name]} of {len(requests)} clips made"] if made[method.name] < len(requests) else []
        elif not notes:
            notes.append("no video was made")
        rows.append(row | {"note": "; ".join(notes)})
    if timed:
        _add_speed(plan, methods, rows, clips, externals)
    return rows, clips


def _add_speed(
    plan: Plan, methods: list[Method], rows: list[Row], clips: dict[str, Any], externals: dict[str, Path]
) -> None:
    """Time the methods that made videos, one after the other; numbers and failures go into their rows."""
    seconds = SUSTAINED_SECONDS.get(plan.suite, 10.0)
    chosen = [
        (method, row) for method, row in zip(methods, rows, strict=True) if method.measurable and method.name in clips
    ]
    bar = tqdm(chosen, unit="method", desc="timing")
    for method, row in bar:
        bar.set_postfix_str(method.name)
        found = time_method(plan, method, externals, seconds)
        row |= latency_cells(found) | {key: found[key] for key in ("latency_load",) if key in found}
        if "error" in found:
            row["note"] = "; ".join(filter(None, (row["note"], f"not timed: {found['error']}")))


def publish(rows: list[Row], clips: dict[str, list[dict[str, Any]]], suite: str, out: Path) -> list[str]:
    """Merge the rows into `out/leaderboard.csv`, write table and plots; what could not be drawn, in a line."""
    table = out / "leaderboard.csv"
    old = [row for row in read_csv(table) if row["source"] == MEASURED] if table.is_file() else []
    write_csv(table, merged(old, rows) + paper_rows())
    everything = read_csv(table)
    (out / "leaderboard.md").write_text(markdown(everything), encoding="utf-8")
    try:
        draw(everything, suite, clips, out / "leaderboard", Protocol().bin_seconds)
    except ImportError:
        return ["no plots: matplotlib is not installed (requirements.txt)"]
    return []


def show(plan: Plan, methods: list[Method], folder: Path) -> None:
    """What the methods made of the first clip, as a picture."""
    first = load_requests(plan.testset, plan.seed)[0][0]
    picture = side_by_side({method_name(method.name): plan.video(method, first) for method in methods})
    if picture is not None:
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{plan.suite}_side_by_side.jpg", quality=QUALITY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--methods",
        default="all",
        help="comma-separated names, `all`, NAME=CHECKPOINT or NAME=BASELINE:WEIGHTS (default: all)",
    )
    parser.add_argument(
        "--external", type=Path, action="append", default=[], metavar="FILE", help="see benchmarks/methods/external.py"
    )
    parser.add_argument("--suite", choices=SUITES, default="quick")
    parser.add_argument(
        "--testset",
        type=Path,
        metavar="DIR",
        help="this set instead of the suite's; the suite's name stays in the rows",
    )
    parser.add_argument(
        "--checkpoint", default=DEFAULT_CHECKPOINT, help="of ours, and of the decoder that the baselines use"
    )
    parser.add_argument("--metrics", help="comma-separated names of eval.run's metrics (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of leaderboard.csv")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "data" / "compare", help="folder of videos and features; safe to delete"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of the canonical weights, for eval.run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="of a machine, shared by its processes; timing uses all of them",
    )
    parser.add_argument("--no-latency", action="store_true", help="leave the speed columns empty")
    return parser


def _said(words: list[str]) -> list[str]:
    """A command's words without `--work`: where the videos were kept changes no number."""
    kept, skip = [], False
    for word in words:
        if not skip and word != "--work" and not word.startswith("--work="):
            kept.append(word)
        skip = word == "--work"
    return kept


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    processes = PartialState(cpu=True, timeout=PATIENCE).num_processes
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    torch.set_num_threads(max(1, args.threads // here))
    machines = f"--nnodes {processes // here} " if processes > here else ""
    start = "python" if processes == 1 else f"torchrun {machines}--nproc-per-node {here}"
    command = f"{start} -m benchmarks.compare " + shlex.join(_said(sys.argv[1:] if argv is None else argv))
    try:
        names = [name.strip() for name in args.methods.split(",") if name.strip()]
        methods = judged(choose(names, args.external, args.checkpoint), args.suite)
        with PartialState(cpu=True).main_process_first():
            testset = find_testset(args.suite, args.testset)
        set_key = content(
            *sorted(path for path in testset.iterdir() if path.is_file() and not path.name.startswith("."))
        )
        plan = Plan(args.suite, testset, set_key, args.work, args.checkpoint, args.seed, args.threads)
        metrics = metrics_of(args.suite, args.metrics)
        externals = {
            method.name: path
            for method, path in zip(methods[len(methods) - len(args.external) :], args.external, strict=True)
        }
        rows, clips = compare(
            plan, methods, externals, metrics, not args.no_latency, command, WeightsStore(args.weights)
        )
        if not PartialState().is_main_process:
            return 0
        problems = publish(rows, clips, args.suite, args.out)
        show(plan, methods, args.out / "leaderboard")
    except (InputError, NotReady, RuntimeError, ValueError) as error:
        parser.exit(2, f"error: {printable(str(error))}\n")
    for line in [f"{row['method']}: {row['note']}" for row in rows if row["note"]] + problems:
        print(line, file=sys.stderr)
    timed = {row["method"]: {key: row[key] for key in LATENCY_KEYS[:4]} for row in rows if "fps" in row}
    print(json.dumps({"out": str(args.out / "leaderboard.csv"), "methods": len(rows), "speed": timed}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
