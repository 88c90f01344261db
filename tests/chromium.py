"""Debian's chromium for tests of what a visitor sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt install chromium)")
# Containers often give 64 MB of shared memory and no display, and run as root.
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
).split()
SLOW = 60_000  # ms a page may take; the machine that runs the tests may have other things to do


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A browser with these flags besides the usual ones, closed afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags])
        yield browser
        browser.close()


def complaints_of(page: Page, expected: tuple[str, ...] = ()) -> list[str]:
    """The list to which the page will add its errors, those of the console but for what begins as `expected`; the page
    may take its time from now on."""
    complaints: list[str] = []

    def on_message(message: object) -> None:
        if message.type == "error" and not message.text.startswith(expected):
            complaints.append(message.text)

    page.set_default_timeout(SLOW)
    page.on("console", on_message)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def wait_for_page(page: Page) -> None:
    """Until examples and timeline of the demo's page are there."""
    page.wait_for_selector(".ear-example")
    page.wait_for_function("window.EARTimeline && window.EARTimeline.get('timeline')")
