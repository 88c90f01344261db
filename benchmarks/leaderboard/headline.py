"""What people read of the leaderboard: the columns that come first, and what metrics, methods and kinds of rows are
called in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Title(NamedTuple):
    """What a metric is called, and the unit of its values; "" without one."""

    name: str
    unit: str = ""


_LITE0, _SYNTHTALK, _DLIB = "Lite0", "SynthTalk", "dlib"  # the embedded networks
_MESH = "face mesh"  # which has seen real faces
EMBEDDED = (
    "A column that names Lite0 (EfficientNet-Lite0), dlib or SynthTalk (a sync network trained on it) is measured by "
    "this network in place of the field's own: it is not comparable with published FID, FVD, CSIM or SyncNet scores."
)
TITLES: dict[str, Title] = {
    "fid": Title("Fréchet distance, frames (FID)"),
    "fid_lite0": Title(f"Fréchet distance, frames ({_LITE0})"),
    "fvd": Title("Fréchet distance, 16 frames (FVD)"),
    "fvd128": Title("Fréchet distance, 128 frames (FVD)"),
    "fvd_lite0": Title(f"Fréchet distance, 16 frames ({_LITE0})"),
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
    "sharpness_gap": Title("Sharpness of the face: difference from the truth"),
    "drift_identity": Title("Drift of the person"),
    "drift_sharpness": Title("Drift of sharpness"),
    "drift_colour": Title("Drift of colour"),
    "mouth_corr_mesh": Title(f"Lips move as the true ones, correlation ({_MESH})"),
    "mouth_offset_mesh": Title(f"Lips late by ({_MESH})", "frames"),
    "mouth_spread_gap_mesh": Title(f"Lips, how far they open: difference from people ({_MESH})"),
    "silence_motion_mesh": Title(f"Mouth open in silence ({_MESH})"),
    "pose_err_mesh": Title(f"Head pose, error ({_MESH})", "degrees"),
    "gaze_err_mesh": Title(f"Gaze, error ({_MESH})", "degrees"),
    "blink_f1_mesh": Title(f"Blinks on request, F1 ({_MESH})"),
    "silence_motion": Title("Mouth open in silence"),
    "pose_err": Title("Head pose, error", "degrees"),
    "gaze_err": Title("Gaze, error", "degrees"),
    "blink_f1": Title("Blinks on request (F1)"),
    "emotion_acc": Title("Emotion recognised"),
    "control_latency_frames": Title("Control acts after", "frames"),
    "head_spread_gap": Title("Head motion, how far: difference from people"),
    "head_speed_gap": Title("Head motion, how fast: difference from people"),
    "head_shake_gap": Title("Head motion, how shaky: difference from people"),
    "blink_rate_gap": Title("Blinks, how many: difference from people"),
    "beat_alignment": Title("Head moves with the voice"),
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
METHODS: dict[str, str] = {
    "ground_truth": "the truth, re-encoded",
    "static_portrait": "the portrait, still",
    "true_motion": "our decoder, with the true motion",
    "shuffled_audio": "ours, with another voice",
    "copy_previous": "the true frame before",
    "clip_diffusion": "clip diffusion, 16-frame windows",
    "clip_diffusion_few_steps": "clip diffusion, distilled to 4 steps",
    "motion_ar": "face units, autoregressive",
    "ours_no_sink": "ours without the sink",
    "ours_clean_history": "ours, trusting its history",
    "ours_window_2": "ours, window of 2 frames",
    "ours_averaged": "ours, the mean",
    "ours_1_step": "ours, 1 step",
    "ours_16_steps": "ours, 16 steps",
    "equal_budget": "ours, trained as long as the rivals",
    "trained_full": "retrained, the mean alone",
    "trained_no_sink": "retrained without the sink",
    "trained_clean_history": "retrained on clean history",
    "trained_masked_ar": "retrained, masked tokens",
    **{f"ours_s{seed}": f"ours, trained as long as the rivals, seed {seed}" for seed in range(3)},
    **{f"motion_ar_s{seed}": f"face units, autoregressive, seed {seed}" for seed in (1, 2)},
}
KINDS: dict[str, str] = {
    "ours": "this project",
    "reference": "reference, no place",
    "ablation": "changed at inference",
    "retrained": "retrained for comparison",
    "external": "another system",
    "paper": "from a paper",
}
# In the order in which they are shown. Of several networks for one question, the first that has values.
HEADLINE: tuple[tuple[str, ...], ...] = (
    ("sync_c", "sync_c_synthtalk"),
    ("fid", "fid_lite0"),
    ("fvd", "fvd_lite0"),
    ("csim", "csim_dlib"),
    ("mouth_corr_mesh",),
    ("psnr",),
    ("pose_err_mesh", "pose_err"),
    ("blink_f1_mesh", "blink_f1"),
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


def method_name(method: object) -> str:
    """A method in words; one that is not ours keeps its name."""
    return METHODS.get(str(method), str(method))


def kind_name(kind: object) -> str:
    """What sort of row it is, in words."""
    return KINDS.get(str(kind), str(kind or ""))
