"""What the demo allows: one small frozen dataclass, so that tests and self-hosters can ask for other numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREVIEW_RATE = (
    48_000  # of the sound sent to the browser; a whole number of samples per frame, and what browsers play natively
)
STREAM_PATH = "live"  # below the page's own address: live/<take>/stream, /video.mp4, /controls.json, /controls.csv
LEADERBOARD = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "leaderboard.csv"


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one user from starving the others.

    Attributes:
        takes: streams that may run at the same time in the whole process.
        voice_seconds: longest voice that is taken.
        upload_bytes: largest file that is taken.
        portrait_pixels: largest picture that is decoded.
        lead_frames: how far generation may run ahead of what the viewer sees. It is the delay of live steering, so it
        is small.
        recording_seconds: longest recording of a live talk.
        kept_takes: finished videos a user keeps on the server, for comparing and downloading.
        idle_seconds: after this long without any sign of life a user's files are deleted.
        client_wait_seconds: how long a paced stream waits for its viewer before it gives up.
    """

    takes: int = 2
    voice_seconds: float = 120.0
    upload_bytes: int = 40 * 2**20
    portrait_pixels: int = 50_000_000
    lead_frames: int = 5
    recording_seconds: float = 300.0
    kept_takes: int = 4
    idle_seconds: float = 1800.0
    client_wait_seconds: float = 20.0
