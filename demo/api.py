"""The API: named, documented endpoints for `gradio_client` and MCP. They drive the same takes as the page."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from benchmarks.leaderboard.headline import HEADLINE
from benchmarks.leaderboard.table import Row, name_column, read_table
from demo.api_schema import CONTROLS, CROP, LARGEST_SEED, TRACKS, FaceInput, JsonInput, SeedInput, told_whole
from demo.channel import BusyError
from demo.live import CLOCK, FAILED, FREE, RUNNING, LiveTake
from demo.portrait import PortraitInput
from demo.sessions import Sessions
from demo.settings import LEADERBOARD
from demo.uploads import CropBox, Portrait, UploadError, read_controls
from eartalking.errors import InputError
from eartalking.output import Look

_STATUS_SECONDS = 0.2
_STEER_WAIT_SECONDS = 1.0
_WRITING_SECONDS = 60.0  # that the rest of a stopped stream's file may take
_CONSENT_NEEDED = (
    "consent must be true: you may animate this portrait and use this voice, and will say that the result is "
    "AI-generated."
)
_NO_SUCH_TAKE = "There is no such take (any more)."


@dataclass(frozen=True)
class _Wish:
    """What a caller passed in, unchecked."""

    portrait: str | None
    voice: str | None
    controls: Any
    seed: float | None
    badge: bool
    consent: bool
    face: str | None
    crop: Any


class Endpoints:
    """What programs can call; the docstrings are what they are told."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @told_whole
    def generate(
        self,
        portrait: str,
        voice: str,
        controls: dict | None,
        seed: float,
        badge: bool,
        consent: bool,
        face: str = "largest",
        crop: dict | None = None,
    ) -> Iterator[tuple[str, dict, dict]]:
        """Make a video of a portrait that speaks with a voice: the same file that the command line makes of the same
        inputs.

        Args:
            portrait: A picture with a face, upright and well lit works best.
            voice: A recording, or a video with sound; of a long one the beginning is used, and the answer says so.
            controls: Head, eyes and face over time, such as {"fps": 25, "tracks": {"yaw": [[0, 0], [1.2, 15]],
                "emotion": [[2, ["happy", 0.8]]]}}: keyframes of [seconds, value]. What is left out the model decides.
            seed: A whole number from 0 to 2147483647; the same inputs and seed give the same video.
            badge: Draw a visible "AI-generated" badge into the picture. The file's metadata says so in any case.
            consent: Must be true: you may animate this portrait and use this voice, and will say that the result is
                AI-generated.
            face: Which of several faces speaks: largest, left, right, or a number that counts from the left, 1 first.
            crop: The square of the portrait that is animated, in pixels: {"left": 40, "top": 20, "side": 300}, chin to
                crown. Without it the face is framed; a picture in which no face is found needs it. With it or without,
                "size": 512 doubles the detail, "frame": "portrait" shows the whole picture, and "background": "white"
                puts the person on a colour.

        Returns:
            The mp4, the controls that were in force frame by frame, and how fast it was made.
        """
        with self._visit(_Wish(portrait, voice, controls, seed, badge, consent, face, crop), FREE) as take:
            take.wait()
            _raise_if_failed(take)
            about = take.stats() | {"fingerprint": take.fingerprint} | _note(take)
            yield str(take.video), take.log_document(), about

    @told_whole
    def stream(
        self,
        portrait: str,
        voice: str,
        controls: dict | None,
        seed: float,
        badge: bool,
        consent: bool,
        face: str = "largest",
        crop: dict | None = None,
    ) -> Iterator[tuple[dict, str | None]]:
        """Run a stream in real time, so that /steer can change it while it runs. Yields its status several times a
        second; who gets answers only at the end, as MCP clients do, calls /begin instead.

        Args:
            portrait: A picture with a face.
            voice: A recording, or a video with sound.
            controls: Keyframes as for /generate.
            seed: A whole number from 0 to 2147483647.
            badge: Draw a visible "AI-generated" badge into the picture.
            consent: Must be true, as for /generate.
            face: Which of several faces speaks, as for /generate.
            crop: The square that is animated, as for /generate.

        Returns:
            The status, whose `take` is the key for /steer, /status and /stop, and whose `websocket` sends the frames
            themselves; and the mp4, at the end.
        """
        with self._visit(_Wish(portrait, voice, controls, seed, badge, consent, face, crop), CLOCK) as take:
            while not take.wait(_STATUS_SECONDS):
                yield _status(take), None
            _raise_if_failed(take)
            yield _status(take), str(take.video) if take.has_video else None

    @told_whole
    def begin(
        self,
        portrait: str,
        voice: str,
        controls: dict | None,
        seed: float,
        badge: bool,
        consent: bool,
        face: str = "largest",
        crop: dict | None = None,
    ) -> dict:
        """Start a stream in real time and answer at once. /steer changes it while it runs, /status says how far it is,
        /stop gives its video, at its end or before.

        Args:
            portrait: A picture with a face.
            voice: A recording, or a video with sound.
            controls: Keyframes as for /generate.
            seed: A whole number from 0 to 2147483647.
            badge: Draw a visible "AI-generated" badge into the picture.
            consent: Must be true, as for /generate.
            face: Which of several faces speaks, as for /generate.
            crop: The square that is animated, as for /generate.

        Returns:
            The status, whose `take` is the key for /steer, /status and /stop. What nobody asks about for half an hour
            is deleted.
        """
        _, take = self._begin(_Wish(portrait, voice, controls, seed, badge, consent, face, crop), CLOCK)
        return _status(take)

    @told_whole
    def steer(self, take: str, tracks: dict) -> dict:
        """Change controls of a running stream from its next frame on.

        Args:
            take: The key that /begin or /stream gave.
            tracks: Track names and values, such as {"yaw": 12, "emotion": ["happy", 0.7], "blink": null}; null gives a
                track back to the model.

        Returns:
            `applied_frame`, the first frame with these values in force (null if the stream ended before), and
            `next_frame`.
        """
        running = _find(self._sessions, take)
        if not isinstance(tracks, dict):
            raise gr.Error("`tracks` must be an object of track names and values.")
        try:
            change = running.set({track: tuple(v) if isinstance(v, list) else v for track, v in tracks.items()})
        except (ValueError, TypeError) as error:
            raise gr.Error(str(error)) from None
        until = time.monotonic() + _STEER_WAIT_SECONDS
        while running.effect_of(change) is None and running.state == RUNNING and time.monotonic() < until:
            time.sleep(0.01)
        seen = running.effect_of(change)
        return {"change": change, "applied_frame": seen, "next_frame": running.next_frame, "state": running.state}

    @told_whole
    def status(self, take: str) -> dict:
        """How a stream is doing: state, frames, speed, memory, and the controls in force.

        Args:
            take: The key that /begin or /stream gave.
        """
        return _status(_find(self._sessions, take))

    @told_whole
    def stop(self, take: str) -> tuple[dict, str | None]:
        """End a stream early, or fetch the video of one that has ended. What was made so far is kept.

        Args:
            take: The key that /begin or /stream gave.

        Returns:
            The status with the `controls` that were in force frame by frame, and the mp4 of what was made.
        """
        with self._sessions.held(str(take)) as running:
            if running is None:
                raise gr.Error(_NO_SUCH_TAKE)
            running.stop(keep=True)
            running.wait(_WRITING_SECONDS)
            _raise_if_failed(running)
            # Copied before it is let go: whoever else waits for this take may delete it then.
            video = save_file_to_cache(running.video, get_upload_folder()) if running.has_video else None
            return _status(running) | {"controls": running.log_document()}, video

    @told_whole
    def leaderboard(self, suite: str = "", method: str = "", columns: str = "headline") -> list:
        """The benchmark table: one row per method and test set, with the 95 % interval of every value that has one.

        Args:
            suite: Only rows of this test set, such as full or quick.
            method: Only rows of this method, such as ours.
            columns: headline for the main results, all for everything that is known (long: narrow it down by method),
                or names of columns with commas in between.

        Returns:
            A list of rows; what was not measured is left out. Empty while nothing has been measured.
        """
        try:
            rows = read_table(LEADERBOARD)
        except InputError:
            return []
        shown = _columns(rows, columns)
        name = name_column(rows)
        wanted = [row for row in rows if suite in ("", row.get("suite")) and method in ("", row[name])]
        return [{column: row[column] for column in shown if row[column] is not None} for row in wanted]

    @contextmanager
    def _visit(self, wish: _Wish, pace: str) -> Iterator[LiveTake]:
        """A take in a session of its own, which is deleted with all its files when the caller has what it came for."""
        visitor, take = self._begin(wish, pace)
        try:
            yield take
        finally:
            self._sessions.close(visitor)

    def _begin(self, wish: _Wish, pace: str) -> tuple[str, LiveTake]:
        """A running take, and the key of the session that was made for it."""
        if not wish.consent:
            raise gr.Error(_CONSENT_NEEDED)
        visitor = f"api-{secrets.token_hex(8)}"
        try:
            if not wish.portrait or not wish.voice:
                raise UploadError("A portrait and a voice are needed.")
            tracks, seed = read_controls(wish.controls or None), _seed(wish.seed)
            session = self._sessions.get(visitor)
            self._sessions.set_portrait(session, Path(wish.portrait), str(wish.face or "largest"))
            look, crop = _split(wish.crop, session.portrait)
            self._sessions.set_voice(session, Path(wish.voice))
            badge = bool(wish.badge)
            take = self._sessions.start_take(
                session, controls=tracks, seed=seed, crop=crop, look=look, badge=badge, pace=pace
            )
        except BaseException as error:
            self._sessions.close(visitor)
            if isinstance(error, UploadError | BusyError):
                raise gr.Error(str(error)) from None
            raise
        return visitor, take


