"""Fill the tables of README and of docs/measured.md out of the result files: `python -m benchmarks.measured`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and what is between them is written here alone. A test
holds them against the results.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from benchmarks.gates.table import ALL_GATES
from benchmarks.leaderboard.headline import method_name
from benchmarks.record import ROOT, provenance

RESULTS = ROOT / "benchmarks" / "results"
TEXTS = (ROOT / "README.md", ROOT / "docs" / "measured.md")
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)
# What gates measure, by their names or the beginnings of these; the longest that fits.
ABOUT = {
    "autoencoder": "renders of held-out people, read and drawn again on another portrait of them",
    "autoencoder_face_below_true_db": "how far below what the renderer's own correspondences give",
    "autoencoder_mouth_below_true_db": "how far below what the renderer's own correspondences give",
    "photo": "a photograph, drawn as it stands",
    "next_frame": "error of the mean of what follows, of that of showing the last frame again",
    "tokens": "what the network does of a control by its token alone",
    "lip_sync": "lips in the pictures with those of the true clip, correlation",
    "lip_sync_shuffled": "the same with another clip's",
    "real_speech": "opening with the loudness of recorded speech, correlation",
    "silence": "movement of the lips without a voice, of that with one",
    "identity": "distance to the portrait over 10 s (dlib; 0.6 is another person)",
    "drift": "change from the first half minute to the last",
    "control": "error of what was asked for",
    "control_emotion_recognised": "emotions that our reader names (of true renders 0.86)",
    "control_latency": "frames until half of a change is seen",
    "control_blink_followed": "blinks that are there when asked for, and not when not",
    "speed_fps": "frames a second over 60 s, H.264 included",
    "speed_ttff_ms": "first frame of a live voice",
    "speed_rss_growth_mb": "growth of memory",
    "motion_spread": "how far heads move, of people's (worst axis)",
    "motion_speed": "how fast",
    "motion_shake": "what is faster than 5 Hz",
    "motion_home_deg": "mean pose of a minute, beside the portrait's",
    "motion_start_deg": "first frame, beside the portrait",
    "motion_first_steps": "largest step of the first ten frames, of people's 99th percentile",
    "motion_seeds": "correlation of two seeds' heads",
    "motion_lips_mean": "jaw, mean of 16 draws, with the true one",
    "motion_lips_draw": "the same, one draw",
    "motion_lips_shuffled": "one draw with another voice's",
    "motion_lips_spread": "how far jaws open, of people's",
    "motion_lips_closed": "b, m and p with shut lips (floor: all other frames)",
    "motion_hour": "farthest turn in an hour, ten seeds, of people's",
    "photographs_lips_closed": "shut lips in b, m, p and silence",
    "photographs_lips_speech": "how far lips open, of true renders",
    "photographs_lips_follow": "with the emitted opening, correlation",
    "photographs_teeth_px": "upper teeth, beside their place",
    "photographs_blink": "blinks that shut the eye",
    "photographs_identity": "distance to the portrait (dlib)",
    "photographs_sharpness": "of cheeks, of the portrait's",
    "photographs_sharpness_parts": "of eyes and mouths of rendered people, of true renders'",
    "photographs_seam": "difference around the crop in the whole picture, of 255",
    "photographs_found": "faces found, turned, small and cut",
    "photographs_false_finds": "faces found where there is none",
    "photographs": "read by the face mesh and the iris network",
}
# Columns of the leaderboard: metric, what it is called here, digits, whether with its interval.
FULL = (
    ("sync_c_synthtalk", "sync confidence (SynthTalk) ↑", 3, True),
    ("mouth_corr_mesh", "lips as the true ones, correlation ↑", 2, True),
    ("mouth_spread_gap_mesh", "how far lips open, gap ↓", 2, False),
    ("fid_lite0", "Fréchet distance, frames (lite0) ↓", 1, True),
    ("fvd_lite0", "16 frames ↓", 1, False),
    ("csim_dlib", "identity (dlib) ↑", 3, False),
    ("psnr", "PSNR ↑", 1, True),
    ("sharpness_gap", "sharpness gap ↓", 2, False),
    ("head_spread_gap", "head: spread, gap ↓", 2, True),
    ("head_speed_gap", "speed, gap ↓", 2, False),
    ("head_shake_gap", "shake, gap ↓", 2, False),
    ("beat_alignment", "beats with the voice ↑", 3, False),
)
QUICK = (
    *FULL[:2],
    FULL[3],
    ("psnr", "PSNR ↑", 1, False),
    ("silence_motion_mesh", "mouth in silence ↓", 2, False),
    ("ttff_ms", "first frame, live, ms", 0, False),
    ("fps", "frames a second", 1, False),
)
FACES = (
    FULL[0],
    ("mouth_corr_mesh", "lips as another's ↑", 2, True),
    FULL[2],
    ("csim_dlib", "identity to the portrait (dlib) ↑", 3, False),
    ("sharpness_gap", "sharpness gap to it ↓", 2, False),
    ("blink_f1_mesh", "blinks on request, F1 ↑", 2, False),
    ("pose_err_mesh", "pose error, degrees ↓", 1, False),
    ("head_spread_gap", "head: spread, gap ↓", 2, False),
)
# Of README's table: what it is, and the gates that say it.
SUMMARY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("frames a second over 60 s at 256 pixels, H.264 included", ("speed_fps",)),
    ("first frame of a live voice, ms", ("speed_ttff_ms",)),
    ("a control acts after, frames", ("control_latency_yaw_frames", "control_latency_emotion_frames")),
    ("yaw, pitch and roll beside what was asked, degrees",
     ("control_yaw_deg", "control_pitch_deg", "control_roll_deg")),
    ("lips with the true ones: jaw, and in pictures, correlation", ("motion_lips_draw", "lip_sync")),
    ("b, m and p with shut lips", ("motion_lips_closed",)),
    ("heads: how far, how fast, how shakily they move, of people's",
     ("motion_spread", "motion_speed", "motion_shake")),
    ("farthest that a head turns away in an hour, of people's", ("motion_hour",)),
    ("distance to the portrait, renders and photographs (0.6 is another person)",
     ("identity_rendered", "identity_photo")),
    ("emotions that our reader names (of true renders 0.86)", ("control_emotion_recognised",)),
    ("faces and mouths of renders drawn from true motion, dB",
     ("autoencoder_face_psnr_db", "autoencoder_mouth_psnr_db")),
    ("photographs: blinks that shut the eye; identity, worst",
     ("photographs_blink", "photographs_identity")),
)  # fmt: skip


def filled(text: str) -> str:
    """The text with its tables as the results are now.

    Raises:
        KeyError: a table that nobody knows.
    """
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def gates(name: str) -> str:
    """A table of the gates in a result file, and of which weights they are."""
    result = _result(name)
    lines = ["| gate | what | value | wanted | floor | n | |", "|---|---|---|---|---|---|---|"]
    for row in result["gates"]:
        cells = (f"`{row['name']}`", about(row["name"]), _number(row["value"]), row["gate"])
        state = {True: "passed", False: "**missed**", None: "not measured"}[row["passed"]]
        lines.append(f"| {' | '.join(cells)} | {_number(row['floor'])} | {row['n']} {row['of']} | {state} |")
    return "\n".join([*lines, "", _of(result), ""])


def about(gate: str) -> str:
    """What a gate measures."""
    fitting = [beginning for beginning in ABOUT if gate.startswith(beginning)]
    return ABOUT[max(fitting, key=len)] if fitting else ""


def summary() -> str:
    """README's table: what a user would ask first, of the weights that ship where these were measured."""
    lines = ["| | measured | wanted | |", "|---|---|---|---|"]
    results = sorted((_result(name) for name in ("quick", "motion", "photographs")), key=_ships)
    known = {
        row["name"]: row | {"ships": _ships(result)}
        for result in results
        for row in result["gates"]
        if row["value"] is not None
    }
    for what, names in SUMMARY:
        unknown = {"value": None, "passed": False, "ships": True}
        rows = [known.get(name, unknown | {"gate": ALL_GATES[name].text}) for name in names]
        notes = [] if all(row["passed"] for row in rows) else ["missed"]
        notes += [] if all(row["ships"] for row in rows) else ["earlier weights"]
        values, wanted = _joined([_number(row["value"]) for row in rows]), _joined([row["gate"] for row in rows])
        lines.append(f"| {what} | {values} | {wanted} | {', '.join(notes)} |")
    return "\n".join([*lines, "", _of(_result("quick")), ""])


