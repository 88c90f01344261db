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
    "yaw": TrackInfo("Head yaw", "°", 0.5, 0.0, "Above 0 the nose turns to the viewer's right", open=True),
    "pitch": TrackInfo("Head pitch", "°", 0.5, 0.0, "Above 0 the head looks up", open=True),
    "roll": TrackInfo("Head roll", "°", 0.5, 0.0, "Above 0 the head tilts clockwise as seen"),
    "gaze_yaw": TrackInfo("Gaze yaw", "°", 0.5, 0.0, "Eyes relative to the head; above 0 to the viewer's right"),
    "gaze_pitch": TrackInfo("Gaze pitch", "°", 0.5, 0.0, "Eyes relative to the head; above 0 up"),
    "blink": TrackInfo("Blink", "", 0.05, 0.0, "Eyelid closure of both eyes; 1 is closed"),
    "brow": TrackInfo("Brow", "", 0.05, 0.0, "-1 frown, 1 raised"),
    "smile": TrackInfo("Smile", "", 0.05, 0.0, "-1 to 1"),
    "mouth_scale": TrackInfo("Mouth scale", "×", 0.05, 1.0, "Strength of articulation; 1 is natural"),
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
