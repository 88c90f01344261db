"""In the browser: a video is taken for its voice, by the file dialog and by drag and drop; of a long voice the user is
told which part is used.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium import SLOW, needs_chromium
from demo_app import LIMITS, film, write_voice
from playwright.sync_api import Browser, Page

from demo.sessions import Sessions

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def opened(browser: Browser, demo: tuple[str, Sessions]) -> tuple[Page, Sessions]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(SLOW)
    page.goto(demo[0])
    page.wait_for_selector("#voice input[type=file]", state="attached")
    return page, demo[1]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return film(tmp_path / "film.mp4", write_voice(tmp_path / "voice.wav", 1.0))


def voice_of(sessions: Sessions) -> Any:
    return next((session.voice for session in sessions._sessions.values() if session.voice), None)


def forget(sessions: Sessions) -> None:
    for session in list(sessions._sessions.values()):
        session.voice = None


def _until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_chosen_video_lends_its_voice(opened: tuple[Page, Sessions], video: Path) -> None:
    page, sessions = opened
    with page.expect_file_chooser() as chooser:
        page.locator("#voice button", has_text="Upload").or_(page.get_by_label("Click to upload")).last.click()
    assert "video/*" in page.get_attribute("#voice input[type=file]", "accept")
    chooser.value.set_files(video)
    _until(lambda: voice_of(sessions))
    assert voice_of(sessions).seconds == pytest.approx(1.0, abs=0.05)
    assert page.inner_text(".ear-message") == ""
    forget(sessions)
    page.reload()


def test_a_dropped_video_lends_its_voice(opened: tuple[Page, Sessions], video: Path) -> None:
    page, sessions = opened
    page.wait_for_selector("#voice input[type=file]", state="attached")
    page.wait_for_function("window.EARTimeline && window.EARTimeline.get('timeline')")
    data = page.evaluate_handle(
        """text => { const data = new DataTransfer(), bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
        data.items.add(new File([bytes], "film.webm", {type: "video/webm"}));
        return data; }""",
        base64.b64encode(video.read_bytes()).decode(),
    )
    page.locator("#voice button.center, #voice .upload-container, #voice button").last.dispatch_event(
        "drop", {"dataTransfer": data}
    )
    _until(lambda: voice_of(sessions))
    assert voice_of(sessions).path.suffix == ".webm"
    forget(sessions)
    page.reload()


def test_of_a_long_voice_the_page_says_what_is_used(opened: tuple[Page, Sessions], tmp_path: Path) -> None:
    page, sessions = opened
    page.wait_for_function("window.EARTimeline && window.EARTimeline.get('timeline')")
    long = write_voice(tmp_path / "long.wav", LIMITS.voice_seconds + 45)
    page.set_input_files("#voice input[type=file]", long)
    page.wait_for_function("document.querySelector('.ear-message').textContent.includes('its first 20 seconds')")
    assert page.get_attribute(".ear-message", "data-mood") == ""
    assert voice_of(sessions).seconds == pytest.approx(LIMITS.voice_seconds, abs=1e-3)
