"""The control timeline can be used by mouse, touch and keyboard; Python and the browser hear of each other."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from chromium import complaints_of, needs_chromium
from control_tracks import values

from demo.timeline import control_timeline, empty_value, waveform_peaks
from eartalking.controls import SCALAR_TRACKS

START = {"yaw": [[0.4, 0.0], [1.2, 15.0], [2.0, None]], "emotion": [[1.0, ["happy", 0.8]]]}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    waveform = np.sin(np.arange(4 * 16000) / 20) * (np.arange(4 * 16000) % 16000 < 8000)
    value = empty_value(4.0) | {"waveform": waveform_peaks(waveform), "tracks": START}
    with gr.Blocks() as blocks:
        timeline = control_timeline(value=value)
        asked = gr.Textbox(elem_id="asked")
        seen = gr.Textbox(elem_id="seen")
        change = gr.Button("From Python", elem_id="python")

        def told(value: dict[str, Any], event: gr.EventData) -> str:
            return json.dumps({"value": value, "tracks": event.tracks, "reason": event.reason})

        def sought(event: gr.EventData) -> str:
            return str(event.frame)

        timeline.input(told, timeline, asked, show_progress="hidden")
        timeline.seek(sought, None, seen, show_progress="hidden")
        gr.Button("Hide", elem_id="hide").click(
            lambda: gr.update(visible=False), None, timeline, show_progress="hidden"
        )
        gr.Button("Show", elem_id="show").click(lambda: gr.update(visible=True), None, timeline, show_progress="hidden")
        change.click(lambda: {"tracks": {"smile": [[0.2, 0.5]]}}, None, timeline, show_progress="hidden")
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    yield address
    blocks.close()


class Timeline:
    """The timeline on an open page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def call(self, expression: str, argument: Any = None) -> Any:
        code = f"const timeline = window.EARTimeline.get('timeline'); return {expression};"
        return self.page.evaluate(f"(argument) => {{ {code} }}", argument)

    @property
    def tracks(self) -> dict[str, Any]:
        return self.call("timeline.getControls()")["tracks"]

    def point(self, track: str, frame: int, value: Any = None) -> tuple[float, float]:
        at = self.call("timeline.pointOf(...argument)", [track, frame, value])
        return at["x"], at["y"]

    def lane(self, track: str) -> Any:
        return self.page.locator(f'[data-track="{track}"] .tl-plot')

    def status(self) -> str:
        return self.page.locator('[data-tl="status"]').inner_text()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Timeline]]:
    """Opens the page; afterwards it must have shown no error in the console."""
    contexts, complaints = [], []

    def open_page(**options: Any) -> Timeline:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        complaints.append(complaints_of(page))
        page.goto(address)
        page.wait_for_function("window.EARTimeline && window.EARTimeline.get('timeline')")
        timeline, before = Timeline(page), None
        while before != (before := timeline.point("yaw", 30)):  # fonts arrive, the page settles
            page.wait_for_timeout(250)
        return timeline

    yield open_page
    for context in contexts:
        context.close()
    assert not any(complaints), complaints


