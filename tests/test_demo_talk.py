"""A visitor's own voice: what a live talk says, keeps and gives back, by itself and in a browser with a microphone."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from chromium import chromium, complaints_of, needs_chromium, wait_for_page
from demo_app import LIMITS, served, tiny_engine, write_voice
from playwright.sync_api import Page

from demo.engine import Engine, Sitter
from demo.sessions import Sessions
from demo.talk import ENDED, RUNNING, Talk
from demo.uploads import UploadError
from eartalking.io.video_writer import AI_NOTE


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


@pytest.fixture
def talk(engine: Engine, tmp_path: Path) -> Iterator[tuple[Talk, list[bytes | str]]]:
    size = engine.image_size
    portrait = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    messages: list[bytes | str] = []
    talk = Talk(engine, Sitter(portrait), 0, tmp_path, LIMITS)
    talk.start()
    talk.attach(messages.append)
    yield talk, messages
    talk.stop()
    assert talk.wait(60)


def told(messages: list[bytes | str], kind: str) -> list[dict[str, Any]]:
    texts = [json.loads(message) for message in messages if isinstance(message, str)]
    return [message for message in texts if message["type"] == kind]


def pictures(messages: list[bytes | str]) -> int:
    return sum(isinstance(message, bytes) for message in messages)


def sound(seconds: float, rate: int) -> bytes:
    return np.random.default_rng(1).integers(-9000, 9000, round(seconds * rate)).astype("<i2").tobytes()


def test_a_face_lives_before_anything_is_said_and_a_recording_holds_what_was_said(
    talk: tuple[Talk, list[bytes | str]],
) -> None:
    talking, messages = talk
    until(lambda: pictures(messages) > 2)  # nobody has spoken
    talking.record(True)
    talking.set({"yaw": 10})
    for _ in range(10):
        talking.hear(sound(0.2, 44_100), 44_100)
    before = pictures(messages)
    until(lambda: pictures(messages) > before + 12)
    talking.record(False)
    until(lambda: told(messages, "recorded"))
    path = talking.recording(1)
    assert path is not None and talking.recording(2) is None
    with av.open(str(path)) as video:
        assert AI_NOTE in video.metadata["comment"]
        picture, speech = video.streams.video[0], video.streams.audio[0]
        assert picture.frames >= 2 * 25 - 8  # two seconds were said, whatever this machine could show of it
        assert abs(float(picture.duration * picture.time_base) - float(speech.duration * speech.time_base)) < 0.05
    talking.stop()
    assert talking.wait(60) and talking.state == ENDED and told(messages, "ended")


def test_it_gives_its_place_back_and_keeps_what_is_being_recorded(engine: Engine, tmp_path: Path) -> None:
    portrait = np.zeros((engine.image_size, engine.image_size, 3), np.uint8)
    for number in range(2 * LIMITS.takes):
        messages: list[bytes | str] = []
        talking = Talk(engine, Sitter(portrait), 0, tmp_path, LIMITS)
        talking.record(True)
        talking.start()
        talking.attach(messages.append)
        until(lambda heard=messages: pictures(heard) > 2)
        talking.stop()
        assert talking.wait(60) and talking.recording(1) is not None, number


def test_without_a_microphone_it_ends(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.talk._GOODBYE_SECONDS", 0.0)
    talking = Talk(engine, Sitter(np.zeros((engine.image_size,) * 2 + (3,), np.uint8)), 0, tmp_path, LIMITS)
    talking.start()
    assert talking.wait(60) and talking.state == ENDED


@pytest.mark.parametrize(
    ("piece", "rate", "why"), [(b"123", 48_000, "16-bit"), (bytes(200_000), 48_000, "a second"), (b"", 7, "rate")]
)
def test_what_is_no_sound_is_refused(talk: tuple[Talk, list[bytes | str]], piece: bytes, rate: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        talk[0].hear(piece, rate)


def test_where_the_model_runs_elsewhere_there_are_no_talks(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setattr("demo.engine._HAS_SPACES", True)
    sessions = Sessions(engine, LIMITS)
    with pytest.raises(UploadError, match="not offered"):
        sessions.start_talk(sessions.get("someone"), 0)
    sessions.close_all()


@pytest.fixture
def microphone(tmp_path: Path) -> Iterator[tuple[Page, Sessions]]:
    """The page in a browser whose microphone says a file over and over."""
    voice = write_voice(tmp_path / "voice.wav", 3.0)
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    fake.append(f"--use-file-for-fake-audio-capture={voice}")
    with served(tiny_engine()) as (address, sessions), chromium(*fake) as browser:
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        complaints = complaints_of(page)
        page.goto(address)
        wait_for_page(page)
        yield page, sessions
    assert complaints == []


@needs_chromium
def test_a_visitor_talks_steers_records_and_leaves(microphone: tuple[Page, Sessions]) -> None:
    page, sessions = microphone
    page.get_by_role("tab", name="Live").click()
    page.click("#talk-start")
    page.wait_for_selector("#talk-message strong:has-text('consent')")
    page.check("#talk-consent input")
    page.click("#talk-start")
    page.wait_for_function("document.querySelector('.ear-talk').dataset.painted > 5")
    (talking,) = [session.talk for session in sessions._sessions.values() if session.talk]
    page.locator("#talk-yaw").fill("20")
    assert talking._face is not None
    face = talking._face
    until(lambda: face._session._controls["yaw"] == 20)
    page.click(".ear-talk [data-do=record]")
    until(lambda: talking._recording is not None and talking._recording.seconds > 1)
    page.click(".ear-talk [data-do=stop]")
    page.wait_for_selector(".ear-talk .ear-result:not([hidden])")
    link = page.get_attribute(".ear-talk .ear-result a", "href")
    assert link is not None and urllib.request.urlopen(link).read(12)[4:8] == b"ftyp"
    until(lambda: talking.state != RUNNING)
    page.click("#talk-start")  # and again
    page.wait_for_function("document.querySelector('.ear-talk').dataset.state === 'streaming'")
    page.close()
    until(lambda: len(sessions) == 0)
    until(lambda: list(sessions.root.iterdir()) == [])
