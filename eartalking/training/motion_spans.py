"""Long spans of speech with exact motion, and what a model's backbone makes of them: the departure head's data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.controls import ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.motion.steering import articulate
from eartalking.motion.vector import motion_vector
from eartalking.synth.clips import cut
from eartalking.synth.performance import Performance, make_performance, neutral_portrait
from eartalking.synth.speech import Utterance, augment_waveform, corpus_files, in_a_row, silent_utterance

AUGMENTED_SHARE = 0.75
SILENCE_SHARE, LONGEST_SILENCE = 0.12, 7.0  # of the joints between utterances; seconds
BATCH = 48  # spans that stream side by side


@dataclasses.dataclass(frozen=True)
class MotionSpans:
    """S spans of T frames: true coordinates (S, T, L), the model's articulated mean (S, T, L), backbone features
    (S, T, F) half."""

    coordinates: Tensor
    mean: Tensor
    features: Tensor

    @classmethod
    def load(cls, path: Path) -> MotionSpans:
        """Raises OSError or KeyError when it is none."""
        return cls(**load_file(path))

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in vars(self).items()}, partial)
        partial.replace(path)


def make_spans(model: TalkingHeadModel, folder: Path, seconds: float, count: int, seed: int) -> MotionSpans:
    """Up to `count` spans of `seconds` from a speech corpus (`synth.speech`), all controls released.

    Nothing jumps, nobody is angry and the mouth is not scaled: what is drawn must be what people do when nothing is
    asked of them.

    Raises:
        ValueError: the corpus is shorter than one span.
    """
    rng = np.random.default_rng(seed)
    utterances = [Utterance.load(path) for path in corpus_files(folder)]
    joined = _join([utterances[i] for i in rng.permutation(len(utterances))], seconds, rng)[:count]
    if not joined:
        raise ValueError(f"{folder}: less than {seconds:g} s of speech")
    code, length = model.autoencoder.code, round(seconds * FPS)
    coordinates, waveforms = [], []
    for utterance in tqdm(joined, desc="motion", unit="span", mininterval=5):
        performance = make_performance(utterance, rng, control_jumps=False, released=True)
        coordinates.append(code.motion_to_coordinates(_vector(performance))[:length])
        augmented = rng.random() < AUGMENTED_SHARE
        waveform = augment_waveform(utterance.waveform, rng) if augmented else utterance.waveform
        waveforms.append(torch.from_numpy(np.ascontiguousarray(waveform[: length * SAMPLES_PER_FRAME], np.float32)))
    portraits = torch.cat([_vector(neutral_portrait(rng)) for _ in joined])
    mean, features = _streamed(model, waveforms, code.motion_to_latents(portraits), length)
    return MotionSpans(torch.stack(coordinates), mean, features)


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


@torch.inference_mode()
def _streamed(
    model: TalkingHeadModel, waveforms: list[Tensor], portraits: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """The articulated mean's coordinates (S, T, L) and the backbone's features (S, T, F) of free-running streams."""
    config = model.config
    size = config.autoencoder
    # Of the portraits' looks motion hardly depends.
    looks = torch.zeros(len(portraits), size.num_latent_tokens, size.reference_widths[-1])
    means, features = [], []
    for first in tqdm(range(0, len(waveforms), BATCH), desc="streams", unit="batch"):
        here = slice(first, first + BATCH)
        audio = torch.cat([model.audio_encoder(waveform[None]) for waveform in waveforms[here]])
        state = model.prefill(portraits[here], looks[here])
        code, released = model.autoencoder.code, ControlBatch.released(len(audio), 1)
        asked = released.map(lambda value: value[:, 0])
        rows: list[tuple[Tensor, Tensor]] = []
        for index in range(length):
            cond = model.observe(audio[:, index], released, state)
            latents = model.mean(cond, audio[:, index])
            state.previous, state.frame_index = latents, index + 1
            articulated = articulate(latents, asked, code, model.articulation)
            rows.append((code.latents_to_coordinates(articulated), cond.flatten(1).half()))
        means.append(torch.stack([row[0] for row in rows], dim=1))
        features.append(torch.stack([row[1] for row in rows], dim=1))
    return torch.cat(means), torch.cat(features)
