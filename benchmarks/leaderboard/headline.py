"""What people read of the leaderboard: the columns that come first, and what metrics are called in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Title(NamedTuple):
    """What a metric is called, and the unit of its values; "" without one."""

    name: str
    unit: str = ""


_LITE0, _SYNTHTALK, _DLIB = "EfficientNet-Lite0", "SynthTalk's network", "dlib"
TITLES: dict[str, Title] = {
    "fid": Title("Fréchet distance of frames (FID)"),
    "fid_lite0": Title(f"Fréchet distance of frames ({_LITE0})"),
    "fvd": Title("Fréchet distance of 16 frames (FVD)"),
    "fvd128": Title("Fréchet distance of 128 frames (FVD)"),
    "fvd_lite0": Title(f"Fréchet distance of 16 frames ({_LITE0})"),
    "sync_c": Title("Lip sync, confidence (SyncNet)"),
    "sync_c_synthtalk": Title(f"Lip sync, confidence ({_SYNTHTALK})"),
    "sync_d": Title("Lip sync, distance (SyncNet)"),
    "sync_d_synthtalk": Title(f"Lip sync, distance ({_SYNTHTALK})"),
    "av_offset": Title("Sound early by (SyncNet)", "frames"),
    "av_offset_synthtalk": Title(f"Sound early by ({_SYNTHTALK})", "frames"),
    "csim": Title("Same person, similarity (ArcFace)"),
    "csim_dlib": Title(f"Same person, similarity ({_DLIB})"),
    "identity_dlib": Title(f"Same person, distance ({_DLIB})"),
    "lpips": Title("Perceptual distance (LPIPS)"),
    "perceptual_lite0": Title(f"Perceptual distance ({_LITE0})"),
    "ssim": Title("Likeness of frames (SSIM)"),
    "psnr": Title("Likeness of frames (PSNR)", "dB"),
    "flicker": Title("Steadiness from frame to frame"),
    "drift_identity": Title("Drift of the person"),
    "drift_sharpness": Title("Drift of sharpness"),
    "drift_colour": Title("Drift of colour"),
    "silence_motion": Title("Mouth open in silence"),
    "pose_err": Title("Head pose, error", "degrees"),
    "gaze_err": Title("Gaze, error", "degrees"),
    "blink_f1": Title("Blinks on request (F1)"),
    "emotion_acc": Title("Emotion recognised"),
    "control_latency_frames": Title("Control acts after", "frames"),
    "ttff_ms": Title("First frame, live", "ms"),
    "ttff_compute_ms": Title("First frame, sound at hand", "ms"),
    "sound_needed_ms": Title("Sound heard before the first frame", "ms"),
    "fps": Title("Speed", "frames/s"),
    "rtf": Title("Seconds per second of video"),
    "frame_ms_p50": Title("Time per frame, median", "ms"),
    "frame_ms_p95": Title("Time per frame, 95 of 100 below", "ms"),
    "frame_ms_p99": Title("Time per frame, 99 of 100 below", "ms"),
    "peak_mem_mb": Title("Most memory", "MB"),
    "cold_start_s": Title("Start of the program", "s"),
}
# In the order in which they are shown. Of several networks for one question, the first that has values.
HEADLINE: tuple[tuple[str, ...], ...] = (
    ("sync_c", "sync_c_synthtalk"),
    ("fid", "fid_lite0"),
    ("fvd", "fvd_lite0"),
    ("csim", "csim_dlib"),
    ("psnr",),
    ("pose_err",),
    ("blink_f1",),
    ("ttff_ms",),
    ("fps",),
)


def headline(offered: Sequence[str]) -> list[str]:
    """The columns of `offered` that come first; all of them in a table that has none of ours."""
    first = [next((metric for metric in choice if metric in offered), None) for choice in HEADLINE]
    return [metric for metric in first if metric] or list(offered)


def title(metric: str) -> str:
    """A metric in words, with its unit; a column that is not ours keeps its name."""
    name, unit = TITLES.get(metric, Title(metric))
    return f"{name}, {unit}" if unit else name
