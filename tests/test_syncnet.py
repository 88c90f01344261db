"""The embedded SyncNet: windows, crops, known offsets, the proof, its training, and what the shipped weights can do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eartalking.io.video_reader import read_video
from eval.networks.mouth import CROP_HEIGHT, CROP_WIDTH, NoMouthError, face_boxes, mouth_crops
from eval.networks.syncnet import WEIGHTS, SyncNet, clip_mel, load_embedded, load_syncnet, save_syncnet
from eval.networks.train_syncnet import (
    MARGIN,
    PLANTED,
    SEGMENT,
    Mouths,
    Proof,
    augment,
    contrast,
    main,
    planted_offsets,
)
from eval.testset import read_manifest

SMALL_SET = Path(__file__).parent.parent / "benchmarks" / "testset_small"


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    clip = read_manifest(SMALL_SET)[0]
    return np.stack([frame for frame, _ in zip(read_video(clip.ref).frames, range(12), strict=False)])


@pytest.fixture(scope="module")
def tiny() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(dim=16, width=16).eval()


def unit_rows(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_one_unit_row_per_frame_for_both(tiny: SyncNet, frames: np.ndarray) -> None:
    video, audio = tiny.embed(frames, np.random.default_rng(0).normal(0, 0.1, 12 * 640).astype(np.float32))
    assert video.shape == audio.shape == (12, 16) and video.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(video, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(audio, axis=1), 1, atol=1e-5)


def test_a_sound_reaches_the_five_windows_that_hold_its_frame(tiny: SyncNet) -> None:
    mel = torch.randn(1, 4 * 20, 80)
    changed = mel.clone()
    changed[:, 4 * 10 : 4 * 11] += 1
    moved = (tiny.embed_audio(mel) - tiny.embed_audio(changed)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


def test_a_mouth_reaches_the_five_windows_that_hold_its_frame(tiny: SyncNet) -> None:
    crops = torch.rand(1, 20, CROP_HEIGHT, CROP_WIDTH)
    flipped = crops.clone()
    flipped[:, 10] = flipped[:, 10].flip(-1)  # leaves the clip's mean and spread alone
    moved = (tiny.embed_video(crops) - tiny.embed_video(flipped)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


def test_light_and_loudness_do_not_count(tiny: SyncNet) -> None:
    crops = torch.rand(1, 8, CROP_HEIGHT, CROP_WIDTH) * 200
    assert torch.allclose(tiny.embed_video(crops), tiny.embed_video(crops * 0.5 + 20), atol=1e-2)
    waveform = np.random.default_rng(0).normal(0, 0.1, 8 * 640).astype(np.float32)
    assert torch.allclose(clip_mel(waveform, 8), clip_mel(waveform * 0.4, 8), atol=1e-3)
    assert clip_mel(waveform[:640], 8).shape == (32, 80)  # what is missing is silence


def test_what_cannot_be_embedded_says_why(tiny: SyncNet, frames: np.ndarray) -> None:
    silence = np.zeros(12 * 640, np.float32)
    with pytest.raises(NoMouthError, match="no face"):
        tiny.embed(np.full((6, 64, 64, 3), 90, np.uint8), silence)
    with pytest.raises(ValueError, match="too few"):
        tiny.embed(frames[:4], silence)
    with pytest.raises(ValueError, match="finite"):
        tiny.embed(frames, silence + np.nan)
    with pytest.raises(ValueError, match="uint8"):
        face_boxes(frames.astype(np.float32))


def test_the_crop_follows_the_head(frames: np.ndarray) -> None:
    boxes, share = face_boxes(frames)
    assert share == 1 and boxes.shape == (12, 4)
    moved, _ = face_boxes(np.roll(frames, 16, axis=2))
    assert np.abs(moved[:, 0] - boxes[:, 0] - 16).max() < 8  # the detector's own grid
    crops = mouth_crops(frames, boxes)
    assert crops.shape == (12, CROP_HEIGHT, CROP_WIDTH) and crops.dtype == np.uint8
    shifted = mouth_crops(np.roll(frames, 16, axis=2), boxes + [16, 0, 16, 0])
    assert np.abs(shifted.astype(int) - crops).mean() < 1
    beyond_the_edge = boxes[:1] * 0 + [-40, -40, 20, 20]
    assert mouth_crops(frames[:1], beyond_the_edge).shape == (1, CROP_HEIGHT, CROP_WIDTH)


def test_planted_offsets_are_found_where_sound_and_mouth_agree() -> None:
    rows = unit_rows(80)
    assert planted_offsets(rows, rows) == list(PLANTED)
    late = np.concatenate([unit_rows(3, seed=1), rows[:-3]])  # the sound of frame t stands at t + 3: late, so negative
    assert planted_offsets(rows, late, range(0, 1)) == [-3]


def test_a_proof_tells_own_sound_from_another() -> None:
    clips = [(unit_rows(80, seed=seed), unit_rows(80, seed=seed)) for seed in range(3)]
    proof = Proof.of(clips)
    assert proof.exact() == 1 and proof.own.min() > 5 * proof.shuffled.max()
    with pytest.raises(ValueError, match="two clips"):
        Proof.of(clips[:1])


def test_contrast_is_low_only_for_the_right_pairs() -> None:
    video = torch.from_numpy(np.stack([unit_rows(50, seed=seed) for seed in range(2)]))
    right = contrast(video, video, torch.tensor(20.0))
    wrong = contrast(video, video.roll(5, 1), torch.tensor(20.0))
    assert right[0] < 0.1 and right[1] < 0.1 and right[2] == 1
    assert wrong[0] > 2 and wrong[1] > 2 and wrong[2] < 0.1


def mouths(clips: int = 3, length: int = SEGMENT + 4) -> Mouths:
    rng = np.random.default_rng(0)
    total = clips * length
    crops = rng.integers(0, 255, (total, round(CROP_HEIGHT * MARGIN), round(CROP_WIDTH * MARGIN)), np.uint8)
    return Mouths(crops, rng.normal(size=(2, 4 * total, 80)).astype(np.float16), np.arange(clips + 1) * length)


def test_augmentation_keeps_shape_and_moves_all_frames_of_a_segment_alike() -> None:
    crops, mels = mouths().segments(2, np.random.default_rng(0))
    assert crops.shape[:2] == (2, SEGMENT) and mels.shape == (2, 4 * SEGMENT, 80)
    still = crops[:, :1].expand(-1, SEGMENT, -1, -1)
    out = augment(still, np.random.default_rng(0))
    assert out.shape == (2, SEGMENT, CROP_HEIGHT, CROP_WIDTH) and torch.isfinite(out).all()
    within, between = (out[0, 0] - out[0, 1]).abs().mean(), (out[0, 0] - out[1, 0]).abs().mean()
    assert within < between


def test_training_writes_weights_that_load_and_goes_on_from_its_state(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("train", "val"):
        np.savez(run / f"{name}.npz", **vars(mouths()))
    weights = tmp_path / "net.safetensors"
    common = ["--clips", "-", "--val", "-", "--out", str(run), "--weights", str(weights)]
    common += ["--batch-size", "2", "--precision", "no"]
    assert main([*common, "--steps", "1"]) == 0
    first = load_syncnet(weights)
    assert main([*common, "--steps", "2"]) == 0
    second = load_syncnet(weights)
    assert first.version != second.version  # another state of training, another version
    record = json.loads(weights.with_suffix(".json").read_text())
    assert record["trained"]["steps"] == 2 and 0 <= record["validation"]["offset_exact"] <= 1


def test_saved_weights_come_back(tiny: SyncNet, tmp_path: Path) -> None:
    save_syncnet(tiny, tmp_path / "net.safetensors", {"trained": {}})
    loaded = load_syncnet(tmp_path / "net.safetensors")
    mel = torch.randn(1, 40, 80)
    assert torch.allclose(loaded.embed_audio(mel), tiny.embed_audio(mel), atol=5e-3)
    with pytest.raises(FileNotFoundError, match="none.safetensors is missing"):
        load_syncnet(tmp_path / "none.safetensors")


def test_the_shipped_net_hears_who_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out identities, voices and texts, recorded prompts among them; the proof on 64 clips is in the JSON beside
    the weights.
    """
    assert WEIGHTS.stat().st_size <= 4 * 2**20
    for path in (WEIGHTS, WEIGHTS.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    assert main(["--check", str(SMALL_SET), "--weights", str(tmp_path / WEIGHTS.name)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["clips"] == 8 and not result["skipped"]
    assert result["offset_exact"] >= 0.9 and result["offset_exact_real_prompts"] >= 0.9
    assert result["confidence_shuffled_share"] < 0.45
    record = json.loads((tmp_path / "syncnet.json").read_text())
    assert record["check"] == result and "trained" in record
    assert load_embedded() is load_embedded() and len(load_embedded().version) == 12