@needs_chromium
def test_mouse_adds_drags_releases_and_deletes(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    mouse = timeline.page.mouse
    mouse.dblclick(*timeline.point("pitch", 50, 10))
    assert timeline.tracks["pitch"] == [[2.0, pytest.approx(10, abs=0.5)]]
    mouse.down()  # the new keyframe is dragged at once: a double click selects nothing that the browser would drag
    mouse.move(*timeline.point("pitch", 55, 5), steps=4)
    mouse.move(*timeline.point("pitch", 60, -6), steps=4)
    mouse.up()
    assert timeline.tracks["pitch"] == [[2.4, pytest.approx(-6, abs=0.5)]]
    x, y = timeline.point("yaw", 30, 15)
    mouse.move(x, y)
    mouse.down()
    mouse.move(*timeline.point("yaw", 35, 5), steps=4)
    mouse.move(*timeline.point("yaw", 40, -10), steps=4)
    mouse.up()
    time, value = timeline.tracks["yaw"][1]
    assert time == 1.6 and value == pytest.approx(-10, abs=1)
    timeline.page.get_by_role("button", name="Let the model decide").click()
    assert timeline.tracks["yaw"] == [[0.4, 0], [1.6, None], [2.0, None]]
    timeline.page.get_by_role("button", name="Delete", exact=True).click()
    assert timeline.tracks["yaw"] == [[0.4, 0], [2.0, None]]
    for _ in range(5):
        timeline.page.get_by_role("button", name="Undo").click()
    assert timeline.tracks == START and timeline.page.get_by_role("button", name="Undo").is_disabled()
    for _ in range(5):
        timeline.page.get_by_role("button", name="Redo").click()
    assert timeline.tracks["yaw"] == [[0.4, 0], [2.0, None]]


@needs_chromium
def test_keyboard_does_it_all(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    keyboard = timeline.page.keyboard
    timeline.call("timeline.setPlayhead(10)")
    timeline.lane("roll").focus()
    keyboard.press("k")
    assert timeline.tracks["roll"] == [[0.4, 0]]
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "ArrowUp", "Shift+ArrowUp", "ArrowDown"):
        keyboard.press(key)
    assert timeline.tracks["roll"] == [[0.68, 2.5]]
    assert "frame 17" in timeline.status() and "+2.5" in timeline.status()
    keyboard.press("r")
    assert timeline.tracks["roll"] == [[0.68, None]]
    keyboard.press("Delete")
    assert "roll" not in timeline.tracks
    keyboard.press("Control+z")
    keyboard.press("Control+z")
    assert timeline.tracks["roll"] == [[0.68, 2.5]]
    keyboard.press("Control+y")
    assert timeline.tracks["roll"] == [[0.68, None]]
    timeline.lane("yaw").focus()
    keyboard.press("End")
    keyboard.press("PageUp")
    assert timeline.call("timeline.state().selection") == [{"track": "yaw", "time": 1.2}]
    timeline.page.locator('[data-tl="ruler"]').focus()
    keyboard.press("Shift+ArrowRight")
    assert timeline.call("timeline.state().playhead") == 15


@needs_chromium
def test_touch_adds_and_drags(opened: Callable[..., Timeline]) -> None:
    timeline = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = timeline.page
    page.locator('[data-track="yaw"]').scroll_into_view_if_needed()
    at = timeline.point("yaw", 80, -20)
    finger = page.context.new_cdp_session(page)
    finger.send(
        "Input.synthesizeTapGesture", {"x": at[0], "y": at[1], "tapCount": 2}
    )  # by the browser: two taps of ours may be too slow
    page.wait_for_function("window.EARTimeline.get('timeline').getControls().tracks.yaw.length > 3")
    added = [key for key in timeline.tracks["yaw"] if key[0] > 2.0]
    assert len(added) == 1 and added[0][1] == pytest.approx(-20, abs=2)
    start, end = timeline.point("yaw", 30, 15), timeline.point("yaw", 40, -5)

    def touch(kind: str, point: tuple[float, float] | None) -> None:
        points = [] if point is None else [{"x": point[0], "y": point[1]}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", start)
    for part in (0.3, 0.6, 1.0):
        touch("touchMove", (start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])))
    touch("touchEnd", None)
    moved = timeline.tracks["yaw"][1]
    assert moved == [pytest.approx(1.6, abs=0.08), pytest.approx(-5, abs=2)]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_chromium
