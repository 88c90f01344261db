"""The WebSocket of a live talk, `live/<token>/talk`.

The browser sends `{"type": "microphone", "rate": 48000}`, then 16-bit mono sound as bytes, and any time
    {"type": "set", "tracks": {"yaw": 12, "blink": null}}   acts on the next frame
    {"type": "record", "on": true}                          begins to keep what is shown, or ends it
    {"type": "stop"}
The server sends what `Talk` publishes, and `{"type": "refused", "message": why}`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket

from demo.conversation import Allowance, read_message, track_values
from demo.talk import Talk

_MESSAGES_PER_SECOND, _BURST = 200.0, 200.0  # a microphone sends 25 a second, a slider 60
_MOST_WAITING = 8  # frames; a browser that is later than that is better off with newer ones


async def hold_talk(socket: WebSocket, talk: Talk) -> None:
    """Both directions until either side ends; a visitor who leaves ends the talk."""
    loop, outgoing = asyncio.get_running_loop(), asyncio.Queue[bytes | str]()

    def put(message: bytes | str) -> None:
        if isinstance(message, str) or outgoing.qsize() < _MOST_WAITING:
            outgoing.put_nowait(message)

    async def send() -> None:
        while True:
            message = await outgoing.get()
            await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(message))

    def hear(message: bytes | str) -> None:
        loop.call_soon_threadsafe(put, message)

    talk.attach(hear)
    sending, allowance, rate = asyncio.create_task(send()), Allowance(_MESSAGES_PER_SECOND, _BURST), 0
    try:
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            await asyncio.sleep(allowance.wait_for(1))
            try:
                if message.get("bytes") is not None:
                    talk.hear(message["bytes"], rate)
                else:
                    rate = _take_in(talk, message.get("text"), rate)
            except (KeyError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
                put(json.dumps({"type": "refused", "message": f"This message cannot be used: {error}"}))
    finally:
        sending.cancel()
        talk.attach(lambda message: None)
        talk.stop()


def _take_in(talk: Talk, text: str | None, rate: int) -> int:
    """Do what a message asks; returns the microphone's rate from now on. Raises KeyError, ValueError, TypeError,
    OverflowError, RecursionError: it cannot be done."""
    message: dict[str, Any] = read_message(text)
    match message["type"]:
        case "microphone":
            return int(message["rate"])
        case "set":
            talk.set(track_values(message["tracks"]))
        case "record":
            talk.record(bool(message["on"]))
        case "stop":
            talk.stop()
        case kind:
            raise ValueError(f"unknown message type {str(kind)[:100]!r}")
    return rate
