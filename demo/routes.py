"""What the page needs beyond Gradio's own routes: the live stream and the files of a take, below `live/<token>/`.

`live/<token>/stream` is a WebSocket. The server sends what `LiveTake` publishes; the browser sends JSON:
    {"type": "set", "tracks": {"yaw": 12, "emotion": ["happy", 0.7], "blink": null}, "id": any}   acts on the next frame
    {"type": "plan", "controls": {"fps": 25, "tracks": {}}}   the timeline was edited
    {"type": "playhead", "frame": 41.5, "playing": true}      what the viewer sees now; generation stays a little ahead
    of it {"type": "stop"}                                          end now and keep what was made so far
and gets {"type": "accepted", "id": any, "change": number, "frame": next} or {"type": "refused", "id": any, "message":
why}.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from demo.live import FINISHED, FREE, VIEWER, LiveTake
from demo.sessions import Sessions
from demo.settings import STREAM_PATH
from demo.uploads import UploadError, read_controls

_LONG_MESSAGE = 2000  # characters of JSON
_LARGEST_MESSAGE = 2**20  # characters of JSON; a plan of ten tracks over two minutes has about 300,000


def live_routes(sessions: Sessions) -> list[BaseRoute]:
    """The routes, for Gradio's `launch(app_kwargs={"routes": ...})`."""

    # No check of the origin: the token is 128 random bits that only the take's owner was told, and proxies rewrite
    # hosts.
    async def stream(socket: WebSocket) -> None:
        take = sessions.find_take(socket.path_params["token"])
        if take is None or take.pace == FREE:
            await socket.close(code=4404)
            return
        await socket.accept()
        await _serve(socket, take)

    async def video(request: Request) -> Response:
        take = sessions.find_take(request.path_params["token"])
        if take is None or not take.has_video:
            return PlainTextResponse("There is no such video (any more).", status_code=404)
        name = "talking.mp4" if take.state == FINISHED else "talking-stopped.mp4"
        return FileResponse(take.video, media_type="video/mp4", filename=name, content_disposition_type="inline")

    async def controls(request: Request) -> Response:
        take = sessions.find_take(request.path_params["token"])
        if take is None or not take.applied:
            return PlainTextResponse("There is no such control log (any more).", status_code=404)
        path = take.folder / f"controls.{request.path_params['form']}"
        take.log().save(path)
        return FileResponse(path, filename=path.name)

    return [
        WebSocketRoute(f"/{STREAM_PATH}/{{token}}/stream", stream),
        Route(f"/{STREAM_PATH}/{{token}}/talking.mp4", video),
        Route(f"/{STREAM_PATH}/{{token}}/controls.{{form:str}}", _only_known_forms(controls)),
    ]


def gone_file_handlers() -> dict[type[Exception], Any]:
    """Exception handlers, for Gradio's `launch(app_kwargs={"exception_handlers": ...})`: a refused upload is deleted at
    once, and the page's preview may be asking for it in that moment. Gradio looks for a file before it serves it; what
    goes in between is
    as gone as what went before: 404, not an internal error."""

    async def gone(request: Request, error: Exception) -> Response:
        # Starlette says so by a RuntimeError when the file went after the headers were made.
        if isinstance(error, RuntimeError) and not str(error).startswith("File at path"):
            raise error
        return PlainTextResponse("There is no such file (any more).", status_code=404)

    return {FileNotFoundError: gone, RuntimeError: gone}


def _only_known_forms(endpoint: Any) -> Any:
    async def checked(request: Request) -> Response:
        if request.path_params["form"] not in ("json", "csv"):
            return PlainTextResponse("controls.json or controls.csv", status_code=404)
        return await endpoint(request)

    return checked


async def _serve(socket: WebSocket, take: LiveTake) -> None:
    """Both directions until either side ends; a viewer who leaves ends the stream."""
    loop = asyncio.get_running_loop()
    outgoing: asyncio.Queue[bytes | str] = asyncio.Queue()

    def send(message: bytes | str) -> None:
        loop.call_soon_threadsafe(outgoing.put_nowait, message)

    take.attach(send)
    sender = asyncio.create_task(_send(socket, outgoing))
    try:
        while True:
            text = await socket.receive_text()
            if len(text) <= _LARGEST_MESSAGE:
                # A long plan takes a while to lay out; for the rest a change of threads would cost more than the work.
                answer = (
                    await asyncio.to_thread(_handle, take, text) if len(text) > _LONG_MESSAGE else _handle(take, text)
                )
                if answer is not None:
                    outgoing.put_nowait(json.dumps(answer))
    except (WebSocketDisconnect, KeyError):  # KeyError: bytes where text belongs
        pass
    finally:
        sender.cancel()
        take.attach(lambda message: None)
        if take.pace == VIEWER:
            take.stop()


async def _send(socket: WebSocket, outgoing: asyncio.Queue) -> None:
    while True:
        message = await outgoing.get()
        if isinstance(message, bytes):
            await socket.send_bytes(message)
        else:
            await socket.send_text(message)


def _handle(take: LiveTake, text: str) -> dict[str, Any] | None:
    """Do what one message asks; returns the answer, if it has one."""
    message: Any = None
    try:
        message = json.loads(text)
        match message["type"]:
            case "playhead":
                frame = float(message["frame"])
                take.follow(frame if math.isfinite(frame) else 0.0, bool(message["playing"]))
                return None
            case "set":
                change = take.set(
                    {track: tuple(v) if isinstance(v, list) else v for track, v in message["tracks"].items()}
                )
            case "plan":
                take.replan(read_controls(message["controls"]))
                return None
            case "stop":
                take.stop(keep=True)
                return None
            case kind:
                raise ValueError(f"unknown message type {kind!r}")
        return {"type": "accepted", "id": message.get("id"), "change": change, "frame": take.next_frame}
    except (ValueError, KeyError, TypeError, AttributeError, UploadError) as error:
        number = message.get("id") if isinstance(message, dict) else None
        return {"type": "refused", "id": number, "message": str(error)}
