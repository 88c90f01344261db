"""How the demo feels, measured in a real browser: `python -m benchmarks.demo_latency` (needs playwright and chromium).

Starts `python app.py` with the shipped weights, opens it in headless Chromium on the same machine, and measures

    startup_s            from starting the process to the page being served
    click_to_picture_ms  from the click on an example to the first picture on the canvas, median and worst of three
    painted_fps          new pictures painted per second over 10 s of a take of a minute (the example's voice, repeated)
    engine_fps           frames per second that the model alone would have made in those 10 s
    server_cores, browser_cores   processor time per second in those 10 s
    slider_to_picture_ms from the slider's event to the first frame that was made with its value being painted, median
    and worst of ten
    slider_frames        by how many frames that lies ahead of the frame that was on the canvas at the event
    went_on_s            from the last of these changes to sound and picture running on; 0 where they never stopped:
    where many frames lie ahead, they are made anew, and a slow machine has to buffer again
    skew_ms              sound ahead (+) or behind (-) of the picture in the last second of the minute, median and worst
    stalls               times that the player ran out of frames in the minute, after the delay that it announced
    announced            what it said about that delay, if anything
    freezes              times in the minute that more than 100 ms lay between two pictures, steering included
    steps_back           times in the minute that a picture was older than the one before
    second_told_s        from the click of a second viewer, while the first watches, to their place in the queue or, on
                         a machine that serves two, their first picture; and second_waits, which of the two
    mp4_ready_s          from the arrival of the last frame to the finished mp4; while more than 15 frames are still to
    be seen, they may be made anew, and it cannot be finished
    cycles               generate-and-stop cycles, and what they left: growth of threads, open files, files on disk,
    memory

Every step has its time limit; one that misses it is named in `unfinished`, what it had not measured is absent, and the
next begins. The result goes to benchmarks/results/demo_latency.json; the last line on stdout is the same as one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Error as BrowserError

from benchmarks.demo_page import FLAGS, STARTUP_LIMIT, Server, Visit, served, visit
from benchmarks.record import ROOT, provenance, write_result
from benchmarks.stream_latency import looped
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.errors import run_program
from eartalking.io.sound import read_audio

CLICKS, CHANGES, CYCLES, WARM_CYCLES = (
    3,
    10,
    50,
    6,
)  # a visitor's last takes stay: only after some cycles does a new one replace an old one
WANTED = {
    "startup_s": (-np.inf, 10),
    "click_to_picture_ms": (-np.inf, 500),
    "painted_fps": (24, np.inf),
    "slider_to_picture_ms": (-np.inf, 250),
    "stalls": (-np.inf, 0),
    "freezes": (-np.inf, 0),
    "steps_back": (-np.inf, 0),
    "second_told_s": (-np.inf, 2),
    "skew_ms_worst": (-80, 80),
    "threads_left": (-np.inf, 0),
    "open_files_left": (-np.inf, 0),
    "files_left": (-np.inf, 0),
}
_CLICK_LIMIT, _CYCLE_LIMIT = 40, 90  # seconds
_SLOWEST = 6  # times real time that a take may last, its delays included: the one before, and the one after steering
_PAUSE = 0.5  # seconds between two changes
_FREEZE_MS = 100
_WATCH_PICTURES = """() => {
    window.paints = []; window.announced = [];
    window.painted = null;
    EARPlayer.on("painted", (index) => { paints.push([index, performance.now()]); window.painted?.(index); });
    EARPlayer.on("buffering", (words) => announced.push(words));
    EARPlayer.on("playing", (flowing) => { window.runs = flowing; });
    EARPlayer.on("done", () => { window.doneAt = performance.now(); });
}"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the long take")
    parser.add_argument("--cycles", type=int, default=CYCLES, help="generate-and-stop cycles, as many as 100 s allow")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "demo_latency.json")
    args = parser.parse_args(argv)
    if args.chromium is None:
        parser.error("no chromium found; give its path with --chromium")
    run = _Run()
    with tempfile.TemporaryDirectory() as folder:
        voice = _long_voice(Path(folder) / "voice.wav", args.seconds)
        with run.step("start the app", STARTUP_LIMIT), served(Path(folder) / "server") as server:
            run.result |= {"startup_s": server.startup_s}
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=args.chromium, args=FLAGS)
                measures: list[tuple[str, float, Callable[[Visit], Iterator[dict[str, Any]]]]] = [
                    (f"{CLICKS} clicks on an example", _CLICK_LIMIT, clicks),
                    (
                        f"a take of {args.seconds:g} s",
                        _SLOWEST * args.seconds + 20,
                        lambda seen: long_take(seen, voice, server),
                    ),
                    ("two viewers", _CLICK_LIMIT, lambda seen: two_viewers(seen, browser, server)),
                    ("generate and stop", _CYCLE_LIMIT + 20, lambda seen: cycles(seen, voice, args.cycles, server)),
                ]
                for name, limit, measure in measures:
                    with run.step(name, limit), visit(browser, server.address, limit) as opened:
                        for part in measure(opened):
                            run.result |= part
                browser.close()
    result = {**provenance("default", os.cpu_count() or 1), "target_fps": FPS, "seconds": args.seconds, **run.result,
              "unfinished": run.unfinished}  # fmt: skip
    print_table(result)
    write_result(args.out, result)
    print(json.dumps(result))
    return 0


