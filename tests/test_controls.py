"""Control files and values: what is accepted, what it means per frame, and how errors name the place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eartalking.controls import (
    CONTROL_RANGES,
    CONTROL_TRACKS,
    EMOTIONS,
    SCALAR_TRACKS,
    ControlBatch,
    ControlFrame,
    Controls,
    validate_control,
)
from eartalking.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_json_is_linear_between_numbers_held_at_the_end_and_released_at_null(tmp_path: Path) -> None:
    tracks = {
        "yaw": [[0.0, 0], [1.2, 15], [3.0, None]],
        "smile": [[1.0, 0.5]],
        "emotion": [[2.0, ["happy", 0.8]], [4.0, ["sad", 0.2]]],
    }
    controls = Controls.load(write(tmp_path / "c.json", json.dumps({"fps": 25, "tracks": tracks})))
    yaw = [controls.at(frame)["yaw"] for frame in range(200)]
    assert yaw[0] == 0 and yaw[15] == pytest.approx(7.5) and yaw[30] == 15
    assert set(yaw[30:75]) == {15.0}, "a number is held until the null"
    assert set(yaw[75:]) == {None}
    assert [controls.at(frame)["smile"] for frame in (0, 24, 25, 10_000)] == [None, None, 0.5, 0.5]
    assert [controls.at(frame)["emotion"] for frame in (49, 50, 99, 100)] == [
        None,
        ("happy", 0.8),
        ("happy", 0.8),
        ("sad", 0.2),
    ]
    assert controls.at(60)["pitch"] is None


def test_csv_has_one_row_per_frame_and_empty_cells_release(tmp_path: Path) -> None:
    text = "yaw,emotion,blink\n1,,\n,happy:0.5,0.25\n3,happy 0.5,\n"
    controls = Controls.load(write(tmp_path / "c.csv", "\ufeff" + text))
    assert [controls.at(frame)["yaw"] for frame in range(5)] == [1, None, 3, 3, 3]
    assert [controls.at(frame)["emotion"] for frame in range(3)] == [None, ("happy", 0.5), ("happy", 0.5)]
    assert [controls.at(frame)["blink"] for frame in range(4)] == [None, 0.25, None, None]


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_save_and_load_give_the_same_frames(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    tracks = {
        track: [(int(frame) / 25, None if rng.random() < 0.3 else rng.uniform(*CONTROL_RANGES[track]))
                for frame in np.unique(rng.integers(1, 60, 8))]
        for track in SCALAR_TRACKS
    }  # fmt: skip
    controls = Controls({**tracks, "emotion": [(0.0, ("fear", 0.125)), (0.4, None), (0.8, ("contempt", 1))]})
    controls.save(tmp_path / f"c{suffix}")
    loaded = Controls.load(tmp_path / f"c{suffix}")
    for frame in range(80):
        got, expected = (ControlBatch.of_frame(each.at(frame)) for each in (loaded, controls))
        for mine, theirs in zip(vars(got).values(), vars(expected).values(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_one_column_csv_keeps_its_released_rows(tmp_path: Path) -> None:
    controls = Controls({"yaw": [(0.04, 3), (0.08, None)]})
    controls.save(tmp_path / "c.csv")
    assert [Controls.load(tmp_path / "c.csv").at(frame)["yaw"] for frame in range(4)] == [None, 3, None, None]


def test_blank_rows_of_one_column_are_released_and_below_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("yaw\n5\n\n\n")
    assert [Controls.load(tmp_path / "c.csv").at(frame)["yaw"] for frame in range(4)] == [5, None, None, None]
    (tmp_path / "c.csv").write_text("yaw,roll\n5,1\n\n\n")
    assert Controls.load(tmp_path / "c.csv").at(3)["yaw"] == 5, "the last value stays"


def test_interpolation_never_leaves_the_range() -> None:
    for low, high in ((-1, 0.3), (0.7, -1), (-1, 1)):
        controls = Controls({"smile": [(0.0, low), (7.77, high)]})
        assert all(-1 <= controls.at(frame)["smile"] <= 1 for frame in range(250))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.json", "", "empty"),
        ("c.json", "{", "broken JSON"),
        ("c.json", "[]", "expected"),
        ("c.json", '{"tracks": {"yaw": 3}}', "yaw"),
        ("c.json", '{"tracks": {"yaw": [[0, 1], [1]]}}', "yaw, keyframe 2"),
        ("c.json", '{"tracks": {"jaw": []}}', "unknown track 'jaw'"),
        ("c.json", '{"tracks": {"yaw": [[0, 31]]}}', "yaw, keyframe 1: yaw 31 is outside -30..30"),
        ("c.json", '{"tracks": {"yaw": [[0, true]]}}', "must be a number"),
        ("c.json", '{"tracks": {"yaw": [[0, NaN]]}}', "yaw, keyframe 1"),
        ("c.json", '{"tracks": {"yaw": [[0, 1e999]]}}', "yaw, keyframe 1"),
        ("c.json", '{"tracks": {"yaw": [[0, 1' + "0" * 400 + "]]}}", "yaw, keyframe 1"),
        ("c.json", '{"tracks": {"yaw": [[1, 1], [0.5, 2]]}}', "yaw, keyframe 2"),
        ("c.json", '{"tracks": {"yaw": [[1, 1], [1, 2]]}}', "yaw, keyframe 2"),
        ("c.json", '{"tracks": {"yaw": [[Infinity, 1]]}}', "yaw, keyframe 1"),
        ("c.json", '{"tracks": {"yaw": [[-1, 1]]}}', "yaw, keyframe 1"),
        ("c.json", '{"tracks": {"yaw": [], "yaw": []}}', "twice"),
        ("c.json", '{"fps": 30, "tracks": {}}', "fps must be 25"),
        ("c.json", '{"tracks": {}, "speed": 1}', "unknown key 'speed'"),
        ("c.json", '{"tracks": {"emotion": [[0, "happy"]]}}', "emotion, keyframe 1"),
        ("c.json", '{"tracks": {"emotion": [[0, ["glad", 1]]]}}', "unknown emotion 'glad'"),
        ("c.json", '{"tracks": {"emotion": [[0, ["happy", 2]]]}}', "emotion intensity 2"),
        ("c.csv", "yaw\n", "no rows"),
        ("c.csv", "yaw,jaw\n1,2\n", "unknown track 'jaw'"),
        ("c.csv", "yaw,yaw\n1,2\n", "twice"),
        ("c.csv", "yaw,roll\n1,2\n1\n", "row 3 (frame 1)"),
        ("c.csv", "yaw,roll\n1,2\n1,200\n", "row 3 (frame 1), track roll"),
        ("c.csv", "yaw\nnan\n", "row 2 (frame 0), track yaw"),
        ("c.csv", "emotion\nhappy\n", "track emotion"),
        ("c.csv", "yaw\nfast\n", "'fast' is not a number"),
        ("c.txt", "yaw\n1\n", ".json or .csv"),
    ],
)
def test_errors_are_one_line_with_file_and_place(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        Controls.load(path)
    assert str(caught.value).startswith(f"{path}: ") and expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00yaw")
    for name in ("c.csv", "missing.json"):
        with pytest.raises(InputError, match=name):
            Controls.load(tmp_path / name)


def test_validate_control_is_what_set_uses() -> None:
    assert validate_control("yaw", np.float32(12)) == 12.0
    assert validate_control("emotion", ["happy", 1]) == ("happy", 1.0)
    assert validate_control("blink", None) is None
    for track, value in (
        ("blink", 1.01),
        ("yaw", "5"),
        ("yaw", True),
        ("smile", float("nan")),
        ("nose", None),
    ):
        with pytest.raises(ValueError, match=track):
            validate_control(track, value)


def test_control_frame_is_an_immutable_mapping() -> None:
    frame = ControlFrame(yaw=12, emotion=("sad", 0.5))
    assert list(frame) == list(CONTROL_TRACKS) and frame["pitch"] is None
    assert frame.given() == {"yaw": 12.0, "emotion": ("sad", 0.5)}
    changed = frame.with_values(yaw=None, blink=1)
    assert frame["yaw"] == 12 and changed.given() == {"blink": 1.0, "emotion": ("sad", 0.5)}


def test_a_frame_becomes_tensors_for_the_network() -> None:
    batch = ControlBatch.of_frame(ControlFrame(yaw=12, emotion=("sad", 0.5)))
    assert batch.values.dtype == torch.float32 and batch.values.tolist() == [[[12.0, *[0.0] * 8]]]
    assert batch.given.tolist() == [[[True, *[False] * 8, True]]]
    assert (batch.emotion.tolist(), batch.intensity.tolist()) == ([[EMOTIONS.index("sad")]], [[0.5]])
    assert not ControlBatch.of_frame(ControlFrame()).given.any()
