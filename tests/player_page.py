"""The player against a server that a test plays; no sound, no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chromium import chromium, complaints_of
from playwright.sync_api import Page

from demo.stage import player_script

FRAMES = 60
SERVER = """
delete window.AudioContext; delete window.webkitAudioContext;
window.gradio_config = { root: "http://player.test/" };
window.sent = [];
window.WebSocket = class { // the server is the test
  static OPEN = 1;
  readyState = 1;
  constructor() { window.server = this; }
  send(text) { sent.push(JSON.parse(text)); }
  close() {}
};
window.say = (message) => server.onmessage({ data: JSON.stringify(message) });
window.make = async (first, end, applied = {}) => {
  const canvas = new OffscreenCanvas(16, 16), context = canvas.getContext("2d");
  for (let index = first; index < end; index++) {
    context.fillStyle = `rgb(${4 * index}, 0, 0)`;
    context.fillRect(0, 0, 16, 16);
    const jpeg = new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg" })).arrayBuffer());
    const about = new TextEncoder().encode(JSON.stringify({ applied, ms: 1 }));
    const packet = new Uint8Array(12 + about.length + jpeg.length + 2 * 1920), view = new DataView(packet.buffer);
    [index, about.length, jpeg.length].forEach((value, i) => view.setUint32(4 * i, value, true));
    packet.set(about, 12);
    packet.set(jpeg, 12 + about.length);
    server.onmessage({ data: packet.buffer });
  }
};
"""
LISTEN = """
window.said = []; window.paints = []; window.shown = []; window.flows = []; window.states = [];
EARPlayer.mount(document.querySelector("canvas"));
EARPlayer.on("buffering", (words) => said.push(words));
EARPlayer.on("painted", (index) => {
  paints.push(index);
  shown.push([index, EARPlayer.take.frames[index].applied.yaw ?? null]);
});
EARPlayer.on("playing", (flowing) => flows.push(flowing));
EARPlayer.on("state", (take) => states.push(take.state));
"""


@contextmanager
def player_page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        complaints = complaints_of(page)
        page.set_content(
            f"<!doctype html><canvas></canvas><script>{SERVER}</script>{player_script()}<script>{LISTEN}</script>"
        )
        yield page
        assert complaints == []


def load(page: Page) -> Page:
    """With a take that has just been asked for."""
    page.evaluate(
        """() => { clearInterval(window.dragging);
        said.length = paints.length = shown.length = flows.length = states.length = sent.length = 0;
        EARPlayer.load({ token: "t", url: "live/t" }); }"""
    )
    return page


def hello(page: Page, speed: float | None) -> None:
    page.evaluate("speed => say({ type: 'hello', frames: 60, size: 16, fps: 25, rate: 48000, seed: 0, speed })", speed)


def make(page: Page, first: int, end: int, **applied: float) -> None:
    page.evaluate("([first, end, applied]) => make(first, end, applied)", [first, end, applied])


def asked(page: Page, kind: str = "set") -> list[dict[str, Any]]:
    """What the server was asked for."""
    return page.evaluate("kind => sent.filter((message) => message.type === kind)", kind)


def go_back(page: Page, number: int, frame: int) -> None:
    """The server accepts message `number` and makes all anew from `frame` on."""
    accepted = {"type": "accepted", "id": number, "change": number, "frame": frame, "turn": number}
    for message in (accepted, {"type": "back", "frame": frame, "turn": number}):
        page.evaluate("message => say(message)", message)


def lead(page: Page) -> float:
    return page.evaluate("sent.filter((message) => message.type === 'playhead').at(-1).lead")
