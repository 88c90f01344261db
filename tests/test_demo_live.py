"""A live take: the frames of a StreamSession, steered while it runs, paced by its viewer, and nothing left when it
ends.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from demo_app import LIMITS, one_thread, tiny_engine, tiny_model, write_voice

import demo.engine
import demo.recorder
from demo.channel import BusyError, SlotPool
from demo.engine import Engine, Job, Sitter
from demo.live import FINISHED, FREE, RUNNING, STOPPED, VIEWER, LiveTake
from demo.settings import Limits
from demo.uploads import Voice, open_voice
from eartalking import Controls, StreamSession
from eartalking.errors import InputError
from eartalking.io.sound import read_audio
from eartalking.io.video_writer import VideoWriter

FACE = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)


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


@pytest.fixture
def take(engine: Engine, voice: Voice, tmp_path: Path) -> Iterator[Callable[..., LiveTake]]:
    made: list[LiveTake] = []

    def make(controls: Controls | None = None, seed: int = 0, limits: Limits = LIMITS, **options: object) -> LiveTake:
        job = Job(Sitter(FACE), voice.waveform, seed)
        made.append(LiveTake(engine, job, voice, tmp_path / "takes", limits, controls or Controls(), **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert one.wait(20)
    assert engine.slots.free == LIMITS.takes + LIMITS.waiting


def run(take: LiveTake) -> LiveTake:
    take.start()
    assert take.wait(60)
    return take


def test_the_frames_are_those_of_a_stream_session(engine: Engine, voice: Voice, take: Callable[..., LiveTake]) -> None:
    controls = Controls({"yaw": [(0.2, -10.0), (1.0, 20.0)], "emotion": [(0.4, ("happy", 0.5))]})
    whole = run(take(controls, seed=3, pace=FREE))
    session = StreamSession(engine.model, FACE, seed=3, crop="center")
    frames = [*session.push(voice.waveform, controls), *session.flush(controls)]
    assert whole.state == FINISHED
    assert whole.fingerprint == hashlib.sha256(b"".join(frame.image.tobytes() for frame in frames)).hexdigest()
    assert whole.applied == [frame.applied for frame in frames]
    with av.open(str(whole.video)) as container:
        assert container.streams.video[0].frames == len(frames) == voice.num_frames
        assert "AI-generated" in container.metadata["comment"]


def test_a_change_acts_reports_its_frame_and_the_log_replays_it(take: Callable[..., LiveTake]) -> None:
    plain = run(take(pace=FREE))
    steered = take(Controls({"blink": [(0.0, 0.2)]}), pace=VIEWER, limits=Limits(lead_frames=6))
    heard: list[dict] = []
    steered.attach(lambda message: heard.append(json.loads(message)) if isinstance(message, str) else None)
    steered.start()
    _until(lambda: steered.next_frame >= 6)  # the viewer has seen nothing yet, so it waits six frames ahead
    time.sleep(0.1)
    assert steered.next_frame == 6
    change = steered.set({"yaw": 20.0, "emotion": ("sad", 0.5)})
    steered.follow(2, False)
    _until(lambda: steered.effect_of(change) is not None)
    assert steered.effect_of(change) == 6
    released = steered.set({"blink": None})
    steered.follow(10**6, False)
    assert steered.wait(60)
    assert steered.applied[5].given() == {"blink": 0.2}
    assert steered.applied[6].given() == {"blink": 0.2, "yaw": 20.0, "emotion": ("sad", 0.5)}
    assert steered.applied[-1].given() == {"yaw": 20.0, "emotion": ("sad", 0.5)}
    reports = {message["change"]: message["frame"] for message in heard if message["type"] == "applied"}
    assert reports == {change: 6, released: steered.effect_of(released)}
    assert [message for message in heard if message["type"] == "done"][0]["fingerprint"] == steered.fingerprint
    replay = run(take(steered.log(), pace=FREE))
    assert replay.fingerprint == steered.fingerprint != plain.fingerprint
    replay.log().save(replay.folder / "log.csv")
    assert run(take(Controls.load(replay.folder / "log.csv"), pace=FREE)).fingerprint == steered.fingerprint


def test_an_edited_timeline_is_followed_but_for_changes_under_way(take: Callable[..., LiveTake]) -> None:
    running = take(pace=VIEWER)
    running.attach(lambda message: None)
    running.start()
    _until(lambda: running.next_frame == LIMITS.lead_frames)
    time.sleep(0.1)
    running.set({"smile": 1.0})
    running.replan(Controls({"smile": [(0.0, -1.0)], "roll": [(0.0, 5.0)]}))
    running.follow(10**6, False)
    assert running.wait(60)
    first = LIMITS.lead_frames
    assert not running.applied[first - 1].given() and running.applied[first].given() == {"smile": 1.0, "roll": 5.0}


def test_a_viewer_sets_the_pace(take: Callable[..., LiveTake]) -> None:
    slow = take(pace=VIEWER)
    slow.attach(lambda message: None)
    slow.start()
    for seen in (0, 5, 9):
        slow.follow(seen, False)
        _until(lambda seen=seen: slow.next_frame == seen + LIMITS.lead_frames)
        time.sleep(0.15)
        assert slow.next_frame == seen + LIMITS.lead_frames
    slow.follow(9, True)  # the viewer plays on: 25 more a second
    started = time.monotonic()
    assert slow.wait(30) and slow.state == FINISHED
    assert time.monotonic() - started > (slow.job.num_frames - 9 - LIMITS.lead_frames - 2) / 25


def test_frames_travel_with_their_controls_and_their_sound(take: Callable[..., LiveTake], voice: Voice) -> None:
    seen: dict[int, tuple[dict, bytes, bytes]] = {}

    def listen(message: bytes | str) -> None:
        if isinstance(message, bytes):
            index, about, picture = struct.unpack_from("<III", message)
            body = message[12:]
            seen[index] = (json.loads(body[:about]), body[about : about + picture], body[about + picture :])

    running = take(Controls({"brow": [(0.0, 0.5)]}), pace=VIEWER)
    running.follow(10**6, False)
    running.start()
    _until(lambda: running.next_frame > 3)
    running.attach(listen)  # who comes late misses nothing
    assert running.wait(60)
    assert sorted(seen) == list(range(voice.num_frames))
    assert all(about["applied"] == {"brow": 0.5} and jpeg[:2] == b"\xff\xd8" for about, jpeg, _ in seen.values())
    sound = np.frombuffer(b"".join(seen[index][2] for index in sorted(seen)), "<i2")
    np.testing.assert_array_equal(sound[: len(voice.preview)], voice.preview)


def test_the_badge_marks_the_picture_and_not_the_model(take: Callable[..., LiveTake]) -> None:
    bare, marked = run(take(pace=FREE)), run(take(pace=FREE, badge=True))
    assert bare.fingerprint == marked.fingerprint
    assert bare.video.read_bytes() != marked.video.read_bytes()
    with av.open(str(bare.video)) as a, av.open(str(marked.video)) as b:
        one, two = (next(c.decode(video=0)).to_ndarray(format="rgb24").astype(int) for c in (a, b))
    difference = np.abs(one - two).max(axis=2)
    assert difference[-16:, :32].max() > 60 and difference[:32].max() < 16


def test_stopping_leaves_the_log_and_no_video(take: Callable[..., LiveTake]) -> None:
    stopped = take(Controls({"yaw": [(0.0, 3.0)]}), pace=VIEWER)
    stopped.start()
    _until(lambda: stopped.next_frame >= 2)
    stopped.stop()
    assert stopped.wait(10) and stopped.state == STOPPED
    assert os.listdir(stopped.folder) == []
    assert stopped.log().at(0)["yaw"] == 3.0
    assert stopped.set({"yaw": 1.0}) and stopped.state == STOPPED  # too late, and harmless


def test_stopping_can_keep_a_video_of_what_was_made(
    engine: Engine, take: Callable[..., LiveTake], voice: Voice, tmp_path: Path
) -> None:
    heard: list[dict] = []
    stopped = take(pace=VIEWER, limits=replace(LIMITS, lead_frames=5))
    stopped.attach(lambda message: heard.append(json.loads(message)) if isinstance(message, str) else None)
    stopped.start()
    _until(lambda: stopped.next_frame == 5)
    time.sleep(0.1)  # whatever it might make beyond is made by now
    stopped.stop(keep=True)
    assert stopped.wait(20) and stopped.state == STOPPED and stopped.has_video
    assert [message for message in heard if message["type"] == "done"][0]["video"] == f"{stopped.url}/talking.mp4"
    assert os.listdir(stopped.folder) == ["talking.mp4"] and "stopped after 0.2 s" in stopped.label
    session = StreamSession(engine.model, FACE, seed=0, crop="center")
    recorder = demo.recorder.Recorder(tmp_path / "five.mp4", FACE.shape[:2], voice.path)
    for frame in islice(session.push(voice.waveform), 5):
        recorder.add(frame.image)
    recorder.finish(early=True)
    assert recorder.wait(20)
    whole = run(take(pace=FREE))
    with av.open(str(stopped.video)) as part, av.open(str(recorder.path)) as five:
        pictures = [np.stack([frame.to_ndarray() for frame in file.decode(video=0)]) for file in (part, five)]
        comment = part.metadata["comment"]
        assert "AI-generated" in comment and f"5 of {voice.num_frames} frames" in comment
    np.testing.assert_array_equal(*pictures)
    sound, all_sound = read_audio(stopped.video), read_audio(whole.video)
    assert len(sound) / 16000 == pytest.approx(5 / 25, abs=0.025)  # to one AAC packet
    np.testing.assert_allclose(sound[:2000], all_sound[:2000], atol=0.02)


def test_a_full_disk_ends_the_take_with_a_sentence(
    take: Callable[..., LiveTake], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: VideoWriter, image: np.ndarray) -> None:
        raise InputError(self.path, "No space left on device")

    monkeypatch.setattr(VideoWriter, "write", full)
    failed = run(take(pace=FREE))
    assert failed.state == "failed" and failed.error == "No space left on device" and os.listdir(failed.folder) == []


def test_the_stream_waits_when_too_much_is_unwritten(
    take: Callable[..., LiveTake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.recorder, "BACKLOG_BYTES", 0)
    gate, write = threading.Event(), VideoWriter.write

    def gated(self: VideoWriter, image: np.ndarray) -> None:
        assert gate.wait(30)
        write(self, image)

    monkeypatch.setattr(VideoWriter, "write", gated)
    held = take(pace=FREE)
    held.start()
    _until(lambda: held.next_frame == 6)  # one being written, four that wait, one that is handed over
    time.sleep(0.2)
    assert held.next_frame == 6
    gate.set()
    assert held.wait(60) and held.state == FINISHED


def test_nobody_watching_gives_the_place_back(take: Callable[..., LiveTake]) -> None:
    unseen = take(pace=VIEWER, limits=Limits(client_wait_seconds=0.2))
    unseen.start()
    assert unseen.wait(10) and unseen.state == STOPPED


def test_all_places_taken_is_a_sentence(take: Callable[..., LiveTake]) -> None:
    for _ in range(LIMITS.takes + LIMITS.waiting):
        take(pace=VIEWER).start()
    with pytest.raises(BusyError, match="in use"):
        take()


def test_a_failure_is_told_and_frees_the_place(
    engine: Engine, take: Callable[..., LiveTake], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(slot: int, job: Job) -> Iterator[None]:
        raise RuntimeError("out of memory")
        yield

    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(engine, "frames", broken)
    heard: list[str] = []
    failed = take(pace=VIEWER)
    failed.attach(heard.append)
    failed.start()
    assert failed.wait(10) and failed.state == "failed"
    assert "out of memory" in json.loads(heard[-1])["message"]


def test_fifty_generate_and_cancel_cycles_leave_nothing(take: Callable[..., LiveTake], tmp_path: Path) -> None:
    def cycle() -> None:
        one = take(pace=VIEWER)
        one.start()
        _until(lambda: one.next_frame >= 1 or one.state != RUNNING)
        one.stop()
        assert one.wait(10)

    for _ in range(10):
        cycle()
    _until(lambda: not _take_threads())
    before = psutil.Process().memory_info().rss
    for _ in range(50):
        cycle()
    _until(lambda: not _take_threads())
    assert psutil.Process().memory_info().rss - before < 30 * 2**20
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "voice.wav"]


def _take_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("take-", "watch-", "mp4-"))]


def zero_gpu(duration: Callable[..., int]) -> Callable[[Callable[..., Iterator]], Callable[..., Iterator]]:
    """As `spaces.GPU` does it: the generator runs in a process forked at the call, arguments and results travel by
    pickle.
    """

    def decorate(task: Callable[..., Iterator]) -> Callable[..., Iterator]:
        def call(*arguments: object) -> Iterator:
            assert 0 < duration(*arguments) <= 120
            context = multiprocessing.get_context("fork")
            results = context.Queue()

            def work() -> None:
                torch.set_num_threads(1)  # a fork has only the thread that forked
                for result in task(*pickle.loads(pickle.dumps(arguments))):
                    results.put(result)
                results.put(None)

            worker = context.Process(target=work, daemon=True)
            worker.start()
            try:
                while (result := results.get(timeout=60)) is not None:
                    yield result
            finally:
                worker.kill()

        return call

    return decorate


def test_on_zero_gpu_changes_reach_the_forked_worker(
    voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=zero_gpu))
    monkeypatch.setattr(demo.engine, "_HAS_SPACES", True)
    engine = Engine(tiny_model(), SlotPool(1, 60))
    engine.prepare(FACE)  # outside of a GPU call nothing may be computed
    assert not engine._started
    take = LiveTake(
        engine,
        Job(Sitter(FACE), voice.waveform, 0),
        voice,
        tmp_path / "takes",
        LIMITS,
        Controls({"roll": [(0.0, 2.0)]}),
    )
    take.attach(lambda message: None)
    take.start()
    _until(lambda: take.next_frame == LIMITS.lead_frames)
    time.sleep(0.2)
    change = take.set({"yaw": 15.0, "emotion": ("angry", 0.25)})
    take.follow(10**6, False)
    assert take.wait(60) and take.state == FINISHED
    assert take.effect_of(change) == LIMITS.lead_frames
    assert take.applied[LIMITS.lead_frames - 1].given() == {"roll": 2.0}
    assert take.applied[LIMITS.lead_frames].given() == {"roll": 2.0, "yaw": 15.0, "emotion": ("angry", 0.25)}
    stopped = LiveTake(engine, Job(Sitter(FACE), voice.waveform, 0), voice, tmp_path / "takes", LIMITS, Controls())
    stopped.start()
    _until(lambda: stopped.next_frame > 0)
    stopped.stop()
    assert stopped.wait(20) and stopped.state == STOPPED and engine.slots.free == 1


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
