"""A machine that makes 12 frames a second, in a real browser: steering acts at once although many frames lie ahead, and
who will not wait plays now.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator

import av
import pytest
from chromium import complaints_of, needs_chromium, wait_for_page
from demo_app import served, tiny_engine
from playwright.sync_api import Browser, Page

from demo.engine import Engine, Job
from demo.examples import EXAMPLES
from demo.live import FREE
from demo.sessions import Sessions
from demo.uploads import read_controls
from eartalking.session import Frame

pytestmark = needs_chromium
FPS = 12.0
WATCH = """() => { window.paints = [];
EARPlayer.on("painted", (index) => paints.push([index, EARPlayer.take.frames[index].applied.yaw ?? null])); }"""
STEER = """([track, value]) => { const slider = document.querySelector(`#steer-${track}`); slider.value = value;
window.before = EARPlayer.take.shown;
for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true })); }"""


def slow_engine() -> Engine:
    engine = tiny_engine(fps=FPS)
    frames = engine.frames

    def slowly(slot: int, job: Job) -> Iterator[Frame]:
        for frame in frames(slot, job):
            time.sleep(1 / FPS)
            yield frame

    engine.frames = slowly
    return engine


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[str, Sessions]]:
    with served(slow_engine()) as (address, sessions):
        yield address, sessions


@pytest.fixture
def page(browser: Browser, demo: tuple[str, Sessions]) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    complaints = complaints_of(page)
    page.goto(demo[0])
    wait_for_page(page)
    page.evaluate(WATCH)
    page.click(".ear-example[data-index='0']")
    yield page
    page.close()
    assert complaints == []


def status(page: Page, words: str) -> None:
    page.wait_for_function("words => document.querySelector('.ear-status').textContent.includes(words)", arg=words)


def test_a_change_is_seen_long_before_what_was_made_has_been_played(page: Page, demo: tuple[str, Sessions]) -> None:
    status(page, "12 of 25 frames a second: starting")
    page.wait_for_function("EARPlayer.take.seen > 5")
    assert page.evaluate("EARPlayer.take.frames.length - EARPlayer.take.shown") > 60
    for value in (-9, 12):
        page.evaluate(STEER, ["yaw", value])
        page.wait_for_function("value => paints.at(-1)[1] === value", arg=value)
        assert page.evaluate("EARPlayer.take.shown - before") <= 4
    first = page.evaluate("EARPlayer.take.shown")
    assert page.evaluate("EARPlayer.take.frames.length - EARPlayer.take.shown") < 15
    status(page, "going on in")
    page.click("[data-do=now]")
    page.wait_for_function("EARPlayer.take.state === 'done' && !EARPlayer.playing")
    paints, frames = page.evaluate("[paints, EARPlayer.take.frames.map((frame) => frame.applied.yaw ?? null)]")
    indices = [index for index, _ in paints]
    assert indices == sorted(indices) and indices[-1] == 162
    assert frames == [None] * first + [12] * (163 - first)
    assert all(yaw == frames[index] for index, yaw in paints if index != first)  # that one was drawn for each value

    log = page.evaluate("EARPlayer.take.controls.tracks")
    assert log == page.evaluate("EARTimeline.get('timeline').getControls().tracks")
    applied = page.evaluate("EARTimeline.get('timeline').state().applied.yaw")
    assert applied == frames
    with av.open(urllib.request.urlopen(page.get_attribute("[data-get=video]", "href"))) as container:
        shown = [frame.to_ndarray() for frame in container.decode(video=0)]
    session = demo[1].get("reference")
    demo[1].set_bundled(session, EXAMPLES[0].portrait, EXAMPLES[0].voice)
    whole = demo[1].start_take(session, controls=read_controls({"tracks": log}), seed=0, pace=FREE)
    assert whole.wait(120) and whole.fingerprint == page.evaluate("EARPlayer.take.fingerprint")
    with av.open(str(whole.video)) as container:
        assert all((a == b.to_ndarray()).all() for a, b in zip(shown, container.decode(video=0), strict=True))
    demo[1].close("reference")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_who_will_not_wait_plays_now(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    status(page, "starting")
    button = page.get_by_role("button", name="Play now")
    box = button.bounding_box()
    assert box["height"] >= 44 and box["width"] >= 44 and "stop now and then" in button.get_attribute("title")
    started = time.monotonic()
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("paints.length > 0")
    button.wait_for(state="hidden")  # the first picture may come before the page's next look at its buttons
    assert time.monotonic() - started < 5
    assert page.evaluate("document.activeElement.dataset.do") == "play"
    page.wait_for_function("EARPlayer.take.stalls > 0")
    status(page, "going on in")
    page.click("[data-do=stop]")


def test_steering_while_it_waits_for_its_start_acts_on_the_first_frame(page: Page) -> None:
    status(page, "starting")
    page.wait_for_function("EARPlayer.take.frames.length > 30")
    page.evaluate(STEER, ["yaw", 20])
    page.wait_for_function("paints.length && paints.at(-1)[1] === 20")
    assert page.evaluate("[EARPlayer.take.shown, EARPlayer.take.frames[0].applied.yaw]") == [0, 20]
    status(page, "starting")
    page.click("[data-do=stop]")
