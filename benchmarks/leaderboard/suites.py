"""The suites of the comparison: where their sets are, what is measured on them, and by which protocol."""

from __future__ import annotations

from pathlib import Path

from benchmarks.methods.base import Method
from eartalking.errors import InputError
from eval.protocol import Protocol
from eval.provenance import ROOT
from eval.testset import MANIFEST, make_synthtalk

SUITES = ("quick", "full", "controls", "longform", "photographs")
SMALL_SET = ROOT / "benchmarks" / "testset_small"
SETS = ROOT / "data" / "testset"
SUSTAINED_SECONDS = {"quick": 10.0, "full": 60.0}
# Nobody has filmed the people of the photographs: frames are compared with the portrait, and lips, heads and eyes with
# those of another person who says the same.
PHOTOGRAPHS = "photographs"
OF_PHOTOGRAPHS = [
    "sync_c", "sync_d", "av_offset", "csim", "sync_c_synthtalk", "sync_d_synthtalk", "av_offset_synthtalk",
    "csim_dlib", "identity_dlib", "sharpness_gap", "flicker", "mouth_corr_mesh", "mouth_offset_mesh",
    "mouth_spread_gap_mesh", "silence_motion_mesh", "pose_err_mesh", "gaze_err_mesh", "blink_f1_mesh",
    "head_spread_gap", "head_speed_gap", "head_shake_gap", "blink_rate_gap", "beat_alignment",
]  # fmt: skip


def find_testset(suite: str, given: Path | None) -> Path:
    """The folder of the set, made when it is one of ours and not there yet.

    Raises:
        InputError: a given folder holds no set.
        RuntimeError: it cannot be made here.
    """
    folder = given or (SMALL_SET if suite == "quick" else SETS / suite)
    if given is None and not (folder / MANIFEST).is_file():
        make_synthtalk(folder, suite)
    if not (folder / MANIFEST).is_file():
        raise InputError(folder, f"no test set here ({MANIFEST}); make one with python -m eval.testset")
    return folder


def protocol_of(suite: str, seed: int) -> Protocol:
    """How the suite's clips are read and counted; the clip list is not in it yet."""
    return Protocol(crop="none", seed=seed, identity="portrait" if suite == PHOTOGRAPHS else "truth")


def metrics_of(suite: str, asked: str | None) -> list[str] | None:
    """The metrics that are asked for, comma-separated; without, those that the suite can answer, None for all."""
    if asked is not None:
        return [name.strip() for name in asked.split(",")]
    return OF_PHOTOGRAPHS if suite == PHOTOGRAPHS else None


def judged(methods: list[Method], suite: str) -> list[Method]:
    """Without the methods that show the true video, where there is none."""
    return [method for method in methods if suite != PHOTOGRAPHS or not method.shows_truth]
