"""What a newcomer sees of the page in a real browser: where things stand, what is said where, and what the picture
shows before anything speaks. A tiny random model, Debian's chromium, no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import SLOW, needs_chromium
from demo_app import PHOTO, PORTRAIT, write_voice
from PIL import Image
from playwright.sync_api import Browser, Page

from demo.sessions import Sessions
from demo.uploads import Portrait
from eartalking.io.portrait import load_portrait

pytestmark = needs_chromium
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
BOX = "element => { const box = element.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]; }"


def open_page(browser: Browser, address: str, **options: object) -> Page:
    page = browser.new_context(**({"viewport": {"width": 1366, "height": 768}} | options)).new_page()
    page.set_default_timeout(SLOW)
    page.goto(address)
    for part in (".ear-example", "#generate", "#steer-yaw", "#stage canvas"):
        page.wait_for_selector(part)
    page.wait_for_function("window.EARTimeline && window.EARTimeline.get('timeline')")
    return page


@pytest.fixture
def page(browser: Browser, demo: tuple[str, Sessions]) -> Iterator[Page]:
    """A new visitor's page in a small laptop's window."""
    page = open_page(browser, demo[0])
    yield page
    page.context.close()


@pytest.fixture
def phone(browser: Browser, demo: tuple[str, Sessions]) -> Iterator[Page]:
    page = open_page(browser, demo[0], **PHONE)
    yield page
    page.context.close()


def told(page: Page, words: str, place: str) -> None:
    """Wait until `words` stand at this place of the page, and on the stage."""
    page.wait_for_function(
        """([words, place]) => document.querySelector(`[data-at=${place}] .ear-message`)?.textContent.includes(words)
        && document.querySelector(".ear-status").textContent.includes(words)""",
        arg=[words, place],
    )


def box(page: Page, selector: str) -> list[float]:
    return page.eval_on_selector(selector, BOX)


def picture(page: Page) -> list[int]:
    """The stage's pixels."""
    return page.evaluate(
        """() => { const canvas = document.querySelector("#stage canvas");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; }"""
    )


def group_of_three(path: Path) -> Path:
    """A picture with three faces, of the bundled render and photograph, the middle one the largest."""
    render, photo = Image.open(PORTRAIT).convert("RGB"), Image.fromarray(load_portrait(PHOTO))
    photo = photo.crop((0, 0, photo.width, photo.width))
    sheet = Image.new("RGB", (1000, 460), (90, 110, 120))
    for left, image, side in ((10, photo, 280), (300, render, 400), (710, photo, 280)):
        sheet.paste(image.resize((side, side)), (left, 30))
    sheet.save(path)
    return path


def test_a_message_stands_beside_what_caused_it_and_on_the_stage_and_goes(page: Page, tmp_path: Path) -> None:
    page.click("#generate")
    told(page, "choose a portrait", "generate")
    assert box(page, ".ear-message")[3] <= 768
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    page.set_input_files("#voice input[type=file]", tmp_path / "broken.wav")
    told(page, "recording cannot be used", "voice")
    assert page.locator(".ear-message").count() == 1  # the old one went
    page.set_input_files("#portrait input[type=file]", PHOTO)
    page.wait_for_function("document.querySelector('.ear-message').textContent === ''")
    page.wait_for_function("!document.querySelector('.ear-status').textContent.includes('cannot')")
    page.wait_for_selector(".ear-stage.has-picture")
    page.locator("#portrait button[aria-label*='emove'], #portrait button[aria-label*='lear']").first.click()
    page.wait_for_selector(".ear-stage:not(.has-picture)")  # the old face, too


def test_generate_is_in_sight_and_the_face_follows_to_the_timeline(page: Page) -> None:
    left, top, right, bottom = box(page, "#generate")
    assert top >= 0 and bottom <= 768 and right > left
    under = "([x, y]) => Boolean(document.elementFromPoint(x, y).closest('#generate'))"
    assert page.evaluate(under, [(left + right) / 2, (top + bottom) / 2])
    assert "is-small" not in page.get_attribute("#stage .ear-stage", "class")
    height = page.evaluate("document.body.scrollHeight")
    page.evaluate("document.querySelector('#timeline').scrollIntoView()")
    page.wait_for_selector("#stage .ear-stage.is-small")
    screen, lanes = box(page, "#stage .ear-screen"), box(page, "#timeline")
    assert 0 <= screen[1] and screen[3] <= lanes[1]  # together, and neither hides the other
    assert screen[3] - screen[1] >= 100 and lanes[3] - lanes[1] > 400 and lanes[1] < 300
    assert page.evaluate("document.body.scrollHeight") == height  # nothing jumped
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_selector("#stage .ear-stage:not(.is-small)")


