"""How steady a video is: from frame to frame (flicker), and over minutes (drift); and how sharp it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.clips import EvalClip, Footage
from eval.metrics.boxes import DEFAULT_FACE, to_pixels
from eval.metrics.identity import Descriptor
from eval.metrics.metric import FRAMES, Item, MeanMetric, Metric, NotAsked, Unmeasured, present
from eval.metrics.signals import relative_change, sharpness

LOOKS_PER_BIN = 10  # frames of a time bin whose identity is looked at


@dataclass
class Flicker(MeanMetric):
    """(255 - mean absolute difference of neighbouring frames) / 255, after VBench: 1 is a still picture.

    VBench calls higher better; a video that should move and does not scores 1 as well.
    """

    def measure(self, clip: EvalClip) -> Item:
        def extract(footage: Footage) -> dict[str, np.ndarray]:
            last, steps = None, []
            for batch in footage.batches():
                whole = batch if last is None else np.concatenate([last, batch])
                steps.append(np.abs(np.diff(whole.astype(np.int16), axis=0)).mean(axis=(1, 2, 3)))
                last = batch[-1:]
            return {"steps": np.concatenate(steps)}

        steps = clip.pred.features("steps:1", extract)["steps"]
        if not len(steps):
            raise Unmeasured("flicker needs two frames, the clip has one")
        return {"steps": steps, FRAMES: np.asarray(len(steps) + 1)}

    def clip_value(self, item: Item) -> float:
        return float(1 - item["steps"].mean() / 255)


@dataclass
class SharpnessGap(MeanMetric):
    """How far the face's sharpness is from the truth's, or from the portrait's: |made - true| / (made + true) of the
    mean variance of the Laplacian, where a framed face is. Too soft and too hard both lose.
    """

    def measure(self, clip: EvalClip) -> Item:
        every = self.protocol.identity_every
        key, box = f"sharpness:1:{every}", to_pixels(DEFAULT_FACE, self.protocol.size)

        def extract(footage: Footage) -> dict[str, np.ndarray]:
            return {"values": np.array([sharpness(f, box) for batch in footage.batches(32, every) for f in batch])}

        made = clip.pred.features(key, extract)["values"]
        if self.protocol.identity == "truth":
            true = clip.ref.features(key, extract)["values"].mean()
        else:
            true = sharpness(clip.portrait, box)
        return {"sizes": np.array([made.mean(), true]), FRAMES: np.asarray(len(made))}

    def clip_value(self, item: Item) -> float:
        made, true = item["sizes"]
        return float(abs(made - true) / max(made + true, 1e-9))

    def clip_details(self, item: Item) -> dict[str, float]:
        return {"made": float(item["sizes"][0]), "true": float(item["sizes"][1])}


@dataclass
class Drift(MeanMetric):
    """Change of identity, sharpness or colour from the first time bin to the last: |last - first| / first, for colour
    the largest of the three channels, for identity the distance between the mean descriptors of the two bins, in dlib's
    units.

    A bin is `protocol.bin_seconds` long; the clip needs two whole ones. Per clip all bins are kept.
    """

    what: str = "sharpness"
    describe: Descriptor | None = None

    def measure(self, clip: EvalClip) -> Item:
        length = round(self.protocol.bin_seconds * self.protocol.fps)
        bins = clip.num_frames // length
        if bins < 2:
            seconds = clip.num_frames / self.protocol.fps
            truth_is_short_too = clip.num_frames < 2 * length * clip.length_share
            short = NotAsked if truth_is_short_too else Unmeasured
            raise short(f"drift needs two bins of {self.protocol.bin_seconds:g} s, the clip has {seconds:.1f} s")
        if self.what == "identity":
            extract = _identity_bins(present(self.describe), length)
            found = clip.pred.features(f"drift-identity:1:{length}", extract)
            if not np.isfinite(found["bins"]).all():
                raise Unmeasured("a time bin shows no face")
        else:
            found = clip.pred.features(f"drift-picture:1:{length}", _picture_bins(length))
        return {**found, FRAMES: np.asarray(bins * length)}

    def clip_value(self, item: Item) -> float:
        return float(self.bin_values(item)[-1])

    def clip_details(self, item: Item) -> dict[str, list[float | None]]:
        return {"bins": [round(float(value), 4) if np.isfinite(value) else None for value in self.bin_values(item)]}

    def bin_values(self, item: Item) -> np.ndarray:
        """(bins,) change from the first bin to each; the first is 0."""
        if self.what == "identity":
            return np.linalg.norm(item["bins"] - item["bins"][0], axis=1)
        table = item["bins"][:, :1] if self.what == "sharpness" else item["bins"][:, 1:]  # sharpness, red, green, blue
        return np.array([max(relative_change(*pair) for pair in zip(table[0], row, strict=True)) for row in table])


def _picture_bins(length: int) -> Callable[[Footage], dict[str, np.ndarray]]:
    def extract(footage: Footage) -> dict[str, np.ndarray]:
        rows = [[sharpness(frame), *frame.mean((0, 1))] for batch in footage.batches() for frame in batch]
        bins = [np.mean(rows[start : start + length], axis=0) for start in _starts(len(rows), length)]
        return {"bins": np.array(bins)}

    return extract


def _identity_bins(describe: Descriptor, length: int) -> Callable[[Footage], dict[str, np.ndarray]]:
    def extract(footage: Footage) -> dict[str, np.ndarray]:
        every = max(1, length // LOOKS_PER_BIN)
        per_bin: list[list[np.ndarray]] = [[] for _ in _starts(footage.num_frames, length)]
        images = (frame for batch in footage.batches(32, every) for frame in batch)
        for look, image in enumerate(images):
            index = look * every // length
            found = describe(image) if index < len(per_bin) else None
            if found is not None:
                per_bin[index].append(np.asarray(found))
        width = next((len(found) for rows in per_bin for found in rows), 1)
        return {"bins": np.stack([np.mean(rows, axis=0) if rows else np.full(width, np.nan) for rows in per_bin])}

    return extract


def _starts(frames: int, length: int) -> range:
    return range(0, frames - length + 1, length)


def drift_metrics(describe: Descriptor | None, missing: str, **common: Any) -> list[Metric]:
    """Identity by dlib's face ResNet (`missing`: why it is not here); sharpness and colour need no network."""
    of_faces: dict[str, Any] = {"describe": describe, "missing": missing}
    return [
        Drift("drift_identity", "dlib face ResNet (128)", "embedded", False, what="identity", **of_faces, **common),
        Drift("drift_sharpness", "-", "none", False, what="sharpness", **common),
        Drift("drift_colour", "-", "none", False, what="colour", **common),
    ]
