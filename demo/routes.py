"""What the page needs beyond Gradio's own routes: the live stream and the files of a take, below `live/<token>/`.

`live/<token>/stream` is a WebSocket. The server sends what `LiveTake` publishes; the browser sends JSON:
    {"type": "set", "tracks": {"yaw": 12, "emotion": ["happy", 0.7], "blink": null}, "id": any}   acts on the next frame
    {"type": "plan", "controls": {"fps": 25, "tracks": {}}}   the timeline was edited
    {"type": "playhead", "frame": 41.5, "playing": true, "lead": 5, "paused": false}   what the viewer sees now, and how
    many frames more are wanted; generation stays so far ahead. Who does not play waits for frames, or has paused
    {"type": "stop"}                                          end now and keep what was made so far
and gets {"type": "accepted", "id": any, "change": number, "frame": next, "turn": number} or {"type": "refused", "id":
any, "message": why}; sets that come within 10 ms are one change, the last value of a track counts. A set or plan with
"from": 43 is wanted from frame 43 on: of what the viewer has not seen by then, what becomes another frame by it is made
anew. A plan is accepted only if it has an id. Messages are JSON text of a megabyte at most, 400 a second; a viewer who
sends faster waits.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from demo.conversation import Conversation
from demo.live import FINISHED, FREE
from demo.sessions import Sessions
from demo.settings import STREAM_PATH
from demo.talk_socket import hold_talk


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
        await Conversation(socket, take).hold()

    async def talk(socket: WebSocket) -> None:
        found = sessions.find_talk(socket.path_params["token"])
        if found is None or found.attached:
            await socket.close(code=4404)
            return
        await socket.accept()
        await hold_talk(socket, found)

    async def recording(request: Request) -> Response:
        found, number = sessions.find_talk(request.path_params["token"]), request.path_params["number"]
        path = None if found is None else found.recording(number)
        if path is None:
            return PlainTextResponse("There is no such recording (any more).", status_code=404)
        return FileResponse(path, media_type="video/mp4", filename=path.name, content_disposition_type="inline")

    async def video(request: Request) -> Response:
        take = sessions.find_take(request.path_params["token"])
        if take is None or not take.has_video:
            return PlainTextResponse("There is no such video (any more).", status_code=404)
        name = "talking.mp4" if take.state == FINISHED else "talking-stopped.mp4"
        return FileResponse(take.video, media_type="video/mp4", filename=name, content_disposition_type="inline")

    return [
        WebSocketRoute(f"/{STREAM_PATH}/{{token}}/stream", stream),
        WebSocketRoute(f"/{STREAM_PATH}/{{token}}/talk", talk),
        Route(f"/{STREAM_PATH}/{{token}}/recording-{{number:int}}.mp4", recording),
        Route(f"/{STREAM_PATH}/{{token}}/talking.mp4", video),
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
