"""The face reader: shapes, mirrored truth, augmentation that keeps its labels, and that the shipped weights can see."""
import numpy as np
import pytest
import torch

from eartalking.controls import EMOTIONS
from eartalking.errors import InputError
from eartalking.face_reader import EYES_Y, FACE_SIDE, FACE_SIZE, READINGS, WEIGHTS_FOLDER, FaceReader, FaceReaderNet, FaceReading, cut_faces
from eartalking.synth.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eval.train_estimator import MIRRORED, _blocky, eye_positions, face_batch, locator_batch, main, targets

shipped = pytest.mark.skipif(not (WEIGHTS_FOLDER / "config.json").exists(), reason="the reader's weights are not here")


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


def test_faces_are_cut_out_upright() -> None:
    """A bright line that runs from the eyes down a head tilted clockwise stands upright in the middle of the cut."""
    size, roll = 256, 20.0
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    eyes, angle = torch.tensor([0.1, -0.15]), torch.deg2rad(torch.tensor(roll))
    # Tilted clockwise as seen, the chin swings to the left of the eyes.
    across = (x - eyes[0]) * torch.cos(angle) + (y - eyes[1]) * torch.sin(angle)
    down = (y - eyes[1]) * torch.cos(angle) - (x - eyes[0]) * torch.sin(angle)
    image = ((across.abs() < 0.02) & (down > 0)).float().expand(1, 3, -1, -1)
    cut = cut_faces(image, torch.tensor([[*eyes, roll]]))[0, 0]
    rows, columns = (cut > 0.5).nonzero(as_tuple=True)
    assert (columns - (FACE_SIZE - 1) / 2).abs().max() <= 3
    first = (rows.min() + 0.5) * 2 / FACE_SIZE - 1
    assert float(first) == pytest.approx(EYES_Y, abs=0.04) and rows.max() == FACE_SIZE - 1
    assert len(set(columns.tolist())) == pytest.approx(0.04 * FACE_SIZE / 2 / FACE_SIDE, abs=2)


def test_the_portraits_point_is_found_in_the_frame() -> None:
    axis = (torch.arange(64) + 0.5) / 32 - 1
    here = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    maps = torch.stack([here, here - torch.tensor([0.2, -0.1])])
    seen = torch.full((2, 64, 64), 255, dtype=torch.uint8)
    found = eye_positions(np.array([0.05, -0.2]), maps, seen)
    torch.testing.assert_close(found, torch.tensor([[0.05, -0.2], [0.25, -0.3]]), atol=0.01, rtol=0)
    assert eye_positions(np.array([0.05, -0.2]), maps, 0 * seen).isnan().all()


def test_augmentation_mirrors_sides_and_tells_the_roll_that_is_left() -> None:
    images, place = torch.rand(64, 3, 96, 96), torch.tensor([0.1, -0.1, 8.0]).expand(64, -1)
    values = torch.ones(64, len(READINGS))
    faces, changed = face_batch(images, place, values)
    assert faces.shape == (64, 3, FACE_SIZE, FACE_SIZE) and 0 <= faces.min() and faces.max() <= 1
    sides = changed[:, [READINGS.index("yaw"), READINGS.index("gaze_yaw")]]
    assert (sides == sides[:, :1]).all() and set(sides.unique().tolist()) == {-1.0, 1.0}
    others = [i for i in range(len(READINGS)) if i not in MIRRORED]
    assert (changed[:, others] == 1).all() and (values == 1).all()
    assert changed[:, READINGS.index("roll")].abs().mean() < 0.8  # 8 degrees are one unit, and were turned away
    small, moved = locator_batch(torch.rand(64, 3, 64, 64), place)
    assert small.shape == (64, 3, 64, 64) and set(moved[:, 2].unique().tolist()) == {-8.0, 8.0}


def test_block_damage_with_fine_steps_changes_nothing() -> None:
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(_blocky(x, 1e-5), x, atol=1e-4, rtol=0)
    assert (_blocky(x, 0.3) - x).abs().mean() > 0.02


def test_training_command(tmp_path, capsys, monkeypatch) -> None:
    from safetensors.torch import save_file

    class Eyes:
        def between_eyes(self, image: np.ndarray) -> np.ndarray:
            return np.zeros(2)

    monkeypatch.setattr("eval.train_estimator.FaceIdentity", Eyes)
    axis = (torch.arange(64) + 0.5) / 32 - 1
    rows = {f"labels.{name}": value for name, value in labels(4).items()}
    rows |= {f"labels.{name}": torch.zeros(4) for name in ("smile", "brow", "emotion_intensity")}
    rows |= {
        "labels.emotion": torch.zeros(4, dtype=torch.int32),
        "frames": torch.from_numpy(frames(4, 64)),
        "reference": torch.from_numpy(frames(1, 64)[0]),
        "correspondence": torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).expand(4, -1, -1, -1).half().contiguous(),
        "visibility": torch.full((4, 64, 64), 255, dtype=torch.uint8),
    }
    save_file(rows, tmp_path / "0.safetensors")
    val = ["--val", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["--data", str(tmp_path), *val, "--minutes", "0.01", "--batch-size", "5"]) == 0
    assert '"held_out_images": 4' in capsys.readouterr().out.splitlines()[-1]
    accuracy = FaceReader.load(tmp_path / "out").accuracy
    assert main(val) == 0  # measured again, on the same frames
    again = FaceReader.load(tmp_path / "out").accuracy
    assert again["yaw"] == pytest.approx(accuracy["yaw"], abs=0.05) and "face_steps" in FaceReader.about(tmp_path / "out")


@shipped
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


@shipped
def test_shipped_reader_is_small_and_tells_its_accuracy() -> None:
    reader = FaceReader.load()
    assert set(READINGS) <= set(reader.accuracy) and "emotion_recognised" in reader.accuracy
    assert sum(path.stat().st_size for path in WEIGHTS_FOLDER.iterdir()) <= 2 * 2**20
