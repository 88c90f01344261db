"""Long spans of speech with exact motion, and what a model makes of them by itself."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.controls import ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.motion.code import MotionCode
from eartalking.motion.steering import articulate
from eartalking.motion.vector import motion_vector
from eartalking.synth.clips import cut
from eartalking.synth.performance import Performance, make_performance, neutral_portrait
from eartalking.synth.speech import Utterance, augment_waveform, corpus_files, in_a_row, silent_utterance
from eartalking.training.encode import portrait_rows

AUGMENTED_SHARE = 0.75
SILENCE_SHARE, LONGEST_SILENCE = 0.12, 7.0  # of the joints between utterances; seconds
BATCH = 48  # spans that stream side by side


@dataclasses.dataclass(frozen=True)
class KeptTensors:
    """Tensors by their names, kept in one file."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises OSError or TypeError when it is none."""
        return cls(**load_file(path))

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        partial = path.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in vars(self).items()}, partial)
        partial.replace(path)


@dataclasses.dataclass(frozen=True)
class MotionSpans(KeptTensors):
    """S spans of T frames: true coordinates (S, T, L), the model's articulated mean (S, T, L), backbone features
    (S, T, F) half."""

    coordinates: Tensor
    mean: Tensor
    features: Tensor


@dataclasses.dataclass(frozen=True)
class Portraits:
    """P portraits: their latents (P, N, C) and their looks (P, N, D)."""

    latents: Tensor
    looks: Tensor

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Where the portraits of both splits are."""
        parser.add_argument("--portraits", type=Path, required=True, help="folder of stills, whose portraits speak")
        parser.add_argument("--val-portraits", type=Path, required=True, help="the same of held-out people")

    @classmethod
    def of_stills(cls, model: TalkingHeadModel, folder: Path) -> Self:
        """Of a folder of clips (`synth.clips --kind stills`). Raises FileNotFoundError: it holds none."""
        rows = portrait_rows(model.autoencoder, folder, torch.device("cpu"), with_features=True)
        return cls(*(torch.cat([row[f"reference_{name}"] for row in rows]) for name in ("latents", "features")))


@dataclasses.dataclass(frozen=True)
class SpokenSpans:
    """S spans of T frames as they are performed: true coordinates (S, T, L), waveforms (T * 640,) each, which frames
    are closures of b, m and p (S, T) bool, and of the portraits that speak them the latents (S, N, C) and the looks
    (S, N, D), zero of faces of which nothing is seen."""

    coordinates: Tensor
    waveforms: list[Tensor]
    closures: Tensor
    portraits: Tensor
    looks: Tensor | None = None

    def seen(self, portraits: Portraits, seed: int) -> Self:
        """The same, spoken by portraits that are drawn at random."""
        chosen = self._drawn(portraits, seed)
        return dataclasses.replace(self, portraits=portraits.latents[chosen], looks=portraits.looks[chosen])

    def looking_like(self, portraits: Portraits, seed: int) -> Self:
        """The same, spoken by people who look like portraits that are drawn at random, and sit as these did."""
        return dataclasses.replace(self, looks=portraits.looks[self._drawn(portraits, seed)])

    def _drawn(self, portraits: Portraits, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(len(portraits.latents), size=len(self.waveforms))

    def looks_of(self, rows: slice) -> Tensor | None:
        """Of some of the spans."""
        return None if self.looks is None else self.looks[rows]


def speak(code: MotionCode, folder: Path, seconds: float, count: int, seed: int) -> SpokenSpans:
    """Up to `count` spans of `seconds` from a speech corpus (`synth.speech`), all controls released.

    Nothing jumps, nobody is angry and the mouth is not scaled: what is learnt must be what people do when nothing is
    asked of them.

    Raises:
        ValueError: the corpus is shorter than one span.
    """
    rng = np.random.default_rng(seed)
    utterances = [Utterance.load(path) for path in corpus_files(folder)]
    joined = _join([utterances[i] for i in rng.permutation(len(utterances))], seconds, rng)[:count]
    if not joined:
        raise ValueError(f"{folder}: less than {seconds:g} s of speech")
    length = round(seconds * FPS)
    coordinates, waveforms = [], []
    closures = torch.zeros(len(joined), length, dtype=torch.bool)
    for row, utterance in zip(closures, tqdm(joined, desc="motion", unit="span", mininterval=5), strict=True):
        performance = make_performance(utterance, rng, control_jumps=False, released=True)
        coordinates.append(code.motion_to_coordinates(_vector(performance))[:length])
        augmented = rng.random() < AUGMENTED_SHARE
        waveform = augment_waveform(utterance.waveform, rng) if augmented else utterance.waveform
        waveforms.append(torch.from_numpy(np.ascontiguousarray(waveform[: length * SAMPLES_PER_FRAME], np.float32)))
        row[torch.from_numpy(utterance.closures[utterance.closures < length])] = True
    portraits = torch.cat([_vector(neutral_portrait(rng)) for _ in joined])
    return SpokenSpans(torch.stack(coordinates), waveforms, closures, code.motion_to_latents(portraits))


@torch.inference_mode()
def encode_audio(model: TalkingHeadModel, waveforms: list[Tensor]) -> Tensor:
    """Audio tokens (S, T, A, D) of waveforms of one length."""
    return torch.cat([model.audio_encoder(waveform[None]) for waveform in waveforms])


@torch.inference_mode()
def stream_means(
    model: TalkingHeadModel, audio: Tensor, portraits: Tensor, looks: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Free-running streams side by side, all controls released: audio tokens (S, T, A, D), portraits (S, N, C), their
    looks (S, N, D) (None: zero) -> frame by frame the mean as the history remembers it (S, N, C) and the backbone's
    features (S, P, D)."""
    size = model.config.autoencoder
    if looks is None:
        looks = torch.zeros(len(portraits), size.num_latent_tokens, size.reference_widths[-1])
    state, released = model.prefill(portraits, looks), ControlBatch.released(len(portraits), 1)
    for index in range(audio.shape[1]):
        cond = model.observe(audio[:, index], released, state)
        state.previous, state.frame_index = model.mean(cond, audio[:, index]), index + 1
        yield state.previous, cond