def test_two_fingers_zoom_and_one_scrolls_the_page(opened: Callable[..., Timeline]) -> None:
    timeline = opened(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    page = timeline.page
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    def gap() -> float:
        return timeline.point("yaw", 30)[0] - timeline.point("yaw", 20)[0]

    before, y = gap(), timeline.point("pitch", 60)[1]
    touch("touchStart", (200, y))
    touch("touchStart", (200, y), (250, y))
    for step in range(1, 6):
        touch("touchMove", (200 - 6 * step, y), (250 + 8 * step, y))
    touch("touchEnd")
    assert gap() > 1.5 * before and timeline.tracks == START
    touch("touchStart", (250, y))
    for step in range(1, 12):
        touch("touchMove", (250, y - 12 * step))
        page.wait_for_timeout(16)
    touch("touchEnd")
    page.wait_for_function("scrollY > 60")
    assert timeline.tracks == START


@needs_chromium
def test_exact_values_and_python_hears_of_it(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    page = timeline.page
    page.mouse.click(*timeline.point("yaw", 30, 15))
    page.locator('[data-field="value"]').fill("7.25")
    page.locator('[data-field="value"]').press("Enter")
    page.locator('[data-field="frame"]').fill("33")
    page.locator('[data-field="frame"]').press("Enter")
    page.wait_for_function("document.querySelector('#asked textarea').value.includes('1.32')")
    told = json.loads(page.locator("#asked textarea").input_value())
    assert told["reason"] == "move" and told["tracks"] == told["value"]["tracks"] == timeline.tracks
    assert told["tracks"]["yaw"] == [[0.4, 0], [1.32, 7.25], [2.0, None]]
    page.locator('[data-field="value"]').fill("99")
    page.locator('[data-field="value"]').press("Enter")
    assert "yaw must be a number in -30..30" in timeline.status() and timeline.tracks["yaw"][1][1] == 7.25
    page.mouse.click(*timeline.point("emotion", 25, ["happy", 0.8]))
    page.locator('[data-field="emotion"]').select_option("sad")
    assert timeline.tracks["emotion"] == [[1.0, ["sad", 0.8]]]
    box = page.locator('[data-tl="ruler"]').bounding_box()
    page.mouse.click(timeline.point("yaw", 50)[0], box["y"] + 10)
    page.wait_for_function("document.querySelector('#seen textarea').value === '50'")


@needs_chromium
def test_python_changes_only_what_it_sends(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    timeline.call("timeline.setApplied(3, {yaw: 4, emotion: ['sad', 0.5]})")
    timeline.page.locator("#python").click()
    timeline.page.wait_for_function("'smile' in window.EARTimeline.get('timeline').getControls().tracks")
    state = timeline.call("timeline.state()")
    assert timeline.tracks == {"smile": [[0.2, 0.5]]} and state["duration"] == 4.0 and len(state["waveform"]) == 200
    assert state["applied"]["yaw"] == [None, None, None, 4] and state["applied"]["roll"] == [None] * 4
    timeline.call("timeline.undo()")
    assert timeline.tracks == START
    timeline.call("timeline.setControls(timeline.getControls())")  # the same again is no change
    assert timeline.page.get_by_role("button", name="Undo").is_disabled()


@needs_chromium
def test_hidden_and_shown_again_it_goes_on(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    page = timeline.page
    page.get_by_role("group", name="Gestures").get_by_role("button", name="Nod").click()
    timeline.call("timeline.setApplied(2, {yaw: 4})")
    before = timeline.tracks
    page.evaluate("window.earlier = window.EARTimeline.get('timeline')")
    page.locator("#hide").click()
    page.locator(".ear-tl").wait_for(state="hidden")
    page.locator("#show").click()
    page.locator(".ear-tl").wait_for(state="visible")
    page.wait_for_function("window.EARTimeline.get('timeline') !== window.earlier")
    assert timeline.tracks == before and timeline.call("timeline.state().applied.yaw") == [None, None, 4]
    assert len(timeline.call("timeline.state().waveform")) == 200
    page.mouse.dblclick(*timeline.point("pitch", 80, 10))
    assert len(timeline.tracks["pitch"]) == len(before["pitch"]) + 1


@needs_chromium
def test_steering_is_recorded_as_one_undo_step(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    timeline.call("[10, 11, 12].forEach((frame) => timeline.recordKeyframe('smile', frame, frame / 20))")
    assert values(timeline.tracks, "smile", range(9, 14)) == [None, 0.5, 0.55, 0.6, 0.6]
    timeline.page.wait_for_timeout(500)
    assert timeline.page.locator("#asked textarea").input_value() == ""  # recording does not call back
    timeline.call("timeline.undo()")
    assert timeline.tracks == START


@needs_chromium
def test_undo_history_is_bounded(opened: Callable[..., Timeline]) -> None:
    timeline = opened()
    timeline.call("[...Array(230).keys()].forEach((step) => timeline.setControls({tracks: {yaw: [[0, step / 10]]}}))")
    steps = timeline.call("(() => { let count = 0; while (timeline.undo()) count += 1; return count; })()")
    assert steps == 200 and timeline.tracks["yaw"] == [[0, 2.9]]


@needs_chromium
def test_streaming_frames_cost_little(opened: Callable[..., Timeline]) -> None:
    """Ten applied values, the playhead and the readouts of a frame, painted: far less than the 40 ms that a frame
    has.
    """
    timeline = opened()
    applied = {track: 0.5 for track in SCALAR_TRACKS} | {"emotion": ["happy", 0.5]}
    milliseconds = timeline.page.evaluate(
        """async (applied) => {
          const timeline = window.EARTimeline.get("timeline");
          let spent = 0;
          for (let frame = 0; frame < 60; frame++) {
            const start = performance.now();
            timeline.setApplied(frame, applied);
            timeline.setPlayhead(frame);
            spent += performance.now() - start;
            await new Promise(requestAnimationFrame);
          }
          return spent / 60;
        }""",
        applied,
    )
    assert milliseconds < 20
    assert timeline.call("timeline.state().applied.yaw.length") == 60


@needs_chromium
@pytest.mark.parametrize("kind, button", [("json", "Save JSON"), ("csv", "CSV")])
def test_save_and_load_give_the_same_frames(
    opened: Callable[..., Timeline], tmp_path: Path, kind: str, button: str
) -> None:
    timeline = opened()
    page = timeline.page
    page.get_by_role("group", name="Gestures").get_by_role("button", name="Nod").click()
    before = timeline.tracks
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    path = tmp_path / f"mine.{kind}"
    download.value.save_as(path)
    timeline.call("timeline.setControls({tracks: {}})")
    page.locator('[data-tl="file"]').set_input_files(path)
    page.wait_for_function("document.querySelector('[data-tl=status]').textContent.startsWith('Loaded')")
    frames = range(60)
    for track in before:
        expected = values(before, track, frames)
        assert values(timeline.tracks, track, frames) == (expected if track == "emotion" else pytest.approx(expected))
    assert sum(map(len, timeline.tracks.values())) < 25  # a table has come back as a curve that one can edit


@needs_chromium
def test_a_bad_file_is_named_where_the_user_looks(opened: Callable[..., Timeline], tmp_path: Path) -> None:
    timeline = opened()
    path = tmp_path / "wrong.json"
    path.write_text('{"tracks": {"yaw": [[0, 99]]}}')
    timeline.page.locator('[data-tl="file"]').set_input_files(path)
    timeline.page.wait_for_selector('[data-tl="status"][role="alert"]')
    assert "wrong.json" in timeline.status() and "track yaw, keyframe 1" in timeline.status()
    assert timeline.tracks == START


@needs_chromium
def test_zoom_pan_fold_and_theme(opened: Callable[..., Timeline]) -> None:
    timeline = opened(color_scheme="dark")
    page = timeline.page
    near = timeline.point("yaw", 30)[0] - timeline.point("yaw", 29)[0]
    x, y = timeline.point("yaw", 30)
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    assert timeline.point("yaw", 30)[0] - timeline.point("yaw", 29)[0] > 1.5 * near
    assert timeline.point("yaw", 30)[0] == pytest.approx(x, abs=1.5)
    page.mouse.move(x + 100, y + 20)
    page.mouse.down()
    page.mouse.move(x, y + 20, steps=4)
    page.mouse.up()
    assert timeline.point("yaw", 30)[0] == pytest.approx(x - 100, abs=2)
    timeline.call("timeline.setPlayhead(99)")
    assert timeline.point("yaw", 99)[0] < 1200
    fold = page.locator('[data-track="yaw"] .tl-fold')
    fold.press("Enter")
    assert fold.get_attribute("aria-expanded") == "false"
    page.get_by_role("button", name="Unfold all").click()
    assert page.locator(".tl-lane.tl-open").count() == 10


def test_waveform_peaks_follow_the_loudness() -> None:
    voice = np.concatenate([np.zeros(16000), np.full(16000, 0.5), np.full(16000, -0.25)])
    peaks = waveform_peaks(voice)
    assert len(peaks) == 150 and set(peaks[:50]) == {0.0} and set(peaks[50:100]) == {1.0} and set(peaks[100:]) == {0.5}
    assert waveform_peaks(np.zeros(0)) == [] and waveform_peaks(np.zeros(8000)) == [0.0] * 25
