"""Do the metrics tell what they must? `python -m eval.check [--weights DIR] [--fetch]`.

Every metric whose network is here is held against answers that are known before it is run: a video against itself,
sound moved by whole frames, another clip's sound, a still picture, damage that grows. The videos are made from a set of
true ones, by default the small set of the repository. With `--syncnet-example` also against figures that authors have
published. One line per answer; the status is 1 where one is missed. The last stdout line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageFilter

from eartalking.config import SAMPLES_PER_FRAME
from eartalking.errors import InputError, printable
from eartalking.io.video_reader import read_video
from eval.networks.canonical_weights import FOLDER_VARIABLE, WeightsStore
from eval.protocol import Protocol
from eval.provenance import ROOT
from eval.run import score
from eval.suite import NAMES, pick_device

SET = ROOT / "benchmarks" / "testset_small"
OFFSETS = (-5, -1, 1, 3)  # frames by which the sound comes early
DEGREES = (1, 2, 3)  # of damage
# A video against itself: what each metric says, and how far beside it may be.
EQUAL = {
    "fid": (0, 1e-3), "fvd": (0, 1e-3), "fvd128": (0, 1e-3), "fid_lite0": (0, 1e-3), "fvd_lite0": (0, 1e-3),
    "lpips": (0, 1e-4), "perceptual_lite0": (0, 1e-4), "csim": (1, 1e-4), "csim_dlib": (1, 1e-4),
    "identity_dlib": (0, 1e-4), "ssim": (1, 1e-4), "psnr": (100, 1e-2), "sharpness_gap": (0, 1e-4),
    "mouth_corr_mesh": (1, 1e-3), "mouth_offset_mesh": (0, 0), "mouth_spread_gap_mesh": (0, 1e-3),
    "head_spread_gap": (0, 1e-3), "head_speed_gap": (0, 1e-3), "head_shake_gap": (0, 1e-3), "blink_rate_gap": (0, 1e-3),
}  # fmt: skip
SYNC = ("", "_synthtalk")  # endings of the metrics of each sync network
CONFIDENCE_KEPT = 0.15  # how much of sync_c a moved sound may cost: some frames have none then
# What grows with damage, or falls.
GROWS = ("fid", "fvd", "fid_lite0", "fvd_lite0", "lpips", "perceptual_lite0")
FALLS = ("csim", "csim_dlib", "ssim", "psnr")
# https://github.com/joonson/syncnet_python, README: its demo on data/example.avi. Its faces are found by another
# detector and go through JPEG, so distance and confidence may be a tenth beside.
PUBLISHED = {"av_offset": (3.0, 0.0), "sync_d": (5.353, 0.54), "sync_c": (10.021, 1.0)}

Frames: TypeAlias = np.ndarray
Values: TypeAlias = dict[str, float | None]


@dataclass(frozen=True)
class Answer:
    """What was found of a metric, in words, and whether it is what is known; None: it could not be measured."""

    metric: str
    question: str
    said: str
    right: bool | None


@dataclass(frozen=True)
class Material:
    """Frames (T, H, W, 3) and sound (samples,) of true clips, by name, and a folder for what is made of them."""

    clips: dict[str, tuple[Frames, np.ndarray]]
    folder: Path

    @classmethod
    def read(cls, videos: Path, folder: Path) -> Material:
        """Every `.mp4` of a folder. Raises InputError: there are fewer than two, or one has no sound."""
        clips = {}
        for path in sorted(videos.glob("*.mp4")):
            video = read_video(path, Protocol.fps)
            if video.waveform is None:
                raise InputError(path, "the video has no sound")
            clips[path.stem] = np.stack(list(video.frames)), video.waveform
        if len(clips) < 2:
            raise InputError(videos, "at least two videos (.mp4) are needed")
        return cls(clips, folder)

    def make(self, name: str, change: Callable[[str, Frames, np.ndarray], tuple[Frames, np.ndarray]]) -> Path:
        """A folder of the clips as `change` (clip, frames, sound) makes them."""
        out = self.folder / name
        out.mkdir()
        for clip, (frames, sound) in self.clips.items():
            made, heard = change(clip, frames, sound)
            np.savez(out / f"{clip}.npz", frames=made, waveform=heard.astype(np.float32))
        return out

    def other_sound(self, clip: str) -> np.ndarray:
        """The sound of the clip after this one, as long."""
        names = list(self.clips)
        other = self.clips[names[(names.index(clip) + 1) % len(names)]][1]
        return np.resize(other, len(self.clips[clip][1]))


def moved(sound: np.ndarray, frames: int) -> np.ndarray:
    """Sound that comes so many frames early, or late where they are negative; filled up with silence."""
    samples = abs(frames) * SAMPLES_PER_FRAME
    if frames > 0:
        return np.pad(sound[samples:], (0, samples))
    return np.pad(sound, (samples, 0))[: len(sound)]


def damaged(frames: Frames, degree: int, seed: int) -> Frames:
    """Blurred and noisy, the more the higher the degree."""
    rng = np.random.default_rng(seed)
    soft = [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(0.8 * degree))) for frame in frames]
    noisy = np.stack(soft) + rng.normal(0, 3.0 * degree, frames.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _early(by: int, _: str, frames: Frames, sound: np.ndarray) -> tuple[Frames, np.ndarray]:
    return frames, moved(sound, by)


def _worse(degree: int, _: str, frames: Frames, sound: np.ndarray) -> tuple[Frames, np.ndarray]:
    return damaged(frames, degree, seed=degree), sound


class Checker:
    """Runs metrics on made videos and keeps the answers."""

    def __init__(self, material: Material, metrics: list[str], store: WeightsStore, device: str) -> None:
        self.material, self.metrics, self.store, self.device = material, metrics, store, device
        self.truth = material.make("truth", lambda clip, frames, sound: (frames, sound))
        self.answers: list[Answer] = []

    def values(self, name: str, folder: Path, wanted: tuple[str, ...]) -> Values:
        """The value of each wanted metric that is asked for."""
        chosen = [metric for metric in wanted if metric in self.metrics]
        if not chosen:
            return {}
        cache, protocol = self.material.folder / "features", Protocol(crop="none")
        scores = score(
            folder, self.truth, protocol, chosen, cache=cache, store=self.store, device=self.device, title=name
        )
        return {row["metric"]: row["value"] for row in scores.rows}

    def answer(self, metric: str, question: str, said: str, right: bool | None) -> None:
        """Keep an answer and print it."""
        self.answers.append(Answer(metric, question, said, right))
        word = {True: "ok", False: "WRONG", None: "-"}[right]
        print(f"{word:6} {metric:24} {question}: {said}", flush=True)

    def judge(self, metric: str, question: str, value: float | None, wanted: float, tolerance: float) -> None:
        """One value against the known one."""
        right = None if value is None else math.isclose(value, wanted, rel_tol=0, abs_tol=tolerance)
        said = "not measured" if value is None else f"{value:.5g}, known {wanted:g}"
        self.answer(metric, question, said, right)

    def equal(self) -> None:
        """A video against itself."""
        for metric, value in self.values("itself", self.truth, tuple(EQUAL)).items():
            self.judge(metric, "a video against itself", value, *EQUAL[metric])

    def sound(self) -> None:
        """Moved and exchanged sound, and a mouth that stands still."""
        names = tuple(metric + end for end in SYNC for metric in ("av_offset", "sync_c"))
        true = self.values("sound", self.truth, names)
        for frames in OFFSETS:
            folder = self.material.make(f"early{frames}", functools.partial(_early, frames))
            found = self.values(f"sound early by {frames}", folder, names)
            for end in (end for end in SYNC if f"av_offset{end}" in found):
                question = f"sound early by {frames}"
                before = true[f"av_offset{end}"]
                wanted = float(frames) if before is None else before + frames
                self.judge(f"av_offset{end}", question, found[f"av_offset{end}"], wanted, 0.0)
                self._kept(f"sync_c{end}", question, true[f"sync_c{end}"], found[f"sync_c{end}"])
        other = self.material.make("other", lambda clip, f, _: (f, self.material.other_sound(clip)))
        still = self.material.make("still", lambda _, f, s: (np.repeat(f[:1], len(f), 0), s))
        kinds = {"another's sound": self.values("another's sound", other, names)}
        kinds["a still picture"] = self.values("a still picture", still, (*names, "mouth_corr_mesh", "head_spread_gap"))
        for end in SYNC:
            metric = f"sync_c{end}"
            for question, found in kinds.items():
                if metric in found:
                    self._less(metric, f"{question} below the truth", found[metric], true[metric])
        for metric, wanted in (("mouth_corr_mesh", 0.0), ("head_spread_gap", 1.0)):
            if metric in kinds["a still picture"]:
                self.judge(metric, "a still picture", kinds["a still picture"][metric], wanted, 0.05)

    def damage(self) -> None:
        """Each degree of damage is worse than the one before, and the first worse than none."""
        names = tuple(metric for metric in (*GROWS, *FALLS) if metric in self.metrics)
        rows = [self.values("no damage", self.truth, names)]
        for degree in DEGREES:
            folder = self.material.make(f"damage{degree}", functools.partial(_worse, degree))
            rows.append(self.values(f"damage {degree}", folder, names))
        for metric in names:
            values = [row[metric] for row in rows]
            known = [value for value in values if value is not None]
            sign = 1 if metric in GROWS else -1
            right = None
            if len(known) == len(values):
                right = all(sign * (after - before) > 0 for before, after in zip(known[:-1], known[1:], strict=True))
            said = " ".join("-" if value is None else f"{value:.4g}" for value in values)
            self.answer(metric, f"damage that grows makes it {'grow' if sign > 0 else 'fall'}", said, right)

    def published(self, example: Path) -> None:
        """SyncNet's demo."""
        folder = self.material.folder / "example"
        folder.mkdir()
        (folder / f"example{example.suffix}").symlink_to(example.resolve())
        scores = score(folder, folder, Protocol(), list(PUBLISHED), store=self.store, device=self.device)
        for row in scores.rows:
            self.judge(row["metric"], "published for example.avi", row["value"], *PUBLISHED[row["metric"]])

    def _kept(self, metric: str, question: str, true: float | None, value: float | None) -> None:
        if true is None or value is None:
            return self.answer(metric, question, "not measured", None)
        said = f"{value:.4g}, unmoved {true:.4g}"
        return self.answer(metric, f"{question} hardly changes it", said, abs(value - true) <= CONFIDENCE_KEPT * true)

    def _less(self, metric: str, question: str, value: float | None, true: float | None) -> None:
        if true is None or value is None:
            return self.answer(metric, question, "not measured", None)
        return self.answer(metric, question, f"{value:.4g}, the truth {true:.4g}", value < true)


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m eval.check", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--weights", type=Path, metavar="DIR", help=f"folder of the canonical weights; or {FOLDER_VARIABLE}")
    add("--fetch", action="store_true", help="fetch canonical weights that are missing")
    add("--set", type=Path, default=SET, metavar="DIR", help="folder of true videos with sound, framed faces")
    add("--metrics", type=lambda text: [name.strip() for name in text.split(",")], default=list(NAMES))
    add("--syncnet-example", type=Path, metavar="FILE", help="data/example.avi of joonson/syncnet_python")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for the canonical networks")
    add("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if unknown := sorted(set(args.metrics) - set(NAMES)):
        parser.error(f"unknown metrics {', '.join(unknown)}; known: {', '.join(NAMES)}")
    try:
        if args.syncnet_example is not None and not args.syncnet_example.is_file():
            raise InputError(args.syncnet_example, "no such file")
        store = WeightsStore(args.weights, args.fetch)
        with tempfile.TemporaryDirectory() as folder:
            checker = Checker(Material.read(args.set, Path(folder)), args.metrics, store, pick_device(args.device))
            for ask in (checker.equal, checker.sound, checker.damage):
                ask()
            if args.syncnet_example is not None:
                checker.published(args.syncnet_example)
    except (InputError, ValueError) as error:
        parser.exit(2, f"error: {printable(str(error))}\n")
    wrong = [dataclasses.asdict(answer) for answer in checker.answers if answer.right is False]
    missing = sorted({answer.metric for answer in checker.answers if answer.right is None})
    if missing:
        print(f"not measured here: {', '.join(missing)} (weights: see eval/README.md)", file=sys.stderr)
    print(
        json.dumps(
            {"right": sum(bool(answer.right) for answer in checker.answers), "wrong": wrong, "not_measured": missing}
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