def listen(model: TalkingHeadModel, spoken: SpokenSpans) -> tuple[Tensor, Tensor]:
    """What the model makes of spans by itself: its articulated mean's coordinates (S, T, L) and the backbone's features
    (S, T, F) half."""
    code, means, features = model.autoencoder.code, [], []
    for first in tqdm(range(0, len(spoken.waveforms), BATCH), desc="streams", unit="batch"):
        here = slice(first, first + BATCH)
        audio = encode_audio(model, spoken.waveforms[here])
        asked = ControlBatch.released(len(audio))
        rows = [
            (code.latents_to_coordinates(articulate(latents, asked, code, model.articulation)), cond.flatten(1).half())
            for latents, cond in stream_means(model, audio, spoken.portraits[here], spoken.looks_of(here))
        ]
        means.append(torch.stack([mean for mean, _ in rows], dim=1))
        features.append(torch.stack([cond for _, cond in rows], dim=1))
    return torch.cat(means), torch.cat(features)


def make_spans(
    model: TalkingHeadModel, folder: Path, portraits: Portraits, seconds: float, count: int, seed: int
) -> MotionSpans:
    """Spans (`speak`) of people who look like some of the portraits, and what the model makes of them by itself.

    Raises:
        ValueError: the corpus is shorter than one span.
    """
    spoken = speak(model.autoencoder.code, folder, seconds, count, seed).looking_like(portraits, seed)
    return MotionSpans(spoken.coordinates, *listen(model, spoken))


def _vector(performance: Performance) -> Tensor:
    names = [field.name for field in dataclasses.fields(performance)]
    return motion_vector({name: torch.from_numpy(np.asarray(getattr(performance, name))) for name in names})


def _join(utterances: list[Utterance], seconds: float, rng: np.random.Generator) -> list[Utterance]:
    """Utterances one after the other, with silences between, cut into spans of `seconds`."""
    spans: list[Utterance] = []
    parts: list[Utterance] = []
    for utterance in utterances:
        if rng.random() < SILENCE_SHARE:
            parts.append(silent_utterance(rng.uniform(1, LONGEST_SILENCE)))
        parts.append(utterance)
        if sum(part.seconds for part in parts) >= seconds:
            spans.append(cut(in_a_row(parts), 0.0, seconds))
            parts = []
    return spans
