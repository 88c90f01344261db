"""Faces in pictures: turned, small, cut by the edge, several, none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eartalking.perception.face_finder import choose_face, find_faces

EXAMPLES = Path(__file__).parent.parent / "examples"


def picture_of(name: str) -> Image.Image:
    return Image.open(EXAMPLES / name).convert("RGB")


@pytest.mark.parametrize(
    ("name", "middle", "side"), [("photo.jpg", (168, 120), 107), ("portrait.png", (261, 273), 265)]
)
def test_examples_show_one_face_each(name: str, middle: tuple[int, int], side: int) -> None:
    (face,) = find_faces(np.asarray(picture_of(name)))
    left, top, right, bottom = face.box
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(middle, abs=0.06 * side)
    assert max(right - left, bottom - top) == pytest.approx(side, rel=0.06)
    assert face.certainty > 15 and face.drift < 0.03 and abs(face.roll) < 5


@pytest.mark.parametrize("angle", [-100, 45, 90, 180])
@pytest.mark.parametrize("name", ["photo.jpg", "portrait.png"])
def test_turned_pictures(name: str, angle: int) -> None:
    straight = find_faces(np.asarray(picture_of(name)))[0]
    turned = picture_of(name).rotate(-angle, expand=True, resample=Image.Resampling.BICUBIC)  # clockwise
    (face,) = find_faces(np.asarray(turned))
    assert (face.roll - straight.roll - angle + 180) % 360 - 180 == pytest.approx(0, abs=3)


def test_small_faces_in_a_large_picture_and_the_choice_among_them() -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(90, 130, (135, 240, 3)).astype(np.uint8))
    scene = scene.resize((1280, 720), Image.Resampling.BICUBIC)
    photo, portrait = picture_of("photo.jpg").resize((140, 140)), picture_of("portrait.png").resize((110, 110))
    scene.paste(photo, (1090, 520))  # a face of 44 pixels
    scene.paste(portrait, (60, 80))  # of 57
    faces = find_faces(np.asarray(scene))
    assert len(faces) == 2
    left, right = choose_face(faces, "left"), choose_face(faces, "right")
    assert left.box[2] < 200 and right.box[0] > 1090
    assert choose_face(faces) is left is choose_face(faces, "1") and choose_face(faces, "2") is right
    with pytest.raises(ValueError, match="shows 2 faces, not 3"):
        choose_face(faces, "3")
    with pytest.raises(ValueError, match="largest, left, right"):
        choose_face(faces, "middle")
    with pytest.raises(ValueError, match="no face"):
        choose_face([])


@pytest.mark.parametrize("name", ["photo.jpg", "portrait.png"])
def test_faces_at_the_edge_and_faces_that_fill_the_picture(name: str) -> None:
    image = np.asarray(picture_of(name))
    left, top, right, bottom = (round(edge) for edge in find_faces(image)[0].box)
    for cut in (image[top:, left:], image[:bottom, :right], image[top:bottom, left:right]):
        assert len(find_faces(np.ascontiguousarray(cut))) == 1


def test_pictures_without_a_face() -> None:
    random = np.random.default_rng(1)
    ramp = np.linspace(0, 255, 256)[None, :, None] * np.ones((256, 1, 3))
    for image in (random.integers(0, 256, (200, 300, 3)), ramp, np.zeros((64, 64, 3))):
        assert find_faces(image.astype(np.uint8)) == []