def clicks(seen: Visit) -> Iterator[dict[str, Any]]:
    """Clicks on the first example: milliseconds to the first picture."""
    waits = []
    for _ in range(CLICKS):
        before = seen.page.evaluate("EARPlayer.take.url")
        seen.page.click(".ear-example[data-index='0']")
        seen.wait("before => EARPlayer.take.url !== before && EARPlayer.take.shown >= 5", before or "")
        waits.append(seen.page.evaluate("EARPlayer.take.firstPaint"))
        seen.page.click("[data-do=stop]")
        seen.wait("EARPlayer.take.state === 'stopped'")
        time.sleep(1)
    yield {"click_to_picture_ms": round(statistics.median(waits), 1), "click_to_picture_ms_worst": round(max(waits), 1)}


def long_take(seen: Visit, voice: Path, server: Server) -> Iterator[dict[str, Any]]:
    """A minute of the example's voice: the rate of painting, steering, how far sound and picture are apart at the end,
    the mp4.
    """
    _bring(seen, voice)
    seen.page.evaluate(_WATCH_PICTURES)
    seen.page.click("#generate")
    seen.wait("EARPlayer.take.state === 'streaming' && EARPlayer.take.shown > 25")
    look = "[EARPlayer.take.painted, performance.now(), EARPlayer.take.stats.fps]"
    before, busy_before, started = seen.page.evaluate(look), server.busy_seconds(), time.monotonic()
    time.sleep(10)
    after, busy_after, seconds = seen.page.evaluate(look), server.busy_seconds(), time.monotonic() - started
    yield {
        "painted_fps": round(1000 * (after[0] - before[0]) / (after[1] - before[1]), 2),
        "engine_fps": after[2],
        "server_cores": round((busy_after[0] - busy_before[0]) / seconds, 2),
        "browser_cores": round((busy_after[1] - busy_before[1]) / seconds, 2),
    }
    changes = []
    for value in np.linspace(-20, 20, CHANGES):
        changes.append(_steer(seen, float(value)))
        time.sleep(_PAUSE)
    waits, frames = zip(*changes, strict=True)
    yield {
        "slider_to_picture_ms": round(statistics.median(waits), 1),
        "slider_to_picture_ms_worst": round(max(waits), 1),
        "slider_frames": round(statistics.median(frames)),
    }
    rested, stands = time.monotonic(), not seen.page.evaluate("runs")
    seen.wait("runs")
    yield {"went_on_s": round(_PAUSE + time.monotonic() - rested, 1) if stands else 0.0}
    seen.wait("EARPlayer.take.total - EARPlayer.take.shown < 25")
    skews: list[float] = []
    for _ in range(8):
        skew, runs = seen.page.evaluate("[EARPlayer.skew() * 1000, EARPlayer.sound.running && EARPlayer.playing]")
        if runs:
            skews.append(skew)
        time.sleep(0.1)
    yield {
        "skew_ms": round(statistics.median(skews), 1) if skews else None,
        "skew_ms_worst": round(max((abs(skew), skew) for skew in skews)[1], 1) if skews else None,
    }
    seen.wait("EARPlayer.take.state === 'done' && !EARPlayer.playing")
    end = seen.page.evaluate(
        """() => { const { stalls, painted, stats, frames } = EARPlayer.take;
        const near = paints.find(([index]) => index >= frames.length - 15)[1];
        return { stalls, painted, memory: stats.memory_mb, misses: stats.misses,
                 ready: window.doneAt - Math.max(near, frames.at(-1).arrived) }; }"""
    )
    yield {
        "stalls": end["stalls"],
        "announced": next(iter(seen.page.evaluate("announced")), ""),
        **judged(seen.page.evaluate("paints")),
        "late_frames": end["misses"],
        "painted_share": round(end["painted"] / round(_seconds(voice) * FPS), 3),
        "mp4_ready_s": round(end["ready"] / 1000, 2),
        "memory_mb": end["memory"],
    }


def judged(paints: list[tuple[int, float]]) -> dict[str, int]:
    """Freezes and steps back among pictures that were painted one after the other: their frames, and when, in ms."""
    pairs = list(zip(paints, paints[1:], strict=False))
    return {
        "freezes": sum(after[1] - before[1] > _FREEZE_MS for before, after in pairs),
        "steps_back": sum(after[0] < before[0] for before, after in pairs),
    }


