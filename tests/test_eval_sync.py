"""Lip sync metrics: planted embeddings whose offset is known, and the published network's shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from metric_clips import FRAMED, SIZE, measured, moving, pair

from eval.clips import EvalClip
from eval.metrics.metric import Unmeasured
from eval.metrics.sync import CanonicalSync, offset_curve, sync_metrics, sync_scores
from eval.networks.syncnet_v2 import PAD_VALUE, SIDE, SyncNetV2, cepstra, crop_track


class Planted:
    """A network that reads what was planted: the mouth is a frame's brightness, the sound its loudness, both as
    codes.
    """

    name, version = "planted", "1"
    codes = np.random.default_rng(3).normal(size=(256, 32)).astype(np.float32)

    def embed(self, frames: np.ndarray, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(waveform) < 640 * len(frames):
            waveform = np.pad(waveform, (0, 640 * len(frames) - len(waveform)))
        loudness = np.abs(waveform[: 640 * len(frames)]).reshape(len(frames), 640).mean(1)
        return self.codes[frames[:, 0, 0, 0]], self.codes[(loudness * 256).round().astype(int).clip(0, 255)]


def planted_clip(folder: Path, shift: int, noise: float = 0.0) -> EvalClip:
    """A clip of 80 frames whose sound comes `shift` frames late."""
    values = np.random.default_rng(5).integers(0, 200, 80)
    frames = np.broadcast_to(values[:, None, None, None].astype(np.uint8), (80, SIZE, SIZE, 3))
    heard = np.random.default_rng(6).permutation(values) if noise else np.roll(values, shift)
    return pair(folder, frames, frames, waveform=np.repeat(heard / 256, 640))


@pytest.mark.parametrize("shift", range(-10, 11, 2))
def test_shifting_the_sound_moves_the_offset_by_exactly_that(tmp_path: Path, shift: int) -> None:
    scores = {metric.name: metric for metric in sync_metrics(Planted(), "_x", "planted", "embedded", protocol=FRAMED)}
    straight, late = planted_clip(tmp_path, 0), planted_clip(tmp_path, shift)
    at = {name: (measured(metric, straight).value, measured(metric, late).value) for name, metric in scores.items()}
    assert at["av_offset_x"] == (0, -shift)
    confidence, confidence_late = at["sync_c_x"]
    assert confidence_late == pytest.approx(confidence, rel=0.2)  # the zeros beyond the ends cost a share of 10 / 80
    assert scores["sync_c_x"].compute().per_clip[0]["clip"] == late.name


def test_confidence_falls_on_shuffled_sound(tmp_path: Path) -> None:
    confidence = sync_metrics(Planted(), "_x", "planted", "embedded", protocol=FRAMED)[0]
    shuffled, own = (measured(confidence, planted_clip(tmp_path, 0, noise)).value for noise in (1, 0))
    assert shuffled < 0.2 * own


def test_offset_curve_is_flat_without_a_relation_and_refuses_nonsense() -> None:
    rng = np.random.default_rng(0)
    curve = offset_curve(rng.normal(size=(2000, 64)), rng.normal(size=(2000, 64)))
    assert len(curve) == 31 and sync_scores(curve)["sync_c"] < 0.05 * curve.mean()
    with pytest.raises(ValueError, match="two tracks"):
        offset_curve(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="not finite"):
        offset_curve(np.full((3, 2), np.nan), np.ones((3, 2)))


def test_a_clip_without_sound_has_no_sync(tmp_path: Path) -> None:
    metric = sync_metrics(Planted(), "_x", "planted", "embedded", protocol=FRAMED)[0]
    result = measured(metric, pair(tmp_path, moving(), moving()))
    assert result.value is None and result.note.endswith("the video has no sound track")


def test_cepstra_are_100_a_second_and_finite_in_silence() -> None:
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32) * 0.1
    sound[4000:9000] = 0
    found = cepstra(sound)
    assert found.shape == (99, 13) and np.isfinite(found).all()  # the first window is 25 ms, the others follow by 10 ms
    np.testing.assert_array_equal(cepstra(sound * 40), cepstra(np.clip(sound * 40, -1, 1)))  # 16 bits do not wrap round


def test_canonical_syncnet_at_its_real_shapes() -> None:
    net = SyncNetV2().eval()
    frames = moving(60, size=96)
    found = CanonicalSync(net, "0", find=lambda image: (20.0, 30.0, 70.0, 80.0))
    video, audio = found.embed(frames[:50], np.random.default_rng(0).normal(size=640 * 8).astype(np.float32) * 0.1)
    assert video.shape == audio.shape == (3, 1024) and np.isfinite(offset_curve(video, audio)).all()
    with pytest.raises(Unmeasured, match="50 frames"):
        found.track(frames[:49])
    with pytest.raises(Unmeasured, match="0 of 10 frames"):
        CanonicalSync(net, "0", find=lambda image: None).track(frames[:50])
    with pytest.raises(ValueError, match="more than 5 frames"):
        net.embed(np.zeros((9, SIDE, SIDE, 3), np.uint8), np.zeros(640 * 5, np.float32))


def test_the_face_track_is_cut_as_published() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    boxes = np.tile([[80.0, 70.0, 120.0, 110.0]], (13, 1))
    boxes[6] = [0.0, 0.0, 200.0, 200.0]  # one wild detection: the median over 13 frames ignores it
    cut = crop_track([ramp] * 13, boxes)
    assert cut.shape == (13, 224, 224, 3)
    # Half-size 20, centre 100, 90: columns 72 .. 128, rows 70 .. 126.
    assert cut[6, 0, 0, 0] == pytest.approx(72, abs=1) and cut[6, 0, -1, 0] == pytest.approx(127, abs=1)
    edge = crop_track([ramp] * 13, np.tile([[0.0, 0.0, 40.0, 40.0]], (13, 1)))
    assert (edge[6, :, 0] == PAD_VALUE).all()
