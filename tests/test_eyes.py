"""A portrait's eyes: irises go where the gaze goes, lids of skin come down, and what is not asked for stays."""

import math

import pytest
import torch

from eartalking.autoencoder.eyes import EYEBALL, HIDDEN, Eyes, eye_turn
from eartalking.autoencoder.eyes import IRIS as IRIS_RADIUS
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, GAZE, HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_marks import NUM_MARKS, OPENING, eye_marks

MIDDLES = torch.tensor([[[0.4, 0.4], [0.6, 0.4]]])
SKIN, WHITE, IRIS = (torch.tensor(colour).view(3, 1, 1) for colour in ([0.6, 0.2, 0.0], [0.9, 0.9, 0.9], [-0.9] * 3))


def motion(
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    blink: float = 0.0,
    wide: float = 0.0,
    squint: float = 0.0,
) -> torch.Tensor:
    vector = torch.zeros(1, 60)
    for unit, value in (("eyeWide", wide), ("eyeSquint", squint)):
        vector[0, [UNIT_INDEX[unit + side] for side in ("Left", "Right")]] = value * MOTION_SCALES["face_units"]
    vector[0, GAZE] = torch.tensor([yaw, pitch]) * MOTION_SCALES["gaze"]
    vector[0, HEAD_POSE.stop - 1] = roll * MOTION_SCALES["head_pose"]
    vector[0, list(BLINK_COLUMNS)] = blink * MOTION_SCALES["face_units"]
    return vector