def speeds() -> str:
    """How fast everything is, in the files that say it."""
    rows = []
    for file, size in (("stream_latency_default", 256), ("stream_latency_default_512", 512)):
        found = _json(file)
        rows.append((f"stream at {size} pixels, H.264 included", found, [
            f"{found['fps']:.1f} frames a second ({found['serial_fps']:.1f} one after the other)",
            f"first frame of a live voice after {found['ttff_ms']:.0f} ms",
            f"{found['rss_growth_mb']} MB more memory after a minute",
        ]))  # fmt: skip
    page, live = _json("demo_latency"), _json("live_latency")
    rows.append(("the page, in Chromium on the same cores", page, [
        f"{page['painted_fps']:.1f} new pictures a second", f"first after {page['click_to_picture_ms']:.0f} ms",
        f"a slider is seen after {page['slider_to_picture_ms']:.0f} ms (250 wanted)",
        f"{page['stalls']} stalls, {page['freezes']} freezes, {page['steps_back']} steps back in a minute",
    ]))  # fmt: skip
    rows.append(("the Live tab, from sound to picture", live, [
        f"{live['sound_to_picture_ms']:.0f} ms (350 wanted)",
        f"95 of 100 below {live['sound_to_picture_ms_p95']:.0f} (500)",
    ]))  # fmt: skip
    lines = ["| what | measured | when |", "|---|---|---|"]
    lines += [f"| {what} | {'; '.join(told)} | {_when(found)} |" for what, found, told in rows]
    return "\n".join([*lines, ""])


