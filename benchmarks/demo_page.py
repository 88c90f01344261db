"""The demo as a benchmark meets it: `python app.py` in a process of its own, and pages of it in a headless Chromium."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page

from benchmarks.record import ROOT

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update "
    "--disable-sync --autoplay-policy=no-user-gesture-required"
).split()
STARTUP_LIMIT = 120  # seconds
_PATIENCE = 20  # seconds for a click or an upload


class Server:
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
def served(folder: Path) -> Iterator[Server]:
    """`python app.py` on a free port, with a temporary folder of its own."""
    folder.mkdir()
    port = _free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(folder)}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_until_served(address, process)
        yield Server(process, address, folder, round(time.perf_counter() - started, 2))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


class Visit:
    """An open page, for so many seconds."""

    def __init__(self, page: Page, limit: float) -> None:
        self.page, self._until = page, time.monotonic() + limit

    def wait(self, expression: str, arg: Any = None) -> None:
        left = max(self._until - time.monotonic(), 0.1)
        # By default the browser would look at every repaint, which costs what is to be measured.
        self.page.wait_for_function(expression, arg=arg, timeout=1000 * left, polling=250)


@contextmanager
def visit(browser: Browser, address: str, limit: float) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened = Visit(page, limit)
    page.set_default_timeout(_PATIENCE * 1000)
    try:
        page.goto(address)
        page.wait_for_selector(".ear-example")
        opened.wait("window.EARTimeline && window.EARTimeline.get('timeline')")
        time.sleep(3)  # the examples are opened in the background; a visitor takes longer to look around
        yield opened
    finally:
        page.close()


def _wait_until_served(address: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + STARTUP_LIMIT
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"app.py ended with {process.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).read(1)
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the page was not served in time")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
