"""Metrics of a made frame against the true frame of the same instant: ssim, psnr, lpips and perceptual_lite0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eartalking.modules.torchvision_operators import declare_torchvision_operators
from eval.clips import EvalClip
from eval.metrics.metric import FRAMES, Item, MeanMetric, present

DATA_RANGE = 255.0
LARGEST_PSNR = 100.0  # dB: what two equal frames count as
Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]  # frames and truth (B, H, W, 3) uint8 -> (B,)


@dataclass
class PairedMetric(MeanMetric):
    """`compare` on each n-th frame, its mean over the frames of a video, and over videos."""

    key: str = ""
    compare: Compare | None = None

    def measure(self, clip: EvalClip) -> Item:
        every, compare = self.protocol.pair_every, present(self.compare)

        def extract(pair: EvalClip) -> dict[str, np.ndarray]:
            sides = (side.batches(16, every) for side in (pair.pred, pair.ref))
            values = np.concatenate([compare(*both) for both in zip(*sides, strict=True)])
            return {"values": values, FRAMES: np.asarray(len(values))}

        return clip.features(f"{self.key}:{every}", extract)

    def clip_value(self, item: Item) -> float:
        return float(item["values"].mean())


def psnr_values(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """torchmetrics' PSNR per frame in dB, data range 255, at most LARGEST_PSNR; frames and truth (B, H, W, 3) uint8."""
    declare_torchvision_operators()
    from torchmetrics.functional.image import peak_signal_noise_ratio  # here, as in `ssim_values`

    made, true = _images(frames), _images(truth)
    values = peak_signal_noise_ratio(made, true, DATA_RANGE, reduction="none", dim=(1, 2, 3))  # infinite where equal
    return np.minimum(values.numpy().astype(np.float64), LARGEST_PSNR)


def ssim_values(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """torchmetrics' SSIM per frame: gaussian window of 11 pixels and sigma 1.5, data range 255, mean over channels and
    picture; frames and truth (B, H, W, 3) uint8.

    Single precision, as torchmetrics is used: in double it takes ten times as long. That rounds the variance of flat,
    bright areas, by up to 0.001 where the whole picture is one; equal frames are 1 by definition, so these are set.
    """
    declare_torchvision_operators()
    # Here, because it takes seconds and only two metrics need it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    made, true = _images(frames), _images(truth)
    values = structural_similarity_index_measure(made, true, data_range=DATA_RANGE, reduction="none")
    equal = (frames == truth).all(axis=(1, 2, 3))
    return np.where(equal, 1.0, torch.as_tensor(values).reshape(len(frames)).numpy().astype(np.float64))


def _images(frames: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()


def pixel_metrics(**common: Any) -> list[PairedMetric]:
    """SSIM and PSNR: no network."""
    return [
        PairedMetric("ssim", "-", "none", True, key="ssim:2", compare=ssim_values, **common),
        PairedMetric("psnr", "-", "none", True, key="psnr:2", compare=psnr_values, **common),
    ]