def two_viewers(seen: Visit, browser: Browser, server: Server) -> Iterator[dict[str, Any]]:
    """A second visitor comes while the first watches: is told their place in the queue, or served in time."""
    seen.page.click(".ear-example[data-index='0']")
    seen.wait("EARPlayer.take.shown >= 0")
    with visit(browser, server.address, _CLICK_LIMIT) as second:
        clicked = time.monotonic()
        second.page.click(".ear-example[data-index='1']")
        second.wait("EARPlayer.take.state === 'queued' || EARPlayer.take.shown >= 0")
        told, waits = time.monotonic() - clicked, second.page.evaluate("EARPlayer.take.state === 'queued'")
        yield {"second_told_s": round(told, 2), "second_waits": waits}
        second.wait("EARPlayer.take.shown >= 0")  # by itself


def cycles(seen: Visit, voice: Path, wanted: int, server: Server) -> Iterator[dict[str, Any]]:
    """Generate, stop at the first picture, and again: what of it stays in the server's process and on its disk."""
    _bring(seen, voice)
    for _ in range(WARM_CYCLES):
        _cycle(seen)
    before, until, done = server.footprint(), time.monotonic() + _CYCLE_LIMIT, 0
    while done < wanted and time.monotonic() < until:
        _cycle(seen)
        done += 1
        if done % 10 == 0:
            print(f"    {done} of {wanted} cycles", file=sys.stderr)
    time.sleep(2)
    after = server.footprint()
    left = {f"{name}_left": round(after[name] - before[name], 1) for name in before}
    yield {"cycles": done, "rss_mb_before": before["rss_mb"], "rss_mb_after": after["rss_mb"], **left}


def _cycle(seen: Visit) -> None:
    seen.page.evaluate(
        """async () => {
        const stage = document.querySelector(".ear-stage"), before = stage.dataset.take, since = performance.now();
        const until = async (what) => { while (!what()) {
          if (performance.now() - since > 30000) throw new Error("a cycle of generate and stop took more than 30 s");
          await new Promise((later) => setTimeout(later, 40));
        } };
        document.querySelector("#generate").click();
        await until(() => stage.dataset.take !== before && EARPlayer.take.shown >= 0);
        document.querySelector("[data-do=stop]").click();
        await until(() => EARPlayer.take.state === "stopped");
        }"""
    )


def _steer(seen: Visit, value: float) -> tuple[float, int]:
    """Move the yaw slider; milliseconds until its first frame is on the canvas, and frames from the one shown at the
    event.
    """
    return tuple(
        seen.page.evaluate(
            """value => new Promise((resolve, reject) => {
            const slider = document.querySelector("#steer-yaw");
            const asked = performance.now(), shown = EARPlayer.take.shown;
            const wanted = Number((slider.value = value, slider.value));
            for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
            const patience = setTimeout(() => reject(new Error("a change was not on the canvas after 10 s")), 10000);
            window.painted = (index) => {
              if (EARPlayer.take.frames[index].applied.yaw !== wanted) return;
              window.painted = null;
              clearTimeout(patience);
              resolve([performance.now() - asked, index - shown]);
            };
        })""",
            value,
        )
    )


def _bring(seen: Visit, voice: Path) -> None:
    """Upload portrait and voice and agree."""
    seen.page.set_input_files("#portrait input[type=file]", str(ROOT / "examples" / "portrait.png"))
    seen.page.set_input_files("#voice input[type=file]", str(voice))
    seen.page.wait_for_selector(".ear-crop", state="visible")
    frames = f"{round(_seconds(voice) * FPS)} frames"
    seen.wait("text => document.querySelector('#timeline').textContent.includes(text)", arg=frames)
    seen.page.check("#consent input")
    time.sleep(1)


class _Run:
    """The result so far, and which steps did not come to their end."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.unfinished: list[str] = []
        self._started = time.monotonic()

    @contextmanager
    def step(self, name: str, limit: float) -> Iterator[None]:
        print(f"[{time.monotonic() - self._started:5.0f} s] {name} (at most {limit:.0f} s)", file=sys.stderr)
        try:
            yield
        except (BrowserError, TimeoutError) as error:  # what a step has not measured stays out of the result
            print(f"    not finished: {str(error).splitlines()[0]}", file=sys.stderr)
            self.unfinished.append(name)


def _long_voice(path: Path, seconds: float) -> Path:
    waveform = looped(read_audio(ROOT / "examples" / "speech.wav"), seconds)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform * 32767).astype("<i2").tobytes())
    return path


def _seconds(path: Path) -> float:
    with wave.open(str(path), "rb") as file:
        return file.getnframes() / file.getframerate()


def print_table(result: dict[str, Any]) -> None:
    """One line per number, with what is wanted of it."""
    for name, value in result.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = WANTED.get(name, (-np.inf, np.inf))
            bounds = " and ".join(
                f"{sign} {bound:g}" for sign, bound in ((">=", low), ("<=", high)) if np.isfinite(bound)
            )
            verdict = f"wanted {bounds}: {'met' if low <= value <= high else 'MISSED'}" if bounds else ""
            print(f"{name:<28} {value:>10} {verdict}")
    for name in WANTED.keys() - result.keys():
        print(f"{name:<28} {'-':>10} not measured")


if __name__ == "__main__":
    run_program(main)
