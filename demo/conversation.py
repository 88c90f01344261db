"""One viewer's WebSocket. What the viewer sends is bounded in size and rate before it costs a running stream anything;
`demo.routes` describes the messages.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.websockets import WebSocket

from demo.live import VIEWER, LiveTake
from demo.uploads import UploadError, read_controls
from eartalking.controls import ControlFrame

LARGEST_MESSAGE = 2**20  # characters of JSON; a plan of ten tracks over two minutes has about 300,000
MOST_WAITING = 256  # messages; a viewer who reads more slowly than that misses frames, and the file has them all
# A slider that is dragged sends one message for each picture of the screen, the player ten a second besides.
MESSAGES_PER_SECOND, BURST = 400.0, 400.0
_LONG_MESSAGE = 2000  # characters; what is longer counts for so many messages more, and is read in a thread
_GATHER_SECONDS = 0.01  # sets that come closer together than this are one change; a frame takes 40 ms
_LONGEST_ID = 100  # characters


class Allowance:
    """How fast messages are taken: `burst` at once, and `rate` a second on average."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._since = burst, clock()

    def wait_for(self, cost: float) -> float:
        """Take `cost` messages' worth; returns the seconds to wait until it is due."""
        now = self._clock()
        self._left = min(self._left + (now - self._since) * self._rate, self._burst) - cost
        self._since = now
        return max(-self._left / self._rate, 0.0)


class Conversation:
    """Both directions between a viewer and a take, until either side ends; a viewer who leaves ends the stream."""

    def __init__(self, socket: WebSocket, take: LiveTake) -> None:
        self._socket, self._take = socket, take
        self._outgoing: asyncio.Queue[bytes | str] = asyncio.Queue()
        self._allowance = Allowance(MESSAGES_PER_SECOND, BURST)
        self._tracks: dict[str, Any] = {}  # asked for and not yet handed to the take
        self._ids: list[Any] = []
        self._first: int | None = None  # from where on that is to be made anew
        self._asked = asyncio.Event()

    async def hold(self) -> None:
        """Returns when the viewer has left."""
        loop = asyncio.get_running_loop()

        def hear(message: bytes | str) -> None:
            loop.call_soon_threadsafe(self._put, message)

        self._take.attach(hear)
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._steer())]
        try:
            while (message := await self._socket.receive())["type"] != "websocket.disconnect":
                text = message.get("text")
                # Reading slowly is all that it takes: what the viewer sends meanwhile stays on the viewer's side.
                await asyncio.sleep(self._allowance.wait_for(1 + len(text or "") / _LONG_MESSAGE))
                await self._take_in(text)
        finally:
            for task in tasks:
                task.cancel()
            self._take.attach(lambda message: None)
            if self._take.pace == VIEWER:
                self._take.stop()

    def _put(self, message: bytes | str) -> None:
        if isinstance(message, str) or self._outgoing.qsize() < MOST_WAITING:
            self._outgoing.put_nowait(message)

    def _answer(self, kind: str, **content: Any) -> None:
        self._put(json.dumps({"type": kind, **content}))

    async def _send(self) -> None:
        while True:
            message = await self._outgoing.get()
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_text(message)

    async def _steer(self) -> None:
        """Hand over what was asked for, the first at once and what comes right after it together."""
        while True:
            await self._asked.wait()
            self._hand_over()
            await asyncio.sleep(_GATHER_SECONDS)

    def _hand_over(self) -> None:
        self._asked.clear()
        if not self._tracks:
            return
        change = self._take.set(self._tracks, self._first)
        for number in self._ids:
            self._accept(number, change)
        self._tracks, self._ids, self._first = {}, [], None

    def _accept(self, number: Any, change: int | None = None) -> None:
        self._answer("accepted", id=number, change=change, frame=self._take.next_frame, turn=self._take.turns)

    async def _take_in(self, text: str | None) -> None:
        """Do what one message asks, or say why not."""
        number: Any = None
        try:
            message = read_message(text)
            number = _short(message.get("id"))
            if message["type"] == "set":
                tracks, first = track_values(message["tracks"]), first_frame(message)
                self._tracks |= tracks
                self._first = min((one for one in (self._first, first) if one is not None), default=None)
                self._ids.append(number)
                self._asked.set()
            else:
                self._hand_over()  # whatever was asked for before
                if len(text or "") > _LONG_MESSAGE:  # a plan that takes a while to lay out
                    await asyncio.to_thread(_do, self._take, message)
                else:  # a change of threads would cost more than the work
                    _do(self._take, message)
                if message["type"] == "plan" and number is not None:
                    self._accept(number)
        except KeyError as error:
            self._answer("refused", id=number, message=f"The message lacks {error}.")
        except (ValueError, TypeError, ArithmeticError, RecursionError, UploadError) as error:
            why = "This JSON is nested too deeply." if isinstance(error, RecursionError) else str(error)
            self._answer("refused", id=number, message=why)


def read_message(text: str | None) -> dict[str, Any]:
    """Raises ValueError, RecursionError: it is no message."""
    if text is None:
        raise ValueError("Messages are JSON text, not bytes.")
    if len(text) > LARGEST_MESSAGE:
        raise ValueError(f"A message may have {LARGEST_MESSAGE} characters at most.")
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("A message is a JSON object with a type.")
    return message


def track_values(tracks: Any) -> dict[str, Any]:
    """Tracks as `LiveTake.set` takes them. Raises ValueError, TypeError: they are none."""
    if not isinstance(tracks, dict):
        raise ValueError("tracks must be an object of track names and values")
    asked = ControlFrame({track: tuple(v) if isinstance(v, list) else v for track, v in tracks.items()})
    return {track: asked[track] for track in tracks}


def first_frame(message: Mapping[str, Any]) -> int | None:
    """From which frame on a message wants what was made to be made anew; None: it does not. Raises ValueError,
    TypeError, OverflowError: it is no frame.
    """
    first = message.get("from")
    return None if first is None else max(int(first), 0)


def _short(number: Any) -> Any:
    """What a viewer calls a message, to be sent back; nothing that is large."""
    fits = isinstance(number, int | float | bool) or (isinstance(number, str) and len(number) <= _LONGEST_ID)
    return number if fits else None


def _do(take: LiveTake, message: Mapping[str, Any]) -> None:
    """Raises KeyError, ValueError, TypeError, OverflowError, UploadError: it cannot be done."""
    match message["type"]:
        case "playhead":
            frame = float(message["frame"])
            lead = float(message.get("lead", 0.0))
            paused = bool(message.get("paused", False))
            take.follow(frame if math.isfinite(frame) else 0.0, bool(message["playing"]), lead, paused)
        case "plan":
            take.replan(read_controls(message["controls"]), first_frame(message))
        case "stop":
            take.stop(keep=True)
        case kind:
            raise ValueError(f"unknown message type {str(kind)[:_LONGEST_ID]!r}")
