"""What the face mesh says of a video: planted openings with known answers, and rendered clips read for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_set import SMALL_SET
from test_eval_head_motion import Pair

from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import VideoWriter
from eartalking.perception.face_follower import PASSED_OVER, FaceFollower
from eartalking.perception.mesh_readings import FaceState, MeshReader
from eval.cache import FeatureCache
from eval.clips import read_pair
from eval.metrics.mesh import OPEN_EYE, SHUT_LIPS, MeshFaces, MeshReading, mesh_metrics
from eval.metrics.metric import MetricResult, Unmeasured
from eval.protocol import Protocol

REST = FaceState(0, 0, 0, 0, 0, lip_gap=SHUT_LIPS, mouth_width=0.5, eye_opening=0.32)
TALK = 0.05 * np.random.default_rng(3).random(500)


class Planted(MeshFaces):
    """Sees exactly what was planted in a `Pair`."""

    def __init__(self) -> None:
        self.version = "planted"

    def network(self, *readings: str) -> str:
        return "planted"

    def read(self, footage: object) -> MeshReading:
        clip = footage.clip  # type: ignore[attr-defined]
        nothing = {name: np.zeros(clip.num_frames) for name in MeshReading.__dataclass_fields__}
        return MeshReading(**(nothing | clip.seen))


def measured(name: str, *clips: Pair) -> MetricResult:
    metrics = {metric.name: metric for metric in mesh_metrics(Planted(), "", protocol=Protocol(resamples=50))}
    for clip in clips:
        metrics[name].update(clip)
    return metrics[name].compute()


def lips(made: np.ndarray, true: np.ndarray = TALK) -> Pair:
    return Pair("a", {"mouth_open": made}, {"mouth_open": true})


@pytest.mark.parametrize("late", [-3, 0, 1, 7])
def test_lips_that_come_late_are_seen_by_the_frame(late: int) -> None:
    pair = lips(np.roll(TALK, late))
    assert measured("mouth_offset_mesh", pair).value == late
    correlation = measured("mouth_corr_mesh", pair).value
    assert correlation == pytest.approx(1) if late == 0 else abs(correlation or 0) < 0.2


def test_lips_that_stand_still_are_in_time_with_nothing() -> None:
    still = lips(np.full(500, 0.02))
    assert measured("mouth_corr_mesh", still).value == 0
    offset = measured("mouth_offset_mesh", still)
    assert offset.value is None and "hardly move" in offset.note
    assert measured("mouth_spread_gap_mesh", still).value == pytest.approx(1)
    silent = measured("mouth_corr_mesh", lips(TALK, np.zeros(500)))
    assert silent.value is None and silent.per_clip[0]["coverage"] is None


def test_lips_that_open_half_as_far_are_in_time_but_differ_in_spread() -> None:
    half = lips(TALK / 2)
    assert measured("mouth_corr_mesh", half).value == pytest.approx(1)
    assert measured("mouth_spread_gap_mesh", half).value == pytest.approx(1 / 3)


def test_frames_without_a_face_are_filled_in_and_a_clip_of_them_is_not_measured() -> None:
    open_lips = replace(REST, lip_gap=SHUT_LIPS + 0.1)
    reading = MeshReading.of([REST, None, open_lips, open_lips])
    np.testing.assert_allclose(reading.mouth_open, [0, 0.05, 0.1, 0.1])
    with pytest.raises(Unmeasured, match="1 of 3 frames"):
        MeshReading.of([REST, None, None])
    with pytest.raises(Unmeasured, match="0 of 2 frames"):
        MeshReading.of([None, None])


def test_eyes_shut_on_the_scale_of_their_own_opening() -> None:
    wide, narrow = (
        [replace(REST, eye_opening=size * share) for share in (1, 1, 1, 1, 0.63, 0.26)] for size in (0.4, 0.22)
    )
    for states in (wide, narrow):
        np.testing.assert_allclose(MeshReading.of(states).blink, [0, 0, 0, 0, 0.5, 1], atol=0.01)
    always = MeshReading.of([replace(REST, eye_opening=0.26 * OPEN_EYE)] * 4)
    np.testing.assert_allclose(always.blink, 1)


def test_what_the_mesh_sees_does_not_depend_on_how_the_video_is_cut_into_batches() -> None:
    clip = read_pair(SMALL_SET / "small_000.mp4", SMALL_SET / "small_000.mp4", Protocol(crop="none"))
    frames = clip.ref.frames[:12]
    follower = FaceFollower(MeshReader.load())
    together = [follower.look(frame) for frame in frames]
    assert all(together)
    gaps = [look[1].lip_gap for look in together if look]
    again = FaceFollower(MeshReader.load())
    assert [look[1].lip_gap for half in (frames[:5], frames[5:]) for look in map(again.look, half) if look] == gaps
    assert FaceFollower(MeshReader.load()).look(np.zeros((64, 64, 3), np.uint8)) is None


def test_a_true_video_goes_with_itself_and_its_script() -> None:
    """Read for real: eyes that shut and open by a script."""
    video = SMALL_SET / "small_007.mp4"
    clip = read_pair(video, video, Protocol(crop="none"), controls=SMALL_SET / "small_007.controls.json")
    metrics = {metric.name: metric for metric in mesh_metrics(MeshFaces(), "", protocol=clip.pred.protocol)}
    for metric in metrics.values():
        metric.update(clip)
    results = {name: metric.compute() for name, metric in metrics.items()}
    assert results["mouth_corr_mesh"].value == pytest.approx(1)
    assert results["mouth_offset_mesh"].value == 0 and results["mouth_spread_gap_mesh"].value == 0
    assert (results["blink_f1_mesh"].value or 0) > 0.9
    assert results["pose_err_mesh"].value is None and "never ask" in results["pose_err_mesh"].note
    assert "own: yaw" in results["pose_err_mesh"].network


def test_a_face_that_went_is_found_again_within_a_few_frames() -> None:
    face = next(iter(read_video(SMALL_SET / "small_000.mp4").frames))
    nothing = np.zeros_like(face)
    follower = FaceFollower(MeshReader.load())
    seen = [follower.look(frame) is not None for frame in (face, nothing, nothing, *[face] * (PASSED_OVER + 1))]
    assert seen[:3] == [True, False, False] and seen[-1]
    assert [follower.look(frame) is not None for frame in (face, face)] == [True, True]


def test_a_video_without_a_face_is_looked_through_once(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "grey.mp4", (256, 256)) as writer:
        for _ in range(30):
            writer.write(np.full((256, 256, 3), 120, np.uint8))
    cache = FeatureCache(tmp_path / "cache")
    clip = read_pair(tmp_path / "grey.mp4", tmp_path / "grey.mp4", Protocol(crop="none"), cache=cache)
    for metric in mesh_metrics(MeshFaces(), "", protocol=clip.pred.protocol):
        metric.update(clip)
        result = metric.compute()
        assert result.value is None and (
            "0 of 30 frames" in result.note or "sound" in result.note or "asked" in result.note
        )
    before = cache.computed
    with pytest.raises(Unmeasured, match="0 of 30 frames"):
        MeshFaces().read(clip.pred)
    assert cache.computed == before
