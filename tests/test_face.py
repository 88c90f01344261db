"""Portraits: every kind of picture in, one framing out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eartalking.errors import InputError
from eartalking.io.portrait import HEAD_CENTRE, MAX_SIDE, load_portrait
from eartalking.perception.face_detector import FaceChoiceError, NoFaceError, chosen_face, crop_face, find_face

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"  # 340 x 340
EYES, CHIN, CROWN = 101, 177, 25  # rows in it; the skull, without the hair


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "two words é.bmp", "-dash.tiff", "a.gif"])
def test_formats_and_names(tmp_path: Path, photo: Image.Image, name: str) -> None:
    photo.save(tmp_path / name)
    loaded = load_portrait(tmp_path / name)
    assert loaded.shape == (340, 340, 3) and loaded.dtype == np.uint8
    assert np.abs(loaded.astype(int) - np.asarray(photo)).mean() < 12


def test_exif_rotation_is_applied(tmp_path: Path, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    photo.crop((0, 0, 340, 300)).rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif)
    loaded = load_portrait(tmp_path / "a.jpg")
    assert loaded.shape == (300, 340, 3)
    assert np.abs(loaded.astype(int) - np.asarray(photo)[:300]).mean() < 8


def test_modes_become_rgb(tmp_path: Path, photo: Image.Image) -> None:
    grey = np.asarray(photo.convert("L"))
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    wide = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "16.png")
    Image.fromarray(grey / np.float32(255)).save(tmp_path / "float.tiff")
    for name, picture, expected in (
        ("grey.png", photo.convert("L"), grey[..., None]),
        ("grey_alpha.png", photo.convert("LA"), grey[..., None]),
        ("clear.png", clear, np.full((1, 1, 3), 128)),
        ("palette.png", photo.convert("P", palette=Image.Palette.ADAPTIVE), np.asarray(photo)),
        ("cmyk.jpg", photo.convert("CMYK"), np.asarray(photo)),
        ("16.png", None, grey[..., None]),
        ("float.tiff", None, grey[..., None]),
    ):
        if picture is not None:
            picture.save(tmp_path / name)
        loaded = load_portrait(tmp_path / name)
        assert loaded.shape == (340, 340, 3), name
        assert np.abs(loaded.astype(int) - expected).mean() < 6, name


def test_images_and_arrays_are_taken_too(photo: Image.Image) -> None:
    array = np.asarray(photo)
    assert np.array_equal(load_portrait(photo), array) and np.array_equal(load_portrait(array), array)
    for wrong in (array.astype(np.float32), array[..., :2], array[:0], array[:8]):
        with pytest.raises(ValueError, match="picture"):
            load_portrait(wrong)


def test_large_pictures_are_reduced(tmp_path: Path, photo: Image.Image) -> None:
    photo.resize((8000, 6000)).save(tmp_path / "a.jpg")
    loaded = load_portrait(tmp_path / "a.jpg")
    assert max(loaded.shape) <= MAX_SIDE and loaded.shape[0] / loaded.shape[1] == pytest.approx(0.75, abs=0.01)
    assert find_face(loaded) is not None


def test_bad_files_are_named_with_the_cause(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:20000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    photo.resize((8, 8)).save(tmp_path / "tiny.png")
    Image.new("1", (14000, 14000)).save(tmp_path / "bomb.png")
    causes = {
        "cut.png": "damaged",
        "empty.png": "empty",
        "text.png": "not a picture",
        "tiny.png": "too small",
        "bomb.png": "too large",
        "missing.png": "no such file",
        "line\nbreak.png": "no such file",
        "null\0.png": "null",
    }
    for name, cause in causes.items():
        with pytest.raises(InputError) as caught:
            load_portrait(tmp_path / name)
        assert cause in str(caught.value) and "\n" not in str(caught.value), name


def test_a_pipe_is_no_picture_and_nothing_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="plain file"):
        load_portrait(tmp_path / "pipe.png")


def test_highlights_above_one_do_not_make_a_float_picture_black() -> None:
    image = np.tile(np.linspace(0, 1.3, 64, dtype=np.float32), (64, 1))
    light = load_portrait(Image.fromarray(image))
    assert light[0, 32, 0] == pytest.approx(255 * image[0, 32], abs=1) and light[0, -1, 0] == 255


@pytest.mark.parametrize("side", [64, 96, 340, 1500])
def test_the_head_fills_the_crop_at_every_size(photo: Image.Image, side: int) -> None:
    image = np.asarray(photo.resize((side, side)))
    crop = crop_face(image, size=256)
    assert crop.image.shape == (256, 256, 3)
    left, top, right, bottom = (edge / side * 340 for edge in crop.box)
    assert right - left == pytest.approx(bottom - top)
    assert 0.64 < (CHIN - CROWN) / (bottom - top) < 0.80
    assert pytest.approx(top + HEAD_CENTRE * (bottom - top), abs=10) == (CHIN + CROWN) / 2, (
        "chin to crown around HEAD_CENTRE"
    )
    assert (left + right) / 2 == pytest.approx(168, abs=12), "face centred"


def test_the_largest_of_several_faces_is_taken(photo: Image.Image) -> None:
    scene = Image.new("RGB", (900, 400), (120, 120, 120))
    scene.paste(photo.resize((200, 200)), (20, 100))
    scene.paste(photo, (400, 20))
    left, _, right, _ = find_face(np.asarray(scene))
    assert 400 < left < right < 740


def test_a_face_is_chosen_by_its_place(photo: Image.Image) -> None:
    scene = Image.new("RGB", (900, 400), (120, 120, 120))
    scene.paste(photo.resize((200, 200)), (20, 100))
    scene.paste(photo, (400, 20))
    image = np.asarray(scene)
    small, large = chosen_face(image, "left"), chosen_face(image)
    assert (small.number, small.count, large.number, large.count) == (1, 2, 2, 2)
    assert small.box[2] < 220 and large == chosen_face(image, "right") == chosen_face(image, "2")
    assert crop_face(image, face="1").box[2] < 300
    for choice, words in (("3", "shows 2 faces, not 3"), ("tallest", "must be largest, left, right")):
        with pytest.raises(FaceChoiceError, match=words):
            crop_face(image, face=choice)


def test_a_crop_over_the_edge_repeats_the_edge(photo: Image.Image) -> None:
    tight = np.asarray(photo.crop((80, 40, 260, 200)))
    crop = crop_face(tight)
    assert crop.box[1] < 0 and crop.box[3] > tight.shape[0]
    assert np.ptp(crop.image[:10].astype(int), axis=0).max() <= 2


def test_no_face_says_what_to_do_and_center_works(photo: Image.Image) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    with pytest.raises(NoFaceError, match="--crop center"):
        crop_face(noise)
    crop = crop_face(noise, size=64, mode="center")
    assert crop.image.shape == (64, 64, 3) and crop.box == (0, 50, 200, 250) and crop.face is None
    with pytest.raises(ValueError, match="mode"):
        crop_face(noise, mode="middle")
