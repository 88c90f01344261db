"""How the demo feels, measured in a real browser: `python -m benchmarks.demo_latency` (needs playwright and chromium).

Starts `python app.py` with the shipped weights, opens it in headless Chromium on the same machine, and measures

    startup_s            from starting the process to the page being served
    click_to_picture_ms  from the click on an example to the first picture on the canvas, median and worst of three
    painted_fps          pictures painted per second over 10 s of a take of a minute (the example's voice, repeated)
    engine_fps           frames per second that the model alone would have made in those 10 s
    server_cores, browser_cores   processor time per second in those 10 s
    slider_to_picture_ms from the slider's event to the first frame with its value on the canvas, median and worst of
    ten slider_frames        by how many frames that lies ahead of the frame that was on the canvas at the event
    skew_ms              sound ahead (+) or behind (-) of the picture in the last second of the minute, median and worst
    stalls               times that the player ran out of frames in the minute
    mp4_ready_s          from the arrival of the last frame to the finished mp4
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
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as BrowserError

from benchmarks.record import ROOT, provenance, write_result
from benchmarks.stream_latency import looped
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.io.sound import read_audio

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update "
    "--disable-sync --autoplay-policy=no-user-gesture-required"
).split()
CLICKS, CHANGES, CYCLES, WARM_CYCLES = (
    3,
    10,
    50,
    6,
)  # a visitor's last takes stay: only after some cycles does a new one replace an old one
WANTED = {
    "startup_s": (-np.inf, 10),
    "click_to_picture_ms": (-np.inf, 1500),
    "painted_fps": (22, np.inf),
    "slider_to_picture_ms": (-np.inf, 300),
    "skew_ms_worst": (-80, 80),
    "threads_left": (-np.inf, 0),
    "open_files_left": (-np.inf, 0),
    "files_left": (-np.inf, 0),
}
_STARTUP_LIMIT, _CLICK_LIMIT, _CYCLE_LIMIT = 120, 40, 90  # seconds
_PATIENCE = 20  # seconds for a click or an upload


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
        with run.step("start the app", _STARTUP_LIMIT), served(Path(folder) / "server") as server:
            run.result |= {"startup_s": server.startup_s}
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=args.chromium, args=FLAGS)
                measures: list[tuple[str, float, Callable[[_Visit], Iterator[dict[str, Any]]]]] = [
                    (f"{CLICKS} clicks on an example", _CLICK_LIMIT, clicks),
                    (
                        f"a take of {args.seconds:g} s",
                        2 * args.seconds + 20,
                        lambda visit: long_take(visit, voice, server),
                    ),
                    ("generate and stop", _CYCLE_LIMIT + 20, lambda visit: cycles(visit, voice, args.cycles, server)),
                ]
                for name, limit, measure in measures:
                    with run.step(name, limit), _visit(browser, server.address, limit) as visit:
                        for part in measure(visit):
                            run.result |= part
                browser.close()
    result = {**provenance("default", os.cpu_count() or 1), "target_fps": FPS, "seconds": args.seconds, **run.result,
              "unfinished": run.unfinished}  # fmt: skip
    print_table(result)
    write_result(args.out, result)
    print(json.dumps(result))
    return 0


def clicks(visit: _Visit) -> Iterator[dict[str, Any]]:
    """Clicks on the first example: milliseconds to the first picture."""
    waits = []
    for _ in range(CLICKS):
        before = visit.page.evaluate("EARPlayer.take.url")
        visit.page.click(".ear-example[data-index='0']")
        visit.wait("before => EARPlayer.take.url !== before && EARPlayer.take.shown >= 5", before or "")
        waits.append(visit.page.evaluate("EARPlayer.take.firstPaint"))
        visit.page.click("[data-do=stop]")
        visit.wait("EARPlayer.take.state === 'stopped'")
        time.sleep(1)
    yield {"click_to_picture_ms": round(statistics.median(waits), 1), "click_to_picture_ms_worst": round(max(waits), 1)}


def long_take(visit: _Visit, voice: Path, server: _Server) -> Iterator[dict[str, Any]]:
    """A minute of the example's voice: the rate of painting, steering, how far sound and picture are apart at the end,
    the mp4.
    """
    _bring(visit, voice)
    visit.page.evaluate("EARPlayer.on('done', () => { window.doneAt = performance.now(); })")
    visit.page.click("#generate")
    visit.wait("EARPlayer.take.state === 'streaming' && EARPlayer.take.shown > 25")
    look = "[EARPlayer.take.painted, performance.now(), EARPlayer.take.stats.fps]"
    before, busy_before, started = visit.page.evaluate(look), server.busy_seconds(), time.monotonic()
    time.sleep(10)
    after, busy_after, seconds = visit.page.evaluate(look), server.busy_seconds(), time.monotonic() - started
    yield {
        "painted_fps": round(1000 * (after[0] - before[0]) / (after[1] - before[1]), 2),
        "engine_fps": after[2],
        "server_cores": round((busy_after[0] - busy_before[0]) / seconds, 2),
        "browser_cores": round((busy_after[1] - busy_before[1]) / seconds, 2),
    }
    changes = []
    for value in np.linspace(-20, 20, CHANGES):
        changes.append(_steer(visit, float(value)))
        time.sleep(0.5)
    waits, frames = zip(*changes, strict=True)
    yield {
        "slider_to_picture_ms": round(statistics.median(waits), 1),
        "slider_to_picture_ms_worst": round(max(waits), 1),
        "slider_frames": round(statistics.median(frames)),
    }
    visit.wait("EARPlayer.take.total - EARPlayer.take.shown < 25")
    skews: list[float] = []
    for _ in range(8):
        skew, runs = visit.page.evaluate("[EARPlayer.skew() * 1000, EARPlayer.sound.running && EARPlayer.playing]")
        if runs:
            skews.append(skew)
        time.sleep(0.1)
    yield {
        "skew_ms": round(statistics.median(skews), 1) if skews else None,
        "skew_ms_worst": round(max((abs(skew), skew) for skew in skews)[1], 1) if skews else None,
    }
    visit.wait("EARPlayer.take.state === 'done' && !EARPlayer.playing")
    end = visit.page.evaluate(
        """() => { const { stalls, painted, stats, frames } = EARPlayer.take;
        return { stalls, painted, memory: stats.memory_mb, misses: stats.misses,
                 ready: window.doneAt - frames.at(-1).arrived }; }"""
    )
    yield {
        "stalls": end["stalls"],
        "late_frames": end["misses"],
        "painted_share": round(end["painted"] / round(_seconds(voice) * FPS), 3),
        "mp4_ready_s": round(end["ready"] / 1000, 2),
        "memory_mb": end["memory"],
    }


def cycles(visit: _Visit, voice: Path, wanted: int, server: _Server) -> Iterator[dict[str, Any]]:
    """Generate, stop at the first picture, and again: what of it stays in the server's process and on its disk."""
    _bring(visit, voice)
    for _ in range(WARM_CYCLES):
        _cycle(visit)
    before, until, done = server.footprint(), time.monotonic() + _CYCLE_LIMIT, 0
    while done < wanted and time.monotonic() < until:
        _cycle(visit)
        done += 1
        if done % 10 == 0:
            print(f"    {done} of {wanted} cycles", file=sys.stderr)
    time.sleep(2)
    after = server.footprint()
    left = {f"{name}_left": round(after[name] - before[name], 1) for name in before}
    yield {"cycles": done, "rss_mb_before": before["rss_mb"], "rss_mb_after": after["rss_mb"], **left}


