"""Mathematics of the streaming metrics: correlation with lag, envelopes, sharpness, boxes. numpy only, no weights."""

from __future__ import annotations

import math

import numpy as np

from eartalking.config import SAMPLES_PER_FRAME

# Luma of Rec. 601, for sharpness.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom exclusive


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two signals (T,); nan when one of them does not move or T < 3."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two signals of one length are needed, got {a.shape} and {b.shape}")
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return math.nan
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


def lag_correlations(signal: np.ndarray, truth: np.ndarray, max_lag: int) -> dict[int, float]:
    """Correlation at every lag in ±max_lag frames; a positive lag means that `signal` comes later than `truth`."""
    length = min(len(signal), len(truth))
    signal, truth = np.asarray(signal)[:length], np.asarray(truth)[:length]
    found = {}
    for lag in range(-max_lag, max_lag + 1):
        late, early = signal[max(lag, 0) : length + min(lag, 0)], truth[max(-lag, 0) : length - max(lag, 0)]
        found[lag] = correlation(late, early)
    return found


def best_lag(correlations: dict[int, float]) -> int:
    """The lag of the highest correlation, the one nearest to 0 when equal.

    Raises:
        ValueError: every correlation is nan.
    """
    finite = {lag: value for lag, value in correlations.items() if not math.isnan(value)}
    if not finite:
        raise ValueError("no lag has a correlation: one of the signals does not move")
    return max(finite, key=lambda lag: (finite[lag], -abs(lag)))


def mean_correlations(rows: list[dict[int, float]]) -> dict[int, float]:
    """Lag by lag mean over clips; a clip without a correlation at a lag counts as 0 there: a mouth that does not move
    is not in time with anything."""
    return {lag: float(np.mean([0.0 if math.isnan(row[lag]) else row[lag] for row in rows])) for lag in rows[0]}


def voice_envelope(waveform: np.ndarray, num_frames: int) -> np.ndarray:
    """Loudness (root mean square) of each frame's own 640 samples, smoothed over 3 frames: (num_frames,)."""
    padded = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float64)
    part = waveform[: len(padded)]
    padded[: len(part)] = part
    loudness = np.sqrt((padded.reshape(num_frames, -1) ** 2).mean(1))
    return np.convolve(np.pad(loudness, 1, mode="edge"), np.ones(3) / 3, "valid")


def sharpness(image: np.ndarray, box: Box | None = None) -> float:
    """Variance of the Laplacian of the luma of (H, W, 3) uint8, inside the box."""
    grey = image.astype(np.float32) @ _LUMA
    if box is not None:
        grey = grey[box[1] : box[3], box[0] : box[2]]
    if min(grey.shape) < 3:
        raise ValueError(f"the box {box} is too small to measure sharpness")
    centre = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
    return float(laplacian.var())


def box_mse(a: np.ndarray, b: np.ndarray, box: Box | None = None) -> float:
    """Mean squared error of two uint8 images in units of (0..1)², inside the box."""
    if box is not None:
        a, b = (image[box[1] : box[3], box[0] : box[2]] for image in (a, b))
    return float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean() / 255**2)


def psnr(mse: float) -> float:
    """Decibels of a mean squared error in units of (0..1)²; 100 at most."""
    return float(min(100.0, -10 * math.log10(max(mse, 1e-10))))


def relative_change(first: float, last: float) -> float:
    """|last - first| / first, nan when `first` is not positive."""
    return abs(last - first) / first if first > 0 else math.nan


def first_seen(response: np.ndarray, share: float = 0.5) -> int | None:
    """Frames until a step is seen: 1 when the first row after the change shows at least `share` of it, None if never.

    `response` (T,) is the mean progress after the change, 0 before and 1 when it is followed fully.
    """
    seen = np.flatnonzero(np.asarray(response) >= share)
    return int(seen[0]) + 1 if len(seen) else None


def step_response(readings: np.ndarray, asked: np.ndarray, smallest: float, frames: int) -> tuple[np.ndarray, int]:
    """Mean progress of `readings` (T,) from one asked value to the next, over all steps of `asked` (T,) by at least
    `smallest`: (frames,), and the number of steps. Each step counts by its size; steps without `frames` rows until
    the next one, or without a row before them, do not count."""
    changes = np.flatnonzero(np.diff(asked)) + 1
    ends = np.append(changes, len(asked))[1:]
    total, weight, count = np.zeros(frames), 0.0, 0
    for start, end in zip(changes, ends, strict=True):
        size = asked[start] - asked[start - 1]
        if abs(size) < smallest or end - start < frames:
            continue
        # Progress is measured from what was seen just before, not from what was asked: a model that holds back
        # half of every turn is late, not early.
        before = readings[max(0, start - 3) : start].mean()
        total += (readings[start : start + frames] - before) * np.sign(size)
        weight += abs(size)
        count += 1
    return (total / weight if count else np.full(frames, np.nan)), count
