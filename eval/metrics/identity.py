"""Identity: how much the face of the video is that of the truth, or of the portrait.

`csim` is the cosine of face descriptors, 1 for the same picture; `identity_dlib` is the distance of dlib's descriptors,
which dlib calls the same person below 0.6. A frame without a face is left out and lowers the coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.clips import EvalClip, Footage
from eval.metrics.metric import FRAMES, SHARE, Item, MeanMetric, Metric, Unmeasured, present

# A picture (H, W, 3) uint8 -> a descriptor of its face (D,), None without a face.
Descriptor = Callable[[np.ndarray], np.ndarray | None]


@dataclass
class IdentityMetric(MeanMetric):
    """Mean over the looked-at frames with a face on both sides, then over videos. cosine=False: the distance."""

    key: str = ""
    describe: Descriptor | None = None
    cosine: bool = True

    def measure(self, clip: EvalClip) -> Item:
        every, key = self.protocol.identity_every, f"{self.key}:{self.protocol.identity_every}"

        def extract(footage: Footage) -> dict[str, np.ndarray]:
            return {"descriptors": self._descriptors(np.concatenate(list(footage.batches(32, every))))}

        made = clip.pred.features(key, extract)["descriptors"]
        if self.protocol.identity == "truth":
            own = clip.ref.features(key, extract)["descriptors"]
        else:

            def of_portrait() -> dict[str, np.ndarray]:
                return {"descriptors": self._descriptors(clip.portrait[None])}

            own = clip.pred.cache.get((key, clip.portrait_key), of_portrait)["descriptors"]
        values = cosines(made, own) if self.cosine else np.linalg.norm(made - own, axis=1)
        seen = np.isfinite(values)
        if not seen.any():
            against = "the truth" if self.protocol.identity == "truth" else "the portrait"
            raise Unmeasured(f"no frame shows a face in both the video and {against}")
        return {"values": values[seen], SHARE: seen.mean(), FRAMES: seen.sum()}

    def _descriptors(self, images: np.ndarray) -> np.ndarray:
        """(T, D), nan without a face."""
        describe = present(self.describe)
        found = [describe(image) for image in images]
        width = next((len(one) for one in found if one is not None), 1)
        return np.stack([np.full(width, np.nan) if one is None else np.asarray(one, np.float64) for one in found])

    def clip_value(self, item: Item) -> float:
        return float(item["values"].mean())


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of a (T, D) with the row of b (T, D) or with its only row (1, D)."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def identity_metrics(describe: Descriptor | None, **common: Any) -> list[Metric]:
    """By dlib's face ResNet."""
    network, common = "dlib face ResNet (128)", {"key": "dlib:1", "describe": describe, **common}
    return [
        IdentityMetric("csim_dlib", network, "embedded", True, **common),
        IdentityMetric("identity_dlib", network, "embedded", False, cosine=False, **common),
    ]
