"""Frames computed ahead are those that would have come one after the other, whatever the caller does meanwhile."""

import gc
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
import torch
from test_session import images, portrait, voice
from tiny_model import DRAWN, tiny_model

from eartalking import Controls, StreamSession, TalkingHeadModel
from eartalking.controls import ControlFrame
from eartalking.session import Frame
from eartalking.workers import submit

Change = Callable[[StreamSession, int], None]


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    return tiny_model(DRAWN)


def start(model: TalkingHeadModel, threads: int) -> StreamSession:
    return StreamSession(model, portrait(), seed=3, crop="center", threads=threads)


def run(session: StreamSession, change: Change, controls: Controls | None = None) -> list[Frame]:
    """A second of speech, with `change(session, index)` after each frame."""
    frames = []
    for part in (session.push(voice(1.0), controls), session.flush(controls)):
        for frame in part:
            frames.append(frame)
            change(session, frame.index)
    return frames


def never(session: StreamSession, index: int) -> None:
    pass


def jump(session: StreamSession, index: int) -> None:
    if index in (3, 4, 9):
        session.set(yaw=float(index), smile=0.5)
    if index == 14:
        session.release()


def drag(session: StreamSession, index: int) -> None:
    session.set(yaw=float(index))


@pytest.mark.parametrize("change", [never, jump, drag])
def test_controls_that_change_act_as_if_nothing_had_been_computed_ahead(
    model: TalkingHeadModel, change: Change
) -> None:
    expected, frames = run(start(model, 1), change), run(start(model, 2), change)
    np.testing.assert_array_equal(images(frames), images(expected))
    assert [frame.applied for frame in frames] == [frame.applied for frame in expected]
    assert [frame.index for frame in frames] == list(range(25))


class Steered(Controls):
    """Controls that change while frames are computed, as the demo's do."""

    asked = ControlFrame()

    def at(self, frame: int) -> ControlFrame:
        return self.asked


def test_controls_are_read_when_a_frame_is_due(model: TalkingHeadModel) -> None:
    controls = Steered()

    def steer(session: StreamSession, index: int) -> None:
        controls.asked = ControlFrame(pitch=index / 2)

    for frame in run(start(model, 2), steer, controls)[1:]:
        assert frame.applied["pitch"] == (frame.index - 1) / 2


def test_frames_that_nobody_takes_leave_no_trace(model: TalkingHeadModel) -> None:
    expected = images(run(start(model, 1), never))
    session = start(model, 2)
    given_up = session.push(voice(1.0))
    head = [next(given_up) for _ in range(4)]
    given_up.close()
    twin = session.clone()
    for stream in (session, twin):
        np.testing.assert_array_equal(images(head + list(stream.flush())), expected)


def test_two_iterators_of_one_stream_take_turns(model: TalkingHeadModel) -> None:
    expected = images(run(start(model, 1), never))
    session = start(model, 2)
    first, second = session.push(voice(1.0)[:9000]), session.push(voice(1.0)[9000:])
    frames = [next(iterator) for _ in range(8) for iterator in (first, second)]
    frames += [*session.flush()]
    np.testing.assert_array_equal(images(frames), expected)
    assert not list(first) and not list(second)


def test_a_reset_forgets_what_is_under_way(model: TalkingHeadModel) -> None:
    session = start(model, 2)
    frames = session.push(voice(1.0))
    next(frames)
    session.reset()
    assert not list(frames)
    np.testing.assert_array_equal(images(run(session, never)), images(run(start(model, 1), never)))


def test_a_failure_reaches_the_caller_and_the_next_stream_runs(
    model: TalkingHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start(model, 2)
    with monkeypatch.context() as broken:
        broken.setattr(type(model.autoencoder), "geometry", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(session.push(voice(1.0)))
    session.reset()
    np.testing.assert_array_equal(images(run(session, never)), images(run(start(model, 1), never)))


def test_work_is_computed_with_one_thread_inside_pytorch_and_without_gradients() -> None:
    def here() -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    assert {submit(here).result() for _ in range(8)} == {(1, True)}


def test_work_begins_when_what_it_needs_is_done_and_keeps_no_thread_before() -> None:
    given: Future[int] = Future()
    waiting = [submit(lambda before: before.result() + 1, given) for _ in range(16)]
    after = [submit(lambda one, two: one.result() + two.result(), first, given) for first in waiting]
    assert submit(lambda: 1).result(timeout=20) == 1  # more of it waits than there are threads
    assert not any(future.done() for future in after)
    given.set_result(1)
    assert [future.result(timeout=20) for future in after] == [3] * 16


def test_what_failed_or_was_called_off_reaches_what_needs_it() -> None:
    failed = submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        submit(lambda before: before.result(), failed).result(timeout=20)
    never_begun: Future[int] = Future()
    following = submit(lambda before: before.result(), never_begun)
    never_begun.cancel()
    with pytest.raises(CancelledError):
        following.result(timeout=20)


def test_frames_that_are_done_leave_nothing_to_be_collected(model: TalkingHeadModel) -> None:
    session = start(model, 2)
    run(session, never)

    def futures() -> int:
        return sum(type(kept) is Future for kept in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = futures()
        session.reset()
        run(session, never)
        assert futures() < before + 10  # of 77; a thread may still hold its last one
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert submit(lambda: 1).result() == 1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"%d" % submit(lambda: 2).result(timeout=20))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"2"


def test_a_frame_says_what_it_took(model: TalkingHeadModel) -> None:
    frames = run(start(model, 2), never)
    assert all(0 <= frame.seconds < 60 for frame in frames) and sum(frame.seconds for frame in frames) > 0


def test_an_interruption_is_as_if_the_rest_had_never_been_pushed(model: TalkingHeadModel) -> None:
    session, other = start(model, 2), voice(0.5, seed=1)
    frames = session.push(voice(1.0))
    head = [next(frames) for _ in range(6)]
    session.interrupt()
    session.interrupt()
    assert not list(frames)
    spoken = [*head, *session.push(other), *session.flush()]
    heard = voice(1.0)[: (6 + model.config.audio.lookahead) * 640]
    plain = start(model, 1)
    expected = [*plain.push(np.concatenate([heard, other])), *plain.flush()]
    np.testing.assert_array_equal(images(spoken), images(expected))


def test_a_stream_can_be_interrupted_before_it_speaks_and_after_its_end(model: TalkingHeadModel) -> None:
    session, plain = start(model, 2), start(model, 1)
    session.interrupt()
    expected = [*plain.push(voice(0.4)), *plain.flush()]
    spoken = [*session.push(voice(0.4)), *session.flush()]
    np.testing.assert_array_equal(images(spoken), images(expected))
    session.interrupt()
    more = [*session.push(voice(0.4)), *session.flush()]
    assert [frame.index for frame in more] == list(range(10, 22))  # the two that the look-ahead had heard, and ten
