"""A running take goes back: frames that nobody has seen are made anew under what their viewer asks for by now."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from demo_app import LIMITS, one_thread, tiny_engine, tiny_model, write_voice
from test_demo_live import FACE, _until, zero_gpu

import demo.engine
import demo.trail
from demo.channel import Slot, SlotPool
from demo.engine import Engine, Job, Sitter
from demo.live import FINISHED, FREE, RUNNING, STOPPED, LiveTake
from demo.made import _IN_MEMORY, Made, Pile
from demo.steering import NEAR
from demo.trail import Trail, frames_of
from demo.uploads import Voice, open_voice
from eartalking import Controls, StreamSession
from eartalking.controls import RELEASED
from eartalking.errors import InputError
from eartalking.session import Frame

AHEAD = 25  # frames that lie before the viewer


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


@pytest.fixture
def voice(tmp_path: Path) -> Voice:
    return open_voice(write_voice(tmp_path / "voice.wav", 1.5), LIMITS)


class Viewer:
    """What reaches the player: the frames that it would show, and the messages."""

    def __init__(self) -> None:
        self.frames: list[tuple[dict[str, Any], bytes]] = []  # controls in force and JPEG
        self.heard: list[dict[str, Any]] = []

    def __call__(self, message: bytes | str) -> None:
        if isinstance(message, str):
            self.heard.append(json.loads(message))
            if self.heard[-1]["type"] == "back":
                del self.frames[self.heard[-1]["frame"] :]
            return
        index, about, picture = struct.unpack_from("<III", message)
        assert index == len(self.frames)
        self.frames.append((json.loads(message[12 : 12 + about])["applied"], message[12 + about :][:picture]))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if message["type"] == kind]


@pytest.fixture
def start(engine: Engine, voice: Voice, tmp_path: Path) -> Iterator[Callable[..., tuple[LiveTake, Viewer]]]:
    made: list[LiveTake] = []

    def begin(controls: Controls | None = None, **options: Any) -> tuple[LiveTake, Viewer]:
        job = Job(Sitter(FACE), voice.waveform, 5)
        folder = tmp_path / f"take {len(made)}"
        made.append(
            LiveTake(options.pop("engine", engine), job, voice, folder, LIMITS, controls or Controls(), **options)
        )
        viewer = Viewer()
        if "pace" not in options:
            made[-1].attach(viewer)
        made[-1].start()
        return made[-1], viewer

    yield begin
    for one in made:
        one.stop()
        assert one.wait(20)


def replayed(start: Callable[..., tuple[LiveTake, Viewer]], controls: Controls) -> LiveTake:
    whole, _ = start(controls, pace=FREE)
    assert whole.wait(60) and whole.state == FINISHED
    return whole


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def test_what_is_made_anew_is_what_a_stream_makes_that_was_steered_there(
    start: Callable[..., tuple[LiveTake, Viewer]],
) -> None:
    take, viewer = start(Controls({"pitch": [(0.0, -4.0), (1.0, 8.0)]}))
    take.follow(3, False, lead=AHEAD)
    _until(lambda: take.next_frame == 3 + AHEAD)
    change = take.set({"yaw": 20.0, "emotion": ("happy", 0.5)}, first=6)
    assert take.next_frame == 6
    _until(lambda: take.next_frame == 3 + AHEAD)
    assert take.effect_of(change) == 6
    assert viewer.of("back") == [{"type": "back", "frame": 6, "turn": 1}]
    take.follow(8, False, lead=AHEAD)
    take.set({"yaw": None, "smile": 0.5}, first=2)  # what has been seen stays
    assert take.next_frame == 8
    take.follow(10**6, False)
    assert take.wait(60) and take.state == FINISHED

    pitch = [Controls({"pitch": [(0.0, -4.0), (1.0, 8.0)]}).at(frame)["pitch"] for frame in range(38)]
    assert [frame["pitch"] for frame in take.applied] == pitch[: len(take.applied)]
    assert [frame["yaw"] for frame in take.applied[:10]] == [None] * 6 + [20.0] * 2 + [None] * 2
    assert [frame["smile"] for frame in take.applied[6:10]] == [None] * 2 + [0.5] * 2
    assert {frame["emotion"] for frame in take.applied[6:]} == {("happy", 0.5)}
    done = viewer.of("done")[0]
    whole = replayed(start, Controls(done["controls"]["tracks"]))
    assert take.fingerprint == done["fingerprint"] == whole.fingerprint
    assert take.applied == whole.applied and take.video.read_bytes() == whole.video.read_bytes()
    assert [applied for applied, _ in viewer.frames] == json.loads(json.dumps([one.given() for one in take.applied]))


def test_a_drag_leaves_its_last_value_only(start: Callable[..., tuple[LiveTake, Viewer]]) -> None:
    take, viewer = start()
    take.follow(4, False, lead=AHEAD)
    _until(lambda: take.next_frame == 4 + AHEAD)
    for value in range(1, 9):
        take.set({"yaw": float(value)}, first=5)
        _until(lambda value=value: viewer.frames[5:] and viewer.frames[5][0] == {"yaw": value})
    take.follow(10**6, False)
    assert take.wait(60)
    assert [frame["yaw"] for frame in take.applied] == [None] * 5 + [8.0] * (len(take.applied) - 5)
    assert take.fingerprint == replayed(start, Controls({"yaw": [(0.2, 8.0)]})).fingerprint


def test_an_edited_timeline_goes_back_as_far_as_it_differs(start: Callable[..., tuple[LiveTake, Viewer]]) -> None:
    take, viewer = start(Controls({"roll": [(0.0, 5.0)]}))
    take.follow(2, False, lead=AHEAD)
    _until(lambda: take.next_frame == 2 + AHEAD)
    take.replan(Controls({"roll": [(0.0, 5.0)], "smile": [(1.28, 1.0)]}), first=3)
    assert take.turns == 0  # all that is made has it already
    edited = Controls({"roll": [(0.0, 5.0), (0.4, 5.0), (0.44, -5.0)]})
    take.replan(edited, first=3)
    assert take.next_frame == 11 and take.turns == 1
    take.follow(10**6, False)
    assert take.wait(60)
    assert [message["frame"] for message in viewer.of("back")] == [11]
    assert take.fingerprint == replayed(start, edited).fingerprint


def test_who_does_not_ask_for_it_is_steered_from_the_next_frame_on(
    start: Callable[..., tuple[LiveTake, Viewer]],
) -> None:
    take, viewer = start()
    take.follow(0, False, lead=10)
    _until(lambda: take.next_frame == 10)
    time.sleep(0.1)
    take.set({"yaw": 3.0})
    take.set({"blink": None}, first=2)  # nothing becomes another frame by it
    take.follow(10**6, False)
    assert take.wait(60) and take.turns == 0 and viewer.of("back") == []
    assert [frame["yaw"] for frame in take.applied[9:11]] == [None, 3.0]


def test_a_take_whose_last_frame_is_on_its_way_still_goes_back(
    start: Callable[..., tuple[LiveTake, Viewer]], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, takes = engine.frames, []

    def asked_at_the_end(slot: int, job: Job) -> Iterator[Frame]:
        for frame in frames(slot, job):
            if frame.index == job.num_frames - 1 and not takes[0].turns:
                takes[0].set({"yaw": 3.0}, first=30)
            yield frame

    monkeypatch.setattr(engine, "frames", asked_at_the_end)
    take, viewer = start()
    takes.append(take)
    take.follow(30, False, lead=1e9)
    assert take.wait(60) and take.state == FINISHED and [back["frame"] for back in viewer.of("back")] == [30]
    take.set({"yaw": 9.0}, first=0)  # too late, and harmless
    assert [frame["yaw"] for frame in take.applied[29:]] == [None] + [3.0] * (take.job.num_frames - 30)


def test_what_is_all_made_can_be_steered_until_little_is_left_to_see(
    start: Callable[..., tuple[LiveTake, Viewer]],
) -> None:
    take, _ = start()
    take.follow(0, False, lead=1e9)
    _until(lambda: len(take.applied) == take.job.num_frames)
    time.sleep(0.2)
    assert take.state == RUNNING
    change = take.set({"yaw": 3.0}, first=2)
    _until(lambda: take.effect_of(change) == 2 and len(take.applied) == take.job.num_frames)
    assert take.state == RUNNING
    take.follow(take.job.num_frames - NEAR, True)
    assert take.wait(60) and take.state == FINISHED
    assert [frame["yaw"] for frame in take.applied] == [None] * 2 + [3.0] * (take.job.num_frames - 2)


def test_what_is_all_made_is_over_when_its_viewer_pauses_for_long(
    start: Callable[..., tuple[LiveTake, Viewer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.live._WATCH_SECONDS", 0.02)
    take, _ = start()
    take._limits = replace(LIMITS, pause_seconds=0.2)
    take.follow(0, False, lead=1e9, paused=True)
    assert take.wait(60) and take.state == FINISHED and take.has_video


def test_stopping_before_it_has_gone_back_keeps_what_was_to_stay(
    start: Callable[..., tuple[LiveTake, Viewer]], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, viewer = start()
    take.follow(0, False, lead=20)
    _until(lambda: take.next_frame == 20)
    monkeypatch.setattr(Slot, "taken_back", lambda slot: time.sleep(0.05))  # a machine that takes its time
    take.set({"yaw": 9.0}, first=7)
    take.stop(keep=True)
    assert take.wait(60) and take.state == STOPPED
    assert len(take.applied) == len(viewer.frames) == len(pictures(take.video)) == 7
    assert os.listdir(take.folder) == ["talking.mp4"]


def test_on_zero_gpu_the_forked_worker_goes_back(
    start: Callable[..., tuple[LiveTake, Viewer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=zero_gpu))
    monkeypatch.setattr(demo.engine, "_HAS_SPACES", True)
    take, viewer = start(engine=Engine(tiny_model(), SlotPool(1, 60)))
    take.follow(0, False, lead=AHEAD)
    _until(lambda: take.next_frame == AHEAD)
    for value in (5.0, 7.0):  # one right after the other
        take.set({"yaw": value}, first=4)
    take.follow(4, False, lead=AHEAD)
    _until(lambda: take.next_frame == 4 + AHEAD)
    take.follow(10**6, False)
    assert take.wait(60) and take.state == FINISHED
    assert [frame["yaw"] for frame in take.applied] == [None] * 4 + [7.0] * (len(take.applied) - 4)
    assert [applied for applied, _ in viewer.frames] == [frame.given() for frame in take.applied]


@pytest.mark.parametrize("most", [2, 4, 128])
def test_a_trail_reaches_every_frame_that_is_not_final_in_little_room(engine: Engine, voice: Voice, most: int) -> None:
    plan = Controls({"yaw": [(0.0, 0.0), (1.0, 20.0)]})

    def stream() -> StreamSession:
        session = engine.start(Sitter(FACE))
        session.push(voice.waveform)
        return session

    session = stream()
    expected = list(stream().flush(plan))
    trail = Trail(session, most)
    frames = session.flush(plan)
    for _ in range(30):
        trail.note(session, next(frames))
        trail.forget(4)
        assert len(trail) <= most
    frames.close()
    for asked, reached in ((17, 17), (9, 9), (9, 9), (40, 9), (4, 4)):
        again = trail.back_to(asked)
        assert again.next_index == reached
        rest = list(again.flush(plan))
        assert [frame.index for frame in rest] == list(range(reached, len(expected)))
        assert all((a.image == b.image).all() for a, b in zip(rest, expected[reached:], strict=True))
    trail.forget(5)
    assert trail.back_to(2).next_index == 4  # the only one that is left


def test_frames_that_cannot_be_asked_for_again_leave_no_trail(
    engine: Engine, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.trail, "Trail", None)
    session = engine.start(Sitter(FACE))
    session.push(voice.waveform)
    assert len(list(frames_of(session, Slot(60)))) == voice.num_frames


def test_passing_over_frames_leads_to_the_same_stream(engine: Engine, voice: Voice) -> None:
    plan = Controls({"roll": [(0.1, 8.0)], "blink": [(0.5, 1.0)]})
    plain, passing = engine.start(Sitter(FACE)), engine.start(Sitter(FACE))
    expected = [frame.image for frame in (*plain.push(voice.waveform, plan), *plain.flush(plan))]
    passing.push(voice.waveform)
    passing.pass_over(20, plan)
    assert passing.next_index == 20
    np.testing.assert_array_equal([frame.image for frame in passing.flush(plan)], expected[20:])
    passing.pass_over(10**6, plan)  # there is nothing more
    assert passing.next_index == len(expected)


def test_a_pile_keeps_its_order_and_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pile = Pile(tmp_path)
    image = lambda number: np.full((4, 4, 3), number, np.uint8)  # noqa: E731
    for number in range(40):
        pile.append(image(number))
    pile.drop(30)
    for number in range(10, 30):
        pile.append(image(number))
    assert len(pile) == 30 and pile._places == 40 - _IN_MEMORY
    assert [int(pile.popleft()[0, 0, 0]) for _ in range(30)] == list(range(30))
    assert os.listdir(tmp_path) == []
    pile.close()
    for number in range(_IN_MEMORY):
        pile.append(image(number))
    monkeypatch.setattr(pile, "_file", types.SimpleNamespace(seek=lambda at: None, write=lambda data: 0))
    with pytest.raises(InputError, match="No space left"):
        pile.append(image(0))


def test_hash_and_pictures_follow_what_is_dropped() -> None:
    made, images = Made(), [np.full((4, 4, 3), number, np.uint8) for number in range(9)]
    for image in images[:6]:
        made.add(image, RELEASED, image)
    made.settle(2)
    made.drop_from(3)
    for image in images[7:]:
        made.add(image, RELEASED, image)
    kept = [*images[:3], *images[7:]]
    assert len(made) == 5
    assert made.fingerprint == hashlib.sha256(b"".join(image.tobytes() for image in kept)).hexdigest()
    made.settle()
    assert made.fingerprint == hashlib.sha256(b"".join(image.tobytes() for image in kept)).hexdigest()
