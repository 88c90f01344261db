"""The viewer's WebSocket: what is no message is refused with a sentence, floods wait, and the stream goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_app import LIMITS, PHOTO, one_thread, tiny_engine, write_voice
from starlette.applications import Starlette
from starlette.testclient import TestClient

from demo.conversation import BURST, LARGEST_MESSAGE, MESSAGES_PER_SECOND, Allowance, Conversation
from demo.live import RUNNING, STOPPED, LiveTake
from demo.routes import live_routes
from demo.sessions import Sessions
from demo.settings import STREAM_PATH
from eartalking import Controls


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    with one_thread():
        made = Sessions(tiny_engine(), LIMITS)
        yield made
        made.close_all()


@pytest.fixture
def watched(sessions: Sessions, tmp_path: Path) -> Iterator[tuple[LiveTake, Any]]:
    """A take that waits for its viewer, and the viewer's end of the socket."""
    session = sessions.get("viewer")
    sessions.set_portrait(session, PHOTO)
    sessions.set_voice(session, write_voice(tmp_path / "voice.wav", 4.0))
    take = sessions.start_take(session, controls=Controls(), seed=0)
    with TestClient(Starlette(routes=live_routes(sessions))) as client:
        with client.websocket_connect(f"/{take.url}/stream") as socket:
            yield take, socket
    sessions.close("viewer")


def heard(socket: Any, *kinds: str) -> dict[str, Any]:
    """The next message of one of these kinds; frames and others are passed over."""
    while True:
        message = socket.receive()
        if "text" in message and (content := json.loads(message["text"]))["type"] in kinds:
            return content


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (nested(100_000), "nested too deeply"),
        ('{"type": "set", "id": 1, "tracks": {"yaw": ' + nested(3000) + "}}", "nested too deeply"),
        ("x" * (LARGEST_MESSAGE + 1), "at most"),
        (b"\x00\x01", "not bytes"),
        ("{", "Expecting"),
        ("[1]", "JSON object"),
        ("{}", "lacks 'type'"),
        ('{"type": "dance"}', "dance"),
        ('{"type": "set"}', "lacks 'tracks'"),
        ('{"type": "set", "tracks": [1]}', "tracks must be"),
        ('{"type": "set", "tracks": {"nose": 1}}', "nose"),
        ('{"type": "set", "tracks": {"yaw": 1e999}}', "yaw"),
        ('{"type": "playhead", "playing": true, "frame": 1' + "0" * 400 + "}", "too large"),
        ('{"type": "plan", "controls": {"tracks": {"yaw": [[1, 1], [0, 2]]}}}', "does not follow"),
        ('{"type": "plan", "controls": ' + nested(900) + "}", ""),
    ],
)
def test_what_is_no_message_is_refused_and_the_stream_goes_on(
    watched: tuple[LiveTake, Any], text: str | bytes, words: str
) -> None:
    take, socket = watched
    socket.send_bytes(text) if isinstance(text, bytes) else socket.send_text(text)
    assert words in heard(socket, "refused")["message"]
    socket.send_json({"type": "set", "id": "next", "tracks": {"yaw": 5}})
    accepted = heard(socket, "accepted", "refused")
    assert accepted["type"] == "accepted" and accepted["id"] == "next" and take.state == RUNNING


def test_a_live_talk_goes_on_after_a_rate_that_is_none(sessions: Sessions) -> None:
    session = sessions.get("viewer")
    sessions.set_portrait(session, PHOTO)
    talk = sessions.start_talk(session, seed=0)
    with TestClient(Starlette(routes=live_routes(sessions))) as client:
        with client.websocket_connect(f"/{STREAM_PATH}/{talk.token}/talk") as socket:
            for text in ('{"type": "microphone", "rate": 1e999}', nested(100_000), '{"type": "dance"}'):
                socket.send_text(text)
                assert "cannot be used" in heard(socket, "refused")["message"]
            assert session.talking
    sessions.close("viewer")


def test_what_is_sent_back_is_short(watched: tuple[LiveTake, Any]) -> None:
    for number in ("x" * 101, [1], {"a": 1}):
        watched[1].send_json({"type": "set", "id": number, "tracks": {"nose": 1}})
        assert heard(watched[1], "refused")["id"] is None


def test_sets_that_come_together_are_one_change_and_the_last_value_counts(
    watched: tuple[LiveTake, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    take, socket = watched
    while take.next_frame < LIMITS.lead_frames:
        time.sleep(0.01)
    monkeypatch.setattr("demo.conversation._GATHER_SECONDS", 0.5)  # as long as a slow machine needs to read them
    changes: list[dict[str, Any]] = []
    put = take.set
    monkeypatch.setattr(take, "set", lambda tracks, first: (changes.append(dict(tracks)), put(tracks, first))[1])
    for number in range(60):
        socket.send_json({"type": "set", "id": number, "tracks": {"yaw": number / 4, "smile": number / 60}})
    socket.send_json({"type": "set", "id": 60, "tracks": {"yaw": None, "blink": 1}})
    answers = [heard(socket, "accepted") for _ in range(61)]
    assert [answer["id"] for answer in answers] == list(range(61))
    assert len(changes) < 30 and changes[-1]["yaw"] is None
    socket.send_json({"type": "playhead", "frame": 1000, "playing": False})
    assert heard(socket, "done")["state"] == "finished"
    assert take.applied[-1].given() == {"smile": pytest.approx(59 / 60), "blink": 1.0}


def test_a_flood_waits_and_what_comes_after_it_is_heard(
    watched: tuple[LiveTake, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    take, socket = watched
    taken: list[float] = []
    take_in = Conversation._take_in

    async def counted(self: Conversation, text: str | None) -> None:
        taken.append(time.monotonic())
        await take_in(self, text)

    monkeypatch.setattr(Conversation, "_take_in", counted)
    began = time.monotonic()
    for number in range(round(BURST) + 200):
        socket.send_json({"type": "set", "tracks": {"yaw": number % 20}})
    socket.send_json({"type": "stop"})
    assert heard(socket, "done")["state"] == STOPPED and take.has_video
    assert len(taken) == round(BURST) + 201
    for number, moment in enumerate(taken, start=1):
        assert number <= BURST + MESSAGES_PER_SECOND * (moment - began) + 1


def test_an_allowance_is_a_burst_and_then_a_rate_and_long_messages_cost_more() -> None:
    now = [0.0]
    allowance = Allowance(rate=10, burst=5, clock=lambda: now[0])
    assert [allowance.wait_for(1) for _ in range(5)] == [0.0] * 5
    assert allowance.wait_for(1) == pytest.approx(0.1) and allowance.wait_for(3) == pytest.approx(0.4)
    now[0] = 100.0
    assert [allowance.wait_for(cost) for cost in (5, 1)] == [0.0, pytest.approx(0.1)]
