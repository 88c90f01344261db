"""A live face: the session's own frames for the sound that came, silence where none came, frames left out when late."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from test_session import images, portrait, voice
from tiny_model import DRAWN, tiny_model

from eartalking import StreamSession, TalkingHeadModel, live
from eartalking.live import LiveFace, LiveFrame


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    return tiny_model(DRAWN)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No silence of its own, however slow the machine is."""
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 1e6)


def session(model: TalkingHeadModel) -> StreamSession:
    return StreamSession(model, portrait(), seed=2, crop="center")


def face(model: TalkingHeadModel) -> LiveFace:
    made = LiveFace(session(model))
    made._silent_from += live.PATIENCE_SECONDS
    return made


def take(frames: Iterator[LiveFrame], count: int) -> list[LiveFrame]:
    return [next(frames) for _ in range(count)]


def test_its_frames_are_the_sessions_and_carry_their_own_sound(model: TalkingHeadModel, patient: None) -> None:
    speaking, sound = face(model), voice(1.0)
    frames, made = speaking.frames(), []
    for start in range(0, 16000, 1000):  # never more than three frames of sound at once
        speaking.hear(sound[start : start + 1000])
        due = (start + 1000) // 640 - 2
        made += take(frames, due - len(made)) if due > len(made) else []
    np.testing.assert_array_equal(images([one.frame for one in made]), images(session(model).push(sound)))
    np.testing.assert_array_equal(np.concatenate([one.sound for one in made]), sound[: 640 * len(made)])
    assert all(one.delay > 0 for one in made)


def test_silence_is_heard_where_no_sound_comes(model: TalkingHeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.0)
    frames = LiveFace(session(model)).frames()
    made = take(frames, 5)
    silence = session(model).push(np.zeros(640 * 7, np.float32))
    np.testing.assert_array_equal(images([one.frame for one in made]), images(silence))


def test_what_comes_late_is_shown_in_fewer_frames_at_the_same_sound(model: TalkingHeadModel, patient: None) -> None:
    speaking, sound = face(model), voice(1.0)
    frames, made = speaking.frames(), []
    for start in (0, 6, 12):  # six frames of sound at once: every second picture
        speaking.hear(sound[640 * start : 640 * (start + 6)])
        made += take(frames, 3 if start else 2)
    shown = [one.frame.index for one in made]
    assert shown == [1, 3, 5, 7, 9, 11, 13, 15]  # two of the eighteen only look ahead
    whole = images(session(model).push(sound))
    np.testing.assert_array_equal(images([one.frame for one in made]), whole[shown])
    np.testing.assert_array_equal(np.concatenate([one.sound for one in made]), sound[: 640 * 16])


def test_sound_that_is_too_late_does_not_move_the_lips_and_is_not_lost(model: TalkingHeadModel, patient: None) -> None:
    speaking, sound = face(model), voice(3.0)
    speaking.hear(sound[:16000])
    speaking.hear(sound[16000:])
    made = take(speaking.frames(), 2)
    newest = sound[-640 * 6 :]
    whole = images(session(model).push(newest))
    np.testing.assert_array_equal(images([one.frame for one in made]), whole[[1, 3]])
    np.testing.assert_array_equal(np.concatenate([one.sound for one in made]), sound[: -640 * 2])


def test_an_interruption_drops_what_waits(model: TalkingHeadModel, patient: None) -> None:
    speaking = face(model)
    speaking.hear(voice(0.12))
    frames = speaking.frames()
    first = next(frames)
    speaking.hear(voice(0.5, seed=1))
    speaking.interrupt()
    speaking.interrupt()
    speaking.hear(voice(0.12, seed=3))
    after = take(frames, 3)
    plain = session(model).push(np.concatenate([voice(0.12), voice(0.12, seed=3)]))
    np.testing.assert_array_equal(images([one.frame for one in [first, *after]]), images(plain)[:4])
    np.testing.assert_array_equal(after[2].sound, voice(0.12, seed=3)[:640])


def test_controls_act_from_the_next_frame(model: TalkingHeadModel, patient: None) -> None:
    speaking = face(model)
    speaking.hear(voice(0.12))
    frames = speaking.frames()
    next(frames)
    speaking.set(yaw=9)
    speaking.hear(voice(0.04))
    assert next(frames).frame.applied["yaw"] == 9
    speaking.release()
    speaking.hear(voice(0.04))
    assert next(frames).frame.applied["yaw"] is None
    with pytest.raises(ValueError, match="outside"):
        speaking.set(yaw=99)


def test_closing_ends_the_frames_of_another_thread(model: TalkingHeadModel, patient: None) -> None:
    speaking = face(model)
    thread = threading.Thread(target=lambda: list(speaking.frames()))
    thread.start()
    time.sleep(0.05)
    speaking.close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("sound", "cause"), [(np.zeros((2, 5)), "takes mono sound"), (np.array([np.nan]), "samples that are not finite")]
)
def test_what_is_no_sound_is_refused(model: TalkingHeadModel, sound: np.ndarray, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        face(model).hear(sound)
