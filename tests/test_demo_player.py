"""The player's clock and its buffer, and the player against a server that a test plays; no sound, no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from demo_app import CHROMIUM, FLAGS, SLOW
from playwright.sync_api import Page, sync_playwright

from demo.stage import player_script

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt install chromium)")

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


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(SLOW)
        page.set_content(
            f"<!doctype html><canvas></canvas><script>{SERVER}</script>{player_script()}<script>{LISTEN}</script>"
        )
        yield page
        browser.close()


@pytest.fixture
def player(page: Page) -> Page:
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


@pytest.mark.parametrize(
    ("left", "speed", "stalls", "frames"),
    [
        (1500, 100, 0, 3),
        (1500, None, 0, 3),
        (1500, 31.25, 0, 3),
        (1500, 27.5, 0, 9),  # 3 + 0.6 of 9, rounded up
        (1500, 25, 0, 87),  # 5 % are doubted, and 12
        (150, 20, 0, 48),  # 24 % of 150, and 12
        (1500, 10, 0, 942),
        (10, 1, 0, 10),
        (1500, 100, 1, 25),  # one long pause, then longer ones
        (1500, 100, 3, 100),
        (1500, 25, 1, 100),
        (0, 10, 2, 0),
    ],
)
def test_how_much_must_lie_ahead(page: Page, left: int, speed: float | None, stalls: int, frames: int) -> None:
    assert (
        page.evaluate("([left, speed, stalls]) => EARBuffer.needed(left, speed, stalls)", [left, speed, stalls])
        == frames
    )


@pytest.mark.parametrize("speed", [5.0, 12.0, 20.0, 24.0, 26.0])
def test_who_waits_for_that_sees_no_stall(page: Page, speed: float) -> None:
    """Frames that come at the speed that was measured are all there when they are due."""
    total = 1000
    ahead = page.evaluate("([left, speed]) => EARBuffer.needed(left, speed, 0)", [total, speed])
    assert all(ahead + seconds * speed >= min(25 * seconds, total) for seconds in range(total // 25 + 1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("20, 1.3, false", "This machine makes 20 of 25 frames a second: starting 1.5 s later."),
        ("11.2, 7.9, true", "This machine makes 11 of 25 frames a second: going on in 8 s."),
        ("30, 1.1, true", "The frames come unevenly: going on in 1.5 s."),
        ("20, 0.4, false", ""),
        ("null, 4, false", ""),
    ],
)
def test_what_is_said_meanwhile(page: Page, arguments: str, words: str) -> None:
    assert page.evaluate(f"EARBuffer.words({arguments})") == words


def test_the_clock_is_smooth_and_never_goes_back(page: Page) -> None:
    """A sound device that counts in blocks of 40 ms, changes its mind about its delay, and stands still for 0.3 s."""
    shown = page.evaluate(
        """() => { const clock = new EARClock(), seen = []; clock.start(0, 5);
        for (let i = 0; i < 600; i++) {
          const wall = i / 100, stood = Math.max(0, Math.min(0.3, wall - 3));
          const sound = 5 + Math.floor(25 * (wall - stood)) / 25;
          seen.push(clock.due(sound, 100 + wall, i % 2 ? 0.02 : 0.12));
        }
        return seen; }"""
    )
    steps = [after - before for before, after in zip(shown, shown[1:], strict=False)]
    assert min(steps) >= 0
    assert max(steps[50:290]) < 0.6 and max(steps[400:]) < 0.6  # 0.25 frames are due in 10 ms
    assert (
        abs(shown[290] / 25 - (2.9 - 0.02 - 0.07)) < 0.06 and abs(shown[599] / 25 - (5.99 - 0.3 - 0.02 - 0.07)) < 0.06
    )


def test_the_clock_goes_back_for_a_viewer_who_does(page: Page) -> None:
    frames = page.evaluate(
        """() => { const clock = new EARClock(); clock.start(0, 0);
        const seen = [clock.due(2, 2, 0)];
        clock.start(10, 2); seen.push(clock.due(2, 2, 0));
        clock.jump(); seen.push(clock.due(2, 2, 0)); return seen; }"""
    )
    assert frames == pytest.approx([50, 50, 10])


def test_a_fast_machine_starts_at_once(player: Page) -> None:
    hello(player, 100)
    assert lead(player) == 5
    make(player, 0, 3)
    player.wait_for_function("paints.length > 0")
    assert player.evaluate("said") == []


def test_a_slow_machine_shows_a_picture_says_how_long_and_then_plays_without_a_stall(player: Page) -> None:
    hello(player, 20)
    wanted = 27  # 24 % of 60, and 12
    assert lead(player) == wanted + 2
    make(player, 0, 1)
    player.wait_for_function("EARPlayer.take.shown === 0")  # the first picture waits for nothing
    make(player, 1, wanted - 1)
    said = player.evaluate("said")
    assert said[0] == "This machine makes 20 of 25 frames a second: starting 1.5 s later." and len(said) == 2
    assert player.evaluate("[paints, EARPlayer.take.stalls]") == [[], 0]
    make(player, wanted - 1, FRAMES)
    player.wait_for_function("!EARPlayer.playing")
    paints, stalls = player.evaluate("[paints, EARPlayer.take.stalls]")
    assert stalls == 0 and paints == sorted(set(paints)) and paints[-1] == FRAMES - 1


def test_a_machine_that_turns_slow_pauses_once_and_never_shows_an_earlier_picture(player: Page) -> None:
    hello(player, 100)
    make(player, 0, 10)
    player.wait_for_function("EARPlayer.take.stalls === 1")
    player.evaluate("say({ type: 'stats', speed: 12.5, fps: 12.5, frames: 10 })")
    # 10 are seen; 52.5 % of the other 50 and 25 more are all of them.
    assert lead(player) == 52
    make(player, 10, 30)
    assert player.evaluate("[EARPlayer.playing, EARPlayer.take.shown]") == [True, 9]
    assert "going on in" in player.evaluate("said.at(-1)") and player.evaluate("paints.at(-1)") == 9
    make(player, 30, FRAMES)
    player.wait_for_function("!EARPlayer.playing")
    paints, stalls = player.evaluate("[paints, EARPlayer.take.stalls]")
    assert stalls == 1 and paints == sorted(set(paints)) and paints[-1] == FRAMES - 1


def test_a_fast_machine_that_stumbled_is_steered_as_directly_as_before(player: Page) -> None:
    hello(player, 100)
    make(player, 0, 5)
    player.wait_for_function("EARPlayer.take.stalls === 1")
    assert lead(player) == 27  # a second, and 2
    make(player, 5, 31)
    player.wait_for_function("paints.at(-1) > 5")
    assert lead(player) == 5
    player.evaluate("EARPlayer.pause()")
    assert lead(player) == 5


def test_who_waits_in_line_is_told_and_starts_by_itself(player: Page) -> None:
    told: list[Any] = []
    for place, seconds in ((2, 20), (1, None)):
        player.evaluate("message => say(message)", {"type": "queue", "place": place, "seconds": seconds})
        told.append(player.evaluate("[EARPlayer.take.state, EARPlayer.take.waiting]"))
    assert told == [
        ["queued", "Others are being served. You are number 2 in the queue; about 20 s. It starts by itself."],
        ["queued", "Others are being served. You are number 1 in the queue. It starts by itself."],
    ]
    before = player.evaluate("EARPlayer.take.clicked")
    hello(player, 100)
    make(player, 0, 5)
    player.wait_for_function("paints.length > 0")
    assert player.evaluate("EARPlayer.take.clicked") > before  # waiting for others is not waiting for the picture


def test_a_take_that_was_stopped_can_be_watched_again(player: Page) -> None:
    hello(player, 10)
    make(player, 0, 20)
    player.evaluate("say({ type: 'done', state: 'stopped', video: null, controls: {}, fingerprint: '' })")
    player.evaluate("EARPlayer.play()")
    player.wait_for_function("!EARPlayer.playing")
    assert player.evaluate("[EARPlayer.take.shown, EARPlayer.take.stalls]") == [19, 0]


@pytest.fixture
def far_ahead(player: Page) -> Page:
    """A slow machine's take that plays, with some forty frames before the viewer."""
    hello(player, 12)
    make(player, 0, 50)
    player.wait_for_function("paints.length > 3")
    player.evaluate("said.length = 0")
    return player