def _cycle(visit: _Visit) -> None:
    visit.page.evaluate(
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


def _steer(visit: _Visit, value: float) -> tuple[float, int]:
    """Move the yaw slider; milliseconds until its first frame is on the canvas, and frames from the one shown at the
    event.
    """
    return tuple(
        visit.page.evaluate(
            """value => new Promise((resolve, reject) => {
            const slider = document.querySelector("#steer-yaw");
            const asked = performance.now(), shown = EARPlayer.take.shown;
            const wanted = Number((slider.value = value, slider.value));
            for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
            const look = () => {
              const frame = EARPlayer.take.frames[EARPlayer.take.shown];
              if (frame && frame.applied.yaw === wanted) resolve([performance.now() - asked, frame.index - shown]);
              else if (performance.now() - asked > 10000)
                reject(new Error("a change was not on the canvas after 10 s"));
              else requestAnimationFrame(look);
            };
            look();
        })""",
            value,
        )
    )


def _bring(visit: _Visit, voice: Path) -> None:
    """Upload portrait and voice and agree."""
    visit.page.set_input_files("#portrait input[type=file]", str(ROOT / "examples" / "portrait.png"))
    visit.page.set_input_files("#voice input[type=file]", str(voice))
    visit.page.wait_for_selector(".ear-crop", state="visible")
    frames = f"{round(_seconds(voice) * FPS)} frames"
    visit.wait("text => document.querySelector('#timeline').textContent.includes(text)", arg=frames)
    visit.page.check("#consent input")
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


class _Server:
    """The running app."""

    def __init__(self, process: subprocess.Popen, address: str, folder: Path, startup_s: float) -> None:
        self.address, self.startup_s, self._folder = address, startup_s, folder
        self._process = psutil.Process(process.pid)

    def footprint(self) -> dict[str, float]:
        """Threads, open files, files below the server's temporary folder, resident memory."""
        files = sum(path.is_file() for path in self._folder.rglob("*"))
        rss = round(self._process.memory_info().rss / 2**20, 1)
        return {
            "threads": self._process.num_threads(),
            "open_files": self._process.num_fds(),
            "files": files,
            "rss_mb": rss,
        }

    def busy_seconds(self) -> tuple[float, float]:
        """Processor time so far of the server, and of the browser with what drives it."""
        browser = sum(
            sum(child.cpu_times()[:2])
            for child in psutil.Process().children(recursive=True)
            if child.pid != self._process.pid
        )
        return sum(self._process.cpu_times()[:2]), browser


@contextmanager
def served(folder: Path) -> Iterator[_Server]:
    """`python app.py` on a free port, with a temporary folder of its own."""
    folder.mkdir()
    port = _free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(folder)}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_until_served(address, process)
        yield _Server(process, address, folder, round(time.perf_counter() - started, 2))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


class _Visit:
    """An open page, for so many seconds."""

    def __init__(self, page: Page, limit: float) -> None:
        self.page, self._until = page, time.monotonic() + limit

    def wait(self, expression: str, arg: Any = None) -> None:
        left = max(self._until - time.monotonic(), 0.1)
        # By default the browser would look at every repaint, which costs what is to be measured.
        self.page.wait_for_function(expression, arg=arg, timeout=1000 * left, polling=250)


@contextmanager
def _visit(browser: Browser, address: str, limit: float) -> Iterator[_Visit]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    visit = _Visit(page, limit)
    page.set_default_timeout(_PATIENCE * 1000)
    try:
        page.goto(address)
        page.wait_for_selector(".ear-example")
        visit.wait("window.EARTimeline && window.EARTimeline.get('timeline')")
        time.sleep(3)  # the examples are opened in the background; a visitor takes longer to look around
        yield visit
    finally:
        page.close()


def _wait_until_served(address: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + _STARTUP_LIMIT
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"app.py ended with {process.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).read(1)
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the page was not served in time")


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
    raise SystemExit(main())
