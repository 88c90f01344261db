"""Gates of the mouth: in time with the voice, also with a recorded human one, and closed in silence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.gates.streams import Context, spread, strip
from benchmarks.gates.table import GateRow, Unavailable, judge, unavailable
from eartalking.config import FPS, SAMPLE_RATE
from eval.metrics.signals import best_lag, lag_correlations, mean_correlations, voice_envelope

MAX_LAG = 5
SETTLE_FRAMES = 12  # after the last word, before the mouth must be closed
SILENCE_SECONDS, SPEECH_SECONDS = 4.0, 4.0
SMALLEST_OPENING = 0.004  # head heights: a mouth that opens less in speech does not talk, and cannot pass by being shut


def best_within(correlations: dict[int, float], lags: int) -> float:
    """The highest correlation within ±`lags` frames; nan when there is none."""
    finite = [value for lag, value in correlations.items() if abs(lag) <= lags and not math.isnan(value)]
    return max(finite, default=math.nan)


def lag_reason(correlations: dict[int, float], lags: int) -> str:
    """Why the lag fails the gate; empty when the best lag of all is within ±`lags`."""
    lag = best_lag(correlations)
    return "" if abs(lag) <= lags else f"the best lag is {lag} frames"


def shuffled_floor(signals: list[np.ndarray], truths: list[np.ndarray], lags: int) -> float:
    """The same measure with the truth of another clip: what no relation at all scores."""
    if len(signals) > 1:
        pairs = [(signal, truths[(i + 1) % len(truths)]) for i, signal in enumerate(signals)]
    else:  # one clip alone is compared with itself, moved by a third and two thirds of its length
        pairs = [(signals[0], np.roll(truths[0], len(truths[0]) * k // 3)) for k in (1, 2)]
    return best_within(mean_correlations([lag_correlations(a, b, MAX_LAG) for a, b in pairs]), lags)


def measure_lip_sync(context: Context) -> list[GateRow]:
    """Free-running on the voice of held-out clips: mouth opening that the reader sees against the clip's true one."""
    names = ("lip_sync", "lip_sync_shuffled")
    try:
        clips, _ = context.material.clips(), context.reader
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in names]
    openings, truths, ceilings = [], [], []
    rows: list[Any] = []
    for clip in tqdm(clips, unit="clip", desc="lip sync", mininterval=2, leave=False):
        record = context.watch(context.start(clip["reference"]), clip["waveform"])
        length = min(len(record), len(clip["frames"]))
        openings.append(record.read.mouth_open[:length])
        truths.append(clip["labels.mouth_open"][:length])
        ceilings.append(lag_correlations(context.reader.read(clip["frames"]).mouth_open[:length], truths[-1], 0))
        if len(rows) < 8:
            rows += [spread(clip["frames"][:length:12], 8), spread(record.sampled, 8)]
    context.pictures["lip_sync"] = strip(rows)
    per_clip = [lag_correlations(opening, truth, MAX_LAG) for opening, truth in zip(openings, truths, strict=True)]
    correlations, shuffled = mean_correlations(per_clip), shuffled_floor(openings, truths, 1)
    return [
        judge(
            names[0],
            best_within(correlations, 1),
            len(clips),
            "clips",
            shuffled,
            lag_reason(correlations, 1),
            best_lag=best_lag(correlations),
            by_lag=_rounded(correlations),
            by_clip=[round(best_within(row, 1), 3) for row in per_clip],
            reader_on_true_frames=round(mean_correlations(ceilings)[0], 4),
        ),
        judge(
            names[1],
            shuffled,
            len(clips),
            "clips",
            None,
            "" if any(map(np.ptp, openings)) else "the mouth does not move",
        ),
    ]


def measure_real_speech(context: Context) -> list[GateRow]:
    """Recorded human speech on photographs and rendered portraits: mouth opening against the voice's loudness."""
    name = "real_speech"
    try:
        voices, _ = context.material.real_voices(), context.reader
        portraits = _faces(context)
    except Unavailable as error:
        return [unavailable(name, str(error))]
    openings, envelopes, rows = [], [], []
    for index, voice in enumerate(tqdm(voices, unit="voice", desc="real speech", mininterval=2, leave=False)):
        portrait, crop = portraits[index % len(portraits)]
        record = context.watch(context.start(portrait, crop), voice)
        openings.append(record.read.mouth_open)
        envelopes.append(voice_envelope(voice, len(record)))
        rows.append([record.portrait, *spread(record.sampled, 8)])
    context.pictures["real_speech"] = strip(rows[:6])
    per_voice = [lag_correlations(opening, loud, MAX_LAG) for opening, loud in zip(openings, envelopes, strict=True)]
    correlations = mean_correlations(per_voice)
    lag = best_lag(correlations)
    row = judge(name, best_within(correlations, 2), len(voices), "recordings", shuffled_floor(openings, envelopes, 2),
                lag_reason(correlations, 2), best_lag=lag, by_lag=_rounded(correlations),
                by_recording=[round(best_within(one, 2), 3) for one in per_voice])  # fmt: skip
    return [row]


def measure_silence(context: Context) -> list[GateRow]:
    """Speech, then digital silence: the mean opening in the silence over the mean opening while the voice sounds."""
    name = "silence"
    try:
        portraits, _ = _faces(context), context.reader
        voices = [context.material.voice(SPEECH_SECONDS, skip=3 * i) for i in range(len(portraits))]
    except Unavailable as error:
        return [unavailable(name, str(error))]
    silent = np.zeros(round(SILENCE_SECONDS * SAMPLE_RATE), np.float32)
    speech_frames = round(SPEECH_SECONDS * FPS)
    ratios, louds, quiets, rows = [], [], [], []
    for (portrait, crop), voice in zip(portraits, voices, strict=True):
        record = context.watch(context.start(portrait, crop), np.concatenate([voice, silent]), title="silence")
        opening, envelope = record.read.mouth_open, voice_envelope(voice, speech_frames)
        loud = opening[:speech_frames][envelope > 0.3 * envelope.max()].mean()
        quiet = opening[speech_frames + SETTLE_FRAMES :].mean()
        ratios.append(float(quiet / max(loud, 1e-6)))
        louds.append(float(loud))
        quiets.append(float(quiet))
        rows.append([record.portrait, *spread(record.sampled, 10)])
    context.pictures["silence"] = strip(rows[:6])
    unless = "" if np.mean(louds) >= SMALLEST_OPENING else "the mouth hardly opens in speech"
    extra = {
        "opening_in_speech": [round(value, 4) for value in louds],
        "opening_in_silence": [round(value, 4) for value in quiets],
    }
    row = judge(
        name,
        float(np.mean(ratios)),
        len(ratios),
        "portraits",
        None,
        unless,
        by_portrait=[round(r, 3) for r in ratios],
        **extra,
    )
    return [row]


def _faces(context: Context) -> list[tuple[np.ndarray, str]]:
    """One photograph and rendered portraits, with how to crop each."""
    faces = [(portrait, "center") for portrait in context.material.portraits()]
    try:
        faces.insert(0, (context.material.photographs()[0], "auto"))
    except Unavailable:
        pass  # rendered portraits alone
    return faces


def _rounded(correlations: dict[int, float]) -> dict[str, float]:
    return {str(lag): round(value, 4) for lag, value in correlations.items()}
