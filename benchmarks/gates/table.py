"""The gates of the default checkpoint: what is demanded, and how a measurement is judged.

A gate passes only with a finite value inside its limits that also beats its floor, where it has one. A gate that cannot
be computed has the value null and the reason, and never passes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


class Unavailable(Exception):
    """Something that a gate needs is not here; the message says what."""


@dataclass(frozen=True)
class Gate:
    """Limits of a value, both inclusive, and which way is better for comparing with the floor."""

    low: float = -math.inf
    high: float = math.inf
    better: str = "lower"  # "lower", "higher", or "within": no order, the floor is for reading only
    floor: str = ""  # what the floor column holds

    @property
    def text(self) -> str:
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{self.low:g}..{self.high:g}"
        return f">= {self.low:g}" if math.isfinite(self.low) else f"<= {self.high:g}"

    def passes(self, value: float, floor: float | None) -> bool:
        """Inside the limits, and strictly better than the floor."""
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return False
        if floor is None or self.better == "within":
            return True
        return value < floor if self.better == "lower" else value > floor


def _at_least(low: float, floor: str) -> Gate:
    return Gate(low=low, better="higher", floor=floor)


def _at_most(high: float, floor: str = "") -> Gate:
    return Gate(high=high, better="lower", floor=floor)


_PORTRAIT = "the untouched portrait as the prediction"
_RELEASED = "the track released"
POSE_TRACKS, GAZE_TRACKS, FOLLOWED_TRACKS = ("yaw", "pitch", "roll"), ("gaze_yaw", "gaze_pitch"), ("blink", "smile")
LATENCY_TRACKS = (*POSE_TRACKS, *GAZE_TRACKS, *FOLLOWED_TRACKS, "emotion")
DRIFT_SECONDS = (60, 300, 3600)

# Group (the names that --gates takes) -> gate -> limits.
GATES: dict[str, dict[str, Gate]] = {
    "autoencoder": {
        "autoencoder_face_psnr_db": _at_least(27, _PORTRAIT),
        "autoencoder_mouth_psnr_db": _at_least(25, _PORTRAIT),
        "autoencoder_sharpness": Gate(0.8, 1.2, "within", _PORTRAIT),
        "autoencoder_identity": _at_most(0.30, _PORTRAIT),
        # Less than true correspondences give (`true_warps`).
        "autoencoder_face_below_true_db": _at_most(1),
        "autoencoder_mouth_below_true_db": _at_most(1),
        "photo_face_psnr_db": Gate(low=27, better="within"),
        "photo_sharpness": Gate(0.8, 1.2, "within"),
        "photo_identity": _at_most(0.30),
    },
    "next_frame": {
        "next_frame_exact": _at_most(1.0, "copy of the previous frame"),
        "next_frame_latent": _at_most(1.0, "copy of the previous frame"),
        "next_frame_pixel": _at_most(1.0, "copy of the previous frame"),
    },
    # By tokens alone, nothing set afterwards; the limits are those of the same controls in pictures.
    "tokens": {
        **{f"tokens_{track}_deg": _at_most(4, _RELEASED) for track in POSE_TRACKS},
        **{f"tokens_{track}_deg": _at_most(6, _RELEASED) for track in GAZE_TRACKS},
        "tokens_blink_followed": _at_least(0.9, _RELEASED),
        **{f"tokens_{track}": _at_least(0.8, _RELEASED) for track in ("smile", "brow", "emotion")},
    },
    # Of what the model emits, no pictures: ratios to what people do, degrees, correlations.
    "motion": {
        "motion_spread": Gate(0.7, 1.4, "within"),
        "motion_speed": Gate(0.7, 1.4, "within"),
        "motion_shake": Gate(0.7, 1.4, "within"),
        "motion_home_deg": _at_most(5),
        "motion_start_deg": _at_most(1.5),
        "motion_first_steps": _at_most(1),
        "motion_seeds": _at_most(0.5),
        "motion_lips_mean": _at_least(0.85, "another voice"),
        "motion_lips_draw": _at_least(0.65, "another voice"),
        "motion_lips_shuffled": _at_most(0.2),
        "motion_lips_spread": Gate(0.85, 1.15, "within"),
        "motion_lips_closed": _at_least(0.9, "all other frames"),
        "motion_hour": _at_most(1),
    },
    "lip_sync": {"lip_sync": _at_least(0.75, "shuffled audio"), "lip_sync_shuffled": _at_most(0.2)},
    "real_speech": {"real_speech": _at_least(0.45, "shuffled audio")},
    "silence": {"silence": _at_most(0.25)},
    "identity": {
        "identity_rendered": _at_most(0.40, "another person's portrait"),
        "identity_photo": _at_most(0.50, "another person's portrait"),
    },
    "drift": {
        f"drift_{seconds}s_{what}": _at_most(0.10)
        for seconds in DRIFT_SECONDS
        for what in ("identity", "sharpness", "colour", "posed_identity", "posed_sharpness", "posed_colour")
    },
    "control": {
        **{f"control_{track}_deg": _at_most(4, _RELEASED) for track in POSE_TRACKS},
        **{f"control_{track}_deg": _at_most(6, _RELEASED) for track in GAZE_TRACKS},
        **{f"control_{track}_followed": _at_least(0.9, _RELEASED) for track in FOLLOWED_TRACKS},
        "control_emotion_recognised": _at_least(0.8, _RELEASED),
        **{f"control_latency_{track}_frames": _at_most(1) for track in LATENCY_TRACKS},
    },
    # Read by the face mesh; the limits of the gaze are its own error on true renders (3.4 and 7.1 degrees on 16 heads
    # of the test split that are in no other gate) and 3 more.
    "photographs": {
        "photographs_lips_closed": Gate(low=0.9, better="within"),
        "photographs_lips_speech": Gate(0.8, 1.25, "within"),
        "photographs_lips_follow": Gate(low=0.8, better="within"),
        "photographs_teeth_px": _at_most(1),
        "photographs_blink": Gate(low=0.9, better="within"),
        "photographs_identity": _at_most(0.35),
        "photographs_sharpness": Gate(0.85, 1.15, "within"),
        "photographs_sharpness_parts": Gate(0.85, 1.15, "within"),
        "photographs_identity_512": _at_most(0.35),
        "photographs_sharpness_512": Gate(0.85, 1.15, "within"),
        "photographs_seam": _at_most(1),
        **{f"photographs_{track}_deg": _at_most(4) for track in POSE_TRACKS},
        "photographs_gaze_yaw_deg": _at_most(6.4),
        "photographs_gaze_pitch_deg": _at_most(10.1),
        "photographs_smile": Gate(low=1.0, better="within"),
        "photographs_disgust": Gate(low=1.0, better="within"),
        "photographs_found": Gate(low=0.98, better="within"),
        "photographs_false_finds": _at_most(0.01),
    },
    "speed": {
        "speed_fps": Gate(low=25, better="within"),
        "speed_ttff_ms": _at_most(200),
        "speed_rss_growth_mb": _at_most(16),
    },
}
ALL_GATES: dict[str, Gate] = {name: gate for group in GATES.values() for name, gate in group.items()}


@dataclass(frozen=True)
class GateRow:
    """One measured gate. passed is None when it could not be computed; n counts `of` (frames, clips ...)."""

    name: str
    value: float | None
    gate: str
    floor: float | None
    passed: bool | None
    n: int
    of: str = ""
    reason: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def judge(
    name: str, value: float, n: int, of: str, floor: float | None = None, unless: str = "", **extra: Any
) -> GateRow:
    """The row of a measured value. `unless` is a reason to fail whatever the value (a lag, a low coverage)."""
    gate = ALL_GATES[name]
    if not math.isfinite(value):
        return GateRow(
            name, None, gate.text, _rounded(floor), False, n, of, unless or "the value is not a finite number", extra
        )
    passed = gate.passes(value, floor) and not unless and n > 0
    reason = unless
    if not passed and not reason and gate.passes(value, None):
        reason = f"does not beat its floor ({gate.floor})"
    return GateRow(name, _rounded(value), gate.text, _rounded(floor), passed, n, of, reason, extra)


def worst_row(name: str, by_subject: dict[str, float], worst: str, of: str, **extra: Any) -> GateRow:
    """The row of a gate that every portrait must pass: the value is that of portrait `worst`."""
    rounded = {subject: round(value, 4) for subject, value in by_subject.items()}
    return judge(name, by_subject[worst], len(by_subject), of, None, "", worst=worst, by_portrait=rounded, **extra)


def farthest_share(by_subject: dict[str, float]) -> str:
    """Whose share is the farthest from 1, half as much being as far as twice as much."""
    return max(by_subject, key=lambda one: abs(math.log(max(by_subject[one], 1e-6))))


def unavailable(name: str, reason: str) -> GateRow:
    """The row of a gate that could not be computed."""
    return GateRow(name, None, ALL_GATES[name].text, None, None, 0, "", reason)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def table(rows: list[GateRow]) -> str:
    """The rows as text; what could not be computed says so."""
    lines = [f"{'gate':<34}{'value':>10}  {'gate':<12}{'floor':>10}  {'result':<12}{'n':>6}"]
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.4g}"
        floor = "-" if row.floor is None else f"{row.floor:.4g}"
        result = {True: "passed", False: "MISSED", None: "not measured"}[row.passed]
        line = f"{row.name:<34}{value:>10}  {row.gate:<12}{floor:>10}  {result:<12}{row.n:>6} {row.of}"
        lines.append(f"{line}  {row.reason}".rstrip())
    counts = {state: sum(row.passed is state for row in rows) for state in (True, False, None)}
    lines.append(f"{counts[True]} passed, {counts[False]} missed, {counts[None]} not measured, of {len(rows)}")
    return "\n".join(lines)