def leaderboard(suite: str, columns: Sequence[tuple[str, str, int, bool]]) -> str:
    """The rows of a suite that were measured, best in time with the voice first, the truth before all."""
    with (RESULTS / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["suite"] == suite and row["source"] == "measured"]
    rows.sort(key=lambda row: (row["kind"] == "reference", -float(row[columns[0][0]] or 0)))
    lines = [
        "| method | " + " | ".join(column[1] for column in columns) + " | drawn |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in rows:
        name = f"**{method_name(row['method'])}**" if row["kind"] == "ours" else method_name(row["method"])
        cells = [_with_interval(row, metric, digits, interval) for metric, _, digits, interval in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['date'][:10]} |")
    return "\n".join([*lines, ""])


def _with_interval(row: dict[str, str], metric: str, digits: int, interval: bool) -> str:
    value = row.get(metric, "")
    if not value:
        return "-"
    low, high = row.get(f"{metric}_ci_low", ""), row.get(f"{metric}_ci_high", "")
    around = f" [{float(low):.{digits}f}, {float(high):.{digits}f}]" if interval and low and high else ""
    return f"{round(float(value), digits) + 0.0:.{digits}f}{around}"  # no minus before a zero


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _joined(cells: Sequence[str]) -> str:
    return cells[0] if len(set(cells)) == 1 else ", ".join(cells)


def _of(result: dict[str, Any]) -> str:
    return f"Measured {_when(result)}."


def _ships(result: dict[str, Any]) -> bool:
    """Whether it is of the weights that ship."""
    return bool(result["checkpoint_sha256"] == _shipped())


def _when(result: dict[str, Any]) -> str:
    whose = "these weights" if _ships(result) else "earlier weights"
    return f"{result['date'][:10]}, {whose}, {result['hardware']['cores']} cores ({result['hardware']['processor']})"


@cache
def _shipped() -> str:
    return str(provenance("default", 1)["checkpoint_sha256"])


def _result(name: str) -> dict[str, Any]:
    return _json(f"quality_default_{name}")


@cache
def _json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


TABLES: dict[str, Callable[[], str]] = {
    "summary": summary,
    "speeds": speeds,
    "gates": partial(gates, "quick"),
    "motion": partial(gates, "motion"),
    "drift": partial(gates, "full_drift"),
    "photographs": partial(gates, "photographs"),
    "full": partial(leaderboard, "full", FULL),
    "quick": partial(leaderboard, "quick", QUICK),
    "faces": partial(leaderboard, "photographs", FACES),
}


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.measured", description=__doc__.split("\n")[0]).parse_args(argv)
    for path in TEXTS:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