def add_api(sessions: Sessions) -> None:
    """Register the endpoints inside the current `gr.Blocks`; none of their components is shown."""
    endpoints = Endpoints(sessions)
    with gr.Group(visible=False):
        inputs = [
            PortraitInput(label="Portrait", type="filepath"),
            gr.Audio(label="Voice", type="filepath"),
            JsonInput({}, CONTROLS, label="Controls"),
            SeedInput(0, label="Seed"),
            gr.Checkbox(False, label="Badge"),
            gr.Checkbox(False, label="Consent"),
            FaceInput("largest", label="Face"),
            JsonInput(None, CROP, label="Crop"),
        ]
        video, log, about = gr.File(label="Video"), gr.JSON(label="Control log"), gr.JSON(label="Status")
        key, tracks, rows = gr.Textbox(label="Take"), JsonInput(None, TRACKS, label="Tracks"), gr.JSON(label="Rows")
        narrow = [
            gr.Textbox("", label="Suite"),
            gr.Textbox("", label="Method"),
            gr.Textbox("headline", label="Columns"),
        ]
        limit = sessions.limits.takes
        takes: dict[str, Any] = {"concurrency_limit": limit, "concurrency_id": "takes"}
        quick: dict[str, Any] = {"concurrency_limit": None}
        gr.Button().click(endpoints.generate, inputs, [video, log, about], api_name="generate", **takes)
        gr.Button().click(endpoints.stream, inputs, [about, video], api_name="stream", **takes)
        gr.Button().click(endpoints.begin, inputs, about, api_name="begin", **quick)
        gr.Button().click(endpoints.steer, [key, tracks], about, api_name="steer", **quick)
        gr.Button().click(endpoints.status, key, about, api_name="status", **quick)
        gr.Button().click(endpoints.stop, key, [about, video], api_name="stop", **quick)
        gr.Button().click(endpoints.leaderboard, narrow, rows, api_name="leaderboard", **quick)


