"""What the demo allows: one small frozen dataclass, so that tests and self-hosters can ask for other numbers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PREVIEW_RATE = (
    48_000  # of the sound sent to the browser; a whole number of samples per frame, and what browsers play natively
)
STREAM_PATH = "live"  # below the page's own address: live/<take>/stream, live/<take>/talking.mp4
LEADERBOARD = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "leaderboard.csv"


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one user from starving the others.

    Attributes:
        takes: streams that may run at the same time in the whole process, if it is fast enough for them.
        waiting: visitors who may wait for their turn; one more is told to come back.
        voice_seconds: how much of a voice is used; of a longer one the beginning. ZeroGPU lends its device for two
            minutes. Elsewhere a second costs 0.65 MB while it is read, one voice at a time, and a recorded timeline of
            five minutes still fits into one message.
        upload_bytes: largest picture or control file that is taken.
        voice_bytes: largest recording or video with a voice that is taken.
        visitors: sessions that are kept; one more, and the one that was idle for the longest goes.
        portrait_pixels: largest picture that is decoded.
        lead_frames: how far generation may run ahead of what the viewer sees. It is the delay of live steering, so it
        is small. A viewer of a machine that is slower than the voice asks for more.
        recording_seconds: longest recording of a live talk.
        kept_takes: finished videos a user keeps on the server, for comparing and downloading.
        idle_seconds: after this long without any sign of life a user's files are deleted.
        pause_seconds: after a pause of this length a viewer's place goes to those who wait, if any do.
        client_wait_seconds: how long a paced stream waits for its viewer before it gives up.
    """

    takes: int = 2
    waiting: int = 8
    voice_seconds: float = 120.0 if find_spec("spaces") else 300.0
    upload_bytes: int = 40 * 2**20
    voice_bytes: int = 200 * 2**20
    portrait_pixels: int = 50_000_000
    lead_frames: int = 4
    recording_seconds: float = 300.0
    kept_takes: int = 4
    visitors: int = 64
    idle_seconds: float = 1800.0
    pause_seconds: float = 30.0
    client_wait_seconds: float = 20.0
