"""The API: named, documented endpoints for `gradio_client` and MCP. They drive the same takes as the page."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from benchmarks.leaderboard.table import read_table
from demo.channel import BusyError
from demo.live import CLOCK, FAILED, FINISHED, FREE, RUNNING, LiveTake
from demo.portrait import PortraitInput
from demo.sessions import Sessions
from demo.settings import LEADERBOARD
from demo.uploads import UploadError, read_controls
from eartalking.errors import InputError

_STATUS_SECONDS = 0.2
_STEER_WAIT_SECONDS = 1.0
LARGEST_SEED = 2**31 - 1
_CONSENT_NEEDED = (
    "consent must be true: you may animate this portrait and use this voice, and will say that the result is "
    "AI-generated."
)


class Endpoints:
    """What programs can call; the docstrings are what they are told."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def generate(
        self, portrait: str, voice: str, controls: dict | None, seed: float, badge: bool, consent: bool
    ) -> Iterator[tuple[str, dict, dict]]:
        """Make a video of a portrait that speaks with a voice: the same file that the command line makes of the same
        inputs.

        Args:
            portrait: A picture with a face, upright and well lit works best.
            voice: A recording, at most two minutes.
            controls: {"fps": 25, "tracks": {"yaw": [[0, 0], [1.2, 15]], "emotion": [[2, ["happy", 0.8]]]}}. Tracks are
                yaw, pitch, roll, gaze_yaw, gaze_pitch, blink, brow, smile, mouth_scale, emotion; the rest the model
                decides.
            seed: A whole number from 0 to 2147483647.
            badge: Draw a visible "AI-generated" badge into the picture. The file's metadata says so in any case.
            consent: Must be true: you may animate this portrait and use this voice, and will say that the result is
            AI-generated.

        Returns:
            The mp4, the controls that were in force frame by frame, and how fast it was made.
        """
        with _visit(self._sessions, portrait, voice, controls, seed, badge, consent, FREE) as take:
            take.wait()
            _raise_if_failed(take)
            yield str(take.video), take.log_document(), take.stats() | {"fingerprint": take.fingerprint}

    def stream(
        self, portrait: str, voice: str, controls: dict | None, seed: float, badge: bool, consent: bool
    ) -> Iterator[tuple[dict, str | None]]:
        """Run a stream in real time, so that /steer can change it while it runs. Yields its status several times a
        second.

        Args:
            portrait: A picture with a face.
            voice: A recording, at most two minutes.
            controls: Keyframes as for /generate.
            seed: A whole number from 0 to 2147483647.
            badge: Draw a visible "AI-generated" badge into the picture.
            consent: Must be true, as for /generate.

        Returns:
            The status, whose `take` is the key for /steer, /status and /stop, and whose `websocket` sends the frames
            themselves; and the mp4, at the end.
        """
        with _visit(self._sessions, portrait, voice, controls, seed, badge, consent, CLOCK) as take:
            while not take.wait(_STATUS_SECONDS):
                yield _status(take), None
            _raise_if_failed(take)
            yield _status(take), str(take.video) if take.state == FINISHED else None

    def steer(self, take: str, tracks: dict) -> dict:
        """Change controls of a running stream from its next frame on.

        Args:
            take: The key that /stream gave.
            tracks: Track names and values, such as {"yaw": 12, "emotion": ["happy", 0.7], "blink": null}; null releases
            a track.

        Returns:
            `applied_frame`, the first frame with these values in force (null if the stream ended before), and
            `next_frame`.
        """
        running = _find(self._sessions, take)
        try:
            change = running.set({track: tuple(v) if isinstance(v, list) else v for track, v in dict(tracks).items()})
        except (ValueError, TypeError) as error:
            raise gr.Error(str(error)) from None
        until = time.monotonic() + _STEER_WAIT_SECONDS
        while running.effect_of(change) is None and running.state == RUNNING and time.monotonic() < until:
            time.sleep(0.01)
        seen = running.effect_of(change)
        return {"change": change, "applied_frame": seen, "next_frame": running.next_frame, "state": running.state}

    def status(self, take: str) -> dict:
        """How a stream is doing: state, frames, speed, memory, and the controls in force.

        Args:
            take: The key that /stream gave.
        """
        return _status(_find(self._sessions, take))

    def stop(self, take: str) -> dict:
        """End a stream early. Its video is discarded, its control log returned.

        Args:
            take: The key that /stream gave.
        """
        running = _find(self._sessions, take)
        running.stop()
        running.wait(5.0)
        return _status(running) | {"controls": running.log_document()}

    def leaderboard(self) -> list:
        """The benchmark table: one row per method and result, every column of the CSV, numbers as numbers.

        Returns:
            A list of rows; empty while nothing has been measured.
        """
        try:
            return read_table(LEADERBOARD)
        except InputError:
            return []