def face(size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """A portrait of skin with two eyes, 20 by 8 pixels of 256, whose irises look ahead, and its marks."""
    marks = torch.zeros(1, NUM_MARKS, 3)
    y, x = torch.meshgrid((torch.arange(size) + 0.5) / size, (torch.arange(size) + 0.5) / size, indexing="ij")
    portrait = SKIN.expand(3, size, size).clone()
    for eye in (0, 1):
        middle = MIDDLES[0, eye]
        angle = torch.arange(OPENING) / OPENING * 2 * math.pi
        begin = math.pi if eye == 0 else 0.0  # both outlines begin at the outer corner
        ring = torch.stack([(angle + begin).cos() * 10 / 256, (angle + begin).sin() * (4 if eye else -4) / 256], dim=1)
        marks[0, eye_marks(eye)][:OPENING, :2] = middle + ring
        edge = torch.tensor([[0.0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]])
        marks[0, eye_marks(eye)][OPENING:, :2] = middle + edge * 3.5 / 256 / IRIS_RADIUS
        inside = ((x - middle[0]) * 25.6).square() + ((y - middle[1]) * 64).square() < 1
        portrait = torch.where(inside, WHITE, portrait)
        iris = ((x - middle[0]).square() + (y - middle[1]).square()).sqrt() < 3.5 / 256
        portrait = torch.where(inside & iris, IRIS, portrait)
    return portrait[None], marks


def dark(image: torch.Tensor, eye: int) -> torch.Tensor:
    """Where the dark of one eye is on average, right and down, in pixels from the eye's middle."""
    size = image.shape[-1]
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    offset = torch.stack([x, y]) - MIDDLES[0, eye].view(2, 1, 1) * size
    weight = ((0.0 - image[0].mean(0)).clamp_min(0)) * (offset.abs().amax(0) < size / 16)
    return (offset * weight).sum((1, 2)) / weight.sum()


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
    turn = eye_turn(motion(**gaze, roll=roll), motion(roll=roll), MIDDLES)
    torch.testing.assert_close(turn, EYEBALL * 0.2 * torch.tensor([expected]), atol=1e-6, rtol=0)


def test_eyes_that_do_as_in_the_portrait_are_the_portraits() -> None:
    portrait, marks = face()
    eyes = Eyes.of(portrait, marks)
    assert eyes.drawn(portrait, motion(12, 5, blink=0.2), motion(12, 5, blink=0.2)) is portrait


@pytest.mark.parametrize("size", [256, 512])
def test_both_irises_turn_to_the_same_side(size: int) -> None:
    portrait, marks = face(size)
    drawn = Eyes.of(portrait, marks).drawn(portrait, motion(yaw=10), motion())
    expected = EYEBALL * 0.2 * math.sin(math.radians(10)) * size
    for eye in (0, 1):
        right, down = dark(drawn, eye) - dark(portrait, eye)
        assert float(right) == pytest.approx(expected, abs=0.25 * expected) and abs(float(down)) < 0.1 * size / 256


def test_white_is_seen_below_an_iris_that_goes_up() -> None:
    portrait, marks = face()
    row, column = round((0.4 + 2 / 256) * 256), round(0.4 * 256)
    assert portrait[0, :, row + 1, column].max() < 0, "the portrait's iris reaches down to the lid"
    up = Eyes.of(portrait, marks).drawn(portrait, motion(pitch=20), motion())
    torch.testing.assert_close(up[0, :, row - 1, column], WHITE[:, 0, 0], atol=0.15, rtol=0)


def test_the_eye_behind_the_nose_is_left_alone() -> None:
    portrait, marks = face()
    outline = marks[0, eye_marks(0)][:, 0]
    outline.copy_(0.4 + (outline - 0.4) * (HIDDEN - 0.1))
    drawn = Eyes.of(portrait, marks).drawn(portrait, motion(blink=1), motion())
    torch.testing.assert_close(drawn[..., :120], portrait[..., :120])
    assert not torch.equal(drawn[..., 136:], portrait[..., 136:])


def test_lids_of_skin_shut_and_leave_a_line_of_lashes() -> None:
    portrait, marks = face()
    eyes = Eyes.of(portrait, marks)
    light = [
        float((eyes.drawn(portrait, motion(blink=blink), motion())[0].mean(0) > 0.8).sum())
        for blink in (0.0, 0.3, 0.6, 1.0)
    ]
    assert light == sorted(light, reverse=True) and light[0] > 100 and light[-1] == 0, "no white of a shut eye"
    shut = eyes.drawn(portrait, motion(blink=1), motion())[0]
    above = shut[:, round(0.4 * 256) - 2, round(0.4 * 256)]
    torch.testing.assert_close(above, SKIN[:, 0, 0], atol=0.1, rtol=0)
    far = torch.ones(256, 256, dtype=torch.bool)
    far[80:124, 76:180] = False
    torch.testing.assert_close(shut[:, far], portrait[0][:, far], msg="nothing else is touched")


def test_lashes_of_a_shut_eye_hang_over_the_lower_lid() -> None:
    portrait, marks = face()
    column = round(0.4 * 256)
    portrait[0, :, column - 6 : column - 4, column - 8 : column + 8] = -0.9  # its own, above the opening
    shut = Eyes.of(portrait, marks).drawn(portrait, motion(blink=1), motion())[0].mean(0)
    assert shut[column + 5, column] < shut[column + 2, column] - 0.3, "the lower lid's edge is 4 pixels below"


def test_a_shut_lid_keeps_the_crease_above_it_and_its_lashes_end_with_it() -> None:
    portrait, marks = face()
    middle = round(0.4 * 256)
    crease = middle - 4 - 6
    portrait[0, :, crease, middle - 12 : middle + 12] = -0.4
    portrait[0, :, middle - 6 : middle - 4, middle - 8 : middle + 8] = -0.9  # lashes
    shut = Eyes.of(portrait, marks).drawn(portrait, motion(blink=1), motion())[0]
    torch.testing.assert_close(shut[:, crease, middle], portrait[0, :, crease, middle], atol=0.15, rtol=0)
    below = slice(middle - 3, middle + 8)
    middle_of, ends = (
        (SKIN.mean() - shut.mean(0)[below, column]).clamp_min(0).sum() for column in (middle, middle - 11)
    )
    assert middle_of > 3 * ends, "lashes are finer towards the corners"


def test_an_eye_opens_a_little_further_than_the_portraits() -> None:
    portrait, marks = face()
    eyes = Eyes.of(portrait, marks)
    own, wider, open_eyes, beyond = (
        eyes.drawn(portrait, motion(blink=blink), motion(blink=0.5)) for blink in (0.5, 0.4, 0.0, -1.0)
    )
    assert own is portrait and not torch.equal(wider, portrait)
    white = [float((image[0].mean(0) > 0.6).sum()) for image in (portrait, open_eyes)]
    assert white[1] > 1.2 * white[0]
    torch.testing.assert_close(open_eyes, beyond, msg="to WIDEST, and no further")


def lid(image: torch.Tensor, step: int) -> int:
    """How many pixels above (step -1) or below (1) its middle the right eye's white or iris ends."""
    column, row = round(0.4 * 256), round(0.4 * 256)
    skin = (image[0, :, :, column] - SKIN[:, :, 0]).abs().amax(0) < 0.1
    return next(distance for distance in range(1, 12) if skin[row + step * distance])


def test_wide_eyes_raise_the_upper_lid_and_narrowed_ones_the_lower_one() -> None:
    portrait, marks = face()
    eyes = Eyes.of(portrait, marks)
    wide, narrowed = (eyes.drawn(portrait, asked, motion()) for asked in (motion(wide=1), motion(squint=1)))
    assert lid(wide, -1) >= lid(portrait, -1) + 2 and abs(lid(wide, 1) - lid(portrait, 1)) <= 1
    assert lid(narrowed, 1) <= lid(portrait, 1) - 2 and abs(lid(narrowed, -1) - lid(portrait, -1)) <= 1


def test_skin_around_an_eye_goes_along_with_its_lid() -> None:
    portrait, marks = face()
    row, column = round(0.4 * 256) - 7, round(0.4 * 256)
    portrait[0, :, row, column - 3 : column + 4] = -0.5  # a crease
    wide = Eyes.of(portrait, marks).drawn(portrait, motion(wide=1), motion())
    crease = wide[0, 0, row - 6 : row + 3, column].argmin()
    assert crease < 6, "it is further up"
    torch.testing.assert_close(wide[0, :, row - 12], portrait[0, :, row - 12], msg="and nothing is farther away")


def test_a_lid_that_comes_down_a_little_brings_its_lashes() -> None:
    portrait, marks = face()
    row, column = round(0.4 * 256), round(0.4 * 256)
    portrait[0, :, row - 6 : row - 4, column - 3 : column + 4] = -0.9  # lashes, two pixels of them
    half = Eyes.of(portrait, marks).drawn(portrait, motion(blink=0.3), motion())
    light = half[0].mean(0)[row - 10 : row, column]
    lashes = light[:9].argmin()
    assert light[lashes] < -0.5, "as dark as they are"
    assert 10 - int(lashes) <= 4, "and further down"


@pytest.mark.parametrize("larger", [1.0, 1.4])
def test_irises_are_as_large_as_they_are(larger: float) -> None:
    portrait, marks = face(512)
    for eye in (0, 1):  # the iris network sees them smaller
        points = marks[0, eye_marks(eye)][OPENING:, :2]
        points[1:] = points[0] + (points[1:] - points[0]) / larger
    aside = Eyes.of(portrait, marks).drawn(portrait, motion(yaw=25), motion())
    begin = round(0.4 * 512) - 12  # left of the iris as it is now, where its edge was
    left_over = (aside[0].mean(0)[round(0.4 * 512), begin : begin + 4] < 0.3).float().mean()
    assert left_over < 0.3, "no edge of the iris stays where it was"


def test_what_lids_hide_of_an_iris_is_like_the_rest_of_it() -> None:
    portrait, marks = face()
    row, column = round(0.4 * 256), round(0.4 * 256)
    portrait[0, :, row - 1 : row + 1, column - 1 : column + 1] = -1.0  # a pupil
    below = Eyes.of(portrait, marks).iris[0, 0, :3].mean(0)
    height, width = below.shape
    hidden = below[height // 2 + 2, width // 2]
    assert float(hidden) == pytest.approx(float(IRIS.mean()), abs=0.15)


def test_an_eye_of_which_little_white_is_seen_gets_that_of_the_other() -> None:
    portrait, marks = face()
    left = (torch.arange(256) > 128)[None, None] & (portrait == WHITE).all(1, keepdim=True)
    mixed = SKIN * 0.5 + WHITE * 0.5  # skin mixes into it
    portrait = torch.where(left, mixed, portrait)
    whites = [Eyes.of(portrait, marks).white[0, eye, :, 12, 4] for eye in (0, 1)]
    assert (whites[0] - WHITE[:, 0, 0]).abs().max() < 0.2
    assert whites[1].max() - whites[1].min() < 0.5 * (mixed.max() - mixed.min()), "nearly without its colour"


def test_shut_lids_meet_however_wide_or_narrowed() -> None:
    portrait, marks = face()
    eyes = Eyes.of(portrait, marks)
    for asked in (motion(blink=1, wide=1), motion(blink=1, squint=1), motion(blink=1, pitch=-20)):
        assert not (eyes.drawn(portrait, asked, motion())[0].mean(0) > 0.8).any(), "no white of a shut eye"


def test_mattes_and_faces_without_marks_stay() -> None:
    portrait, marks = face()
    person = torch.cat([portrait, torch.rand(1, 2, 256, 256)], dim=1)
    drawn = Eyes.of(portrait, marks).drawn(person, motion(blink=1), motion())
    torch.testing.assert_close(drawn[:, 3:], person[:, 3:])
    both = torch.cat([portrait, portrait]), torch.cat([marks, torch.zeros_like(marks)])
    eyes = Eyes.of(*both)
    asked, own = motion(yaw=8, blink=1).expand(2, -1), motion().expand(2, -1)
    drawn = eyes.drawn(both[0], asked, own)
    assert not torch.equal(drawn[0], both[0][0])
    torch.testing.assert_close(drawn[1], both[0][1])
    held = eyes.held(asked, own)
    torch.testing.assert_close(held[0], own[0])
    torch.testing.assert_close(held[1], asked[1], msg="where no eye is drawn, the warp does it")


def test_an_eye_that_looks_aside_keeps_the_rest_of_its_white() -> None:
    portrait, marks = face(512)
    row, column = round(0.4 * 512), round(0.4 * 512) + 14  # beside the iris, on the side that it leaves
    portrait[0, :, row, column] = -0.2  # a vein
    aside = Eyes.of(portrait, marks).drawn(portrait, motion(yaw=-8), motion())
    assert not torch.equal(aside, portrait)
    torch.testing.assert_close(aside[0, :, row, column], portrait[0, :, row, column], atol=0.05, rtol=0)
