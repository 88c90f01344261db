"""Fréchet distances between all made frames, or windows of frames, and all true ones: fid, fvd, and their embedded
versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from eval.clips import EvalClip, Footage
from eval.metrics.frechet import frechet_distance
from eval.metrics.metric import FRAMES, SHARE, Item, Metric, Unmeasured, present
from eval.networks.inception import inception_features
from eval.networks.lite import Lite0

SPREAD_ROWS = 400  # about as many rows of features enter the bootstrap
Extract = Callable[[Footage], dict[str, np.ndarray]]


@dataclass
class FrechetMetric(Metric):
    """Pools the rows of every clip's features, never per video. `key` names extractor and weights."""

    key: str = ""
    extract: Extract | None = None

    def measure(self, clip: EvalClip) -> Item:
        extract = present(self.extract)
        made, true = (footage.features(self.key, extract) for footage in (clip.pred, clip.ref))
        counted = {name: made[name] for name in (SHARE, FRAMES) if name in made}
        return {"pred": made["features"], "ref": true["features"], **counted}

    def value_of(self, items: list[Item]) -> float:
        return frechet_distance(*(np.concatenate([item[side] for item in items]) for side in ("pred", "ref")))

    def clip_value(self, item: Item) -> None:
        """A distance between distributions has no value for one clip."""
        return None

    def resampled(self, items: list[Item], count: int) -> np.ndarray:
        # Neighbouring frames are nearly equal: the spread between videos needs few of them, and the time grows with
        # the cube of their number.
        every = max(1, sum(len(item["pred"]) for item in items) // SPREAD_ROWS)
        return super().resampled([{side: item[side][::every] for side in ("pred", "ref")} for item in items], count)

    def interval(self, items: list[Item], value: float) -> tuple[float | None, float | None]:
        # A draw with replacement holds fewer different videos, which biases the distance upward, so its percentiles
        # would lie above the value. The spread of the draws around their own mean has no such bias.
        drawn = self.resampled(items, self.protocol.frechet_resamples)
        if not len(drawn):
            return None, None
        half = 1.96 * float(drawn.std(ddof=1))
        return max(value - half, 0.0), value + half


def per_frame(features: Callable[[np.ndarray], np.ndarray], batch_size: int = 16) -> Extract:
    """All frames of a video through a network: {"features": (T, D)}."""

    def extract(footage: Footage) -> dict[str, np.ndarray]:
        return {"features": np.concatenate([features(batch) for batch in footage.batches(batch_size)])}

    return extract


def per_window(features: Callable[[np.ndarray], np.ndarray], window: int) -> Extract:
    """Consecutive windows, none overlapping, subsample 1: (W, window, H, W, 3) one at a time -> {"features": (W,
    D)}.
    """

    def extract(footage: Footage) -> dict[str, np.ndarray]:
        rows = [features(batch) for batch in footage.batches(window) if len(batch) == window]
        if not rows:
            raise Unmeasured(f"the clip has {footage.num_frames} frames, a window of {window} is needed")
        used = len(rows) * window
        return {"features": np.stack(rows), FRAMES: np.asarray(used)}

    return extract


def i3d_features(detector: Any, frames: np.ndarray) -> np.ndarray:
    """One window (T, H, W, 3) uint8 -> (400,), by StyleGAN-V's TorchScript, which resizes and rescales itself."""
    device = next(detector.parameters()).device
    video = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(3, 0, 1, 2)[None].float()
    with torch.inference_mode():
        return detector(video, rescale=True, resize=True, return_features=True)[0].cpu().numpy()


def over_windows(key: str, frames: Extract, window: int) -> Extract:
    """Windows of the per-frame features that `frames` extracts; they are cached under `key`, and so extracted once."""

    def extract(footage: Footage) -> dict[str, np.ndarray]:
        found = footage.features(key, frames)["features"]
        count = len(found) // window
        if not count:
            raise Unmeasured(f"the clip has {len(found)} frames, a window of {window} is needed")
        rows = [window_features(part) for part in found[: count * window].reshape(count, window, -1)]
        return {"features": np.stack(rows), FRAMES: np.asarray(count * window)}

    return extract


def window_features(features: np.ndarray) -> np.ndarray:
    """Of the features (T, D) of a window's frames the mean over time (what is seen), the spread (how much it changes)
    and the mean step from frame to frame (how it moves): (3 D,)."""
    return np.concatenate([features.mean(0), features.std(0), np.abs(np.diff(features, axis=0)).mean(0)])


def fid(network: nn.Module | None, version: str, **common: Any) -> FrechetMetric:
    """FID by InceptionV3 of 2015."""
    extract = None if network is None else per_frame(partial(inception_features, network))
    return FrechetMetric(
        "fid", "inception-2015-12-05", "canonical", False, key=f"inception:2:{version}", extract=extract, **common
    )


def fvd(detector: Any, version: str, window: int, name: str = "fvd", **common: Any) -> FrechetMetric:
    """FVD by I3D over windows of that many frames."""
    extract = None if detector is None else per_window(partial(i3d_features, detector), window)
    network = f"i3d (StyleGAN-V), {window} frames"
    return FrechetMetric(name, network, "canonical", False, key=f"i3d:1:{version}:{window}", extract=extract, **common)


def embedded_distances(network: Lite0 | None, name: str, window: int, **common: Any) -> list[FrechetMetric]:
    """The two distances over EfficientNet-Lite0, whose name is `name`."""
    key = "lite0-frame:1"
    frames = None if network is None else per_frame(network.pooled)
    windows = None if frames is None else over_windows(key, frames, window)
    over, window_key = f"{name}, {window} frames", f"lite0-window:1:{window}"
    return [
        FrechetMetric("fid_lite0", name, "embedded", False, key=key, extract=frames, **common),
        FrechetMetric("fvd_lite0", over, "embedded", False, key=window_key, extract=windows, **common),
    ]
