"""Speech with phone times: one utterance, a corpus of them on disk, and the augmentation of a waveform.

python -m eartalking.synth.speech --out data/speech/train --split train --hours 2 --seed 0
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt, sosfiltfilt

from eartalking.config import FPS, SAMPLE_RATE
from eartalking.errors import run_program
from eartalking.synth.texts import SPLITS, random_sentence, split_of_text
from eartalking.synth.visemes import BILABIALS, VOWELS
from eartalking.synth.voices import ENGINE_LICENCES, Phones, Voice, lexicon, prompt_texts, speak, voices, warp_voice

# How much of the hours each engine gets of the others'; what it cannot give in a split goes to them. A new one is added
# at the end, or other splits than its own change.
ENGINE_SHARES = {"espeak": 0.26, "flite": 0.24, "hibari": 0.30, "prompts": 0.20, "kokoro": 0.15}


@dataclass
class Utterance:
    """A clip's speech: 16 kHz mono in [-1, 1] with its phones in order, silence included as "SIL"."""

    waveform: np.ndarray  # (samples,) float32
    phones: Phones  # (ARPABET without stress, start seconds, end seconds)
    text: str
    voice: str  # "engine/name"
    licence: str
    stresses: list[float] = field(default_factory=list)  # centres of the prominent vowels, seconds

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / SAMPLE_RATE

    @property
    def closures(self) -> np.ndarray:
        """The frames (C,) of shut lips: of each b, m and p the one in the middle."""
        middles = [(start + end) / 2 for phone, start, end in self.phones if phone in BILABIALS]
        return np.array([round(middle * FPS - 0.5) for middle in middles], int)

    def save(self, path: Path) -> None:
        """Write as one .npz; the waveform is kept in 16 bits."""
        np.savez(
            path,
            waveform=(np.clip(self.waveform, -1, 1) * 32767).astype(np.int16),
            phone_names=np.array([phone for phone, _, _ in self.phones]),
            phone_times=np.array([(start, end) for _, start, end in self.phones], np.float32).reshape(-1, 2),
            stresses=np.array(self.stresses, np.float32),
            strings=np.array([self.text, self.voice, self.licence]),
        )

    @staticmethod
    def load(path: Path) -> "Utterance":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError, KeyError: no such file, or not an utterance.
        """
        with np.load(path) as stored:
            text, voice, licence = (str(value) for value in stored["strings"])
            names, times = stored["phone_names"].tolist(), stored["phone_times"].tolist()
            return Utterance(
                waveform=stored["waveform"].astype(np.float32) / 32767,
                phones=[(name, start, end) for name, (start, end) in zip(names, times, strict=True)],
                text=text,
                voice=voice,
                licence=licence,
                stresses=stored["stresses"].tolist(),
            )


def prominent_vowels(waveform: np.ndarray, phones: Phones) -> list[float]:
    """Centres (seconds) of the vowels that are long and loud among their utterance's: where people nod."""
    vowels = [(start, end) for phone, start, end in phones if phone in VOWELS]
    if len(vowels) < 2:
        return [(start + end) / 2 for start, end in vowels]
    spans = [waveform[int(start * SAMPLE_RATE) : max(int(end * SAMPLE_RATE), int(start * SAMPLE_RATE) + 1)]
             for start, end in vowels]  # fmt: skip
    loudness = np.array([np.log(np.sqrt(np.mean(span**2)) + 1e-4) if len(span) else -9.0 for span in spans])
    length = np.log(np.array([end - start for start, end in vowels]) + 1e-3)
    score = sum((x - x.mean()) / (x.std() + 1e-6) for x in (loudness, length))
    return [(start + end) / 2 for (start, end), value in zip(vowels, score, strict=True) if value > 0.9]


def silent_utterance(seconds: float) -> Utterance:
    """Silence, for listening clips."""
    samples = round(seconds * SAMPLE_RATE)
    return Utterance(np.zeros(samples, np.float32), [("SIL", 0.0, seconds)], "", "silence", "CC0-1.0")


def in_a_row(parts: list[Utterance]) -> Utterance:
    """Utterances, at least one, as one; text, voice and licence are the first one's."""
    phones, stresses, start = [], [], 0.0
    for part in parts:
        phones += [(phone, start + begin, start + end) for phone, begin, end in part.phones]
        stresses += [start + time for time in part.stresses]
        start += part.seconds
    waveform = np.concatenate([part.waveform for part in parts])
    return replace(parts[0], waveform=waveform, phones=phones, stresses=stresses)


