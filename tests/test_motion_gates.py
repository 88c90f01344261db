"""The gates of motion on planted motion with known answers, and what they are fed."""

from __future__ import annotations

import numpy as np
import pytest
from test_session import voice
from tiny_model import DRAWN, tiny_model

from benchmarks.gates.motion import FIRST_FRAMES, STANDS, Moved, closures_row, emitted, lip_rows, pose_rows
from benchmarks.gates.table import GateRow
from eartalking.synth.head import SHUT_GAP
from eartalking.synth.speech import Utterance

VOICES, DRAWS, FRAMES = 4, 4, 1500
STOOD = np.resize(np.array(STANDS), (VOICES, 1, 1, 3))


def swaying(seed: int, degrees: float = 2.5, draws: int = DRAWS) -> np.ndarray:
    """Slow heads about where they stand: (V, K, T, 3)."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(VOICES, draws, FRAMES + 50, 3))
    kernel = np.hanning(52)[1:-1]
    smooth = np.apply_along_axis(lambda row: np.convolve(row, kernel, "valid")[:FRAMES], 2, steps)
    return STOOD + degrees * (smooth - smooth[:, :, :1]) / smooth.std()


def judged(pose: np.ndarray) -> dict[str, GateRow]:
    none = np.zeros(0)
    return {row.name: row for row in pose_rows(Moved(pose, none, none), Moved(swaying(0, draws=8), none, none))}


def test_motion_like_peoples_passes() -> None:
    rows = judged(swaying(1))
    assert all(row.passed for row in rows.values()), rows
    bands = rows["motion_shake"].extra["bands"]
    assert list(bands)[0] == "0.1 to 0.5 Hz" and len(bands) == 6
    assert bands["0.1 to 0.5 Hz"]["yaw"] == pytest.approx(1, abs=0.15)
    assert judged(STOOD + 2 * (swaying(1) - STOOD))["motion_shake"].extra["bands"]["0.5 to 1 Hz"] == {
        axis: pytest.approx(2 * value, abs=0.01) for axis, value in bands["0.5 to 1 Hz"].items()
    }
    assert rows["motion_spread"].value == pytest.approx(1, abs=0.15) and rows["motion_start_deg"].value == 0


def test_heads_that_stand_shake_wander_jump_or_are_all_alike_miss() -> None:
    still = judged(np.broadcast_to(STOOD, (VOICES, DRAWS, FRAMES, 3)) + 0.01 * swaying(1))
    assert not still["motion_spread"].passed and not still["motion_speed"].passed
    shaking = judged(swaying(1) + np.random.default_rng(2).normal(size=(VOICES, DRAWS, FRAMES, 3)))
    assert not shaking["motion_shake"].passed and not shaking["motion_speed"].passed
    away = judged(swaying(1) + np.minimum(np.arange(FRAMES) / 50, 20)[:, None])
    assert not away["motion_home_deg"].passed
    beside = judged(swaying(1) + 3)
    assert not beside["motion_start_deg"].passed
    jump = np.where(np.arange(FRAMES) >= FIRST_FRAMES // 2, 4.0, 0.0)[:, None]
    assert not judged(swaying(1) + jump)["motion_first_steps"].passed
    alike = judged(np.repeat(swaying(1)[:, :1], DRAWS, axis=1))
    assert alike["motion_seeds"].value == pytest.approx(1) and not alike["motion_seeds"].passed


def test_lips_in_time_half_as_far_and_not_at_all() -> None:
    true = np.random.default_rng(0).random((VOICES, 300))
    noise = np.random.default_rng(1).normal(size=(VOICES, 16, 300))
    rows = {row.name: row for row in lip_rows(0.5 * true[:, None] + 0.2 * noise, true)}
    assert rows["motion_lips_mean"].value > 0.9 > rows["motion_lips_draw"].value > 0.4
    assert abs(rows["motion_lips_shuffled"].value or 0) < 0.1
    half = {row.name: row for row in lip_rows(np.repeat(0.5 * true[:, None], 4, axis=1), true)}
    assert half["motion_lips_spread"].value == pytest.approx(0.5) and not half["motion_lips_spread"].passed
    assert half["motion_lips_mean"].value == pytest.approx(1) and half["motion_lips_draw"].passed


def test_closures_count_in_the_middle_of_their_phones_and_a_shut_mouth_does_not_pass() -> None:
    phones = [("M", 0.0, 0.12), ("AA", 0.12, 0.4), ("B", 0.4, 0.48), ("P", 30.0, 30.1)]  # the last one is cut off
    said = [Utterance(np.zeros(0, np.float32), phones, "text", "voice", "licence")]
    none, gap = np.zeros(0), np.full((1, 4, 20), 2 * SHUT_GAP)
    true = gap.copy()
    true[..., [1, 10]] = 0
    gap[:, :, 1] = gap[:, :3, 10] = -SHUT_GAP
    row = closures_row(Moved(none, none, gap), Moved(none, none, true), said)
    assert row.value == pytest.approx(7 / 8) and row.n == 2 and row.floor == 0
    assert row.extra == {"true": 1.0, "true_elsewhere": 0.0}
    assert closures_row(Moved(none, none, true), Moved(none, none, true), said).passed
    assert not closures_row(Moved(none, none, 0 * gap), Moved(none, none, true), said).passed


def test_streams_side_by_side_are_those_that_run_alone() -> None:
    model = tiny_model(DRAWN)
    sounds = [voice(0.8), 0.5 * voice(0.8)[::-1].copy()]
    together = emitted(model, sounds, range(3), 12, "")
    assert together.pose.shape == (2, 3, 12, 3) and together.jaw.shape == together.gap.shape == (2, 3, 12)
    alone = emitted(model, sounds[:1], range(2, 3), 12, "")
    np.testing.assert_allclose(together.pose[0, 2], alone.pose[0, 0], atol=1e-3)
