"""A face for a pipecat bot: what its TTS says comes out as sound and picture in step, and interruptions are obeyed.

    pipeline = Pipeline([transport.input(), stt, llm, tts, TalkingFace(StreamSession(load_model(), "portrait.png")),
                         transport.output()])

The transport needs video_out_enabled and the size of the pictures (256x256). Needs `pip install ".[live]"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from eartalking import StreamSession
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.io.sound import Resampler
from eartalking.live import LiveFace, LiveFrame


class TalkingFace(FrameProcessor):
    """TTS audio in; pictures and the same audio out, 25 times a second. Between utterances the face lives on.

    Speech synthesis is faster than speech: what it says waits here and is spoken at the pace of the clock. Sound goes
    on at 16 kHz, as the face heard it; pictures are queued with it (`sync_with_audio`). All other frames pass.
    """

    def __init__(self, session: StreamSession) -> None:
        super().__init__()
        self.face = LiveFace(session)
        self._speech: deque[np.ndarray] = deque()  # frames' worth of sound that wait to be spoken
        self._rest = np.zeros(0, np.float32)
        self._resampler: Resampler | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._say(frame)
            return
        if isinstance(frame, StartFrame):
            self._start()
        elif isinstance(frame, InterruptionFrame):
            self._speech.clear()
            self._rest = self._rest[:0]
            self.face.interrupt()
        elif isinstance(frame, EndFrame):
            while self._speech:  # the last word is spoken
                await asyncio.sleep(1 / FPS)
            await asyncio.sleep(5 / FPS)  # and shown
            await self._stop()
        elif isinstance(frame, CancelFrame):
            await self._stop()
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        await self._stop()
        await super().cleanup()

    def _say(self, frame: TTSAudioRawFrame) -> None:
        if self._resampler is None:
            self._resampler = Resampler(frame.sample_rate, SAMPLE_RATE)
        sound = np.frombuffer(frame.audio, "<i2").reshape(-1, frame.num_channels).astype(np.float32).mean(1) / 2**15
        sound = np.concatenate([self._rest, self._resampler(sound)])
        whole = len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        self._speech.extend(sound[:whole].reshape(-1, SAMPLES_PER_FRAME))
        self._rest = sound[whole:]

    def _start(self) -> None:
        loop, made = asyncio.get_running_loop(), asyncio.Queue[LiveFrame]()

        def compute() -> None:
            for live in self.face.frames():
                with contextlib.suppress(RuntimeError):  # the loop has ended, and this soon will
                    loop.call_soon_threadsafe(made.put_nowait, live)

        threading.Thread(target=compute, name="talking-face", daemon=True).start()
        self._tasks = [asyncio.create_task(self._keep_time()), asyncio.create_task(self._show(made))]

    async def _keep_time(self) -> None:
        """A frame's worth of speech, or of silence, every 40 ms."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.face.hear(self._speech.popleft() if self._speech else np.zeros(SAMPLES_PER_FRAME, np.float32))
            due = max(due + 1 / FPS, loop.time() - 1)
            await asyncio.sleep(max(due - loop.time(), 0))

    async def _show(self, made: asyncio.Queue[LiveFrame]) -> None:
        while True:
            live = await made.get()
            height, width = live.frame.image.shape[:2]
            picture = OutputImageRawFrame(live.frame.image.tobytes(), (width, height), "RGB")
            picture.sync_with_audio = bool(live.sound.any())
            if picture.sync_with_audio:
                sound = (live.sound.clip(-1, 1) * 32767).astype("<i2").tobytes()
                await self.push_frame(TTSAudioRawFrame(sound, SAMPLE_RATE, 1))
            await self.push_frame(picture)

    async def _stop(self) -> None:
        self.face.close()
        for task in self._tasks:
            task.cancel()
        self._tasks = []
