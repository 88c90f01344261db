"""Score a folder of videos against the truth: `python -m eval.run --pred DIR --ref DIR --out results.csv`.

Videos are matched by name (or by `--manifest`), read by one protocol (crop, 25 fps, the same re-encoding for both
sides), and measured by every metric whose network is here; a metric that cannot be measured has an empty value and its
reason. Features are cached by content: a second run computes only what changed. Beside results.csv, one row per metric,
lies results.clips.json, one row per metric and clip. The last stdout line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eartalking.errors import InputError, os_cause, printable, run_program
from eval.cache import FeatureCache, default_folder, file_hash
from eval.clips import EvalClip, read_pair
from eval.listing import Pair, list_pairs, read_manifest
from eval.metrics.metric import Metric
from eval.networks.canonical_weights import FOLDER_VARIABLE, WeightsStore
from eval.protocol import AUDIOS, CROPS, IDENTITIES, VERSION, Protocol
from eval.provenance import git_commit, hardware, package_versions
from eval.suite import NAMES, Suite, pick_device

COLUMNS = (
    "metric", "value", "direction", "ci_low", "ci_high", "n_videos", "n_frames", "coverage", "network", "tier", "note",
    "protocol", "row_id", "seed", "versions",
)  # fmt: skip
ABOUT_COLUMNS = ("commit", "date", "hardware", "command")


@dataclass
class Scores:
    """rows: one dict per metric with the keys COLUMNS; clips: one per metric and clip; problems: one line each;
    computed: how many features were not in the cache."""

    rows: list[dict[str, Any]]
    clips: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)
    computed: int = 0


def score(
    pred_dir: Path,
    truth: Path,
    protocol: Protocol | None = None,
    metrics: list[str] | None = None,
    *,
    cache: Path | None = None,
    store: WeightsStore | None = None,
    device: str = "cpu",
    title: str | None = "scores",
) -> Scores:
    """Score the videos of `pred_dir` against the true ones of the same names.

    truth: a folder of videos, or a clip list (a `.json` file, see eval/README.md). metrics: names of
    `eval.suite.NAMES`, None for all. cache: folder of features, None for none. store: of the canonical weights.
    device: of the canonical networks. title: of the progress bar, None for no bar.

    Raises:
        InputError: a folder or the clip list is missing, broken or empty. What is wrong with one clip costs only that
        clip.
        ValueError: an unknown metric.
    """
    pairs, problems = list_pairs(pred_dir, truth)
    protocol = (protocol or Protocol()).with_clips(_hashes(pairs))
    features = FeatureCache(cache)
    chosen = Suite(protocol, store or WeightsStore(), device).metrics(metrics)
    problems += _measure(pairs, protocol, chosen, features, title)
    results = [metric.compute() for metric in chosen]
    rows = [_row(result.to_row(), protocol) for result in results]
    clips = [{"metric": result.name, **row} for result in results for row in result.per_clip]
    return Scores(rows, clips, problems + _complaints(clips, len(pairs)), features.computed)


def fill_cache(
    pred_dir: Path,
    manifest: Path,
    cache: Path,
    share: tuple[int, int],
    protocol: Protocol,
    metrics: list[str] | None = None,
    *,
    store: WeightsStore | None = None,
    title: str | None = "features",
) -> None:
    """Compute the features of every n-th clip from the i-th on, share = (i, n), and keep them in the cache, where
    `score` finds them: so several processes share the work. manifest: the clip list. title: of the progress bar, None
    for no bar.

    Raises:
        InputError, ValueError: as `score`.
    """
    chosen = Suite(protocol, store or WeightsStore()).metrics(metrics)
    _measure(read_manifest(manifest, pred_dir)[share[0] :: share[1]], protocol, chosen, FeatureCache(cache), title)


def _measure(
    pairs: list[Pair], protocol: Protocol, metrics: list[Metric], features: FeatureCache, title: str | None
) -> list[str]:
    """Take the pairs into every metric; lines about what is wrong with pairs."""
    problems: list[str] = []
    with tqdm(total=len(pairs) * len(metrics), unit="metric", mininterval=1, desc=title, disable=title is None) as bar:
        for pair in pairs:
            bar.set_postfix_str(pair.name[-24:])
            problems += _score_pair(pair, protocol, metrics, features, bar)
    return problems


def _score_pair(pair: Pair, protocol: Protocol, metrics: list[Metric], features: FeatureCache, bar: tqdm) -> list[str]:
    """Take one pair into every metric; a line about what is wrong with the pair, if anything is."""
    clip: EvalClip | None = None
    try:
        if pair.pred is None:
            raise InputError(pair.ref, "no video was made for it")
        beside = {"portrait": pair.portrait, "controls": pair.controls}
        clip = read_pair(pair.pred, pair.ref, protocol, name=pair.name, cache=features, **beside)
        for metric in metrics:
            metric.update(clip)
            bar.update()
        return list(clip.notes)
    except InputError as error:
        for metric in metrics:
            metric.fail(pair.name, str(error))
            bar.update()
        return [str(error)]
    finally:
        if clip is not None:
            clip.release()


def _hashes(pairs: list[Pair]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        try:
            found[pair.name] = file_hash(pair.ref)
        except OSError:
            found[pair.name] = "missing"  # still in the list, so that the hash is not that of a list without the clip
    return found


def _row(row: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    versions = f"eval {VERSION}, " + ", ".join(f"{name} {version}" for name, version in package_versions().items())
    identity = "\n".join((protocol.hash(), row["metric"], row["network"], versions))
    return {**row, "protocol": protocol.hash(), "seed": protocol.seed, "versions": versions,
            "row_id": hashlib.sha256(identity.encode()).hexdigest()[:12]}  # fmt: skip


def _complaints(clips: list[dict[str, Any]], total: int) -> list[str]:
    """A line per clip and reason, for what hits some clips; what hits all clips of a metric is in its row."""
    per_metric: dict[str, int] = {}
    for row in clips:
        per_metric[row["metric"]] = per_metric.get(row["metric"], 0) + (row["coverage"] == 0)
    lines: dict[tuple[str, str], list[str]] = {}
    for row in clips:
        if row["reason"] and row["coverage"] == 0 and per_metric[row["metric"]] < total:
            lines.setdefault((row["clip"], row["reason"]), []).append(row["metric"])
    # A reason that all metrics of a clip share is a problem of the pair, which has its own line.
    some = {key: names for key, names in lines.items() if len(names) < len(per_metric)}
    return [f"{clip}: {reason} ({', '.join(names)})" for (clip, reason), names in some.items()]


def write_rows(path: Path, rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """A CSV with these columns; None is an empty cell.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(path, os_cause(error)) from None


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for reading: metric, value, interval, coverage, network, note."""
    arrow = {"higher": "up", "lower": "down", "zero": "0"}
    lines = []
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.4g}"
        interval = "" if row["ci_low"] is None else f"[{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
        counted = [f"{row['n_videos']} videos, {row['n_frames']} frames, {row['coverage']:.0%}"]
        about = "; ".join((counted if row["value"] is not None else []) + ([row["note"]] if row["note"] else []))
        head = f"{row['metric']:24} {arrow[row['direction']]:>4} {value:>9} {interval:20}"
        lines.append(f"{head} {row['network']}: {about}")
    return "\n".join(printable(line) for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval.run", description=__doc__.split("\n")[0])
    parser.add_argument("--pred", type=Path, required=True, metavar="DIR", help="the videos to judge")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--ref", type=Path, metavar="DIR", help="the true videos, of the same names")
    truth.add_argument("--manifest", type=Path, metavar="FILE", help="clip list instead of --ref; see eval/README.md")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv")
    add = parser.add_argument
    add("--metrics", type=lambda text: [name.strip() for name in text.split(",")], help=", ".join(NAMES))
    add("--crop", choices=CROPS, default=Protocol.crop, help="cut around the truth's face, or framed already")
    add("--audio", choices=AUDIOS, default=Protocol.audio, help="the sound that the lips are compared with")
    add("--identity", choices=IDENTITIES, default=Protocol.identity, help="what csim compares with")
    add("--weights", type=Path, metavar="DIR", help=f"folder of the canonical weights; or {FOLDER_VARIABLE}")
    add("--fetch", action="store_true", help="fetch canonical weights that are missing")
    add("--cache", type=Path, metavar="DIR", default=default_folder(), help="where features are kept")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for the canonical networks")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def _check_places(out: Path, details: Path, cache: Path) -> None:
    """Raises InputError: what is measured could not be written there, which is better known before it is measured."""
    if out.suffix.lower() != ".csv" or not out.absolute().parent.is_dir():
        raise InputError(out, "the output must be a .csv in a folder that exists")
    for path in (out, details):
        if path.is_dir():
            raise InputError(path, "is a folder")
    if cache.exists() and not cache.is_dir():
        raise InputError(cache, "is not a folder")


def _write_details(path: Path, clips: list[dict[str, Any]]) -> None:
    """Raises InputError: the file cannot be written."""
    try:
        path.write_text(json.dumps(clips, indent=0) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(path, os_cause(error)) from None


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status: 0, 1 where nothing could be measured, 2 after bad input."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f"--threads must be at least 1, not {args.threads}")
    torch.set_num_threads(args.threads)
    details = args.out.with_suffix(".clips.json")
    protocol = Protocol(crop=args.crop, audio=args.audio, identity=args.identity, seed=args.seed)
    try:
        _check_places(args.out, details, args.cache)
        store, device = WeightsStore(args.weights, args.fetch), pick_device(args.device)
        truth = args.ref or args.manifest
        scores = score(args.pred, truth, protocol, args.metrics, cache=args.cache, store=store, device=device)
        machine = hardware(args.threads)
        about = {
            "commit": git_commit(),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "hardware": f"{machine['processor']}, {args.threads} threads",
            "command": "python -m eval.run " + shlex.join(sys.argv[1:] if argv is None else argv),
        }
        _write_details(details, scores.clips)
        write_rows(args.out, [row | about for row in scores.rows], COLUMNS + ABOUT_COLUMNS)
    except (InputError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")
    for line in scores.problems:
        print(printable(line), file=sys.stderr)
    print(table(scores.rows))
    measured = {row["metric"]: row["value"] for row in scores.rows if row["value"] is not None}
    result = {"out": str(args.out), "protocol": scores.rows[0]["protocol"], "problems": len(scores.problems)}
    print(json.dumps(result | {"values": measured}))
    return 0 if measured else 1


if __name__ == "__main__":
    run_program(main)
