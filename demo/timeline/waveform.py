"""The voice as the timeline draws it."""

from __future__ import annotations

import numpy as np

PEAKS_PER_SECOND = 50


def waveform_peaks(waveform: np.ndarray, sample_rate: int = 16000) -> list[float]:
    """Peaks 0..1 of a mono waveform (samples,), 50 a second, scaled so that the loudest is 1; empty for silence of no
    length.
    """
    samples = np.abs(np.asarray(waveform, np.float32)).reshape(-1)
    if not samples.size:
        return []
    count = max(1, round(samples.size * PEAKS_PER_SECOND / sample_rate))
    edges = np.linspace(0, samples.size, count + 1).astype(int)[:-1]
    peaks = np.maximum.reduceat(samples, np.unique(edges))
    loudest = float(peaks.max())
    return [round(float(peak) / loudest, 3) if loudest > 1e-4 else 0.0 for peak in peaks]
