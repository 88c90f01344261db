"""The page in a real browser: what a visitor clicks, sees and is told. A tiny random model, Debian's chromium, no
network.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from chromium import SLOW, complaints_of, needs_chromium, wait_for_page
from demo_app import LIMITS, PHOTO, write_voice
from PIL import Image
from playwright.sync_api import Browser, Page

from demo.examples import EXAMPLES
from demo.live import FREE, STOPPED
from demo.sessions import Sessions
from demo.uploads import read_controls

pytestmark = needs_chromium


@pytest.fixture
def visit(browser: Browser, demo: tuple[str, Sessions]) -> Iterator[Callable[..., Page]]:
    """Open the page as a new visitor. Whatever it is about, the console stays clean but for what a test says to expect
    of Gradio's own players, and nothing is fetched from elsewhere."""
    contexts, complaints = [], []  # of each page, what it complains of

    def open_page(expected: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, **options)
        contexts.append(context)
        page = context.new_page()
        of_page = complaints_of(page, expected)
        complaints.append(of_page)
        page.on("request", lambda request: None if _is_ours(request.url, demo[0]) else of_page.append(request.url))
        page.goto(demo[0])
        wait_for_page(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not any(complaints), complaints
    _until(
        lambda: len(demo[1]) == 0 and os.listdir(demo[1].root) == []
    )  # everybody left, and everything went with them


def _is_ours(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def _until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def wait_state(page: Page, state: str) -> None:
    page.wait_for_function("state => document.querySelector('.ear-stage').dataset.state === state", arg=state)


def speak(page: Page, example: int = 0) -> None:
    page.click(f".ear-example[data-index='{example}']")
    page.wait_for_function("EARPlayer.take.shown >= 3")


def settled(page: Page, expression: str) -> Any:
    """Its value when it has not changed for 0.6 s in which the page was repainted: what was under way has arrived."""
    value, since = page.evaluate(expression), time.monotonic()
    end = since + SLOW / 1000
    while time.monotonic() < since + 0.6:
        time.sleep(0.05)
        assert time.monotonic() < end, f"{expression} goes on changing"
        page.evaluate("new Promise((painted) => requestAnimationFrame(() => setTimeout(painted, 0)))")
        latest = page.evaluate(expression)
        if latest != value:
            value, since = latest, time.monotonic()
    return value


def drag_to(page: Page, track: str, value: float) -> None:
    page.evaluate(
        """([track, value]) => { const slider = document.querySelector(`#steer-${track}`); slider.value = value;
        for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true })); }""",
        [track, value],
    )


def fingerprint(page: Page) -> str:
    return page.evaluate("EARPlayer.take.fingerprint")


def expected_fingerprint(sessions: Sessions, example: int, tracks: dict[str, Any] | None = None) -> str:
    """What the example must look like, made without a browser."""
    session = sessions.get("reference")
    try:
        sessions.set_bundled(session, EXAMPLES[example].portrait, EXAMPLES[example].voice)
        take = sessions.start_take(session, controls=read_controls({"tracks": tracks or {}}), seed=0, pace=FREE)
        assert take.wait(60)
        return take.fingerprint
    finally:
        sessions.close("reference")


def test_one_click_on_an_example_makes_a_face_speak(visit: Callable[..., Page], demo: tuple[str, Sessions]) -> None:
    page = visit()
    speak(page)
    first = page.evaluate("({ frame: EARPlayer.take.shown, sound: EARPlayer.sound, at: performance.now() })")
    page.wait_for_function("frame => EARPlayer.take.shown >= frame + 25", arg=first["frame"])
    second = page.evaluate("({ frame: EARPlayer.take.shown, sound: EARPlayer.sound, at: performance.now() })")
    assert (
        first["sound"]["running"] and second["sound"]["time"] > first["sound"]["time"] + 0.5
    )  # the clock of the sound runs
    colours = page.evaluate(
        """() => { const c = document.querySelector(".ear-screen canvas");
        return new Set(c.getContext("2d").getImageData(0, 0, c.width, c.height).data).size; }"""
    )
    assert colours > 50  # a picture, not a plain colour
    wait_state(page, "done")
    assert page.evaluate("EARPlayer.take.frames.filter(Boolean).length") == 163  # every frame of 6.5 s arrived
    video = page.get_attribute("[data-get=video]", "href")
    page.wait_for_function("!EARPlayer.playing")
    page.wait_for_function("EARPlayer.take.shown === 162")
    with av.open(urllib.request.urlopen(video)) as container:
        assert container.streams.video[0].frames == 163
    assert fingerprint(page) == expected_fingerprint(demo[1], 0)
    for meter in ("first", "painted", "fps", "rtf", "misses", "memory", "print"):
        assert page.text_content(f"[data-meter={meter}]") not in ("", "–"), meter


def test_steering_acts_is_reported_recorded_and_replayed(visit: Callable[..., Page]) -> None:
    page = visit()
    speak(page)
    drag_to(page, "yaw", 21)
    page.wait_for_selector(".ear-stage[data-applied-frame]")
    frame = int(page.get_attribute(".ear-stage", "data-applied-frame"))
    assert f"in force from frame {frame} " in page.inner_text(".ear-status")
    applied = page.evaluate("EARPlayer.take.frames.map(frame => frame.applied.yaw ?? null)")
    assert frame > 3 and applied[frame] == 21 and set(applied[:frame]) == {None}
    pad = page.locator(".ear-pad")
    pad.focus()
    pad.press("ArrowRight")
    page.wait_for_function("EARPlayer.take.frames.at(-1).applied.emotion?.[0] === 'happy'")
    # On a slow machine the take stands at this frame while the hand moves, and the last word counts for it.
    page.wait_for_function("frame => EARPlayer.take.seen > frame", arg=frame)
    page.click("[data-track=yaw] button")
    page.wait_for_function("EARPlayer.take.frames.at(-1).applied.yaw === undefined")
    wait_state(page, "done")
    log = page.evaluate("EARPlayer.take.controls.tracks")
    values = [value for _, value in log["yaw"]]
    # A frame that was under way when it was asked for, and is made anew for the emotion, has it too.
    assert frame - 1 <= round(25 * log["yaw"][0][0]) <= frame and values[-1] is None and set(values[:-1]) == {21}
    assert log["emotion"][0][1] == ["happy", 0.5]
    assert page.evaluate("EARTimeline.get('timeline').getControls().tracks") == log  # the timeline shows what happened
    with page.expect_download() as download:
        page.click("#timeline [data-do=save-json]")
    assert json.loads(download.value.path().read_text())["tracks"] == log  # the one controls.json
    before = fingerprint(page)
    settled(page, "0")  # the timeline goes to the server with the next event; nothing on the page says when it can
    page.click("#generate")
    page.wait_for_function("EARPlayer.take.state === 'streaming'")
    wait_state(page, "done")
    assert page.evaluate("EARPlayer.take.controls.tracks") == log
    assert fingerprint(page) == before
    assert page.inner_text("[data-meter=steer]").endswith("ms") or page.inner_text("[data-meter=steer]") == "–"


def test_a_keyframe_by_mouse_saved_loaded_and_replayed(
    visit: Callable[..., Page], demo: tuple[str, Sessions], tmp_path: Path
) -> None:
    page = visit()
    speak(page)
    page.click("[data-do=stop]")
    wait_state(page, "stopped")
    page.locator("#timeline").scroll_into_view_if_needed()
    point = page.evaluate("EARTimeline.get('timeline').pointOf('pitch', 40, 12)")
    page.mouse.dblclick(point["x"], point["y"])
    page.wait_for_function("EARTimeline.get('timeline').getControls().tracks.pitch?.length === 1")
    tracks = page.evaluate("EARTimeline.get('timeline').getControls().tracks")
    settled(page, "0")  # the value goes to the server with the next event; nothing on the page says when it can
    page.click("#generate")
    page.wait_for_function("EARPlayer.take.state === 'streaming'")
    wait_state(page, "done")
    assert fingerprint(page) == expected_fingerprint(demo[1], 0, tracks) != expected_fingerprint(demo[1], 0)
    assert page.evaluate("EARPlayer.take.frames[50].applied.pitch") == tracks["pitch"][0][1]


def test_the_timeline_can_be_edited_while_the_take_runs(visit: Callable[..., Page]) -> None:
    page = visit()
    speak(page)
    page.locator("#timeline").scroll_into_view_if_needed()
    point = page.evaluate("EARTimeline.get('timeline').pointOf('yaw', 150, -20)")
    page.mouse.dblclick(point["x"], point["y"])
    page.wait_for_function("EARPlayer.take.frames.length > 155")
    value = page.evaluate("EARTimeline.get('timeline').getControls().tracks.yaw[0]")
    applied = page.evaluate("EARPlayer.take.frames.map(frame => frame.applied.yaw ?? null)")
    frame = round(value[0] * 25)
    assert applied[frame] == value[1] == pytest.approx(-20, abs=3) and applied[frame - 1] is None


def test_two_visitors_at_once_do_not_mix(visit: Callable[..., Page], demo: tuple[str, Sessions]) -> None:
    pages = [visit(), visit()]
    for example, page in enumerate(pages):
        speak(page, example)
    assert len(demo[1]) == 2
    drag_to(pages[1], "roll", 10)  # of the one that started last, and has most of its take before it
    for page in pages:
        wait_state(page, "done")
    assert fingerprint(pages[0]) == expected_fingerprint(demo[1], 0)
    log = pages[1].evaluate("EARPlayer.take.controls.tracks")
    assert pages[0].evaluate("EARPlayer.take.controls.tracks") == {} and list(log) == ["roll"]
    assert fingerprint(pages[1]) == expected_fingerprint(demo[1], 1, log)


def test_pause_seek_stop_and_again(visit: Callable[..., Page]) -> None:
    page = visit()
    speak(page)
    page.click("[data-do=play]")
    page.wait_for_function("!EARPlayer.playing")
    held = settled(page, "[EARPlayer.take.shown, EARPlayer.take.frames.length]")
    ahead = page.evaluate(
        "EARBuffer.needed(163, EARPlayer.take.speed, EARPlayer.take.stalls) + 2"
    )  # 5, if it never stood
    assert (
        held[1] - held[0] <= max(LIMITS.lead_frames, ahead) + 4 and held[1] < 163
    )  # a paused viewer is not run away from
    page.locator(".ear-seek").fill("1")
    page.wait_for_function("EARPlayer.take.shown === 1")
    page.click("[data-do=play]")
    page.wait_for_function("shown => EARPlayer.take.shown > shown + 5", arg=held[0])
    page.click("[data-do=stop]")
    wait_state(page, "stopped")
    made = page.evaluate("EARPlayer.take.frames.length")
    with av.open(urllib.request.urlopen(page.get_attribute("[data-get=video]", "href"))) as container:
        assert container.streams.video[0].frames == made < 163  # what was made until then
    with page.expect_download() as download:
        page.click("#timeline [data-do=save-csv]")
    assert download.value.suggested_filename == "controls.csv"
    page.click("[data-do=again]")
    wait_state(page, "streaming")
    page.wait_for_function("EARPlayer.take.shown >= 2")


def test_own_portrait_and_voice_need_consent_and_can_be_cropped(
    visit: Callable[..., Page], demo: tuple[str, Sessions], tmp_path: Path
) -> None:
    page = visit()
    page.set_input_files("#portrait input[type=file]", PHOTO)
    page.wait_for_selector(".ear-crop", state="visible")
    page.set_input_files("#voice input[type=file]", write_voice(tmp_path / "voice é 1.wav", 1.2))
    session = next(iter(demo[1]._sessions.values()))
    _until(lambda: session.voice is not None)
    page.click("#generate")
    page.wait_for_function("document.querySelector('.ear-message').textContent.includes('consent')")
    assert not session.takes
    page.click(".ear-crop summary")
    page.locator(".ear-crop canvas").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.check("#consent input")
    page.click("#generate")
    wait_state(page, "done")
    (take,) = session.takes
    assert page.inner_text(".ear-message") == ""
    assert (take.job.sitter.picture != session.portrait.cut(None, 64)).any()  # the crop was moved, and was taken


def test_the_whole_picture_speaks(visit: Callable[..., Page], demo: tuple[str, Sessions], tmp_path: Path) -> None:
    page = visit()
    with Image.open(PHOTO) as photo:
        photo.crop((0, 20, photo.width, photo.height)).save(tmp_path / "wide.png")
        wide = f"{photo.width}x{photo.height - 20}"
    page.set_input_files("#portrait input[type=file]", tmp_path / "wide.png")
    page.wait_for_selector(".ear-crop", state="visible")
    page.set_input_files("#voice input[type=file]", write_voice(tmp_path / "voice.wav", 1.2))
    session = next(iter(demo[1]._sessions.values()))
    _until(lambda: session.voice is not None)
    page.get_by_text("Options", exact=True).click()
    page.click("#look input")
    page.get_by_role("option", name="Whole picture").click()
    page.check("#consent input")
    page.click("#generate")
    wait_state(page, "done")
    assert (
        page.evaluate("(({width, height}) => `${width}x${height}`)(document.querySelector('.ear-screen canvas'))")
        == wide
    )
    with av.open(urllib.request.urlopen(page.get_attribute("[data-get=video]", "href"))) as container:
        assert f"{container.streams.video[0].width}x{container.streams.video[0].height}" == wide


def test_typed_words_are_spoken_without_enter_and_a_new_voice_takes_their_place(
    visit: Callable[..., Page], demo: tuple[str, Sessions], tmp_path: Path
) -> None:
    page = visit()
    page.set_input_files("#portrait input[type=file]", PHOTO)
    page.set_input_files("#voice input[type=file]", write_voice(tmp_path / "voice.wav", 1.2))
    _until(lambda: any(session.voice and session.portrait for session in demo[1]._sessions.values()))
    session = next(iter(demo[1]._sessions.values()))
    page.check("#consent input")
    page.fill("#typed textarea", "Hello.")
    page.click("#generate")
    wait_state(page, "done")
    assert session.words == "Hello." and session.voice.seconds != pytest.approx(1.2, abs=0.01)
    page.click("#voice button[aria-label='Clear']")
    page.set_input_files("#voice input[type=file]", write_voice(tmp_path / "other.wav", 1.2))
    _until(lambda: session.words == "")
    page.wait_for_function("document.querySelector('#typed textarea').value === ''")


def test_bad_uploads_are_told_where_the_user_looks(
    visit: Callable[..., Page], demo: tuple[str, Sessions], tmp_path: Path
) -> None:
    # Gradio's preview may ask for a refused file while or after the page takes it away: it cannot be drawn, or is gone
    # by then.
    gone = tuple(f"Failed to load resource: the server responded with a status of {status}" for status in (403, 404))
    page = visit(expected=("Waveform load error", *gone))
    (tmp_path / "broken.png").write_bytes(PHOTO.read_bytes()[:2000])
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    Image.new("RGB", (2500, 2500)).save(tmp_path / "large.png")
    cases = [("portrait", "broken.png", "picture cannot be used"), ("portrait", "large.png", "megapixels"),
             ("voice", "broken.wav", "recording cannot be used")]  # fmt: skip
    for where, name, words in cases:
        page.set_input_files(f"#{where} input[type=file]", tmp_path / name)
        page.wait_for_function("words => document.querySelector('.ear-message').textContent.includes(words)", arg=words)
        page.wait_for_selector(f"#{where} input[type=file]", state="attached")  # ready for another try
    (session,) = demo[1]._sessions.values()
    assert os.listdir(session.folder) == [] and not session.uploads
    page.click("#generate")
    page.wait_for_function("document.querySelector('.ear-message').textContent.includes('choose a portrait')")
    speak(page)  # and all is well


def test_closing_the_tab_stops_the_stream(visit: Callable[..., Page], demo: tuple[str, Sessions]) -> None:
    page = visit()
    speak(page)
    (session,) = demo[1]._sessions.values()
    (take,) = session.takes
    page.close()
    _until(lambda: session.running is None)
    assert take.state == STOPPED and take.next_frame < 163 and not take.has_video
    _until(lambda: len(demo[1]) == 0 and not session.folder.exists())


@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_the_window_and_does_not_jump(visit: Callable[..., Page], width: int) -> None:
    page = visit()
    page.set_viewport_size({"width": width, "height": 844})
    settled(page, "document.body.scrollHeight")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    parts = [".ear-screen", ".ear-transport", ".ear-status", ".ear-meters"]
    stage = f"JSON.stringify({parts}.map(part => document.querySelector(part).getBoundingClientRect().height))"
    before = page.evaluate(stage)
    speak(page)
    assert page.evaluate(stage) == before and page.evaluate(overflow) <= 0


def test_every_control_can_be_reached_and_named(visit: Callable[..., Page]) -> None:
    page = visit()
    nameless = page.evaluate(
        """[...document.querySelectorAll(":is(#examples, #stage, #steer, #crop) :is(button, input, [tabindex], a)")]
        .filter(e => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length || e.title))
        .map(e => e.outerHTML)"""
    )
    assert nameless == []
    page.focus(".ear-example[data-index='1']")
    page.keyboard.press("Enter")
    page.wait_for_function("EARPlayer.take.shown >= 1")
