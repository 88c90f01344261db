"""The level of a voice: unchanged where training knows it, causal, and the same mouth for quiet and loud voices."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eartalking import StreamSession, load_model
from eartalking.controls import ControlBatch
from eartalking.io.sound import read_audio
from eartalking.level import LevelState, frame_level, is_silent, level_gain, normalise_level
from eartalking.motion.face_units import UNIT_INDEX

EXAMPLES = Path(__file__).parents[1] / "examples"


def frames(waveform: np.ndarray) -> list[np.ndarray]:
    return [waveform[start : start + 640] for start in range(0, len(waveform) - 639, 640)]


def normalised(waveform: np.ndarray) -> np.ndarray:
    state, out = LevelState(), []
    for frame in frames(waveform):
        frame, state = normalise_level(frame, state)
        out.append(frame)
    return np.concatenate(out)


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return read_audio(EXAMPLES / "speech.wav")[: 640 * 100]


def test_an_ordinary_voice_is_left_alone(voice: np.ndarray) -> None:
    np.testing.assert_array_equal(normalised(voice), voice)


@pytest.mark.parametrize("decibels", [-50, -40, -30])
def test_a_quiet_voice_comes_to_the_edge_of_the_range(voice: np.ndarray, decibels: int) -> None:
    quiet = (voice * 10 ** (decibels / 20)).astype(np.float32)
    loudest = max(frame_level(frame) for frame in frames(normalised(quiet))[50:])
    assert -32 < loudest < -20


def test_a_loud_voice_is_lowered() -> None:
    loud = np.sign(np.sin(np.arange(640 * 5) * 0.05)).astype(np.float32)  # a full-scale square wave: 0 dBFS
    assert frame_level(normalised(loud)[-640:]) == pytest.approx(-4, abs=0.1)


def test_silence_and_faint_noise_are_not_raised() -> None:
    noise = np.random.default_rng(0).normal(0, 10 ** (-80 / 20), 640 * 50).astype(np.float32)
    np.testing.assert_array_equal(normalised(noise), noise)
    assert is_silent(noise) and is_silent(np.zeros(1000, np.float32))


def test_a_voice_is_not_silent(voice: np.ndarray) -> None:
    assert not is_silent(voice) and not is_silent(voice * np.float32(0.01))


def test_it_is_causal(voice: np.ndarray) -> None:
    quiet = voice * np.float32(0.01)
    later = quiet.copy()
    later[640 * 60 :] = 0.9
    np.testing.assert_array_equal(normalised(quiet)[: 640 * 60], normalised(later)[: 640 * 60])


def test_the_gain_has_no_step() -> None:
    levels = np.arange(-90, 0.001, 0.01)
    gains = np.array([level_gain(level) for level in levels])
    assert np.abs(np.diff(gains)).max() < 0.011 and gains.max() == 40 and gains.min() == pytest.approx(-4, abs=0.02)


@torch.inference_mode()
def jaw(voice: np.ndarray) -> np.ndarray:
    """Opening of the jaw, frame by frame, from the shipped model's autoregression."""
    model = load_model()
    session = StreamSession(model, EXAMPLES / "portrait.png")
    audio_state, level, state = model.audio_encoder.init_state(1), LevelState(), session._initial.clone()
    opening = []
    for frame in frames(voice):
        frame, level = normalise_level(frame, level)
        audio, audio_state = model.audio_encoder.step(torch.from_numpy(frame)[None], audio_state)
        if audio is not None:
            latents = model.step(audio, ControlBatch.released(1, 1), torch.zeros_like(state.previous), state)
            opening.append(float(model.autoencoder.code.latents_to_motion(latents)[0, UNIT_INDEX["jawOpen"]]))
    return np.array(opening)


def test_a_voice_at_minus_40_decibels_moves_the_mouth_as_the_voice_itself_does(voice: np.ndarray) -> None:
    natural, quiet = jaw(voice), jaw(voice * np.float32(0.01))
    assert quiet[25:].std() > 0.8 * natural[25:].std()
    assert np.corrcoef(quiet[25:], natural[25:])[0, 1] > 0.8
