"""Long streams: windows with known answers, checkpoints voice by voice, and what bad input says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_session import voice
from tiny_model import tiny_model

from benchmarks import long_streams
from benchmarks.gates.motion import STANDS, Moved
from benchmarks.long_streams import WINDOW, Course, compared, told
from eartalking.checkpoint import save_model
from eartalking.config import FPS
from eartalking.synth.speech import Utterance

VOICES, SECONDS = 4, 60
STOOD = np.resize(np.array(STANDS), (VOICES, 1, 1, 3))


def moved(jaw: np.ndarray, away: float = 0.0) -> Moved:
    """One stream of each voice with these jaws (V, T), heads `away` degrees beside their portraits."""
    pose = np.broadcast_to(STOOD[: len(jaw)] + away, (len(jaw), 1, jaw.shape[1], 3))
    return Moved(pose, jaw[:, None], np.zeros_like(jaw[:, None]))


def test_a_stream_that_stops_listening_is_told_by_its_windows() -> None:
    true = np.random.default_rng(0).random((VOICES, SECONDS * FPS + 7))
    deaf = true.copy()
    deaf[:, 20 * FPS :] = 0.5 * np.random.default_rng(1).random((VOICES, (SECONDS - 20) * FPS + 7))
    course = Course.of(moved(deaf, away=3.0), moved(true))
    assert course.lips.shape == (VOICES, SECONDS // WINDOW)
    np.testing.assert_allclose(course.lips[:, :2], 1)
    assert np.abs(course.lips[:, 2:]).max() < 0.3
    np.testing.assert_allclose(course.opening[:, :2], 1)
    np.testing.assert_allclose(course.opening[:, 2:], 0.5, atol=0.05)
    np.testing.assert_allclose(course.away_deg, 3)


def test_differences_are_taken_voice_by_voice() -> None:
    """Voices that are unlike each other hide a difference that each of them shows."""
    lips = np.linspace(0.2, 0.9, VOICES)[:, None].repeat(SECONDS // WINDOW, 1)
    one = Course(lips, lips, lips)
    other = Course(lips - 0.05, lips, lips)
    found = compared({"one": one, "other": other})
    assert "less_first" not in found["one"]["lips"]
    assert found["other"]["lips"]["less_first"]["60 s"] == [-0.05, -0.05, -0.05]
    mean, low, high = found["other"]["lips"]["at"]["10 s"]
    assert low < mean < high and "300 s" not in told(lips)


def test_the_command_compares_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tiny_model(), tmp_path / "checkpoint")
    waves = (np.tile(voice(1.0), WINDOW)[::step].copy() for step in (1, -1))
    said = [Utterance(wave, [], "text", "voice", "licence") for wave in waves]
    true = np.random.default_rng(0).random((2, WINDOW * FPS))
    monkeypatch.setattr(long_streams, "spoken", lambda *_: (said, moved(true)))
    out = tmp_path / "results" / "long.json"
    named = [f"{name}={tmp_path / 'checkpoint'}" for name in ("with", "without")]
    arguments = [*named, "--seconds", str(WINDOW), "--voices", "2", "--speech", str(tmp_path), "--out", str(out)]
    assert long_streams.main(arguments) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["without"]["lips"]["less_first"]["10 s"] == [0, 0, 0]  # the same checkpoint hears and draws the same
    assert json.loads(out.read_text())["compared"] == printed and out.with_suffix(".png").is_file()


@pytest.mark.parametrize("given", [["default"], ["ours=default", "--seconds", "9"]])
def test_what_cannot_be_compared_is_said(given: list[str]) -> None:
    with pytest.raises(SystemExit):
        long_streams.main(given)
