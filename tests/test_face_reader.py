"""The face reader: shapes, mirrored truth, augmentation that keeps its labels, and that the shipped weights can see."""
import numpy as np
import pytest
import torch

from eartalking.controls import EMOTIONS
from eartalking.errors import InputError
from eartalking.face_reader import CROP, INPUT_SIZE, READINGS, WEIGHTS_FOLDER, FaceReader, FaceReaderNet, FaceReading, cut_face
from eartalking.synth.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eval.train_estimator import MIRRORED, STORED_CROP, STORED_SIZE, _blocky, augment, centre, main, targets


def frames(count: int, size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, size, size, 3), dtype=np.uint8)


def labels(count: int) -> dict[str, torch.Tensor]:
    return {
        "head_pose": torch.arange(3 * count).view(count, 3).float(),
        "gaze": torch.ones(count, 2),
        "mouth_open": torch.full((count,), 0.05),
        "face_units": torch.zeros(count, NUM_FACE_UNITS),
    }


@pytest.mark.parametrize("count", [1, 5, 33])
@pytest.mark.parametrize("size", [64, 256])
def test_a_reading_per_frame(count: int, size: int) -> None:
    reading = FaceReader(FaceReaderNet()).read(frames(count, size))
    assert len(reading) == count and reading.emotion.shape == (count, len(EMOTIONS))
    for name in READINGS:
        assert getattr(reading, name).shape == (count,) and np.isfinite(getattr(reading, name)).all()


def test_frames_are_read_alone() -> None:
    reader, video = FaceReader(FaceReaderNet()), frames(5)
    together, apart = reader.read(video), FaceReading.concat([reader.read(video[i : i + 1]) for i in range(5)])
    for name in vars(together):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), atol=1e-3)


@pytest.mark.parametrize("bad", [np.zeros((0, 64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)])
def test_wrong_frames_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected frames"):
        FaceReader(FaceReaderNet()).read(bad)


def test_small_and_saved_and_loaded(tmp_path) -> None:
    net = FaceReaderNet()
    assert sum(p.numel() for p in net.parameters()) <= 1_000_000
    FaceReader(net, {"yaw": 1.5}).save(tmp_path, steps=3)
    assert (tmp_path / "reader.safetensors").stat().st_size < 2 * 2**20
    again = FaceReader.load(tmp_path)
    assert again.accuracy == {"yaw": 1.5}
    np.testing.assert_allclose(again.read(frames(2)).yaw, FaceReader(net).read(frames(2)).yaw, atol=0.05)
    with pytest.raises(InputError, match="no face reader"):
        FaceReader.load(tmp_path / "nothing")


def test_targets_are_what_shows_on_the_face() -> None:
    given = labels(2)
    given["face_units"][1, [UNIT_INDEX["mouthSmileLeft"], UNIT_INDEX["mouthSmileRight"]]] = 0.85
    given["face_units"][1, [UNIT_INDEX["browDownLeft"], UNIT_INDEX["browDownRight"]]] = 1.0
    given["face_units"][1, UNIT_INDEX["eyeBlinkLeft"]] = 1.0
    rows = dict(zip(READINGS, targets(given).T, strict=True))
    assert rows["yaw"].tolist() == [0, 3] and rows["roll"].tolist() == [2, 5]
    torch.testing.assert_close(rows["smile"], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(rows["brow"], torch.tensor([0.0, -1.0]))
    torch.testing.assert_close(rows["blink"], torch.tensor([0.0, 0.5]))


def test_training_and_reading_see_the_same_crop() -> None:
    smooth = np.add.outer(np.arange(256), np.arange(256))[None, :, :, None].repeat(3, 3) // 2
    images = torch.from_numpy(smooth.astype(np.uint8))
    stored = (cut_face(images, STORED_CROP, STORED_SIZE) * 255).round().byte()
    torch.testing.assert_close(centre(stored), cut_face(images, CROP, INPUT_SIZE), atol=0.01, rtol=0)


def test_augmentation_mirrors_sides_and_nothing_else() -> None:
    images = torch.randint(0, 255, (64, 3, STORED_SIZE, STORED_SIZE), dtype=torch.uint8)
    values = torch.ones(64, len(READINGS))
    damaged, changed = augment(images, values)
    assert damaged.shape == (64, 3, INPUT_SIZE, INPUT_SIZE) and 0 <= damaged.min() and damaged.max() <= 1
    sides = changed[:, list(MIRRORED)]
    assert (sides == sides[:, :1]).all() and set(sides.unique().tolist()) == {-1.0, 1.0}
    others = [i for i in range(len(READINGS)) if i not in MIRRORED]
    assert (changed[:, others] == 1).all() and (values == 1).all()


def test_block_damage_with_fine_steps_changes_nothing() -> None:
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(_blocky(x, 1e-5), x, atol=1e-4, rtol=0)
    assert (_blocky(x, 0.3) - x).abs().mean() > 0.02


def test_training_command(tmp_path, capsys) -> None:
    from safetensors.torch import save_file

    rows = {f"labels.{name}": value for name, value in labels(4).items()}
    rows |= {f"labels.{name}": torch.zeros(4) for name in ("smile", "brow", "emotion_intensity")}
    rows |= {"labels.emotion": torch.zeros(4, dtype=torch.int32), "frames": torch.from_numpy(frames(4, 64))}
    save_file(rows, tmp_path / "0.safetensors")
    arguments = ["--data", str(tmp_path), "--val", str(tmp_path), "--out", str(tmp_path / "out"), "--minutes", "0.01", "--batch-size", "4"]
    assert main(arguments) == 0
    assert '"held_out_images": 4' in capsys.readouterr().out.splitlines()[-1]
    assert FaceReader.load(tmp_path / "out").accuracy["yaw"] >= 0


def test_shipped_reader_sees_which_way_a_rendered_head_turns() -> None:
    pytest.importorskip("moderngl")
    from eartalking.synth.head import load_bundle
    from eartalking.synth.identity import sample_identity
    from eartalking.synth.motion import Motion, neutral_portrait
    from eartalking.synth.render import Renderer

    try:
        renderer = Renderer(size=256, map_size=64)
    except Exception as error:  # noqa: BLE001 (whatever the driver says, there is no OpenGL here)
        pytest.skip(f"no OpenGL: {error}")
    bundle, rng = load_bundle(), np.random.default_rng(0)
    motion = Motion.concat([neutral_portrait(rng) for _ in range(4)])
    motion.head_pose[:] = [[-20, 0, 0], [20, 0, 0], [0, 12, 0], [0, -12, 0]]
    renderer.set_identity(sample_identity(7, "test", bundle))
    reading = FaceReader.load().read(renderer.render(motion))
    renderer.release()
    assert reading.yaw[0] < -10 and reading.yaw[1] > 10
    assert reading.pitch[2] > 4 and reading.pitch[3] < -4


def test_shipped_reader_is_small_and_tells_its_accuracy() -> None:
    reader = FaceReader.load()
    assert set(READINGS) <= set(reader.accuracy) and "emotion_recognised" in reader.accuracy
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.iterdir()) <= 2 * 2**20
