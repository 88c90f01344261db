"""Head motion against the truth's: planted poses with known answers; a still head and a shaking one both lose."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from test_eval_control import Clip, PlantedReader

from eval.metrics.head_motion import beat_alignment, blinks, gap, head_motion_metrics, shake, speed, spread
from eval.metrics.metric import MetricResult
from eval.protocol import Protocol

FPS = 25
TIME = np.arange(500) / FPS


def nodding(degrees: float, hertz: float = 0.5) -> np.ndarray:
    return degrees * np.sin(2 * np.pi * hertz * TIME)


class Pair(Clip):
    """A clip whose truth was read too."""

    def __init__(self, name: str, made: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> None:
        super().__init__(name, len(TIME), seen=made)
        self.true = Clip(name, len(TIME), seen=true)

    @property
    def ref(self) -> SimpleNamespace:
        return self.true.pred


def measured(name: str, *clips: Clip) -> MetricResult:
    metrics = {one.name: one for one in head_motion_metrics(PlantedReader(), "", protocol=Protocol(resamples=50))}
    for clip in clips:
        metrics[name].update(clip)
    return metrics[name].compute()


def test_sizes_of_a_sine() -> None:
    pose = np.stack([nodding(3), nodding(3, 8), np.zeros_like(TIME)], axis=1)
    assert spread(pose, FPS) == pytest.approx((4.5 + 4.5) / 3, rel=1e-3)
    assert shake(pose, FPS) == pytest.approx(4.5 / 3, rel=1e-2)
    slow = np.stack([nodding(3), np.zeros_like(TIME), np.zeros_like(TIME)], axis=1)
    assert speed(slow, FPS) == pytest.approx((2 * np.pi * 0.5 * 3) ** 2 / 2 / 3, rel=1e-2)
    turned = np.stack([0.5 * TIME, 20 / (1 + np.exp(-3 * (TIME - 10))), np.zeros_like(TIME)], axis=1)
    assert shake(turned, FPS) < 1e-5  # neither a drift nor a turn shakes, though they end elsewhere
    assert shake(pose[:30], FPS) == pytest.approx(4.5 / 3, rel=0.2)
    assert gap(1, 1) == 0 and gap(0, 2) == 1 and gap(3, 1) == gap(1, 3) == 0.5


def test_equal_motion_is_0_however_it_is_directed() -> None:
    clip = Pair("a", {"yaw": nodding(5)}, {"pitch": -nodding(5)})
    for name in ("head_spread_gap", "head_speed_gap"):
        assert measured(name, clip).value == pytest.approx(0, abs=1e-6)
    halves = [Pair("a", {"yaw": nodding(6)}, {"yaw": nodding(8)}), Pair("b", {"yaw": nodding(8)}, {"yaw": nodding(6)})]
    assert measured("head_spread_gap", *halves).value == pytest.approx(0, abs=1e-6)  # only the sum counts


def test_a_still_head_and_a_shaking_one_both_lose() -> None:
    true = {"yaw": nodding(5) + nodding(0.2, 6)}
    still = Pair("a", {}, true)
    shaking = Pair("a", {"yaw": nodding(5) + 3 * np.random.default_rng(0).normal(size=len(TIME))}, true)
    for name in ("head_spread_gap", "head_speed_gap", "head_shake_gap"):
        assert measured(name, still).value == pytest.approx(1)
    assert measured("head_shake_gap", shaking).value > 0.8 and measured("head_speed_gap", shaking).value > 0.6
    assert measured("head_spread_gap", still).per_clip[0]["made"] == 0
    motionless = measured("head_spread_gap", Pair("a", {"yaw": nodding(1)}, {}))
    assert motionless.value is None and "nothing moves" in motionless.note


def test_blinks_are_counted_over_all_clips() -> None:
    def lids(count: int) -> dict[str, np.ndarray]:
        shut = np.zeros(len(TIME))
        for number in range(count):
            shut[10 + 30 * number : 14 + 30 * number] = 0.9
        return {"blink": shut}

    clips = [Pair("a", lids(2), lids(4)), Pair("b", lids(4), lids(2)), Pair("c", lids(3), lids(0))]
    assert measured("blink_rate_gap", *clips[:2]).value == 0
    assert measured("blink_rate_gap", *clips).value == pytest.approx(3 / 15)
    assert blinks(PlantedReader().read(Pair("a", lids(5), {}).pred)) == 5
    assert "nobody blinks" in measured("blink_rate_gap", clips[2]).note


def test_a_head_that_moves_with_the_voice_is_aligned_and_a_late_or_still_one_is_not() -> None:
    onsets = np.arange(20, 480, 37)
    envelope = np.zeros(len(TIME))
    pose = np.zeros((len(TIME), 3))
    for onset in onsets:
        envelope[onset + 1 : onset + 10] = 1.0  # louder from frame `onset` to the next
        pose[onset + 1 :, 1] += 2.0
    assert beat_alignment(pose, envelope, FPS) > 0.6
    assert beat_alignment(np.roll(pose, 18, axis=0), envelope, FPS) < 0.05
    assert beat_alignment(np.zeros_like(pose), envelope, FPS) == 0
    waveform = np.repeat(envelope, 640).astype(np.float32) * 0.1
    clip = Pair("a", {"pitch": pose[:, 1]}, {})
    clip.waveform = waveform
    assert measured("beat_alignment", clip).value > 0.3  # the envelope is smoothed over three frames
    clip.waveform = 0 * waveform
    assert "silence" in measured("beat_alignment", clip).note
