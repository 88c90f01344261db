"""How long the Live tab takes from sound to lips: `python -m benchmarks.live_latency` (needs playwright and chromium).

Starts `python app.py` with the shipped weights, opens its Live tab in headless Chromium on the same machine, whose
microphone says a file over and over, and measures for every picture

    sound_to_picture_ms  from when a sound is made until the picture that shows it is painted: half a piece of the
                         microphone (20 ms), the way to the server, the look-ahead, computing, the way back, painting
    pictures             a second
    shown                share of the frames that were drawn; the others were left out to keep the delay

over `--seconds` after a warm-up of five. The result goes to benchmarks/results/live_latency.json; the last line on
stdout is the same as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.demo_page import FLAGS, served
from benchmarks.record import ROOT, provenance, write_result
from eartalking.errors import run_program

PIECE_MS = 40  # of sound that the microphone sends at once
WARM_UP_SECONDS = 5.0
WANTED = {"sound_to_picture_ms": 350, "sound_to_picture_ms_p95": 500}
_LIMIT_MS = 120_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "live_latency.json")
    args = parser.parse_args(argv)
    if args.chromium is None:
        parser.error("no chromium found; give its path with --chromium")
    with tempfile.TemporaryDirectory() as folder:
        voice = _for_a_microphone(Path(folder) / "voice.wav")
        microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        with served(Path(folder) / "server") as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=args.chromium, args=[*FLAGS, *microphone, f"--use-file-for-fake-audio-capture={voice}"]
            )
            page = browser.new_page(viewport={"width": 1366, "height": 768})
            page.goto(server.address)
            shown = talk(page, args.seconds)
            browser.close()
    result = {**provenance("default", os.cpu_count() or 1), "seconds": args.seconds, **summary(shown)}
    for name in ("sound_to_picture_ms", "sound_to_picture_ms_p95", "pictures_per_second", "shown"):
        bound = WANTED.get(name)
        verdict = "" if bound is None else f"wanted <= {bound}: {'met' if result[name] <= bound else 'MISSED'}"
        print(f"{name:<26} {result[name]:>9} {verdict}")
    write_result(args.out, result)
    print(json.dumps(result))
    return 0


def talk(page: Page, seconds: float) -> list[dict[str, float]]:
    """Speak so long; of every picture painted: frame `index`, `ms` since its sound came to the server, `at` ms."""
    page.set_default_timeout(_LIMIT_MS)
    page.wait_for_selector(".ear-example")
    page.get_by_role("tab", name="Live").click()
    page.check("#talk-consent input")
    page.click("#talk-start")
    page.wait_for_function("document.querySelector('.ear-talk').dataset.painted > 0", polling=250)
    time.sleep(WARM_UP_SECONDS)
    page.evaluate(
        "() => { window.shown = []; document.querySelector('.ear-talk').addEventListener('ear-shown', "
        "(event) => window.shown.push({ ...event.detail, at: performance.now() })); }"
    )
    time.sleep(seconds)
    return page.evaluate("window.shown")


def summary(shown: list[dict[str, float]]) -> dict[str, Any]:
    """The numbers of the pictures that `talk` saw. Raises ValueError: there were fewer than two."""
    if len(shown) < 2:
        raise ValueError("no pictures were shown")
    delays = np.array([picture["ms"] for picture in shown]) + PIECE_MS / 2
    span, frames = shown[-1]["at"] - shown[0]["at"], shown[-1]["index"] - shown[0]["index"]
    return {
        "pictures": len(shown),
        "sound_to_picture_ms": round(float(np.median(delays)), 1),
        "sound_to_picture_ms_p95": round(float(np.percentile(delays, 95)), 1),
        "pictures_per_second": round(1000 * (len(shown) - 1) / span, 2),
        "shown": round((len(shown) - 1) / frames, 3),
    }


def _for_a_microphone(path: Path) -> Path:
    """The example's voice as 16-bit PCM at 48 kHz, as Chromium's false microphone takes it."""
    command = ["ffmpeg", "-loglevel", "error", "-i", str(ROOT / "examples" / "speech.wav"), "-ar", "48000", str(path)]
    subprocess.run(command, check=True)
    return path


if __name__ == "__main__":
    run_program(main)