def _seed(value: float | None) -> int:
    """Raises UploadError for what is no seed."""
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = -1.0
    if not (number.is_integer() and 0 <= number <= LARGEST_SEED):
        raise UploadError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, not {value}.")
    return int(number)


def _split(value: Any, portrait: Portrait | None) -> tuple[Look, CropBox | None]:
    """What frames shall look like, and the crop, of what was passed as one. Raises UploadError as `_crop`."""
    try:
        given = dict(value or {})
    except (TypeError, ValueError):
        given = {"left": None}  # which is no crop: it is said how one is passed
    look = {name: given.pop(name) for name in Look.__annotations__ if name in given}
    return cast(Look, look), _crop(given, portrait)


def _crop(value: Any, portrait: Portrait | None) -> CropBox | None:
    """The crop that was passed, in pixels of the loaded picture. Raises UploadError: it is none, or none was passed and
    there is no face to frame."""
    if portrait is None:
        return None
    width, height = portrait.file_size
    example = f'pass crop as {{"left": x, "top": y, "side": s}} in pixels of the picture, which has {width} x {height}'
    if not value:
        if portrait.face is None:
            raise UploadError(f"No face was found in this picture: {example}, chin to crown, or use another picture.")
        return None
    try:
        left, top, side = (float(value[key]) * portrait.scale for key in ("left", "top", "side"))
    except (KeyError, TypeError, ValueError):
        raise UploadError(f"This crop cannot be used: {example}.") from None
    return portrait.fitted(CropBox(left, top, side))


def _columns(rows: list[Row], wanted: str) -> list[str]:
    """The columns of the leaderboard that were asked for, those that say which row it is first."""
    about = [column for column in (name_column(rows), "kind", "suite", "source") if column in rows[0]]
    names = [name.strip() for name in wanted.split(",") if name.strip()] or ["headline"]
    if names == ["all"]:
        return list(rows[0])
    if names == ["headline"]:
        names = [metric for choice in HEADLINE for metric in choice if metric in rows[0]]
    if unknown := [name for name in names if name not in rows[0]]:
        raise gr.Error(f"There is no column {', '.join(unknown)}; columns=all gives every one.")
    company = ("", "_ci_low", "_ci_high")
    return [*about, *(name + part for name in names for part in company if name + part in rows[0])]


def _find(sessions: Sessions, token: str) -> LiveTake:
    take = sessions.find_take(str(token))
    if take is None:
        raise gr.Error(_NO_SUCH_TAKE)
    return take


def _raise_if_failed(take: LiveTake) -> None:
    if take.state == FAILED:
        raise gr.Error(f"The stream broke off: {take.error}")


def _status(take: LiveTake) -> dict[str, Any]:
    in_force = dict(take.applied[-1].given()) if take.applied else {}
    return {
        "take": take.token,
        "state": take.state,
        "websocket": f"{take.url}/stream",
        "applied": in_force,
        **take.stats(),
        **_note(take),
    }


def _note(take: LiveTake) -> dict[str, str]:
    return {"note": take.voice.note} if take.voice.note else {}