def assemble(voice: Voice, parts: list[tuple[np.ndarray, Phones]], text: str, rng: np.random.Generator) -> Utterance:
    """Sentences one after the other with pauses between and silence around them, at a common loudness."""
    warp = float(np.exp(rng.uniform(-0.16, 0.14))) if rng.random() < 0.7 else 1.0
    waveforms: list[np.ndarray] = []
    phones: Phones = []
    time = 0.0

    def pause(seconds: float) -> None:
        nonlocal time
        samples = round(seconds * SAMPLE_RATE)
        waveforms.append(np.zeros(samples, np.float32))
        phones.append(("SIL", time, time + samples / SAMPLE_RATE))
        time += samples / SAMPLE_RATE

    pause(rng.uniform(0.1, 1.0))
    for part in parts:
        waveform, part_phones = warp_voice(*part, warp)
        waveforms.append(waveform)
        phones += [(phone, time + start, time + end) for phone, start, end in part_phones]
        time += len(waveform) / SAMPLE_RATE
        listening = rng.random() < 0.15
        pause(rng.uniform(1.0, 2.5) if listening else rng.uniform(0.1, 1.0))

    speech = np.concatenate(waveforms)
    voiced = speech[np.abs(speech) > 1e-3]
    gain = 0.09 / float(np.sqrt(np.mean(voiced**2))) if len(voiced) else 1.0
    speech = (speech * min(gain, 0.98 / max(float(np.abs(speech).max()), 1e-6))).astype(np.float32)
    name = str(voice) if warp == 1.0 else f"{voice}*{warp:.2f}"
    return Utterance(speech, _joined(phones), text, name, voice.licence, prominent_vowels(speech, phones))


def _joined(phones: Phones) -> Phones:
    """Neighbouring silences as one."""
    joined: Phones = []
    for phone, start, end in phones:
        if joined and phone == "SIL" == joined[-1][0]:
            joined[-1] = ("SIL", joined[-1][1], end)
        else:
            joined.append((phone, start, end))
    return joined


def _spoken(engine: str, split: str, rng: np.random.Generator) -> Iterator[Utterance]:
    """Endless utterances of the engine's voices of that split: each a voice with one to four sentences."""
    speakers = voices(engine, split)
    while True:
        voice = speakers[rng.integers(len(speakers))]
        texts = [random_sentence(rng, split, lexicon()) for _ in range(rng.integers(1, 5))]
        spoken = [(text, speak(voice, text, rng)) for text in texts]
        parts = [(text, part) for text, part in spoken if part is not None]
        if parts:
            yield assemble(voice, [part for _, part in parts], " ".join(text for text, _ in parts), rng)


def _prompted(split: str, rng: np.random.Generator) -> Iterator[Utterance]:
    """The recorded prompts of that split: two rounds through them in random order, short ones joined."""
    (voice,) = voices("prompts", split)
    # One speaker and few minutes: a larger part than of the sentences is kept for measuring on real speech.
    stems = [stem for stem, text in prompt_texts().items() if split_of_text(text, 70, 8) == split]
    for _ in range(2 if split == "train" else 1):
        parts, texts = [], []
        for stem in rng.permutation(stems):
            part = speak(voice, str(stem), rng)
            if part is None:
                continue
            parts.append(part)
            texts.append(prompt_texts()[str(stem)])
            if sum(len(waveform) for waveform, _ in parts) > rng.uniform(3, 8) * SAMPLE_RATE:
                yield assemble(voice, parts, " ".join(texts), rng)
                parts, texts = [], []
        if parts:
            yield assemble(voice, parts, " ".join(texts), rng)


