"""Clips made in memory, and one metric's result on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from eval.clips import EvalClip, read_pair
from eval.metrics.metric import Metric, MetricResult
from eval.protocol import Protocol

SIZE = 64
FRAMED = Protocol(crop="none", size=SIZE, codec="", pair_every=1, identity_every=4, resamples=200)


def moving(frames: int = 24, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """(T, size, size, 3): a face-like picture that shifts and brightens slowly, another one for every seed."""
    rng = np.random.default_rng(seed)
    side = size + frames // 2 + 1
    blocks = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    base = np.asarray(blocks.resize((side, side), Image.Resampling.BICUBIC))
    return np.stack([base[t // 2 : t // 2 + size, t // 3 : t // 3 + size] for t in range(frames)])


def save(path: Path, frames: np.ndarray, waveform: np.ndarray | None = None) -> Path:
    arrays = {"frames": frames} | ({} if waveform is None else {"waveform": waveform.astype(np.float32)})
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def pair(
    folder: Path, pred: np.ndarray, ref: np.ndarray, protocol: Protocol = FRAMED, waveform: np.ndarray | None = None
) -> EvalClip:
    count = len(list(folder.glob("*.npz")))
    made, true = save(folder / f"{count}p.npz", pred, waveform), save(folder / f"{count}r.npz", ref, waveform)
    return read_pair(made, true, protocol, name=f"clip{count}")


def measured(metric: Metric, *clips: EvalClip) -> MetricResult:
    metric.reset()
    for clip in clips:
        metric.update(clip)
    return metric.compute()


def blurred(frames: np.ndarray, radius: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius))) for frame in frames])
