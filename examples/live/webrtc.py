"""Your microphone's face over WebRTC: `python examples/live/webrtc.py --portrait examples/portrait.png`, then open the
address it prints.

The browser sends its microphone and gets pictures back, through aiortc; WebRTC copes with networks that a WebSocket
does not. Needs `pip install ".[live,demo]"` (Starlette and uvicorn come with the demo).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import threading
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioResampler, VideoFrame
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from eartalking import StreamSession, load_model
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.live import LiveFace

PAGE = """<!doctype html><title>EARTalking over WebRTC</title><video autoplay playsinline width=512></video>
<p><button>Start</button> AI-generated picture; it speaks with your voice.<script>
document.querySelector("button").onclick = async () => {
  const peer = new RTCPeerConnection(), sound = await navigator.mediaDevices.getUserMedia({ audio: true });
  peer.ontrack = (event) => { document.querySelector("video").srcObject = new MediaStream([event.track]); };
  for (const track of sound.getTracks()) peer.addTrack(track);
  peer.addTransceiver("video", { direction: "recvonly" });
  await peer.setLocalDescription();
  await new Promise((done) => { if (peer.iceGatheringState === "complete") done();
    else peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done(); });
  const answer = await fetch("offer", { method: "POST", body: JSON.stringify(peer.localDescription) });
  await peer.setRemoteDescription(await answer.json());
};</script>"""


class FaceTrack(VideoStreamTrack):
    """The newest picture of a live face, 25 times a second."""

    def __init__(self, face: LiveFace) -> None:
        super().__init__()
        self.face = face
        self._loop = asyncio.get_running_loop()
        self._images: asyncio.Queue[np.ndarray] = asyncio.Queue()
        self._shown = 0
        threading.Thread(target=self._compute, name="face", daemon=True).start()

    def _compute(self) -> None:
        for live in self.face.frames():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and this soon will
                self._loop.call_soon_threadsafe(self._images.put_nowait, live.frame.image)

    async def recv(self) -> VideoFrame:
        image = await self._images.get()
        while not self._images.empty():  # the network was slower: only the newest counts
            image = self._images.get_nowait()
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self._shown, Fraction(1, FPS)
        self._shown += 1
        return frame

    def stop(self) -> None:
        super().stop()
        self.face.close()


async def listen(track: MediaStreamTrack, face: LiveFace) -> None:
    """Give a face what a track says, until it ends."""
    resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            face.close()
            return
        for piece in resampler.resample(frame):
            face.hear(piece.to_ndarray()[0])


async def answer(offer: RTCSessionDescription, start: Callable[[], StreamSession]) -> RTCPeerConnection:
    """A peer that speaks with the caller's microphone."""
    peer = RTCPeerConnection()
    face = LiveFace(await asyncio.to_thread(start))
    pictures = FaceTrack(face)

    @peer.on("track")
    def heard(track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            peer.listening = asyncio.create_task(listen(track, face))  # kept, or it would be collected

    @peer.on("connectionstatechange")
    async def changed() -> None:
        if peer.connectionState in ("failed", "closed"):
            pictures.stop()
            await peer.close()

    await peer.setRemoteDescription(offer)
    peer.addTrack(pictures)
    await peer.setLocalDescription(await peer.createAnswer())
    return peer


def application(start: Callable[[], StreamSession]) -> Starlette:
    """The page and its one endpoint."""
    peers: set[RTCPeerConnection] = set()

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    async def offer(request: Request) -> JSONResponse:
        asked = await request.json()
        peer = await answer(RTCSessionDescription(asked["sdp"], asked["type"]), start)
        peers.difference_update([old for old in peers if old.connectionState == "closed"])
        peers.add(peer)
        return JSONResponse({"sdp": peer.localDescription.sdp, "type": peer.localDescription.type})

    return Starlette(routes=[Route("/", page), Route("/offer", offer, methods=["POST"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--portrait", default="examples/portrait.png")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    model = load_model()
    uvicorn.run(application(lambda: StreamSession(model, args.portrait)), port=args.port)


if __name__ == "__main__":
    main()
