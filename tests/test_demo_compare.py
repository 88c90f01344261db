"""Two videos in the Compare tab play, seek and stop as one."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from chromium import complaints_of, needs_chromium
from PIL import Image

from demo.compare import build_compare_tab
from eartalking.io.video_writer import VideoWriter

pytestmark = needs_chromium


def make_video(path: Path, frames: int, colour: int) -> Path:
    with VideoWriter(path, (64, 64)) as writer:
        for index in range(frames):
            writer.write(np.full((64, 64, 3), (colour + index) % 256, np.uint8))
    return path


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    long, short = make_video(tmp_path / "long.mp4", 250, 0), make_video(tmp_path / "short.mp4", 60, 90)
    make_video(tmp_path / "mine.mp4", 50, 200)
    takes = [
        {"id": path.stem, "label": f"Take {path.stem}", "url": f"gradio_api/file={path}", "path": str(path)}
        for path in (long, short)
    ]
    with gr.Blocks() as blocks:
        with gr.Tab("First"):
            gr.Markdown("nothing")
        with gr.Tab("Compare"):
            build_compare_tab(lambda request: takes if request.session_hash else [])
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, allowed_paths=[str(tmp_path)])
    page = browser.new_page(viewport={"width": 390, "height": 844})
    complaints = complaints_of(page)
    page.goto(address)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelectorAll('.cmp-has').length === 2")
    page.wait_for_function("[...document.querySelectorAll('.cmp video')].every((video) => video.readyState >= 2)")
    yield page
    page.close()
    blocks.close()
    assert complaints == []


def names_wipe_and_difference(page: Any) -> None:
    """One picture over the other, by name: a wipe with a moving edge, and their difference."""
    page.locator(".cmp-side select").nth(1).select_option("long")
    page.wait_for_function("document.querySelectorAll('.cmp video')[1].duration > 3.9")
    page.get_by_role("button", name="Wipe").click()
    assert page.locator(".cmp-over b").all_inner_texts() == ["A Take long", "B Take long"]
    first, second = (screen.bounding_box() for screen in page.locator(".cmp-screen").all())
    assert first == second
    edge = page.get_by_label("Edge between A and B")
    edge.focus()
    edge.press("Home")
    clip = "getComputedStyle(document.querySelectorAll('.cmp-screen')[1]).clipPath"
    assert page.evaluate(clip) == "inset(0px 0px 0px 0%)"
    edge.press("End")
    assert page.evaluate(clip) == "inset(0px 0px 0px 100%)"
    page.get_by_role("button", name="Difference").click()
    page.evaluate("document.querySelector('.cmp-over').style.visibility = 'hidden'")
    assert brightest(page) < 40  # the same video
    page.evaluate("document.querySelectorAll('.cmp video')[1].currentTime = 3")
    page.wait_for_function("!document.querySelectorAll('.cmp video')[1].seeking")
    assert brightest(page) > 100  # 75 frames on it is 75 levels brighter, and shown four times as bright
    page.get_by_role("button", name="Side by side").click()
    boxes = [box.bounding_box() for box in page.locator(".cmp-screen").all()]
    assert boxes[1]["y"] > boxes[0]["y"]


def brightest(page: Any) -> int:
    shot = Image.open(io.BytesIO(page.locator(".cmp-over").locator("xpath=..").screenshot()))
    width, height = shot.size
    return (
        shot.convert("L").crop((width // 4, height - width // 2, 3 * width // 4, height - width // 4)).getextrema()[1]
    )


def state(page: Any) -> dict[str, Any]:
    return page.evaluate("window.EARCompare.get('compare').state()")


def test_both_play_seek_and_stop_together(page: Any, tmp_path: Path) -> None:
    assert page.get_by_label("Video A").first.input_value() == "long"
    page.get_by_role("button", name="Play both").click()
    page.wait_for_function(
        """() => { const { playing, times } = window.EARCompare.get('compare').state();
        return playing && times[0] > 1.2 && Math.abs(times[0] - times[1]) < 0.08; }"""
    )
    # pushed apart, they find together again
    page.evaluate("document.querySelectorAll('.cmp video')[1].currentTime = 0")
    page.wait_for_function(
        "(() => { const { times } = window.EARCompare.get('compare').state(); return times[0] - times[1] < 0.1; })()"
    )
    page.get_by_role("button", name="Pause both").click()
    assert not state(page)["playing"]
    slider = page.locator('[data-cmp="seek"]')
    slider.focus()
    slider.press("Home")
    page.wait_for_function("window.EARCompare.get('compare').state().times.every((time) => time < 0.01)")
    for _ in range(5):
        slider.press("ArrowRight")
    page.wait_for_function(
        "window.EARCompare.get('compare').state().times.every((time) => Math.abs(time - 0.2) < 0.01)"
    )
    page.get_by_role("button", name="One frame on").click()
    page.wait_for_function(
        "window.EARCompare.get('compare').state().times.every((time) => Math.abs(time - 0.24) < 0.01)"
    )
    slider.press("End")  # the short one stays on its last frame
    page.wait_for_function("window.EARCompare.get('compare').state().times[0] > 9.9")
    assert state(page)["times"][1] == pytest.approx(2.4, abs=0.05)
    assert state(page)["muted"] == [False, True]
    page.get_by_label("Sound").select_option("B")
    assert state(page)["muted"] == [True, False]
    boxes = [box.bounding_box() for box in page.locator(".cmp-side").all()]
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]  # stacked on a phone
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator('input[type="file"]').nth(1).set_input_files(tmp_path / "mine.mp4")
    page.wait_for_function("Math.abs(document.querySelectorAll('.cmp video')[1].duration - 2) < 0.05")
    assert page.get_by_label("Video B").first.input_value() == "local"
    names_wipe_and_difference(page)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    page.locator('input[type="file"]').nth(0).set_input_files(broken)
    page.get_by_text("cannot be played: broken.mp4").wait_for()
