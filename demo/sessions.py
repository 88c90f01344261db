"""Who is using the page, what they brought, what they made; and when all of that is deleted."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np
from gradio.utils import get_upload_folder

from demo.engine import Engine, Job, Sitter
from demo.live import RUNNING, VIEWER, LiveTake
from demo.looks import checked_look
from demo.settings import Limits
from demo.talk import RUNNING as TALKING
from demo.talk import Talk
from demo.uploads import CropBox, Portrait, UploadError, Voice, open_portrait, open_voice
from eartalking.controls import ControlFrame, Controls
from eartalking.output import Look, leaves

T = TypeVar("T")
_SWEEP_SECONDS = 30.0
_LONGEST_HOLD_SECONDS = 90.0


@dataclass
class UserSession:
    """One visitor (a browser tab, or a client of the API): a folder of their own, their inputs, their takes, newest
    last.
    """

    folder: Path
    portrait: Portrait | None = None
    title: str = ""  # who the portrait shows: a file's or an example's name
    voice: Voice | None = None
    words: str = ""  # what the voice says, where it was typed
    takes: list[LiveTake] = field(default_factory=list)
    started: int = 0
    talk: Talk | None = None
    uploads: set[Path] = field(default_factory=set)
    seen: float = field(default_factory=monotonic)
    holds: int = 0  # how many callers still need its files

    @property
    def talking(self) -> bool:
        return self.talk is not None and self.talk.state == TALKING

    @property
    def running(self) -> LiveTake | None:
        return next((take for take in reversed(self.takes) if take.state == RUNNING), None)


class Sessions:
    """All visitors of one process. Their files live in `root`, one folder each, and go when they go."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.root = Path(tempfile.mkdtemp(prefix="eartalking-demo-"))
        self._sessions: dict[str, UserSession] = {}
        self._lock = threading.Lock()
        self._let_go = threading.Condition(self._lock)
        self._closed = threading.Event()
        self._portraits: dict[Path, Portrait] = {}
        self._voices: dict[Path, Voice] = {}
        self._preloading: threading.Thread | None = None
        self._bundle_lock = threading.Lock()
        threading.Thread(target=self._sweep_for_ever, name="sweeper", daemon=True).start()

    def get(self, key: str | None) -> UserSession:
        """The visitor with this key (Gradio's session hash), created at the first call."""
        key = key or "anonymous"
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = UserSession(Path(tempfile.mkdtemp(dir=self.root)))
            session.seen = monotonic()
        if len(self._sessions) > self.limits.visitors:
            self._close_one_of_many()
        return session

    def find_take(self, token: str) -> LiveTake | None:
        """The take with this token, of any visitor: the token is the permission."""
        with self._lock:
            for session in self._sessions.values():
                for take in session.takes:
                    if take.token == token:
                        session.seen = monotonic()
                        return take
        return None

    def find_talk(self, token: str) -> Talk | None:
        """The live talk with this token, of any visitor: the token is the permission."""
        with self._lock:
            for session in self._sessions.values():
                if session.talk is not None and session.talk.token == token:
                    session.seen = monotonic()
                    return session.talk
        return None

    def start_talk(self, session: UserSession, seed: int, crop: CropBox | None = None) -> Talk:
        """Let the session's portrait speak with the visitor's own voice, from now on; it ends if no microphone
        comes. What runs in this session is stopped first.

        Raises:
            UploadError: there is no portrait, or no face in it and no crop, or live talks are not offered here.
            BusyError: all places are taken.
        """
        if not self.engine.talks:
            raise UploadError("Live talks are not offered here: this machine computes a few seconds at a time.")
        sitter = _sitter(session, crop, self.engine.image_size)
        for running in (session.running, session.talk):
            if running is not None:
                running.stop()
                running.wait(5.0)
        session.talk = Talk(self.engine, sitter, seed, session.folder, self.limits)
        session.talk.start()
        return session.talk

    @contextlib.contextmanager
    def held(self, token: str) -> Iterator[LiveTake | None]:
        """The take with this token, as `find_take`; until the block ends, its visitor's files are not deleted."""
        take = self.find_take(token)
        with self._lock:
            session = next((one for one in self._sessions.values() if take in one.takes), None)
            if session is not None:
                session.holds += 1
        try:
            yield None if session is None else take
        finally:
            if session is not None:
                with self._let_go:
                    session.holds -= 1
                    self._let_go.notify_all()

    def set_portrait(self, session: UserSession, upload: Path | None, face: str = "largest") -> Portrait | None:
        """Check and keep a portrait; `face` as for `open_portrait`.

        Raises:
            UploadError: it cannot be used; the upload is deleted.
        """
        session.portrait = None
        if upload is not None:
            check = functools.partial(open_portrait, face=face)
            self._keep(session, self._checked(session, upload, "portrait", check))
        return session.portrait

    def choose_face(self, session: UserSession, number: int) -> Portrait:
        """Let another face of the session's portrait speak, counted from the left from 1.

        Raises:
            UploadError: there is no portrait, or no such face in it.
        """
        if session.portrait is None:
            raise UploadError("Please choose a portrait first.")
        return self._keep(session, session.portrait.with_face(number))

    def _keep(self, session: UserSession, portrait: Portrait) -> Portrait:
        if portrait.face is not None:  # without one, where the face is will be asked for
            asleep = self.engine.prepare(_sitting(portrait, None, self.engine.image_size))
            portrait = replace(portrait, asleep=asleep)
        session.portrait = portrait
        return portrait

    def still(self, session: UserSession, controls: ControlFrame, crop: CropBox | None) -> np.ndarray | None:
        """The session's portrait (size, size, 3) uint8 under `controls`, as `Engine.still`; None without a face.

        Raises:
            UploadError: the crop cannot be used.
        """
        portrait = session.portrait
        if portrait is None or (portrait.face is None and crop is None):
            return None
        return self.engine.still(_sitting(portrait, crop, self.engine.image_size), controls)

    def set_voice(self, session: UserSession, upload: Path | None) -> Voice | None:
        """Check and keep a voice, or the sound of a video.

        Raises:
            UploadError: it cannot be used; the upload is deleted.
        """
        session.voice = None
        if upload is not None:
            session.voice = self._checked(session, upload, "voice", open_voice)
        return session.voice

    def preload(self, portraits: set[Path], voices: set[Path]) -> None:
        """Open bundled files once for all visitors, in a thread of their own, so that no visitor waits for a face to be
        found.
        """

        def work() -> None:
            for path in portraits:
                self._bundled_portrait(path)
            for path in voices:
                self._bundled_voice(path)

        self._preloading = threading.Thread(target=work, name="preload", daemon=True)
        self._preloading.start()

    def wait_until_preloaded(self) -> None:
        """Block until `preload` is through."""
        if self._preloading is not None:
            self._preloading.join()

    def set_bundled(self, session: UserSession, portrait: Path, voice: Path) -> None:
        """Give a session a bundled portrait and voice."""
        session.portrait, session.voice = self._bundled_portrait(portrait), self._bundled_voice(voice)

    def _bundled_portrait(self, path: Path) -> Portrait:
        with self._bundle_lock:
            if path not in self._portraits:
                portrait = self._portraits[path] = open_portrait(path, self.limits)
                self.engine.prepare(_sitting(portrait, None, self.engine.image_size))
            return self._portraits[path]

    def _bundled_voice(self, path: Path) -> Voice:
        with self._bundle_lock:
            if path not in self._voices:
                self._voices[path] = open_voice(path, self.limits)
            return self._voices[path]

    def start_take(
        self,
        session: UserSession,
        *,
        controls: Controls,
        seed: int,
        crop: CropBox | None = None,
        look: Look | None = None,
        badge: bool = False,
        pace: str = VIEWER,
    ) -> LiveTake:
        """Start a stream from the session's portrait and voice; one that still runs in this session is stopped first.

        Raises:
            UploadError: something is missing: a portrait, a voice, or in a picture without a face a crop.
            BusyError: all places are taken.
        """
        sitter = _sitter(session, crop, self.engine.image_size, look)
        if session.voice is None:
            raise UploadError("Please choose a voice first.")
        if session.running is not None:
            session.running.stop()
            session.running.wait(5.0)
        job = Job(sitter, session.voice.waveform, seed)
        take = LiveTake(self.engine, job, session.voice, session.folder, self.limits, controls, badge=badge, pace=pace)
        session.started += 1
        take.number, take.title = session.started, session.title
        session.takes.append(take)
        self._drop_old_takes(session)
        take.start()
        return take

    def close(self, key: str | None) -> None:
        """The visitor left: stop their streams and delete all that is theirs, as soon as nobody holds it."""
        with self._let_go:
            session = self._sessions.pop(key or "anonymous", None)
            if session is not None:
                self._let_go.wait_for(lambda: not session.holds, _LONGEST_HOLD_SECONDS)
        if session is not None:
            self._delete(session)

    def close_all(self) -> None:
        """Stop everything and delete all files."""
        self._closed.set()
        for key in list(self._sessions):
            self.close(key)
        shutil.rmtree(self.root, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._sessions)

    def _checked(self, session: UserSession, upload: Path, kind: str, check: Callable[[Path, Limits], T]) -> T:
        """What `check` makes of a copy in the session's own folder; of an upload that is no good, nothing remains.

        Gradio stores equal files of different visitors once, so what a session works with must be its own.
        """
        _clear(session, kind)
        session.uploads.add(upload)
        copy = session.folder / f"{kind}{upload.suffix.lower()[:8] or '.bin'}"
        largest = self.limits.voice_bytes if kind == "voice" else self.limits.upload_bytes
        try:
            if upload.stat().st_size > largest:
                raise UploadError(f"This file has more than {largest / 2**20:.0f} MB. Please choose a smaller one.")
            shutil.copyfile(upload, copy)
            return check(copy, self.limits)
        except UploadError:
            _clear(session, kind)
            self._forget(session, upload)
            raise

    def _forget(self, session: UserSession, upload: Path) -> None:
        session.uploads.discard(upload)
        shared = any(upload in other.uploads for other in self._sessions.values())
        # Only what Gradio stored for a visitor: examples stay, even where the whole project lies in a temporary folder.
        stored = Path(get_upload_folder()).resolve()
        if not shared and stored in upload.resolve().parents:
            upload.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder that Gradio made for it; not empty, or not ours: it stays
                upload.parent.rmdir()

    def _drop_old_takes(self, session: UserSession) -> None:
        kept = [take for take in session.takes if take.has_video]
        keep = {take.token for take in kept[-self.limits.kept_takes :]}
        for take in list(session.takes):
            if take.state != RUNNING and take.token not in keep and take is not session.takes[-1]:
                session.takes.remove(take)
                shutil.rmtree(take.folder, ignore_errors=True)

    def _delete(self, session: UserSession) -> None:
        ending: list[LiveTake | Talk] = [*session.takes, *([session.talk] if session.talk else [])]
        for take in ending:
            take.stop()
        for take in ending:
            take.wait(5.0)
        for upload in list(session.uploads):
            self._forget(session, upload)
        shutil.rmtree(session.folder, ignore_errors=True)

    def _close_one_of_many(self) -> None:
        """More visitors than there is room for: the one that was idle for the longest goes, but nobody who watches."""
        with self._lock:
            idle = [(one.seen, key) for key, one in self._sessions.items() if one.running is None and not one.talking]
        if len(idle) > 1:  # the newest of them has just come
            self.close(min(idle)[1])

    def _sweep_for_ever(self) -> None:
        while not self._closed.wait(_SWEEP_SECONDS):
            self.sweep()

    def sweep(self) -> None:
        """Close every session that has shown no sign of life for `Limits.idle_seconds`, and give back memory."""
        oldest = monotonic() - self.limits.idle_seconds
        for key, session in list(self._sessions.items()):
            if session.seen < oldest and session.running is None and not session.talking:
                self.close(key)
        _give_back_memory()


