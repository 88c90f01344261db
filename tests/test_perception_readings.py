"""What is read from a mesh: ratios that do not depend on size and roll, poses with the right signs, mattes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eartalking.errors import InputError
from eartalking.motion.face_units import unit_vector
from eartalking.motion.head_space import rotation
from eartalking.perception.face_finder import find_faces
from eartalking.perception.face_mesh import FaceMesh
from eartalking.perception.iris import read_eyes
from eartalking.perception.mesh_readings import FaceState, MeshReader, best_turn, eye_opening, lip_gap, turn_angles
from eartalking.perception.person_matte import person_matte
from eartalking.perception.turned_square import Picture, TurnedSquare

EXAMPLES = Path(__file__).parent.parent / "examples"


def read(image: np.ndarray) -> tuple[FaceState, FaceMesh]:
    (mesh,) = find_faces(image)
    return MeshReader.load().read(mesh, read_eyes(Picture(image), [mesh])[0]), mesh


def photo() -> Image.Image:
    return Image.open(EXAMPLES / "photo.jpg").convert("RGB")


def test_angles_are_those_of_the_control_table() -> None:
    degrees = np.array([22.0, -13.0, 35.0])
    turn = rotation(torch.from_numpy(degrees)).numpy()
    assert turn_angles(turn) == pytest.approx(degrees)
    points = np.random.default_rng(0).normal(size=(20, 3))
    assert best_turn(points, 3 * points @ turn.T + 5, np.ones(20)) == pytest.approx(turn)


def test_readings_of_a_photograph_follow_its_changes() -> None:
    """Roll turns with the picture, yaw and roll mirror with it, and ratios stay whatever its size."""
    upright, mesh = read(np.asarray(photo()))
    turned, _ = read(np.asarray(photo().rotate(-25, expand=True, resample=Image.Resampling.BICUBIC)))
    mirrored, _ = read(np.ascontiguousarray(np.asarray(photo())[:, ::-1]))
    large, _ = read(np.asarray(photo().resize((680, 680), Image.Resampling.BICUBIC)))
    assert turned.roll - upright.roll == pytest.approx(25, abs=2)
    assert mirrored.roll == pytest.approx(-upright.roll, abs=2) and mirrored.yaw == pytest.approx(-upright.yaw, abs=3)
    for other in (turned, mirrored, large):
        assert other.lip_gap == pytest.approx(upright.lip_gap, abs=0.02)
        assert other.eye_opening == pytest.approx(upright.eye_opening, abs=0.05)
    assert 0.08 < upright.lip_gap < 0.16  # she smiles with her teeth
    scaled = FaceMesh(2.5 * mesh.points + 7, mesh.certainty, mesh.square)
    assert lip_gap(scaled) == pytest.approx(lip_gap(mesh))


def test_rendered_heads_are_read_as_they_are_labelled() -> None:
    """One head in states with known labels: turned either way, jaw open, eyes shut."""
    pytest.importorskip("moderngl")
    from eartalking.synth.head import load_bundle
    from eartalking.synth.identity import sample_identity
    from eartalking.synth.performance import Performance, neutral_portrait
    from eartalking.synth.render import Renderer

    bundle = load_bundle()
    try:
        renderer = Renderer(size=256, bundle=bundle)
    except Exception as error:  # moderngl raises plain Exceptions where the machine has no EGL driver
        pytest.skip(f"no OpenGL here: {error}")
    renderer.set_identity(sample_identity(44, "test", bundle))
    rest = neutral_portrait(np.random.default_rng(0))
    rest.head_pose[:], rest.face_units[:] = 0, 0
    states = Performance.concat([rest] * 5)
    states.head_pose[1], states.head_pose[2] = (18, 0, 8), (-18, 8, 0)
    states.face_units[3] = unit_vector({"jawOpen": 0.5})
    states.face_units[4] = unit_vector({"eyeBlink": 1.0})
    neutral, right, left, opened, shut = (read(frame)[0] for frame in renderer.render(states))
    renderer.release()
    assert right.yaw - neutral.yaw == pytest.approx(18, abs=4) and right.roll - neutral.roll == pytest.approx(8, abs=3)
    assert left.yaw - neutral.yaw == pytest.approx(-18, abs=4) and left.pitch - neutral.pitch == pytest.approx(8, abs=4)
    assert neutral.lip_gap < 0.04 and opened.lip_gap > neutral.lip_gap + 0.1
    assert shut.eye_opening < 0.5 * neutral.eye_opening


def test_eye_opening_of_a_drawn_outline() -> None:
    from eartalking.perception.iris import EyePoints

    outline = np.zeros((71, 3))
    outline[0, 0], outline[8, 0] = -10, 10
    outline[11:14, 1], outline[3:6, 1] = -3, 2
    assert eye_opening(EyePoints(outline, np.zeros((5, 3)))) == pytest.approx(5 / 20)


def test_missing_calibration_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no calibration here"):
        MeshReader.load(tmp_path)


def test_matte_of_a_photograph() -> None:
    image = np.asarray(photo())
    mesh = find_faces(image)[0]
    matte = person_matte(Picture(image), TurnedSquare(170, 170, 340), 340)
    assert matte.shape == (340, 340) and matte.dtype == np.float32 and 0 <= matte.min() and matte.max() <= 1
    left, top, right, bottom = (round(edge) for edge in mesh.box)
    assert matte[top:bottom, left + 15 : right - 15].mean() > 0.97
    assert matte[10:100, 20:70].mean() < 0.03  # the wall
