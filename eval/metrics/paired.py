"""Metrics of a made frame against the true frame of the same instant: ssim, psnr, lpips and their embedded kin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

from eval.clips import EvalClip
from eval.metrics.metric import FRAMES, Item, MeanMetric

LARGEST_PSNR = 100.0  # dB: what two equal frames count as
SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # pixels, of the gaussian window
SSIM_CONSTANTS = (0.01 * 255) ** 2, (0.03 * 255) ** 2
Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]  # frames and truth (B, H, W, 3) uint8 -> (B,)


@dataclass
class PairedMetric(MeanMetric):
    """`compare` on each n-th frame, its mean over the frames of a video, and over videos."""

    key: str = ""
    compare: Compare | None = None

    def measure(self, clip: EvalClip) -> Item:
        every, compare = self.protocol.pair_every, self.compare

        def extract(pair: EvalClip) -> dict[str, np.ndarray]:
            sides = (side.batches(16, every) for side in (pair.pred, pair.ref))
            values = np.concatenate([compare(*both) for both in zip(*sides, strict=True)])
            return {"values": values, FRAMES: np.asarray(len(values))}

        return clip.features(f"{self.key}:{every}", extract)

    def clip_value(self, item: Item) -> float:
        return float(item["values"].mean())


def psnr_values(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """dB per frame, data range 255, at most LARGEST_PSNR."""
    error = np.square(frames.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-10)), LARGEST_PSNR)


def ssim_values(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity per frame as torchmetrics defines it (a test holds the two together): gaussian of 11 pixels
    and sigma 1.5, data range 255, mirrored edges, mean over channels and the whole picture.

    The gaussian is taken along rows and columns in turn; torchmetrics convolves in two dimensions, which in double
    precision takes a hundred times as long. In single precision the variances, differences of large squares, are off by
    so much that equal frames score 0.9999.
    """
    return np.array([_ssim(*pair) for pair in zip(frames.astype(np.float64), truth.astype(np.float64), strict=True)])


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures (H, W, 3)."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a = np.maximum(_blurred(a * a) - mean_a**2, 0)
    variance_b = np.maximum(_blurred(b * b) - mean_b**2, 0)
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = SSIM_CONSTANTS
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())


def _blurred(picture: np.ndarray) -> np.ndarray:
    steps = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    weights = np.exp(-0.5 * (steps / SSIM_SIGMA) ** 2)
    weights /= weights.sum()
    return correlate1d(correlate1d(picture, weights, axis=0, mode="mirror"), weights, axis=1, mode="mirror")


def pixel_metrics(**common: object) -> list[PairedMetric]:
    """SSIM and PSNR: no network."""
    return [
        PairedMetric("ssim", "-", "none", True, key="ssim:1", compare=ssim_values, **common),
        PairedMetric("psnr", "-", "none", True, key="psnr:1", compare=psnr_values, **common),
    ]
