"""The arithmetic of the photographs section, on readings and motions that are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from benchmarks.gates.photograph_finding import SMALL_FACE, TURNS, variants
from benchmarks.gates.photograph_material import Spoken, _spoken, motion_of_controls, performance_of
from benchmarks.gates.photograph_output import seam
from benchmarks.gates.photograph_parts import parts_sharpness
from benchmarks.gates.photograph_teeth import _upper_teeth
from benchmarks.gates.photographs import (
    HOLD,
    LEVELS,
    Seen,
    blink_depth,
    cheek_box,
    closed_share,
    errors,
    expression_change,
    nose_height,
    worst_row,
)
from benchmarks.gates.table import GATES
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.perception.face_mesh import NUM_POINTS, FaceMesh
from eartalking.perception.mesh_readings import FaceState, MeshReader
from eartalking.perception.turned_square import TurnedSquare
from eartalking.synth.identity import GROUPS
from eartalking.synth.speech import Utterance


def state(**readings: float) -> FaceState:
    names = ("yaw", "pitch", "roll", "gaze_yaw", "gaze_pitch", "lip_gap", "mouth_width", "eye_opening")
    return FaceState(**{**dict.fromkeys(names, 0.0), **readings})


def obedient(offset: float = 0.0, blink: float = 0.1) -> Seen:
    """A face that does at once what it is told, read `offset` degrees too far; its open eyes are read as 0.3."""
    seen = Seen()
    for level in LEVELS:
        for frame in range(HOLD):
            late = frame < HOLD - 2  # what is read before the last two frames of a step does not count
            pose = {name: (99.0 if late else level[name] + offset) for name in ("yaw", "pitch", "roll")}
            eyes = 0.3 if level["blink"] == 0 else blink
            wide = 0.6 + 0.2 * level.get("smile", 0.0)
            seen.states.append(state(**pose, eye_opening=eyes, mouth_width=wide))
            seen.noses.append(0.4 - 0.05 * ("emotion" in level))
    return seen


def test_lips_count_where_they_must_be_shut_and_a_lost_face_is_not_shut() -> None:
    said = Spoken(np.zeros(0, np.float32), np.array([2, 4]), speech_frames=8, frames=15)
    gap = np.full(15, 0.2)
    gap[[2, 13, 14]] = 0.01
    assert closed_share(gap, said) == pytest.approx(3 / 4)  # 2 and 4; 13 and 14 after the voice has ended
    gap[14] = np.nan
    assert closed_share(gap, said) == pytest.approx(2 / 4)


def test_closures_lie_in_the_middle_of_their_phones() -> None:
    phones = [("M", 0.0, 0.02), ("AA", 0.1, 0.4), ("B", 0.4, 0.48), ("P", 2.0, 2.08)]
    said = _spoken(Utterance(np.zeros(48_000, np.float32), phones, "text", "voice", "licence"))
    assert said.closures.tolist() == [10, 50]  # not the first frame, which is the portrait
    assert len(said.waveform) == said.frames * 640


def test_a_portraits_own_offset_is_no_error_of_control() -> None:
    assert errors(obedient(offset=7.0), "yaw") == pytest.approx([0, 0])
    seen = obedient()
    seen.states = [state() for _ in seen.states]
    assert errors(seen, "yaw") == pytest.approx([20, 20]) and errors(seen, "roll") == pytest.approx([12, 12])


def test_blinks_and_expressions_are_measured_against_the_face_at_rest() -> None:
    assert blink_depth(obedient(blink=0.09)) == pytest.approx([0.3, 0.3])
    assert expression_change(obedient(), "smile", -2) == pytest.approx(0.2)
    assert expression_change(obedient(), "disgust", -1) == pytest.approx(-0.05)


def test_a_gate_of_every_portrait_is_as_good_as_the_worst() -> None:
    row = worst_row("photographs_lips_closed", {"one": 0.95, "other": 0.5}, "other", "portraits")
    assert not row.passed and row.value == 0.5 and row.extra["by_portrait"]["one"] == 0.95
    assert worst_row("photographs_lips_closed", {"one": 0.95}, "one", "portraits").passed
    assert len(GATES["photographs"]) == 20


def test_true_renders_are_asked_for_the_same_motion() -> None:
    levels: list[dict[str, Any]] = [{"yaw": 20.0, "gaze_pitch": -10.0, "blink": 1.0}, {"emotion": ("disgusted", 1.0)}]
    shown = performance_of(motion_of_controls(levels))
    assert shown.head_pose[:, 0] == pytest.approx([20, 0]) and shown.gaze[0] == pytest.approx([0, -10])
    assert shown.face_units[:, UNIT_INDEX["eyeBlinkLeft"]] == pytest.approx([1, 0])
    assert shown.face_units[:, UNIT_INDEX["noseSneerLeft"]] == pytest.approx([0, 0.95])


def test_boxes_of_a_face_that_leaves_the_picture_stay_inside() -> None:
    points = np.random.default_rng(0).uniform(-40, 300, (NUM_POINTS, 3))
    mesh = FaceMesh(points, 20.0, TurnedSquare(128, 128, 256))
    left, top, right, bottom = cheek_box(mesh, 256)
    assert 0 <= left < right <= 256 and 0 <= top < bottom <= 256
    assert nose_height(mesh) > 0


def test_variants_show_the_face_as_they_say() -> None:
    picture = np.zeros((400, 300, 3), np.uint8)
    picture[100:200, 110:190] = 255
    made = {
        name: np.asarray(Image.fromarray(image).convert("L"))
        for name, image, _ in variants(picture, (110, 100, 190, 200))
    }
    assert len(made) == len(TURNS) + 3
    rows = np.flatnonzero((made["small"] > 200).any(1))
    assert len(rows) == pytest.approx(SMALL_FACE, abs=3)
    assert made["tight"].mean() > 200, "nothing but face"
    assert (made["edge"][:, 0] > 200).any(), "the face is cut by the border"


def test_a_seam_is_the_largest_change_around_the_crop() -> None:
    picture = np.full((40, 60, 3), 100, np.uint8)
    frames = np.repeat(picture[None], 2, 0)
    frames[:, 11:29, 21:39] = 200  # the crop, but for its edges
    assert seam(frames, picture, (20.0, 10.0, 40.0, 30.0)) == 0
    frames[1, 10, 25] = 103  # at its upper edge
    assert seam(frames, picture, (20.0, 10.0, 40.0, 30.0)) == 3
    assert seam(frames, picture, (20.0, -5.0, 40.0, 30.0)) == 0  # which is none where the picture ends
    frames[0, 5, 50] = 90
    assert seam(frames, picture, (20.0, 10.0, 40.0, 30.0)) == 10


def test_teeth_are_told_from_all_else() -> None:
    person = SimpleNamespace(
        triangles=np.array([[0, 1, 2], [3, 4, 5]]), group=np.array([1.0, 1, 1, *[GROUPS["teeth_upper"]] * 3])
    )
    surface = np.zeros((1, 4, 4, 4), np.float32)
    surface[..., 3] = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 2, 1], [1, 1, 2, 2]])
    expected = np.array([[[False, True], [False, False]]])  # one of four is a lip's: no tooth
    np.testing.assert_array_equal(_upper_teeth(surface, person), expected)


def test_parts_are_as_sharp_as_themselves_and_less_when_blurred() -> None:
    portrait = Image.open(Path(__file__).parents[1] / "examples" / "portrait.png").convert("RGB").resize((256, 256))
    true = np.asarray(portrait)[None]
    soft = np.asarray(portrait.filter(ImageFilter.GaussianBlur(1)))[None]
    reader = MeshReader.load()
    assert parts_sharpness(reader, true, true) == pytest.approx({"eyes": 1, "mouth": 1})
    assert all(0 < share < 0.5 for share in parts_sharpness(reader, soft, true).values())
