"""Who is served and who waits: measured speed, places, order, estimates."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demo_app import LIMITS, SteadySpeed, one_thread, tiny_engine, write_voice

from demo.channel import BusyError
from demo.engine import Engine, Job, Sitter
from demo.line import Line, Speed, Stretch, capacity, seconds_to_turn
from demo.live import CLOCK, FINISHED, FREE, STOPPED, VIEWER, LiveTake
from demo.talk import Talk
from demo.uploads import open_voice
from eartalking import Controls

FACE = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def test_speed_is_what_was_measured_and_new_measurements_outweigh_old_ones() -> None:
    assert Speed().fps is None and Speed().among(2).fps is None
    speed = Speed(20.0)
    assert speed.fps == pytest.approx(20) and speed.among(2).fps == pytest.approx(10)
    for _ in range(50):
        speed.note(0.1)
    assert speed.fps == pytest.approx(10)
    speed.note(3600.0)  # the machine slept
    assert speed.fps > 8


def test_only_frames_in_a_row_that_nothing_held_back_tell_the_speed() -> None:
    stretch = Stretch()
    for late in range(20):  # of frames that wait for their viewer, now and then one comes late
        assert stretch.note(late, held=late % 3 != 0) == []
    stretch.end()
    counted = [stretch.note(0.04 * index, held=False) for index in range(8)]
    assert [len(times) for times in counted] == [0, 0, 0, 0, 0, 5, 1, 1]
    assert sum(counted, []) == pytest.approx([0.04] * 7)
    assert stretch.note(0.32, held=True) == pytest.approx([0.04]) and stretch.note(9.0, held=False) == []


@pytest.mark.parametrize(("fps", "places"), [(None, 4), (0.5, 1), (25, 1), (52, 1), (53, 2), (80, 3), (1000, 4)])
def test_as_many_are_served_as_the_machine_serves_in_real_time(fps: float | None, places: int) -> None:
    assert capacity(fps, 4) == places


def test_a_turn_comes_when_those_before_are_through() -> None:
    assert seconds_to_turn([12.0], []) == 12.0
    assert seconds_to_turn([12.0], [6.0, 4.0]) == 22.0
    assert seconds_to_turn([12.0, 5.0], [6.0]) == 11.0
    assert seconds_to_turn([12.0, 5.0], [6.0, 4.0]) == 12.0  # the second in line follows the first, until 15
    assert seconds_to_turn([math.inf], [6.0]) == math.inf


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_line_is_served_in_the_order_of_arrival() -> None:
    clock = Clock()
    line = Line(lambda: 1, clock)
    for key, seconds in ((7, 10.0), (3, 4.0), (5, 6.0)):
        line.join(key, seconds)
    assert [line.place(key) for key in (7, 3, 5)] == [0, 1, 2]
    clock.now = 4.0
    assert [line.seconds_left(key) for key in (3, 5)] == [6.0, 10.0]
    with pytest.raises(BusyError, match="busy"):
        line.enter(9)
    line.leave(7)
    assert [line.place(key) for key in (3, 5)] == [0, 1] and line.served == 1
    line.leave(5)  # gone before its turn
    line.leave(3)
    line.enter(9)
    assert line.place(9) == 0
    line.join(1, 1.0)
    assert line.seconds_left(1) == math.inf  # a live talk: nobody knows


def test_a_faster_machine_lets_the_next_one_in_and_a_slower_one_sends_nobody_away() -> None:
    places = [1]
    line = Line(lambda: places[0])
    for key in range(3):
        line.join(key, 5.0)
    told: list[int] = []
    places[0] = 2
    assert line.wait_for_turn(1, lambda place, _: told.append(place), lambda: False) and told == []
    places[0] = 1
    assert line.place(1) == 0 and line.place(2) == 1
    line.leave(0)
    assert line.place(2) == 1
    line.leave(1)
    assert line.place(2) == 0


@pytest.fixture
def slow_engine() -> Iterator[Engine]:
    """It serves one at a time."""
    with one_thread():
        yield tiny_engine(fps=20.0)


@pytest.fixture
def take(slow_engine: Engine, tmp_path: Path) -> Iterator[Callable[..., LiveTake]]:
    voice = open_voice(write_voice(tmp_path / "voice.wav", 1.0), LIMITS)
    made: list[LiveTake] = []

    def make(pace: str) -> LiveTake:
        job = Job(Sitter(FACE), voice.waveform, 0)
        made.append(LiveTake(slow_engine, job, voice, tmp_path / "takes", LIMITS, Controls(), pace=pace))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert one.wait(60)
    assert slow_engine.slots.free == len(slow_engine.slots.slots) and slow_engine.line.served == 0


def test_the_next_visitor_waits_is_told_its_place_and_begins_by_itself(take: Callable[..., LiveTake]) -> None:
    heard: list[dict] = []
    queued, streaming = threading.Event(), threading.Event()

    def listen(message: bytes | str) -> None:
        if isinstance(message, str):
            heard.append(json.loads(message))
            queued.set()
            if heard[-1]["type"] == "hello":
                streaming.set()

    first, second, third = take(VIEWER), take(VIEWER), take(FREE)
    for each in (first, second, third):
        each.attach(listen if each is second else lambda message: None)
        each.start()
    assert [each.place for each in (first, second, third)] == [0, 1, 2]
    assert queued.wait(60) and heard[0] == {"type": "queue", "place": 1, "seconds": 1}
    assert second.next_frame == 0 and third.stats()["place"] == 2
    second.set({"yaw": 5.0})  # steering while waiting is for the first frame
    first.stop()
    assert first.wait(60) and streaming.wait(60)
    assert next(message for message in heard if message["type"] == "hello")["speed"] == 20.0
    second.follow(0, False, lead=1e9)
    assert second.wait(60) and second.state == FINISHED and second.applied[0].given() == {"yaw": 5.0}
    assert third.wait(60) and third.state == FINISHED


def test_who_leaves_the_line_makes_room_in_it(take: Callable[..., LiveTake]) -> None:
    first, second, third = take(VIEWER), take(VIEWER), take(CLOCK)
    for each in (first, second, third):
        each.attach(lambda message: None)
        each.start()
    second.stop()  # the tab was closed
    assert second.wait(60) and second.state == STOPPED and not second.has_video and second.next_frame == 0
    assert third.place == 1
    first.stop()
    assert third.wait(60) and third.state == FINISHED


def test_who_pauses_for_long_lends_the_place_to_those_who_wait(
    take: Callable[..., LiveTake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.live._WATCH_SECONDS", 0.02)
    heard: list[dict] = []
    first, second = take(VIEWER), take(VIEWER)
    first._limits = replace(LIMITS, pause_seconds=0.1)
    first.attach(lambda message: heard.append(json.loads(message)) if isinstance(message, str) else None)
    first.start()
    first.follow(3, False, paused=True)
    time.sleep(0.3)
    kinds = lambda: [message["type"] for message in heard if message["type"] in ("hello", "parked", "queue")]  # noqa: E731
    assert kinds() == ["hello"]  # nobody waits
    second.attach(lambda message: None)
    second.start()
    until(lambda: second.next_frame > 0)
    assert kinds() == ["hello", "parked"] and first.next_frame <= 3 + LIMITS.lead_frames
    made = first.next_frame
    first.set({"yaw": 4.0})  # steering, too, is going on
    until(lambda: first.place == 1)
    time.sleep(0.1)
    assert first.next_frame == made and first.state == "running"
    second.follow(10**6, False)
    assert second.wait(60) and second.state == FINISHED
    until(lambda: kinds() == ["hello", "parked", "queue", "hello"])
    first.follow(10**6, False)
    assert first.wait(60) and first.state == FINISHED
    assert [frame["yaw"] for frame in first.applied] == [None] * made + [4.0] * (len(first.applied) - made)


def test_who_is_stopped_while_others_are_served_does_not_come_back(
    take: Callable[..., LiveTake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.live._WATCH_SECONDS", 0.02)
    first, second = take(VIEWER), take(VIEWER)
    first._limits = replace(LIMITS, pause_seconds=0.0)
    for each in (first, second):
        each.attach(lambda message: None)
        each.start()
    until(lambda: first.next_frame > 0)
    first.follow(1, False, paused=True)
    until(lambda: second.next_frame > 0)
    first.stop(keep=True)
    assert first.wait(60) and first.state == STOPPED and first.has_video
    assert second.place == 0 and second._engine.line.waiting == 0


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_live_talk_does_not_wait_it_is_told(
    slow_engine: Engine, take: Callable[..., LiveTake], tmp_path: Path
) -> None:
    running = take(VIEWER)
    running.attach(lambda message: None)
    running.start()
    with pytest.raises(BusyError, match="busy with other visitors"):
        Talk(slow_engine, FACE, 0, tmp_path, LIMITS)


def test_a_viewer_may_ask_for_a_deep_buffer_and_gets_no_less_than_the_smallest(take: Callable[..., LiveTake]) -> None:
    running = take(VIEWER)
    reached = threading.Event()
    running.attach(lambda message: reached.set() if running.next_frame == 20 else None)
    running.start()
    running.follow(0, False, lead=20)
    assert reached.wait(60)
    least, most = LIMITS.lead_frames, running.job.num_frames + LIMITS.lead_frames
    for lead, wanted in ((1.0, least), (math.nan, least), (1e300, most)):
        running.follow(0, False, lead)
        assert running._slot._header[4] == wanted


def test_warming_up_tells_how_fast_the_machine_is(slow_engine: Engine) -> None:
    slow_engine.speed = Speed()
    slow_engine.warm_up()
    assert slow_engine.speed.fps is not None and not isinstance(slow_engine.speed, SteadySpeed)
