"""One running stream as the page sees it: steered while it runs, watched while it runs, an mp4 at its end."""

from __future__ import annotations

import contextvars
import io
import json
import math
import secrets
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import psutil
from PIL import Image

from demo.badge import draw_badge
from demo.channel import controls_of
from demo.engine import Engine, Job
from demo.line import Speed, Stretch
from demo.made import Made
from demo.place import Place
from demo.recorder import Recorder
from demo.settings import PREVIEW_RATE, STREAM_PATH, Limits
from demo.steering import Steering
from demo.timeline.files import as_json
from demo.timeline.tracks import TRACK_INFO
from demo.uploads import Voice
from eartalking.config import FPS
from eartalking.controls import ControlFrame, Controls
from eartalking.errors import InputError
from eartalking.io.video_writer import cut_short
from eartalking.session import Frame

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
VIEWER, CLOCK, FREE = "viewer", "clock", "free"  # who sets the pace
_FRAME_MS = 1000 / FPS
_JPEG_QUALITY = 88
_PACKET = struct.Struct("<III")  # frame index, bytes of JSON, bytes of JPEG; then JSON, JPEG, 16-bit mono sound
_STATS_EVERY = 10  # frames
_RECENT = 50  # frames over which speed is averaged
_WRITING_SECONDS = 0.25  # between two reports on the file's progress
_PAUSE_SECONDS = 180.0  # a stream ends whose viewer neither watches nor steers for so long, and twice its length
_WATCH_SECONDS = 1.0  # how often it is looked whether anybody does

Message = bytes | str
Listener = Callable[[Message], None]


