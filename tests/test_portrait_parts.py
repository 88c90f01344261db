"""A portrait's eyes: irises go where the gaze goes, lids are skin, and the second eye is the first one's mirror."""

import math

import pytest
import torch

from eartalking.autoencoder.portrait_parts import EYEBALL, cut_eyes, eye_turn, turned, without_eyes
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_marks import NUM_MARKS, OPENING, eye_marks

LANDMARKS = torch.tensor([[[0.4, 0.4], [0.6, 0.4], [0.5, 0.7]]])


def motion(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> torch.Tensor:
    vector = torch.zeros(1, 60)
    vector[0, GAZE] = torch.tensor([yaw, pitch]) * MOTION_SCALES["gaze"]
    vector[0, HEAD_POSE.stop - 1] = roll * MOTION_SCALES["head_pose"]
    return vector


@pytest.mark.parametrize(
    ("gaze", "roll", "expected"),
    [
        ({"yaw": 30.0}, 0.0, (0.5, 0.0)),
        ({"pitch": 30.0}, 0.0, (0.0, -0.5)),
        ({"yaw": 30.0}, 90.0, (0.0, 0.5)),  # a head on its side: its left is below
        ({"pitch": 30.0}, 90.0, (0.5, 0.0)),
    ],
)
def test_irises_go_where_the_gaze_goes(gaze: dict[str, float], roll: float, expected: tuple[float, float]) -> None:
    turn = eye_turn(motion(**gaze, roll=roll), motion(roll=roll), LANDMARKS)
    torch.testing.assert_close(turn, EYEBALL * 0.2 * torch.tensor([expected]), atol=1e-6, rtol=0)


def test_a_gaze_that_stays_moves_nothing() -> None:
    assert not eye_turn(motion(12, 5), motion(12, 5), LANDMARKS).any()
    eyes = torch.rand(1, 2, 3, 40, 48)
    torch.testing.assert_close(turned(eyes, torch.zeros(1, 2), 256), eyes)


def test_both_irises_move_to_the_same_side() -> None:
    image = torch.zeros(1, 3, 256, 256)
    for x in (0.4, 0.6):
        image[..., round(0.4 * 256), round(x * 256)] = 1
    cuts = cut_eyes(image, LANDMARKS, (40, 48))
    moved = turned(cuts, torch.tensor([[3 / 256, -2 / 256]]), 256)
    moved = torch.stack([moved[:, 0], moved[:, 1].flip(-1)], dim=1)  # as in the picture
    before = torch.stack([cuts[:, 0], cuts[:, 1].flip(-1)], dim=1)
    for eye in (0, 1):
        start, end = (torch.nonzero(part[0, eye, 0] > 0.5)[0] for part in (before, moved))
        assert (end - start).tolist() == [-2, 3]


def test_shut_eyes_are_of_the_skin_around_them() -> None:
    skin = torch.tensor([0.6, 0.2, 0.0]).view(1, 3, 1, 1)
    portrait = skin.expand(1, 3, 256, 256).clone()
    marks = torch.zeros(1, NUM_MARKS, 3)
    for eye, x in ((0, 0.4), (1, 0.6)):
        angle = torch.arange(OPENING) / OPENING * 2 * math.pi
        marks[0, eye_marks(eye)][:OPENING, :2] = torch.stack([x + 0.04 * angle.cos(), 0.4 + 0.02 * angle.sin()], 1)
        top, left = round(0.4 * 256), round(x * 256)
        portrait[..., top - 5 : top + 5, left - 10 : left + 10] = -1.0
    shut = without_eyes(portrait, marks)
    torch.testing.assert_close(shut, skin.expand_as(shut), atol=0.02, rtol=0)
    torch.testing.assert_close(without_eyes(portrait, torch.zeros_like(marks)), portrait, msg="nobody found")
