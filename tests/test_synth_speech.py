"""Speech for SynthTalk: texts, phone times, corpus files and augmentation."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eartalking.config import SAMPLE_RATE
from eartalking.synth.speech import Utterance, augment_waveform, build_corpus, corpus_files
from eartalking.synth.texts import SPLITS, random_sentence, split_of_text
from eartalking.synth.visemes import PHONE_INDEX, VOWELS
from eartalking.synth.voices import Voice, aligner, ipa_to_arpabet, speak, tidy_phones, voices

pytest.importorskip("espeakng_loader")
pytest.importorskip("pocketsphinx")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    build_corpus(folder, "val", hours=0.01, seed=3, engines=("espeak",))
    return folder


@pytest.fixture(scope="module")
def utterance(corpus: Path) -> Utterance:
    return Utterance.load(corpus_files(corpus)[0])


def test_phones_are_known_ordered_and_fill_the_waveform(corpus: Path) -> None:
    for path in corpus_files(corpus):
        utterance = Utterance.load(path)
        times = np.array([(start, end) for _, start, end in utterance.phones])
        assert {phone for phone, _, _ in utterance.phones} <= set(PHONE_INDEX)
        assert (times[:, 1] > times[:, 0]).all()
        assert np.allclose(times[1:, 0], times[:-1, 1], atol=0.02)
        assert times[0, 0] == 0 and abs(times[-1, 1] - utterance.seconds) < 0.02
        assert all(0 <= stress <= utterance.seconds for stress in utterance.stresses)


def test_vowels_are_loud_and_pauses_are_silent(utterance: Utterance) -> None:
    def level(names: set[str]) -> float:
        spans = [
            utterance.waveform[int((start + 0.01) * SAMPLE_RATE) : int((end - 0.01) * SAMPLE_RATE)]
            for phone, start, end in utterance.phones
            if phone in names
        ]
        return float(np.sqrt(np.mean(np.concatenate(spans) ** 2)))

    assert level({"SIL"}) < 0.05 * level(set(VOWELS))
    assert level({"P", "T", "K"}) < 0.5 * level(set(VOWELS))


def test_manifest_names_voice_licence_and_text_of_the_split(corpus: Path) -> None:
    with open(corpus / "manifest.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(float(row["seconds"]) for row in rows) >= 0.01 * 3600
    assert all(row["split"] == "val" and row["licence"] and row["voice"].startswith("espeak/") for row in rows)


def test_same_command_gives_the_same_corpus(tmp_path: Path) -> None:
    options = {"--split": "val", "--hours": "0.003", "--seed": "3", "--engines": "espeak"}
    arguments = [
        "-m",
        "eartalking.synth.speech",
        *(word for pair in options.items() for word in pair),
        "--out",
    ]
    for name in ("first", "second"):
        subprocess.run([sys.executable, *arguments, str(tmp_path / name)], check=True, capture_output=True)
    first, second = (corpus_files(tmp_path / name) for name in ("first", "second"))
    assert first and len(first) == len(second)
    for before, again in zip(first, second, strict=True):
        assert before.read_bytes() == again.read_bytes()


def test_save_and_load_keep_everything(utterance: Utterance, tmp_path: Path) -> None:
    utterance.save(tmp_path / "copy.npz")
    copy = Utterance.load(tmp_path / "copy.npz")
    assert np.array_equal(copy.waveform, utterance.waveform)
    assert (copy.phones, copy.stresses) == (utterance.phones, utterance.stresses)
    assert (copy.text, copy.voice, copy.licence) == (utterance.text, utterance.voice, utterance.licence)


def test_unknown_split_and_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split"):
        build_corpus(tmp_path, "dev", 0.01, 0, ("espeak",))
    with pytest.raises(ValueError, match="engines"):
        build_corpus(tmp_path, "train", 0.01, 0, ("radio",))


def test_sentences_belong_to_one_split_and_are_varied() -> None:
    rng = np.random.default_rng(0)
    texts = {split: {random_sentence(rng, split) for _ in range(100)} for split in SPLITS}
    assert all(split_of_text(text) == split for split, found in texts.items() for text in found)
    assert all(len(found) > 80 for found in texts.values())
    assert not texts["train"] & texts["test"]


@pytest.mark.parametrize("engine", ["espeak", "flite", "hibari", "kokoro"])
def test_voices_of_the_splits_are_disjoint(engine: str) -> None:
    # The speaker of an espeak-ng voice is its variant: the same variant in another accent is no new voice.
    speakers = [{voice.name.split("+")[-1] for voice in voices(engine, split)} for split in SPLITS]
    assert not speakers[0] & speakers[1] and not speakers[0] & speakers[2] and not speakers[1] & speakers[2]


@pytest.mark.parametrize(
    ("ipa", "expected"),
    [("ˈaɪ", ["AY"]), ("tʃ", ["CH"]), ("ɑːɹ", ["AA", "R"]), ("əl", ["AH", "L"]), ("œ̃", ["ER"]), ("", [])],
)
def test_ipa_to_arpabet(ipa: str, expected: list[str]) -> None:
    assert ipa_to_arpabet(ipa) == expected


def test_tidy_phones_joins_pauses_and_absorbs_short_ones() -> None:
    phones = [("SIL", 0.0, 0.1), ("SIL", 0.1, 0.3), ("AA", 0.3, 0.4), ("SIL", 0.4, 0.43), ("B", 0.43, 0.43)]
    assert tidy_phones(phones) == [("SIL", 0.0, 0.3), ("AA", 0.3, 0.43)]


def test_unknown_voice_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        speak(Voice("espeak", "nobody+f1"), "Hello.", np.random.default_rng(0))


def test_forced_alignment_agrees_with_the_synthesiser() -> None:
    text = "The baker opened a bottle"
    waveform, phones = speak(Voice("espeak", "en-us+m3"), text, np.random.default_rng(0))
    aligned = aligner().align(waveform, text)
    assert aligned is not None
    bilabials = [[start for phone, start, _ in found if phone in "PB"] for found in (phones, aligned)]
    assert np.abs(np.subtract(*bilabials)).max() < 0.06
    assert aligner().align(waveform, "xqzzt blorptang") is None


def test_augmentation_keeps_timing_and_range() -> None:
    # Two clicks: whatever is done to them, their energy must not come earlier, nor the onset later.
    waveform = np.zeros(SAMPLE_RATE, np.float32)
    onsets = [4000, 12000]
    for onset in onsets:
        waveform[onset : onset + 800] = 0.3 * np.sin(2 * np.pi * 500 * np.arange(800) / SAMPLE_RATE)
    for seed in range(20):
        augmented = augment_waveform(waveform, np.random.default_rng(seed))
        assert augmented.shape == waveform.shape and augmented.dtype == np.float32
        assert np.abs(augmented).max() <= 1
        correlation = np.correlate(np.abs(augmented), np.abs(waveform[3000:5600]), "valid")
        assert abs(int(correlation[:8000].argmax()) - 3000) < 160


def test_silence_is_given_noise_that_is_no_speech() -> None:
    silence = np.zeros(SAMPLE_RATE, np.float32)
    levels = [augment_waveform(silence, np.random.default_rng(seed)).std() for seed in range(20)]
    assert 0.001 < max(levels) < 0.2


def test_augmentation_is_determined_by_its_generator(utterance: Utterance) -> None:
    first, second, other = (augment_waveform(utterance.waveform, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