class LiveTake:
    """A stream from Generate to mp4. Create it, `start` it, and it runs in its own thread.

    How fast it runs is its `pace`: VIEWER stays a few frames ahead of a viewer, who is told through `attach` and
    answers through `follow`, so that `set` is seen at once; CLOCK runs in real time, watched or not; FREE as fast as it
    can. Either way the frames and the file are those of the command line.

    It runs when it is its turn (`Engine.line`); until then it is `RUNNING`, too, and its `place` is above 0.

    Messages to the listener: bytes are frames (see `_PACKET`; the JSON holds `applied`, the controls in force, and
    `ms`), text is JSON with a `type`: `queue` (its place in the line, and about how many seconds that takes; null where
    nobody knows), `hello` (its turn has come), `parked` (its place goes to others until its viewer goes on), `stats`,
    `back` (the frame from which on all are made anew; `turn` counts how often that was asked for), `applied` (a change
    and the frame at which it took effect), `writing` (how much of the mp4 is there, once all frames are made), `done`,
    `error`.
    """

    def __init__(
        self,
        engine: Engine,
        job: Job,
        voice: Voice,
        folder: Path,
        limits: Limits,
        controls: Controls,
        *,
        badge: bool = False,
        pace: str = VIEWER,
    ) -> None:
        """`folder` receives the video and the control log.

        Raises:
            BusyError: no place is free.
        """
        self.token = secrets.token_urlsafe(16)
        self.folder = folder / self.token
        self.job, self.voice, self.badge, self.pace = job, voice, badge, pace
        self.title = ""  # who speaks, in the visitor's words
        self.number = 1  # in its visitor's session, counted by `Sessions`
        self.state = RUNNING
        self.error = ""
        self._made = Made()
        self._engine, self._limits = engine, limits
        self._frame_shape = job.sitter.frame_shape(engine.image_size)
        self._slot_number = engine.slots.take()
        self._slot = engine.slots.slots[self._slot_number]
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._backlog: list[Message] = []
        self._done = threading.Event()
        self._keep_stopped = False
        self._milliseconds: deque[float] = deque(maxlen=_RECENT)
        self._misses, self._first_frame_ms = 0, 0.0
        self._speed = Speed()
        self._stretch = Stretch()
        self._steering = Steering(self._slot, self._made, controls, job.num_frames)
        self._place = Place(engine.line, self._slot, self._slot_number, self._publish_json)
        if pace != FREE:
            self._slot.pace(limits.lead_frames)
        if pace == VIEWER:
            self._slot.open()  # only what waits for a viewer is made anew

    # Steering

    @property
    def applied(self) -> list[ControlFrame]:
        """The controls that were in force, frame by frame."""
        return self._made.applied

    @property
    def next_frame(self) -> int:
        """Index of the frame that is made next."""
        return self._steering.next_frame

    @property
    def turns(self) -> int:
        """How often the take was asked to go back."""
        return self._steering.turns

    def set(self, tracks: Mapping[str, Any], first: int | None = None) -> int:
        """As `Steering.set`. Raises ValueError: unknown track, or a value out of range."""
        self._place.stir()
        return self._steering.set(tracks, first)

    def replan(self, controls: Controls, first: int | None = None) -> None:
        """As `Steering.replan`."""
        self._place.stir()
        self._steering.replan(controls, first)

    def effect_of(self, change: int) -> int | None:
        """As `Steering.effect_of`."""
        return self._steering.effect_of(change)

    # Watching

    def attach(self, listener: Listener) -> None:
        """Send messages to `listener` (called from the take's thread), those so far first."""
        with self._lock:
            for message in self._backlog:
                listener(message)
            self._backlog.clear()
            self._listener = listener

    def follow(self, frame: float, playing: bool, lead: float = 0.0, paused: bool = False) -> None:
        """The viewer's playhead, and how far ahead of it frames are wanted; both in frames. What lies before the
        playhead is final. Who does not play waits for frames, or has `paused`.
        """
        if self.state == RUNNING:
            self._steering.follow(frame)
            if self.pace == VIEWER:
                least = self._limits.lead_frames
                wanted = lead if math.isfinite(lead) else least
                self._slot.pace(round(min(max(wanted, least), self.job.num_frames + least)))
            self._slot.follow(frame, playing)
            self._steering.close(nearly_seen=True)
            self._place.stir(paused)  # last: who has paused may go on by it

    def stop(self, keep: bool = False) -> None:
        """End now; the take is `stopped`. Its control log is kept and, with `keep`, a video of what was made so far."""
        if self.state == RUNNING:
            self._keep_stopped = keep
            self._slot.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the take has ended; False if `timeout` seconds were not enough."""
        return self._done.wait(timeout)

    # Results

    @property
    def video(self) -> Path:
        return self.folder / "talking.mp4"

    @property
    def has_video(self) -> bool:
        """Whether it has ended with an mp4: finished, or stopped and kept."""
        return self.state in (FINISHED, STOPPED) and self.video.is_file()

    @property
    def label(self) -> str:
        """What tells this take from the others of its visitor."""
        steered = ", ".join(TRACK_INFO[track].label.lower() for track in self.log().tracks) or "nothing steered"
        who = f", {self.title}" if self.title else ""
        early = f", stopped after {len(self.applied) / FPS:.1f} s" if self.state == STOPPED else ""
        return f"Take {self.number}{who}: {steered}, seed {self.job.seed}{early}"

    @property
    def url(self) -> str:
        """Where this take is served, below the page's own address."""
        return f"{STREAM_PATH}/{self.token}"

    def log(self) -> Controls:
        """The controls that were in force, frame by frame: with portrait, voice and seed it makes the same video
        again.
        """
        return controls_of(self.applied)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all pixels so far; equal for equal takes."""
        return self._made.fingerprint

    @property
    def place(self) -> int:
        """0 when it is its turn, 1 for the next."""
        return self._place.number if self.state == RUNNING else 0

    def stats(self) -> dict[str, float | int | str | None]:
        """Speed and memory. `fps` and `rtf` are what computing alone would allow, `speed` the frames a second that this
        stream gets in fact while it is not held back (None if unknown), `misses` frames over 40 ms.
        """
        mean = float(np.mean(self._milliseconds)) if self._milliseconds else 0.0
        return {
            "frames": len(self.applied),
            "total": self.job.num_frames,
            "first_frame_ms": round(self._first_frame_ms, 1),
            "frame_ms": round(mean, 1),
            "fps": round(1000 / mean, 1) if mean else 0.0,
            "rtf": round(mean / _FRAME_MS, 3),
            "speed": self._rounded_speed(),
            "place": self.place,
            "misses": self._misses,
            "memory_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
            "fingerprint": self.fingerprint[:12],
        }

    # Running

    def start(self) -> None:
        """Run in a thread of its own, which inherits the request's context (ZeroGPU reads the visitor's quota from
        it).
        """
        context = contextvars.copy_context()
        self._started = monotonic()
        self._place.join(self.job.num_frames / FPS)
        threading.Thread(target=context.run, args=(self._run,), name=f"take-{self.token[:6]}", daemon=True).start()
        if self.pace == VIEWER:
            threading.Thread(target=self._watch, name=f"watch-{self.token[:6]}", daemon=True).start()

    def _watch(self) -> None:
        """A stream without a viewer must not keep its place."""
        while not self._done.wait(_WATCH_SECONDS):
            unseen = self._listener is None and monotonic() - self._started > self._limits.client_wait_seconds
            if unseen or (self.place == 0 and self._is_forgotten()):
                self.stop()
            elif self._steering.is_kept_open:
                wanted = self._engine.line.waiting or self._place.is_paused(self._limits.pause_seconds)
                self._steering.close(nearly_seen=not wanted)
            elif self._place.is_wanted(self._limits.pause_seconds):
                self._lend_place()

    def _is_forgotten(self) -> bool:
        return self._place.idle_seconds > self.job.num_frames / FPS * 2 + _PAUSE_SECONDS

    def _lend_place(self) -> None:
        left = lambda: (self.job.num_frames - self.next_frame) / FPS  # noqa: E731
        if self._place.lend(left, self._is_forgotten):
            self._stretch.end()  # nothing was computed meanwhile
            self._greet()

    def _greet(self) -> None:
        self._publish_json("hello", frames=self.job.num_frames, size=list(self._frame_shape), fps=FPS,
                           rate=PREVIEW_RATE, seed=self.job.seed, speed=self._rounded_speed())  # fmt: skip

    def _wait_for_turn(self) -> bool:
        """Block until it is this take's turn; False if it was stopped before."""
        if not self._place.wait():
            return False
        self._started = monotonic()
        self._speed = self._engine.speed.among(self._engine.line.served, self.job.sitter.work)
        if self.pace == CLOCK:
            self._slot.follow(0, True)
        return True

    def _run(self) -> None:
        try:
            self.folder.mkdir(parents=True)
            if not self._wait_for_turn():
                self._end(STOPPED)
                return
            self._greet()
            recorder = Recorder(self.video, self._frame_shape, self.voice.path)
            try:
                self._made.record(recorder)
                for frame in self._engine.frames(self._slot_number, self.job):
                    self._take_in(frame)
                if (back := self._steering.give_up()) is not None:
                    self._publish_json("back", frame=back, turn=self.turns)
                whole = len(self.applied) == self.job.num_frames
                if whole or (self._keep_stopped and self.applied):
                    self._made.settle()
                    self._write_down(recorder, whole)
            finally:
                recorder.discard()  # what has not been written by now
                self._made.close()
            self._end(FINISHED if whole else STOPPED)
        except Exception as error:  # whatever happens, the viewer is told and the place is given back
            self.error = error.cause if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._end(FAILED)
            if not isinstance(error, InputError):
                raise

    def _write_down(self, recorder: Recorder, whole: bool) -> None:
        recorder.finish(early=not whole)
        while not recorder.wait(_WRITING_SECONDS):
            self._publish_json("writing", written=recorder.written, total=recorder.num_frames)
        if not whole:
            cut_short(
                self.video,
                recorder.num_frames,
                f"stopped early, after {recorder.num_frames} of {self.job.num_frames} frames",
            )

    def _take_in(self, frame: Frame) -> None:
        milliseconds = 1000 * frame.seconds
        image = draw_badge(frame.image) if self.badge else frame.image
        taken = self._steering.take_in(frame, image)
        if taken is None:
            return
        if taken.went_back:
            self._publish_json("back", frame=frame.index, turn=self.turns)
        if taken.went_back or taken.seen:
            self._stretch.end()  # this one was begun anew, with nothing under way beside it
        self._measure(frame.index)
        if frame.index == 0 and not taken.went_back:
            self._first_frame_ms = (monotonic() - self._started) * 1000
        if self.pace == VIEWER or self._listener is not None:
            self._publish(self._packet(image, frame.index, frame.applied, milliseconds))
        for change in taken.seen:
            waited = (monotonic() - change.asked) * 1000
            self._publish_json(
                "applied", change=change.number, frame=frame.index, tracks=change.tracks, ms=round(waited, 1)
            )
        self._made.settle(self._steering.final if self.pace == VIEWER else None)
        self._milliseconds.append(milliseconds)
        self._misses += milliseconds > _FRAME_MS and frame.index > 0
        if frame.index % _STATS_EVERY == 0:
            self._publish_json("stats", **self.stats())

    def _measure(self, index: int) -> None:
        """How fast frames come, as long as the viewer does not hold them back."""
        for seconds in self._stretch.note(monotonic(), held=not self._slot.allows(index + 1)):
            self._speed.note(seconds)
            if self._engine.line.served == 1:  # with others, it is not what the machine can do
                self._engine.speed.note(seconds / self.job.sitter.work)

    def _rounded_speed(self) -> float | None:
        return None if self._speed.fps is None else round(self._speed.fps, 1)

    def _packet(self, image: np.ndarray, index: int, applied: ControlFrame, milliseconds: float) -> bytes:
        about = json.dumps({"applied": applied.given(), "ms": round(milliseconds, 1)}).encode()
        picture = io.BytesIO()
        Image.fromarray(image).save(picture, "JPEG", quality=_JPEG_QUALITY)
        jpeg = picture.getvalue()
        return _PACKET.pack(index, len(about), len(jpeg)) + about + jpeg + self.voice.sound_of_frame(index)

    def _end(self, state: str) -> None:
        with self._lock:
            self.state = state
        self._steering.end()
        self._place.leave()
        self._engine.slots.give_back(self._slot_number)
        self._publish_json("stats", **self.stats())
        if state == FAILED:
            self._publish_json("error", message=f"The stream broke off: {self.error}")
        else:
            video = f"{self.url}/talking.mp4" if self.has_video else None
            self._publish_json("done", state=state, video=video, controls=self.log_document(),
                               fingerprint=self.fingerprint)  # fmt: skip
        self._done.set()

    def log_document(self) -> dict[str, Any]:
        """The control log as the contract's JSON document."""
        return {"fps": FPS, "tracks": as_json(self.log().tracks)}

    def _publish_json(self, kind: str, **content: Any) -> None:
        self._publish(json.dumps({"type": kind, **content}))

    def _publish(self, message: Message) -> None:
        with self._lock:
            if self._listener is not None:
                self._listener(message)
            elif self.pace == VIEWER:
                self._backlog.append(message)
