"""The same words from other mouths: what happens to log-mels while the ear is trained.

A handful of synthesisers is not what people sound like, and an encoder that has heard few vocal tracts knows the sounds
of those. So every clip is heard as if a longer or a shorter one had said it, its frequencies warped (vocal tract length
perturbation, Jaitly and Hinton 2013), and now and then without a band of them (SpecAugment, Park et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eartalking.audio import LOG_MEL_MEAN, MEL_BINS, mel_edges
from eartalking.config import SAMPLE_RATE

WARP = 0.2  # vocal tracts are up to a fifth shorter or longer, in logarithms
KNEE = 4800.0  # Hz; above, the warped frequencies close up with Nyquist's
BAND_SHARE, WIDEST_BAND = 0.5, 10  # of the clips lack a band of up to so many bins


def as_other_speakers(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mels (B, L, 80), each clip said by another vocal tract, and some without a band of frequencies; on the mels'
    device, drawn with `generator`, which is the CPU's."""
    batch = len(mel)
    factor = torch.exp(WARP * (2 * torch.rand(batch, generator=generator) - 1))
    heard = warp_frequencies(mel, factor.to(mel.device))
    width = torch.randint(1, WIDEST_BAND + 1, (batch, 1), generator=generator)
    first = (torch.rand(batch, 1, generator=generator) * (MEL_BINS + 1 - width)).long()
    lacks = torch.rand(batch, 1, generator=generator) < BAND_SHARE
    bins = torch.arange(MEL_BINS)
    band = lacks & (bins >= first) & (bins < first + width)
    return torch.where(band[:, None].to(mel.device), LOG_MEL_MEAN, heard)


def warp_frequencies(mel: Tensor, factor: Tensor) -> Tensor:
    """Log-mels (B, L, 80) whose resonances lie `factor` (B,) times as high; 1 changes nothing."""
    edges = mel_edges(mel.device)
    source = _unwarped(edges[None, 1:-1], factor[:, None])  # Hz, where each bin's sound comes from: (B, 80)
    right = torch.searchsorted(edges[1:-1], source).clamp(1, MEL_BINS - 1)
    low, high = edges[1:-1][right - 1], edges[1:-1][right]
    share = ((source - low) / (high - low)).clamp(0, 1).to(mel.dtype)

    def picked(index: Tensor) -> Tensor:
        return mel.gather(2, index[:, None].expand_as(mel))

    return torch.lerp(picked(right - 1), picked(right), share[:, None])


def _unwarped(frequency: Tensor, factor: Tensor) -> Tensor:
    """From where a frequency was warped: f / factor up to the knee, from there on a line to Nyquist's."""
    nyquist = SAMPLE_RATE / 2
    knee = KNEE * factor.clamp_max(1)  # of warped frequencies
    slope = (nyquist - knee / factor) / (nyquist - knee)
    return torch.where(frequency <= knee, frequency / factor, nyquist - slope * (nyquist - frequency))
