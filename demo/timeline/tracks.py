"""What the page says about each control track: its words, its lane and its steps. Ranges come from
`eartalking.controls`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from eartalking.controls import CONTROL_RANGES, CONTROL_TRACKS, EMOTION_TRACK


class TrackInfo(NamedTuple):
    """How a track is shown: `step` is what an arrow key changes, `open` whether its lane starts unfolded."""

    label: str
    unit: str
    step: float
    neutral: float
    tip: str
    open: bool = False


TRACK_INFO: dict[str, TrackInfo] = {
    "yaw": TrackInfo("Turn", "°", 0.5, 0.0, "Head yaw: above 0 the nose turns to the viewer's right", open=True),
    "pitch": TrackInfo("Nod", "°", 0.5, 0.0, "Head pitch: above 0 the head looks up", open=True),
    "roll": TrackInfo("Tilt", "°", 0.5, 0.0, "Head roll: above 0 the head tilts clockwise as seen"),
    "gaze_yaw": TrackInfo(
        "Look aside", "°", 0.5, 0.0, "Gaze yaw: eyes relative to the head; above 0 to the viewer's right"
    ),
    "gaze_pitch": TrackInfo(
        "Look up", "°", 0.5, 0.0, "Gaze pitch: eyes relative to the head; above 0 up, below 0 down"
    ),
    "blink": TrackInfo("Close eyes", "", 0.05, 0.0, "Blink: eyelid closure of both eyes; 1 is closed"),
    "brow": TrackInfo("Raise brows", "", 0.05, 0.0, "Brow: -1 frown, 1 raised"),
    "smile": TrackInfo("Smile", "", 0.05, 0.0, "Smile: -1 mouth corners down, 1 up"),
    "mouth_scale": TrackInfo("Mouth", "×", 0.05, 1.0, "Mouth scale: how strongly the mouth moves; 1 is natural"),
    "emotion": TrackInfo("Emotion", "", 0.05, 0.0, "Stepped: one of eight, with an intensity"),
}


def track_table() -> list[dict[str, Any]]:
    """`TRACK_INFO` with names and ranges, in the order of the lanes, as the script takes it."""
    return [
        {
            "name": track,
            "low": CONTROL_RANGES[track][0] if track != EMOTION_TRACK else 0.0,
            "high": CONTROL_RANGES[track][1] if track != EMOTION_TRACK else 1.0,
            **TRACK_INFO[track]._asdict(),
        }
        for track in CONTROL_TRACKS
    ]
