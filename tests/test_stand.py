"""How a portrait's head stands: as its marks say, where these clearly differ from the reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eartalking import load_model
from eartalking.autoencoder.stand import FARTHEST, fit_stand
from eartalking.motion.head_space import rotation
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES, NUM_MOTION_LABELS
from eartalking.perception.face_detector import crop_face
from eartalking.perception.face_marks import NUM_MARKS
from eartalking.perception.face_mesh import NUM_POINTS
from eartalking.perception.mesh_readings import DEPTH_SCALE, MeshReader

PHOTOGRAPH = Path(__file__).parent.parent / "examples" / "photo.jpg"


def marks_of(yaw: float, pitch: float, roll: float) -> Tensor:
    """Marks of a mean face that the mesh reads as standing so."""
    reader = MeshReader.load()
    angles = np.array([yaw, pitch, roll]) * reader.pose[:, 0] + reader.pose[:, 1]
    turned = reader.neutral @ rotation(torch.from_numpy(angles)).numpy().T
    points = turned * np.array([1.0, -1.0, -1 / DEPTH_SCALE])
    marks = torch.zeros(1, NUM_MARKS, 3)
    marks[0, :NUM_POINTS] = torch.from_numpy(0.5 + 0.2 * points / np.abs(points).max()).float()
    return marks


def motion_of(*pose: float) -> Tensor:
    motion = torch.randn(1, NUM_MOTION_LABELS, generator=torch.Generator().manual_seed(0))
    motion[0, HEAD_POSE] = torch.tensor(pose) * MOTION_SCALES["head_pose"]
    return motion


def stands(motion: Tensor) -> list[float]:
    return (motion[0, HEAD_POSE] / MOTION_SCALES["head_pose"]).tolist()


def test_the_marks_say_it_where_they_clearly_differ() -> None:
    read = motion_of(-8, 0, 2)
    fitted = fit_stand(marks_of(-20, -2, 12), read, True)
    assert stands(fitted) == pytest.approx([-20, 0, 12], abs=0.1)  # two degrees of pitch are the mesh's own error
    rest = torch.ones(NUM_MOTION_LABELS, dtype=torch.bool)
    rest[HEAD_POSE] = False
    assert torch.equal(fitted[:, rest], read[:, rest])
    assert stands(fit_stand(marks_of(0, -14, 0), motion_of(0, 4, 0), True))[1] == pytest.approx(-5, abs=0.1)  # half-way


def test_where_they_agree_or_there_are_none_the_reading_holds() -> None:
    read = motion_of(5, 3, -2)
    torch.testing.assert_close(fit_stand(marks_of(6, 8, -3), read, True), read)
    assert fit_stand(torch.zeros(1, NUM_MARKS, 3), read, True) is read


def test_a_profile_stands_within_the_range_in_which_a_head_moves() -> None:
    marks, read = marks_of(-45, 0, 30), motion_of(-8, 0, 10)
    assert stands(fit_stand(marks, read, True)) == pytest.approx([-FARTHEST[0], 0, FARTHEST[2]], abs=0.1)
    assert stands(fit_stand(marks, read, False)) == pytest.approx([-45, 0, 30], abs=0.1)  # a frame stands anywhere
    assert stands(fit_stand(marks_of(29, 0, 0), motion_of(28, 0, 0), True))[0] == pytest.approx(28)  # as it was read


def test_a_mirrored_photograph_stands_the_other_way() -> None:
    model = load_model("default")
    image = crop_face(np.asarray(Image.open(PHOTOGRAPH).convert("RGB")), 256).image
    yaws = []
    for picture in (image, image[:, ::-1]):
        portrait = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            yaws.append(stands(model.autoencoder.reference(portrait).motion)[0])
    assert yaws[0] == pytest.approx(-yaws[1], abs=4)