def add_api(sessions: Sessions) -> None:
    """Register the endpoints inside the current `gr.Blocks`; none of their components is shown."""
    endpoints = Endpoints(sessions)
    with gr.Group(visible=False):
        inputs = [
            PortraitInput(label="Portrait", type="filepath"),
            gr.Audio(label="Voice", type="filepath"),
            gr.JSON({}, label="Controls"),
            gr.Number(0, label="Seed"),
            gr.Checkbox(False, label="Badge"),
            gr.Checkbox(False, label="Consent"),
        ]
        video, log, about = gr.File(label="Video"), gr.JSON(label="Control log"), gr.JSON(label="Status")
        key, tracks, rows = gr.Textbox(label="Take"), gr.JSON(label="Tracks"), gr.JSON(label="Rows")
        limit = sessions.limits.takes
        takes: dict[str, Any] = {"concurrency_limit": limit, "concurrency_id": "takes"}
        gr.Button().click(endpoints.generate, inputs, [video, log, about], api_name="generate", **takes)
        gr.Button().click(endpoints.stream, inputs, [about, video], api_name="stream", **takes)
        gr.Button().click(endpoints.steer, [key, tracks], about, api_name="steer", concurrency_limit=None)
        gr.Button().click(endpoints.status, key, about, api_name="status", concurrency_limit=None)
        gr.Button().click(endpoints.leaderboard, None, rows, api_name="leaderboard", concurrency_limit=None)
        gr.Button().click(endpoints.stop, key, about, api_name="stop", concurrency_limit=None)


@contextmanager
def _visit(
    sessions: Sessions,
    portrait: str | None,
    voice: str | None,
    controls: Any,
    seed: float,
    badge: bool,
    consent: bool,
    pace: str,
) -> Iterator[LiveTake]:
    """A take in a session of its own, which is deleted with all its files when the caller has what it came for."""
    if not consent:
        raise gr.Error(_CONSENT_NEEDED)
    visitor = f"api-{secrets.token_hex(8)}"
    try:
        if not portrait or not voice:
            raise UploadError("A portrait and a voice are needed.")
        tracks = read_controls(controls or None)
        session = sessions.get(visitor)
        sessions.set_portrait(session, Path(portrait))
        sessions.set_voice(session, Path(voice))
        yield sessions.start_take(session, controls=tracks, seed=_seed(seed), badge=bool(badge), pace=pace)
    except (UploadError, BusyError) as error:
        raise gr.Error(str(error)) from None
    finally:
        sessions.close(visitor)


def _seed(value: float) -> int:
    """Raises UploadError for what is no seed."""
    number = float(value or 0)
    if not (number.is_integer() and 0 <= number <= LARGEST_SEED):
        raise UploadError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, not {value}.")
    return int(number)


def _find(sessions: Sessions, token: str) -> LiveTake:
    take = sessions.find_take(str(token))
    if take is None:
        raise gr.Error("There is no such take (any more).")
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
    }