def test_on_a_phone_the_face_is_under_the_examples_and_fingers_find_their_targets(phone: Page) -> None:
    examples, screen, portrait = (box(phone, part) for part in ("#examples", "#stage .ear-screen", "#portrait"))
    assert examples[3] <= screen[1] <= examples[3] + 40 and screen[3] <= portrait[1]
    assert screen[3] <= 844  # without scrolling
    small = phone.evaluate(
        """[...document.querySelectorAll(":is(.ear-head, #examples, #stage, #steer, #timeline, #go) "
        + ":is(button, summary, input[type=range], .ear-pad)")].filter(e => { const b = e.getBoundingClientRect();
        return b.width && (b.height < 44 || b.width < 44); }).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert small == []
    phone.evaluate("document.querySelector('#timeline').scrollIntoView()")
    phone.wait_for_selector("#stage .ear-stage.is-small")
    assert box(phone, "#stage .ear-screen")[3] <= box(phone, "#timeline")[1]


def test_first_impressions(page: Page) -> None:
    assert "portrait speak" in page.inner_text("h1")
    assert page.inner_text(".ear-example[data-index='0'] small").startswith("a photograph")
    assert page.locator("#stage .ear-meters > div:visible").count() <= 4
    assert page.inner_text("label[for=steer-yaw]") == "Turn" and page.inner_text("label[for=steer-pitch]") == "Nod"
    assert "Head yaw" in page.get_attribute("#steer [data-track=yaw]", "title")
    assert "elease" not in page.inner_text("#steer") + page.inner_text("#timeline")
    luminance = """colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; }"""
    # A fresh element has its colours at once; those of one that is there may still be fading.
    fresh = """([like, style]) => { const node = document.querySelector(like).cloneNode(true);
        node.style.transition = "none"; if (style) node.style.backgroundColor = style;
        document.querySelector(like).parentElement.append(node);
        const { color, backgroundColor } = getComputedStyle(node); node.remove(); return [color, backgroundColor]; }"""
    for theme in ("", "dark"):
        page.evaluate("theme => { document.body.className = theme; }", theme)
        colours = page.evaluate(fresh, [".tab-container button.selected", "var(--body-background-fill)"])
        text, behind = (page.evaluate(luminance, colour) for colour in colours)
        assert (max(text, behind) + 0.05) / (min(text, behind) + 0.05) >= 4.5, (theme, colours)


def test_steering_shows_on_the_still_portrait_and_ends_at_the_end(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#portrait input[type=file]", PHOTO)
    page.wait_for_selector(".ear-stage.has-picture")
    plain = picture(page)
    page.locator("#steer-yaw").fill("20")
    page.wait_for_function("document.querySelector('.ear-status').textContent.startsWith('Turn +20°')")
    assert picture(page) != plain
    assert page.evaluate("EARTimeline.get('timeline').getControls().tracks") == {"yaw": [[0, 20]]}
    page.set_input_files("#voice input[type=file]", write_voice(tmp_path / "voice.wav", 1.2))
    page.wait_for_function("EARTimeline.get('timeline').state().duration < 2")
    page.check("#consent input")
    page.click("#generate")
    page.wait_for_function("EARPlayer.take.state === 'done' && !EARPlayer.playing")
    page.wait_for_function("EARTimeline.get('timeline').state().playhead === 29")
    page.locator("#steer-roll").fill("10")
    page.wait_for_function("EARTimeline.get('timeline').getControls().tracks.roll")
    assert page.evaluate("EARTimeline.get('timeline').getControls().tracks.roll") == [[0, 10]]  # for the next take


def test_a_paused_stream_does_not_say_live(page: Page) -> None:
    page.click(".ear-example[data-index='0']")
    page.wait_for_function("EARPlayer.take.shown >= 3")
    page.click("#stage [data-do=play]")
    page.wait_for_function("!EARPlayer.playing")
    assert page.evaluate("EARPlayer.take.state") == "streaming"
    assert page.text_content("#stage .ear-live") == "paused"
    page.click("#stage [data-do=play]")
    page.wait_for_function("document.querySelector('#stage .ear-live').textContent === 'live'")


def test_of_several_faces_one_is_chosen_by_a_click(page: Page, demo: tuple[str, Sessions], tmp_path: Path) -> None:
    page.set_input_files("#portrait input[type=file]", group_of_three(tmp_path / "three.png"))
    page.wait_for_function(
        "document.querySelector('.ear-crop-note').textContent.startsWith('3 faces found, using number 2')"
    )
    (session,) = demo[1]._sessions.values()
    assert isinstance(session.portrait, Portrait)
    left, top, right, bottom = session.portrait.faces[2]
    shown = box(page, ".ear-crop canvas")
    scale = min((shown[2] - shown[0]) / 1000, (shown[3] - shown[1]) / 460)
    x = (shown[0] + shown[2]) / 2 + ((left + right) / 2 - 500) * scale
    y = (shown[1] + shown[3]) / 2 + ((top + bottom) / 2 - 230) * scale
    page.evaluate("y => scrollTo(0, y - 200)", y)
    page.mouse.click(x, y - page.evaluate("scrollY"))
    page.wait_for_function("document.querySelector('.ear-crop-note').textContent.includes('using number 3')")
    assert session.portrait.number == 3
    assert page.evaluate("document.querySelector('.ear-crop').open")


def test_without_a_face_a_crop_is_asked_for_and_stays_in_the_picture(
    page: Page, demo: tuple[str, Sessions], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page.set_input_files("#portrait input[type=file]", tmp_path / "noise.png")
    page.wait_for_function("document.querySelector('.ear-crop-note').textContent.startsWith('No face was found')")
    page.set_input_files("#voice input[type=file]", write_voice(tmp_path / "voice.wav", 1.2))
    page.wait_for_function("EARTimeline.get('timeline').state().duration < 2")
    page.check("#consent input")
    page.click("#generate")
    told(page, "No face was found", "generate")
    page.focus(".ear-crop canvas")
    for _ in range(60):
        page.keyboard.press("Shift+ArrowRight")
    page.click("#generate")
    page.wait_for_function("EARPlayer.take.state === 'done'")
    (session,) = demo[1]._sessions.values()
    corner = noise[:, 100:]  # the largest square, at the right edge
    taken = np.asarray(Image.fromarray(session.takes[-1].job.sitter.picture), np.float32)
    assert np.abs(taken - np.asarray(Image.fromarray(corner).resize(taken.shape[:2]), np.float32)).mean() < 30
