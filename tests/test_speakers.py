"""The same words from other mouths."""

from __future__ import annotations

import numpy as np
import torch

from eartalking.audio import MEL_BINS, log_mel, mel_edges
from eartalking.config import SAMPLE_RATE
from eartalking.training.speakers import BAND_SHARE, WIDEST_BAND, as_other_speakers, warp_frequencies


def _tone(frequency: float) -> torch.Tensor:
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    return torch.sin(2 * np.pi * frequency * time)[None]


def test_a_tone_lies_where_its_frequency_is_warped_to() -> None:
    peaks = mel_edges(torch.device("cpu"))[1:-1]
    for frequency in (500.0, 1500.0, 3000.0):
        for factor in (0.8, 1.0, 1.25):
            heard = warp_frequencies(log_mel(_tone(frequency)), torch.tensor([factor]))[0, 50]
            wanted = (peaks - frequency * factor).abs().argmin()
            assert abs(int(heard.argmax() - wanted)) <= 1, f"{frequency} Hz, {factor}"


def test_the_same_vocal_tract_changes_nothing_and_each_clip_has_its_own() -> None:
    mel = torch.randn(2, 12, MEL_BINS)
    torch.testing.assert_close(warp_frequencies(mel, torch.ones(2)), mel)
    heard = warp_frequencies(mel, torch.tensor([1.0, 1.2]))
    torch.testing.assert_close(heard[0], mel[0])
    torch.testing.assert_close(heard[1:], warp_frequencies(mel[1:], torch.tensor([1.2])))


def test_warped_frequencies_stay_in_order_and_end_where_hearing_ends() -> None:
    ramp = torch.arange(MEL_BINS, dtype=torch.float32).expand(1, 1, -1)  # says of every bin where it was taken from
    for factor in (0.8, 0.9, 1.1, 1.25):
        source = warp_frequencies(ramp, torch.tensor([factor]))[0, 0]
        assert (source.diff() > -1e-4).all() and source.diff().max() < 2, "no sound twice, and none far away"
        assert source[-1] > MEL_BINS - 3


def test_some_clips_lack_a_band_all_along() -> None:
    mel = torch.full((400, 3, MEL_BINS), 2.0)
    heard = as_other_speakers(mel, torch.Generator().manual_seed(0))
    assert heard.shape == mel.shape and torch.equal(heard[:, 0], heard[:, 2])
    width = (heard[:, 0] != 2).sum(-1)
    assert width.max() <= WIDEST_BAND and abs(float((width > 0).float().mean()) - BAND_SHARE) < 0.08
    again = as_other_speakers(mel, torch.Generator().manual_seed(0))
    assert torch.equal(heard, again)