def _sitter(session: UserSession, crop: CropBox | None, image_size: int, look: Look | None = None) -> Sitter:
    """Who is to speak. Raises UploadError: there is no portrait, nothing says where the face is, or no frame can look
    so.
    """
    portrait = session.portrait
    if portrait is None:
        raise UploadError("Please choose a portrait first.")
    if portrait.face is None and crop is None:
        raise UploadError("No face was found in this picture. Please frame one with the crop, from chin to crown.")
    return _sitting(portrait, crop, image_size, checked_look(look, image_size))


def _sitting(portrait: Portrait, crop: CropBox | None, image_size: int, look: Look | None = None) -> Sitter:
    """Raises UploadError: the crop cannot be used."""
    look = look or Look()
    picture, box = portrait.placed(crop, look)
    if not look and not leaves(box, picture):
        return Sitter(portrait.cut(crop, image_size))  # nothing else of the picture is needed
    return Sitter(picture, box, look)


def _clear(session: UserSession, kind: str) -> None:
    for old in session.folder.glob(f"{kind}.*"):
        old.unlink(missing_ok=True)


def _give_back_memory() -> None:
    """The C library keeps what short-lived threads have freed, hundreds of megabytes after a day; GNU's can be told to
    hand it back, which takes 1 to 20 ms."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
