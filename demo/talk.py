"""A visitor's own voice, now: microphone in, pictures out, for as long as they like; a piece of it can be recorded."""

from __future__ import annotations

import io
import json
import secrets
import statistics
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from demo.badge import draw_badge
from demo.channel import BusyError
from demo.engine import Engine, Sitter
from demo.recorder import Recorder
from demo.settings import STREAM_PATH, Limits
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import ControlFrame
from eartalking.io.sound import Resampler, SpokenSound
from eartalking.live import LiveFace, LiveFrame

RUNNING, ENDED, FAILED = "running", "ended", "failed"
MICROPHONE_RATES = range(8_000, 96_001)  # Hz
LONGEST_PIECE = 1.0  # seconds of sound in one message
_HEAD = struct.Struct("<II")  # frame index, milliseconds from sound to picture; then JPEG
_JPEG_QUALITY = 88
_REPORT_EVERY = 25  # frames
_GOODBYE_SECONDS = 20.0  # without a message from the microphone, the place goes to somebody else

Message = bytes | str
Listener = Callable[[Message], None]


class Talk:
    """A live stream from `start` to `stop`, in a thread of its own.

    Messages to the listener: bytes are frames (`_HEAD`, then a JPEG), text is JSON with a `type`: `hello`, `stats`,
    `recorded` (an mp4 is there), `ended` and `error`.
    """

    def __init__(self, engine: Engine, sitter: Sitter, seed: int, folder: Path, limits: Limits) -> None:
        """`folder` receives recordings.

        Raises:
            BusyError: no place is free.
        """
        self.token = secrets.token_urlsafe(16)
        self.folder = folder / self.token
        self.state = RUNNING
        self.recordings = 0
        self._engine, self._limits = engine, limits
        self._sitter, self._seed = sitter, seed
        self._slot_number = engine.slots.take()
        try:
            engine.line.enter(self._slot_number)
        except BusyError:
            engine.slots.give_back(self._slot_number)
            raise
        self._face: LiveFace | None = None
        self._resampler: Resampler | None = None
        self._rate = 0
        self._stopped = False
        self._listener: Listener | None = None
        self._recording: _Recording | None = None
        self._asked_to_record = False
        self._delays: deque[float] = deque(maxlen=2 * FPS)
        self._times: deque[float] = deque(maxlen=2 * FPS)
        self._heard_at = monotonic()
        self._done = threading.Event()

    @property
    def url(self) -> str:
        """Where this talk is served, below the page's own address."""
        return f"{STREAM_PATH}/{self.token}"

    @property
    def attached(self) -> bool:
        """Whether somebody talks, or has talked."""
        return self._listener is not None

    def recording(self, number: int) -> Path | None:
        """The mp4 of a recording, counted from 1, if there is one."""
        path = self._recording_path(number)
        return path if path.is_file() else None

    def _recording_path(self, number: int) -> Path:
        return self.folder / f"talking-{number}.mp4"

    def start(self) -> None:
        """Make frames from now on."""
        threading.Thread(target=self._run, name=f"talk-{self.token[:6]}", daemon=True).start()

    def attach(self, listener: Listener) -> None:
        """Send messages to `listener`, from the talk's thread."""
        self._listener = listener
        self._publish("hello", size=self._engine.image_size, seconds=self._limits.recording_seconds)

    def hear(self, sound: bytes, rate: int) -> None:
        """16-bit little-endian mono sound that has just been recorded.

        Raises:
            ValueError: not whole samples, more than a second, or an unlikely rate.
        """
        if rate not in MICROPHONE_RATES:
            raise ValueError(f"a microphone's rate is {MICROPHONE_RATES[0]} to {MICROPHONE_RATES[-1]} Hz, not {rate}")
        if len(sound) % 2 or len(sound) > 2 * rate * LONGEST_PIECE:
            raise ValueError("sound comes as 16-bit samples, a second at most")
        if self._resampler is None or rate != self._rate:
            self._resampler, self._rate = Resampler(rate, SAMPLE_RATE), rate
        self._heard_at = monotonic()
        if self._face is not None and sound:
            self._face.hear(self._resampler(np.frombuffer(sound, "<i2").astype(np.float32) / 2**15))

    def set(self, tracks: Mapping[str, Any]) -> None:
        """Put tracks in force from the next frame on (None releases them). Raises ValueError as `ControlFrame` does."""
        asked = ControlFrame(tracks)
        if self._face is not None:
            self._face.set(**{track: asked[track] for track in tracks})

    def record(self, recording: bool) -> None:
        """Begin to keep what is shown, or end and make the mp4 of it."""
        self._asked_to_record = recording

    def stop(self) -> None:
        """End; what is being recorded is kept."""
        self._stopped = True
        if self._face is not None:
            self._face.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has ended; False if `timeout` seconds were not enough."""
        return self._done.wait(timeout)

    def _run(self) -> None:
        try:
            self.folder.mkdir(parents=True)
            session = self._engine.start(self._sitter)
            session.seed = self._seed
            self._face = LiveFace(session)
            if not self._stopped:
                for live in self._face.frames():
                    self._show(live)
                    if monotonic() - self._heard_at > _GOODBYE_SECONDS:
                        break
            self._finish_recording()
            self.state = ENDED
            self._publish("ended")
        except Exception as error:  # whatever happens, the visitor is told and the place is given back
            self.state = FAILED
            self._publish("error", message=f"The stream broke off: {type(error).__name__}: {error}")
            raise
        finally:
            if self._recording is not None:
                self._recording.discard()
            self._engine.line.leave(self._slot_number)
            self._engine.slots.give_back(self._slot_number)
            self._done.set()

    def _show(self, live: LiveFrame) -> None:
        """Hand a frame to the viewer, and to the recording."""
        picture = io.BytesIO()
        Image.fromarray(live.frame.image).save(picture, "JPEG", quality=_JPEG_QUALITY)
        self._send(_HEAD.pack(live.frame.index, round(1000 * live.delay)) + picture.getvalue())
        self._delays.append(live.delay)
        self._times.append(monotonic())
        if len(self._times) > 1 and live.frame.index % _REPORT_EVERY == 0:
            self._publish("stats", **self.stats())
        if self._asked_to_record and self._recording is None:
            self.recordings += 1
            self._recording = _Recording(self._recording_path(self.recordings), self._engine.image_size)
        if self._recording is not None:
            self._recording.add(live)
            if not self._asked_to_record or self._recording.seconds >= self._limits.recording_seconds:
                self._finish_recording()

    def stats(self) -> dict[str, float]:
        """Over the last two seconds: median milliseconds from sound to picture, and frames a second."""
        span = self._times[-1] - self._times[0]
        return {
            "delay_ms": round(1000 * statistics.median(self._delays), 1),
            "fps": round((len(self._times) - 1) / span, 1) if span else 0.0,
        }

    def _finish_recording(self) -> None:
        self._asked_to_record = False
        if self._recording is not None:
            self._recording.finish()
            self._recording = None
            self._publish("recorded", video=f"{self.url}/recording-{self.recordings}.mp4")

    def _publish(self, kind: str, **content: Any) -> None:
        self._send(json.dumps({"type": kind, **content}))

    def _send(self, message: Message) -> None:
        if self._listener is not None:
            self._listener(message)


class _Recording:
    """An mp4 of what is shown from here on; where frames were left out, the last picture stands."""

    def __init__(self, path: Path, size: int) -> None:
        self._sound = SpokenSound(SAMPLE_RATE)
        self._recorder = Recorder(path, (size, size), self._sound)

    @property
    def seconds(self) -> float:
        return self._recorder.num_frames / FPS

    def add(self, live: LiveFrame) -> None:
        self._sound.add(live.sound)
        image = draw_badge(live.frame.image)
        for _ in range(len(live.sound) // SAMPLES_PER_FRAME):
            self._recorder.add(image)

    def finish(self) -> None:
        self._recorder.finish()
        self._recorder.wait(None)

    def discard(self) -> None:
        self._recorder.discard()