def test_steering_far_ahead_makes_all_anew_that_was_neither_seen_nor_heard(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate("EARPlayer.set({ yaw: 5 })")
    (change,) = asked(page)
    first = change["from"]
    assert change["tracks"] == {"yaw": 5} and page.evaluate("[flows.at(-1), EARPlayer.take.shown]") == [
        False,
        first - 1,
    ]
    assert asked(page, "playhead")[-1]["frame"] == first
    page.wait_for_timeout(300)
    assert page.evaluate("paints.at(-1)") < first  # what is outdated is not shown
    go_back(page, change["id"], first)
    page.evaluate("frame => say({ type: 'applied', change: 1, frame, tracks: { yaw: 5 }, ms: 1 })", first)
    make(page, first, first + 1, yaw=5)
    page.wait_for_function("first => paints.at(-1) === first", arg=first)
    assert page.evaluate("shown.at(-1)") == [first, 5] and page.evaluate("EARPlayer.take.frames.length") == first + 1
    page.wait_for_function("said.length > 0")  # the hand rests
    assert "12 of 25 frames a second: going on in" in page.evaluate("said.at(-1)")
    make(page, first + 1, FRAMES, yaw=5)
    page.wait_for_function("!EARPlayer.playing")
    shown, stalls = page.evaluate("[shown, EARPlayer.take.stalls]")
    frames = [frame for frame, _ in shown]
    assert frames == sorted(frames) and frames[-1] == FRAMES - 1 and stalls == 0
    assert all(yaw == (5 if frame >= first else None) for frame, yaw in shown)


def test_a_drag_is_followed_at_one_frame_by_its_latest_values_and_then_waits(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate(
        """() => { window.value = 0; window.dragging = setInterval(() => EARPlayer.set({ yaw: ++value }), 16); }"""
    )
    answered = 0
    for _ in range(4):
        page.wait_for_function("count => sent.filter((one) => one.type === 'set').length > count", arg=answered)
        page.wait_for_timeout(300)  # as long as a slow machine takes; meanwhile nothing more is asked of it
        changes = asked(page)
        assert len(changes) == answered + 1
        answered, latest = len(changes), changes[-1]
        go_back(page, latest["id"], latest["from"])
        make(page, latest["from"], latest["from"] + 2, yaw=latest["tracks"]["yaw"])
        page.wait_for_function("yaw => shown.at(-1)[1] === yaw", arg=latest["tracks"]["yaw"])
    first = asked(page)[0]["from"]
    assert {change["from"] for change in asked(page)} == {first} == {page.evaluate("EARPlayer.take.shown")}
    page.wait_for_timeout(700)
    assert page.evaluate("[said, flows.at(-1)]") == [[], False]  # a hand that moves does not rest
    value = page.evaluate("clearInterval(dragging), value")
    while asked(page)[-1]["tracks"]["yaw"] != value:
        latest = asked(page)[-1]
        go_back(page, latest["id"], first)
        make(page, first, first + 1, yaw=latest["tracks"]["yaw"])
        page.wait_for_timeout(300)
    go_back(page, asked(page)[-1]["id"], first)
    make(page, first, FRAMES, yaw=value)
    page.wait_for_function("flows.at(-1) && paints.at(-1) > 20")
    assert {yaw for frame, yaw in page.evaluate("shown") if frame > first} == {value}
    frames = page.evaluate("paints")
    assert frames == sorted(frames)


def test_a_change_that_changes_nothing_goes_on(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate("EARPlayer.set({ yaw: null })")
    message = asked(page)[-1]
    page.evaluate("id => say({ type: 'accepted', id, change: 1, frame: 50, turn: 0 })", message["id"])
    page.wait_for_function("first => flows.at(-1) && paints.at(-1) > first + 5", arg=message["from"])
    assert page.evaluate("EARPlayer.take.frames.length") == 50


def test_who_went_back_to_look_steers_what_was_not_seen(far_ahead: Page) -> None:
    page = far_ahead
    page.wait_for_function("paints.at(-1) >= 12")
    page.evaluate("EARPlayer.pause()")
    seen = page.evaluate("EARPlayer.take.shown")
    page.evaluate("EARPlayer.seek(2)")
    page.evaluate("EARPlayer.set({ yaw: 5 })")
    change = asked(page)[-1]
    assert change["from"] == seen + 1
    go_back(page, change["id"], change["from"])
    make(page, change["from"], FRAMES, yaw=5)
    page.evaluate("EARPlayer.play()")
    page.wait_for_function("!EARPlayer.playing")
    assert all(yaw == (5 if frame > seen else None) for frame, yaw in page.evaluate("shown"))


def test_an_edited_timeline_plays_on_until_where_it_differs(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate("EARPlayer.plan({ fps: 25, tracks: {} })")
    (plan,) = asked(page, "plan")
    assert plan["from"] >= page.evaluate("EARPlayer.take.shown") + 5
    go_back(page, plan["id"], 40)
    assert page.evaluate("[flows.at(-1), EARPlayer.take.frames.length]") == [True, 40]
    page.wait_for_function("!flows.at(-1)")  # it has come to where it differs
    assert page.evaluate("[paints.at(-1), EARPlayer.take.stalls]") == [39, 0]
    make(page, 40, FRAMES)
    page.wait_for_function("!EARPlayer.playing")
    assert page.evaluate("paints.at(-1)") == FRAMES - 1


def test_few_frames_ahead_are_steered_as_ever(player: Page) -> None:
    hello(player, 100)
    make(player, 0, 7)
    player.wait_for_function("paints.length > 0")
    player.evaluate("[EARPlayer.set({ yaw: 1 }), EARPlayer.set({ yaw: 2 }), EARPlayer.plan({ fps: 25, tracks: {} })]")
    assert [message["tracks"]["yaw"] for message in asked(player)] == [1, 2]
    assert not any("from" in message for message in asked(player) + asked(player, "plan"))
    assert player.evaluate("flows.at(-1)") is True


def test_who_will_not_wait_plays_now_and_then_a_second_at_a_time(player: Page) -> None:
    hello(player, 12)
    make(player, 0, 4)
    assert player.evaluate("said.length > 0 && flows.length === 0")
    player.evaluate("EARPlayer.playNow()")
    player.wait_for_function("EARPlayer.take.stalls === 1")
    assert player.evaluate("paints") == sorted(player.evaluate("paints")) and lead(player) == 27
    make(player, 4, 28)
    assert player.evaluate("flows.at(-1)") is False
    make(player, 28, 30)
    player.wait_for_function("paints.at(-1) > 10")


def test_a_take_that_ends_in_the_hand_plays_what_is_there(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate("EARPlayer.set({ yaw: 5 })")
    first = asked(page)[-1]["from"]
    assert lead(page) <= FRAMES - first - 1  # it shall not end while the hand moves
    go_back(page, asked(page)[-1]["id"], first)
    make(page, first, FRAMES, yaw=5)
    page.evaluate("say({ type: 'done', state: 'finished', video: null, controls: {}, fingerprint: '' })")
    page.wait_for_function("!EARPlayer.playing")
    assert page.evaluate("paints.at(-1)") == FRAMES - 1
