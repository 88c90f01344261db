"""What frames look like: the larger size, the whole picture, another background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_session import voice
from tiny_model import DRAWN, tiny_model

from eartalking import StreamSession, TalkingHeadModel, load_model
from eartalking.errors import InputError
from eartalking.io.portrait import FaceCrop, load_portrait
from eartalking.output import FADE, Output, load_background

PHOTOGRAPH = Path(__file__).parent.parent / "examples" / "photo.jpg"


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    return tiny_model(DRAWN)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (101, 151, 3), dtype=np.uint8)


def frames(session: StreamSession, seconds: float = 0.4) -> np.ndarray:
    return np.stack([frame.image for frame in (*session.push(voice(seconds)), *session.flush())])


def test_the_larger_size_moves_as_the_smaller_one(model: TalkingHeadModel, picture: np.ndarray) -> None:
    small, large = (StreamSession(model, picture, crop="center", size=size) for size in (None, 128))
    assert small.frame_shape == (64, 64) and large.frame_shape == (128, 128)
    drawn = frames(large)
    assert drawn.shape[1:] == (128, 128, 3)
    np.testing.assert_array_equal(
        frames(small), frames(StreamSession(model, picture, crop="center", size=64))
    )  # the model's own size
    assert large._moment.model.to_tensors().keys() == small._moment.model.to_tensors().keys()
    for name, value in small._moment.model.to_tensors().items():
        np.testing.assert_array_equal(value.numpy(), large._moment.model.to_tensors()[name].numpy(), err_msg=name)


def test_a_whole_picture_stands_still_around_the_crop(model: TalkingHeadModel, picture: np.ndarray) -> None:
    session = StreamSession(model, picture, crop="center", frame="portrait")
    drawn = frames(session)
    assert session.frame_shape == (100, 150) and drawn.shape[1:] == (100, 150, 3)  # even, as H.264 wants it
    left, right = 25, 126  # the crop: as high as the picture
    still = picture[:100, :150]
    for frame in drawn:
        np.testing.assert_array_equal(frame[:, : left + 1], still[:, : left + 1])
        np.testing.assert_array_equal(frame[:, right:], still[:, right:])
    middle = slice(left + 30, right - 30)
    assert (drawn[:, :, middle] != still[:, middle]).any()
    assert (drawn[:, 0, middle] != still[0, middle]).any()  # no seam can be seen where the picture ends


@pytest.mark.parametrize("size", [64, 128])
def test_a_crop_that_leaves_the_picture_shows_what_the_picture_has(model: TalkingHeadModel, size: int) -> None:
    """Beyond its edge the picture is repeated for the model; frames show the largest square without that."""
    picture = np.full((120, 160, 3), 90, np.uint8)
    picture[:, 0], picture[0] = (250, 0, 0), (250, 0, 0)  # its edges: repeated, they would be streaks
    session = StreamSession(model, picture, crop=(-30.0, -6.0, 90.0, 114.0), size=size)
    view = session._output.view
    assert view is not None and np.allclose(np.array(view) / size, [0.25, 0.45 * 0.25, 1, 0.45 * 0.25 + 0.75])
    shown = frames(session)
    assert shown.shape[1:] == (size, size, 3)
    assert (session.portrait[:, :14, 0] > 200).all()  # what the model sees has the streaks
    drawn = session._output.place(session.portrait if size == 64 else np.asarray(session._output.picture))
    assert (drawn[:, 4:] < 120).all()
    inside = StreamSession(model, picture, crop=(10.0, 5.0, 90.0, 85.0))
    frame = shown[0]
    assert inside._output.view is None and inside._output.place(frame) is frame


def test_of_a_tight_crop_the_whole_picture_is_shown() -> None:
    output = Output.of(
        np.zeros((80, 100, 3), np.uint8), FaceCrop(np.zeros((64, 64, 3), np.uint8), (-20.0, -40.0, 120.0, 100.0), None)
    )
    assert output.view is not None
    left, top, right, bottom = np.array(output.view) * 140 / 64 - (20, 40, 20, 40)  # in the picture
    assert 0 <= left and right <= 100 and np.allclose((top, bottom), (0, 80))


def test_movement_rises_from_the_edges_that_stay() -> None:
    output = Output(np.zeros((200, 300, 3), np.uint8), (50.0, -10.0, 250.0, 190.0), 100, True)
    fade = output._fade(100, 100)
    assert fade[50, 0] == fade[99, 50] == fade[50, 99] == 0 and fade[0, 50] == 1  # its top lies above the picture
    assert np.all(np.diff(fade[50, :50]) >= 0) and fade[50, round(100 * FADE)] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"size": 128},
        {"frame": "portrait"},
        {"background": "#204060"},
        {"size": 128, "background": "white"},
        {"background": "alpha"},
        {"crop": (-20.0, 0.0, 70.0, 90.0)},
        {"crop": (-20.0, 0.0, 70.0, 90.0), "background": "alpha"},
        {},
    ],
    ids=str,
)
def test_a_saved_stream_goes_on_with_the_same_frames(
    model: TalkingHeadModel, picture: np.ndarray, tmp_path: Path, options: dict
) -> None:
    session = StreamSession(model, picture, **({"crop": "center"} | options))
    list(session.push(voice(0.5)))
    session.save(tmp_path / "stream")
    twin = StreamSession.restore(model, tmp_path / "stream")
    assert twin.frame_shape == session.frame_shape
    np.testing.assert_array_equal(frames(session), frames(twin))


def test_options_that_cannot_be_met_are_named(model: TalkingHeadModel, picture: np.ndarray, tmp_path: Path) -> None:
    for options, words in (
        ({"size": 100}, "64 or 128"),
        ({"frame": "round"}, "crop or portrait"),
        ({"frame": "portrait", "background": "white"}, "whole picture"),
    ):
        with pytest.raises(ValueError, match=words):
            StreamSession(model, picture, crop="center", **options)
    with pytest.raises(InputError, match="neither a colour nor a picture"):
        StreamSession(model, picture, crop="center", background="nowhere.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match="broken.png: not a picture"):
        load_background(str(broken), 64)


def test_a_background_is_a_colour_or_the_middle_of_a_picture(tmp_path: Path) -> None:
    assert load_background("keep", 8) is None
    assert load_background("#ff8000", 8).tolist() == [[[255, 128, 0]] * 8] * 8
    Image.fromarray(np.repeat(np.arange(90, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)).save(
        tmp_path / "wide.png"
    )
    middle = load_background(tmp_path / "wide.png", 32)
    assert middle.shape == (32, 32, 3) and 28 <= middle.min() and middle.max() <= 62


def test_a_photograph_at_twice_the_size_before_another_background() -> None:
    model, photograph = load_model(), load_portrait(PHOTOGRAPH)
    small, large, white = (
        frames(StreamSession(model, photograph, **options), 0.2)
        for options in ({}, {"size": 512}, {"size": 512, "background": "white"})
    )
    cut_out = frames(StreamSession(model, photograph, size=512, background="alpha"), 0.2)
    opaque = cut_out[..., 3:] / 255.0
    composed = cut_out[..., :3] * opaque + 255 * (1 - opaque)  # laid over white
    assert np.abs(composed - white).mean() < 1
    reduced = large.reshape(len(large), 256, 2, 256, 2, 3).mean((2, 4))
    assert np.abs(reduced - small).mean() < 2.5  # of 255: it shows the same, with more detail
    corners = white[:, :40, [*range(40), *range(-40, 0)]]
    assert corners.min() > 245 and (large[:, :40, :40] < 230).any()
    face = slice(200, 320)
    np.testing.assert_allclose(white[:, face, face].astype(int), large[:, face, face], atol=4)
