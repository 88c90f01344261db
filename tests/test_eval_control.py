"""Control fidelity with a reader that sees exactly what was planted."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eartalking.controls import EMOTIONS, Controls
from eartalking.perception.face_reader import READINGS, FaceReading
from eval.metrics.control import FEWEST_QUIET, HORIZON, Reader, reader_metrics
from eval.metrics.metric import Metric, MetricResult
from eval.protocol import Protocol


@dataclass
class Clip:
    """What the metrics need of an EvalClip; `seen` are the readings that differ from 0."""

    name: str
    num_frames: int
    controls: Controls | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    waveform: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    length_share: float = 1.0

    @property
    def pred(self) -> SimpleNamespace:
        return SimpleNamespace(clip=self, waveform=self.waveform)


class PlantedReader:
    smallest_opening = Reader.smallest_opening

    def network(self, *readings: str) -> str:
        return "planted"

    def read(self, footage: SimpleNamespace) -> FaceReading:
        clip = footage.clip
        fields = {name: np.zeros(clip.num_frames, np.float32) for name in READINGS} | {
            "emotion": np.eye(8)[np.zeros(clip.num_frames, int)]
        }
        return FaceReading(**{**fields, **clip.seen})


def measured(name: str, *clips: Clip) -> MetricResult:
    metric = metrics()[name]
    for clip in clips:
        metric.update(clip)
    return metric.compute()


def metrics() -> dict[str, Metric]:
    return {metric.name: metric for metric in reader_metrics(PlantedReader(), "", protocol=Protocol(resamples=50))}


def held(track: str, *values: Any, frames: int = 20) -> Controls:
    """Each value held for `frames` frames, stepping between them."""
    keyframes = []
    for index, value in enumerate(values):
        keyframes += [(index * frames / 25, value), ((index * frames + frames - 1) / 25, value)]
    return Controls({track: keyframes})


def steps(*values: float, frames: int = 20, delay: int = 0) -> np.ndarray:
    track = np.repeat(np.array(values, float), frames)
    return np.concatenate([np.repeat(track[:1], delay), track])[: len(track)]


def test_pose_error_is_the_mean_over_the_tracks_that_were_asked_for() -> None:
    controls = Controls({"yaw": [(0, 10)], "roll": [(0, -5), (1.0, None)]})
    result = measured("pose_err", Clip("a", 50, controls, {"yaw": np.full(50, 13.0), "pitch": np.full(50, 20.0)}))
    assert result.value == pytest.approx((50 * 3 + 25 * 5) / 75)
    none = measured("pose_err", Clip("a", 50), Clip("b", 50, held("blink", 1, 0)))
    assert none.value is None
    assert "nothing was asked for" in none.note
    assert "never ask for roll" in none.per_clip[1]["reason"]
    some = measured("pose_err", Clip("a", 50, controls), Clip("b", 50))
    assert some.coverage == 1 and some.n_videos == 1 and some.note == "" and some.per_clip[1]["coverage"] is None


def test_a_gaze_counts_only_with_open_eyes() -> None:
    blink = np.repeat([0.0, 1.0], 20)
    result = measured(
        "gaze_err",
        Clip("a", 40, held("gaze_yaw", 10, 10), {"gaze_yaw": np.where(blink > 0, 90.0, 8.0), "blink": blink}),
    )
    assert result.value == 2 and result.coverage == 0.5
    shut = measured("gaze_err", Clip("a", 40, held("gaze_yaw", 10, 10), {"blink": np.ones(40)}))
    assert shut.value is None and "eyes are closed" in shut.note


def test_blink_f1_counts_frames_of_all_clips() -> None:
    asked = held("blink", 1, 0)
    result = measured(
        "blink_f1", Clip("a", 40, asked, {"blink": steps(1, 0)}), Clip("b", 40, asked, {"blink": steps(0, 1)})
    )
    assert result.value == pytest.approx(2 * 20 / (2 * 20 + 20 + 20))
    assert [row["value"] for row in result.per_clip] == [1, 0]
    never = measured("blink_f1", Clip("a", 40, held("blink", 0, 0)))
    assert never.value is None and "no closed eye" in never.note


def test_emotions_count_where_they_are_clear() -> None:
    asked = Controls({"emotion": [(0, ("happy", 1.0)), (0.8, ("sad", 0.2)), (1.6, ("neutral", 0.0))]})
    seen = np.eye(8)[np.repeat([EMOTIONS.index("happy"), 3, EMOTIONS.index("sad")], 20)]
    result = measured("emotion_acc", Clip("a", 60, asked, {"emotion": seen}))
    assert result.value == 0.5 and result.n_frames == 40


@pytest.mark.parametrize("delay", [0, 1, 5])
@pytest.mark.parametrize("track", ["yaw", "gaze_pitch", "blink", "smile"])
def test_control_latency_is_the_delay_plus_one(track: str, delay: int) -> None:
    values = (0, 1, 0, 1) if track in ("blink", "smile") else (-15, 15, -15, 15)
    clip = Clip("a", 80, held(track, *values), {track: steps(*values, delay=delay)})
    assert measured("control_latency_frames", clip).value == 1 + delay


def test_control_latency_of_emotions_of_never_and_of_no_step() -> None:
    asked = Controls({"emotion": [(0, ("happy", 1.0)), (0.8, ("sad", 1.0)), (1.6, ("angry", 1.0))]})
    seen = np.eye(8)[steps(*(EMOTIONS.index(name) for name in ("happy", "sad", "angry")), delay=2).astype(int)]
    assert measured("control_latency_frames", Clip("a", 60, asked, {"emotion": seen})).value == 3
    assert measured("control_latency_frames", Clip("a", 60, held("yaw", -20, 20, -20))).value == HORIZON + 1
    released = Controls({"yaw": [(0, -20), (0.8, None), (1.6, 20)]})  # released in between: no step
    result = measured("control_latency_frames", Clip("a", 60, released))
    assert result.value is None and "no step" in result.note


def test_silence_motion_is_the_opening_in_silence_over_that_in_speech() -> None:
    loud = np.repeat([1.0, 0.0], 50)
    waveform = (np.repeat(loud, 640) * np.random.default_rng(0).normal(size=64000) * 0.1).astype(np.float32)
    result = measured("silence_motion", Clip("a", 100, None, {"mouth_open": np.where(loud > 0, 0.04, 0.01)}, waveform))
    assert result.value == pytest.approx(0.25, abs=0.01)
    speaking = measured("silence_motion", Clip("a", 50, None, {"mouth_open": np.full(50, 0.04)}, waveform[:32000]))
    assert speaking.value is None and f"{FEWEST_QUIET} are needed" in speaking.note
    closed = measured("silence_motion", Clip("a", 100, None, {}, waveform))
    assert closed.value is None and "hardly opens" in closed.note
    silent = measured("silence_motion", Clip("a", 100, None, {}, 0 * waveform))
    assert silent.value is None and "digital silence" in silent.note


def test_without_a_reader_every_metric_says_so_and_with_one_it_names_its_error() -> None:
    for metric in reader_metrics(None, "no face reader here"):
        metric.update(Clip("a", 10))
        assert metric.compute().value is None and metric.compute().note == "no face reader here"
    reader = Reader()
    assert reader.version in reader.network("yaw") and "own: yaw" in reader.network("yaw")