def utterances(split: str, hours: float, seed: int, engines: tuple[str, ...]) -> Iterator[Utterance]:
    """Utterances of about that many hours in all, split over the engines by their shares.

    Raises:
        ValueError: unknown split or engine.
        RuntimeError: an engine is not installed.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    unknown = set(engines) - set(ENGINE_LICENCES)
    if unknown:
        raise ValueError(f"unknown engines {sorted(unknown)}: expected some of {', '.join(ENGINE_LICENCES)}")
    missing_seconds = hours * 3600
    # The prompts first, because they can run out; the rest shares what they leave.
    order = sorted((e for e in engines if voices(e, split)), key=lambda engine: engine != "prompts")
    for position, engine in enumerate(order):
        rng = np.random.default_rng([seed, SPLITS.index(split), list(ENGINE_SHARES).index(engine)])
        share = ENGINE_SHARES[engine] / sum(ENGINE_SHARES[later] for later in order[position:])
        wanted = missing_seconds * share
        for utterance in _prompted(split, rng) if engine == "prompts" else _spoken(engine, split, rng):
            if wanted <= 0:
                break
            wanted -= utterance.seconds
            missing_seconds -= utterance.seconds
            yield utterance


def build_corpus(folder: Path, split: str, hours: float, seed: int, engines: tuple[str, ...]) -> dict[str, float]:
    """Write utterances as `00000.npz ...` with a `manifest.csv`; returns the hours per engine.

    The same arguments give the same files in a fresh process; espeak-ng carries its oscillators' phase from
    one sentence to the next, so a second corpus from the same process sounds the same but differs in samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hours_of: dict[str, float] = defaultdict(float)
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "split", "voice", "seconds", "licence", "text"])
        for number, utterance in enumerate(utterances(split, hours, seed, engines)):
            name = f"{number:05d}.npz"
            utterance.save(folder / name)
            row = [
                name,
                split,
                utterance.voice,
                f"{utterance.seconds:.2f}",
                utterance.licence,
                utterance.text,
            ]
            writer.writerow(row)
            hours_of[utterance.voice.split("/")[0]] += utterance.seconds / 3600
    return dict(hours_of)


def corpus_files(folder: Path) -> list[Path]:
    """The utterances of a corpus in the order of its manifest.

    Raises:
        FileNotFoundError: no manifest there.
    """
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as stream:
        return [folder / row["file"] for row in csv.DictReader(stream)]


def augment_waveform(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another recording of the same speech, sample for sample at the same times.

    Random room, tone, bandwidth, noise and gain (-12 to +6 dB); mono 16 kHz float32 in and out, in [-1, 1].
    """
    speech: np.ndarray = waveform.astype(np.float32)
    if not len(speech):
        return speech
    if rng.random() < 0.4:
        speech = _in_a_room(speech, rng)
    if rng.random() < 0.6:
        tilted = sosfilt(butter(1, rng.uniform(300, 3000), fs=SAMPLE_RATE, output="sos"), speech)
        speech = speech + rng.uniform(-0.6, 1.5) * tilted
    if rng.random() < 0.2:
        # Forward and backward, so that telephone bandwidth brings no delay.
        band = butter(4, [rng.uniform(60, 300), rng.uniform(3000, 3900)], "bandpass", fs=SAMPLE_RATE, output="sos")
        speech = sosfiltfilt(band, speech) if len(speech) > 100 else speech
    level = float(np.sqrt(np.mean(speech**2))) + 1e-4
    if rng.random() < 0.7:
        noise = rng.normal(0, 1, len(speech))
        if rng.random() < 0.6:
            noise = sosfilt(butter(1, rng.uniform(150, 2000), fs=SAMPLE_RATE, output="sos"), noise)
        # A silent clip gets the noise that speech would have had: noise alone must not move a mouth.
        noise *= max(level, 0.05) * 10 ** (-rng.uniform(15, 45) / 20) / (noise.std() + 1e-9)
        speech = speech + noise
    speech = speech * (0.09 / max(level, 0.02)) * 10 ** (rng.uniform(-12, 6) / 20)
    return np.clip(speech, -1, 1).astype(np.float32)


def _in_a_room(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve with a decaying noise tail; the direct sound stays first, so nothing is delayed."""
    decay = rng.uniform(0.04, 0.25) * SAMPLE_RATE
    tail = rng.normal(0, 1, int(2 * decay)) * np.exp(-np.arange(int(2 * decay)) / (decay / 2))
    tail *= rng.uniform(0.05, 0.4) / (np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1.0
    return fftconvolve(speech, tail)[: len(speech)]


def main() -> None:
    """Command line; the last line printed is JSON."""
    parser = argparse.ArgumentParser(description="Build a corpus of utterances with phone times.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--engines",
        default=",".join(ENGINE_SHARES),
        help="comma-separated; flite and prompts need apt packages",
    )
    args = parser.parse_args()
    hours_of = build_corpus(args.out, args.split, args.hours, args.seed, tuple(args.engines.split(",")))
    print(json.dumps({engine: round(hours, 3) for engine, hours in hours_of.items()}))


if __name__ == "__main__":
    run_program(main)
