"""The speech of a test set: a corpus of the test split, and the spans of it that clips are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eartalking.config import FPS
from eartalking.synth.clips import cut
from eartalking.synth.speech import Utterance, build_corpus, corpus_files, utterances

SMALLEST_SPEECH_SHARE = 0.6  # of a clip's length; in silence there is nothing to be in time with
SPAN_DRAWS = 12
CORPUS_HOURS = 0.3
VOICE_ENGINES = ("espeak", "flite", "prompts")
_NO_VOICE = (
    "no voice is installed: pip install espeakng-loader pocketsphinx, or apt install flite "
    "asterisk-core-sounds-en-g722 asterisk-core-sounds-en, or give --speech"
)


def make_corpus(folder: Path) -> Path:
    """The corpus in `folder`, made from the voices that are installed if it is not there yet.

    Raises:
        RuntimeError: no voice is installed; the message says what to install.
    """
    if (folder / "manifest.csv").is_file():
        return folder
    working = tuple(engine for engine in VOICE_ENGINES if _speaks(engine))
    if not working:
        raise RuntimeError(_NO_VOICE)
    build_corpus(folder, "test", CORPUS_HOURS, 0, working)
    return folder


def _speaks(engine: str) -> bool:
    try:
        return next(utterances("test", 1e-3, 0, (engine,)), None) is not None
    except (RuntimeError, ImportError, OSError):
        return False


def load_corpus(folder: Path) -> list[Utterance]:
    """All utterances of a corpus in an order of which every first part is mixed: each third is a recorded prompt, as
    long as there are some.
    """
    loaded = [Utterance.load(path) for path in corpus_files(folder)]
    loaded = [loaded[index] for index in np.random.default_rng(0).permutation(len(loaded))]
    real = [utterance for utterance in loaded if utterance.voice.startswith("prompts/")]
    other = [utterance for utterance in loaded if not utterance.voice.startswith("prompts/")]
    mixed: list[Utterance] = []
    while real or other:
        take = real if real and (len(mixed) % 3 == 2 or not other) else other
        mixed.append(take.pop(0))
    return mixed


def spans(
    corpus: list[Utterance], count: int, seconds: tuple[float, float], rng: np.random.Generator
) -> list[Utterance]:
    """`count` spans with enough speech, each of another utterance and as long as drawn from the range `seconds`.

    Raises:
        ValueError: the corpus gives fewer.
    """
    found: list[Utterance] = []
    for utterance in corpus * 2:  # a second round through a small corpus gives other spans of it
        if len(found) == count:
            break
        span = _span(utterance, round(rng.uniform(*seconds) * FPS) / FPS, rng)
        found += [span] if span is not None else []
    if len(found) < count:
        missing = f"the corpus gives {len(found)} clips with enough speech, {count} are wanted"
        raise ValueError(f"{missing}: make a longer one (--hours)")
    return found


def _span(utterance: Utterance, seconds: float, rng: np.random.Generator) -> Utterance | None:
    """The span with the most speech of some random ones; None when even that is mostly silence."""
    if utterance.seconds < seconds:
        return None
    starts = rng.uniform(0, utterance.seconds - seconds, SPAN_DRAWS)
    drawn = [cut(utterance, float(start), float(start + seconds)) for start in starts]
    best = max(drawn, key=_speech_share)
    return best if _speech_share(best) >= SMALLEST_SPEECH_SHARE else None


def _speech_share(utterance: Utterance) -> float:
    return sum(end - start for phone, start, end in utterance.phones if phone != "SIL") / utterance.seconds


def joined(corpus: list[Utterance], lengths: tuple[float, ...]) -> Iterator[Utterance]:
    """Utterances one after the other, cut to each of the lengths in seconds; each starts where the last one ended."""
    start = 0
    for seconds in lengths:
        parts: list[Utterance] = []
        while sum(part.seconds for part in parts) < seconds:
            parts.append(corpus[(start + len(parts)) % len(corpus)])
        start += len(parts)
        yield cut(_concatenated(parts), 0.0, seconds)


def _concatenated(parts: list[Utterance]) -> Utterance:
    phones, stresses, time = [], [], 0.0
    for part in parts:
        phones += [(phone, time + start, time + end) for phone, start, end in part.phones]
        stresses += [time + stress for stress in part.stresses]
        time += part.seconds
    return dataclasses.replace(
        parts[0],
        waveform=np.concatenate([part.waveform for part in parts]),
        phones=phones,
        stresses=stresses,
        text="",
        voice="many",
        licence=" + ".join(sorted({part.licence for part in parts})),
    )
