"""Who steers far ahead of a slow machine, who will not wait, and who pauses: the player against a server that a test
plays.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import needs_chromium
from player_page import FRAMES, asked, go_back, hello, lead, load, make, player_page
from playwright.sync_api import Page

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with player_page() as page:
        yield page


@pytest.fixture
def player(page: Page) -> Page:
    return load(page)


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


def test_a_picture_that_runs_before_the_sound_is_steered_as_well(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate("EARPlayer.take.seen = Math.ceil(EARPlayer.playhead()) + 2; EARPlayer.set({ yaw: 5 })")
    change = asked(page)[-1]
    assert page.evaluate("flows.at(-1)") is False
    go_back(page, change["id"], change["from"])
    make(page, change["from"], change["from"] + 1, yaw=5)
    page.wait_for_function("first => shown.at(-1)[0] === first && shown.at(-1)[1] === 5", arg=change["from"])


def test_who_steers_again_while_it_buffers_sees_that_at_once_too(far_ahead: Page) -> None:
    page = far_ahead
    for yaw in (5, 6):
        page.evaluate("yaw => EARPlayer.set({ yaw })", yaw)
        change = asked(page)[-1]
        go_back(page, change["id"], change["from"])
        make(page, change["from"], change["from"] + 3, yaw=yaw)
        page.wait_for_function("yaw => shown.at(-1)[1] === yaw", arg=yaw)
        page.wait_for_function("said.at(-1)?.includes('going on in')")
    assert {one["from"] for one in asked(page)} == {page.evaluate("EARPlayer.take.shown")}


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
    shown = page.evaluate("(EARPlayer.plan({ fps: 25, tracks: {} }), EARPlayer.take.shown)")
    (plan,) = asked(page, "plan")
    assert plan["from"] >= shown + 5
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
    assert player.evaluate("paints") == sorted(player.evaluate("paints")) and lead(player) == 26
    make(player, 4, 28)
    assert player.evaluate("flows.at(-1)") is False
    make(player, 28, 30)
    player.wait_for_function("paints.at(-1) > 10")


def test_a_take_that_ends_in_the_hand_plays_what_is_there(far_ahead: Page) -> None:
    page = far_ahead
    page.evaluate("EARPlayer.set({ yaw: 5 })")
    first = asked(page)[-1]["from"]
    go_back(page, asked(page)[-1]["id"], first)
    make(page, first, FRAMES, yaw=5)
    page.evaluate("say({ type: 'done', state: 'finished', video: null, controls: {}, fingerprint: '' })")
    page.wait_for_function("!EARPlayer.playing")
    assert page.evaluate("paints.at(-1)") == FRAMES - 1


def test_who_pauses_says_so_and_goes_on_from_the_queue(far_ahead: Page) -> None:
    page = far_ahead
    assert asked(page, "playhead")[-1]["paused"] is False
    page.evaluate("EARPlayer.pause()")
    assert asked(page, "playhead")[-1]["paused"] is True
    page.evaluate("say({ type: 'parked' })")
    page.evaluate("EARPlayer.play()")
    assert asked(page, "playhead")[-1]["paused"] is False
    page.evaluate("say({ type: 'queue', place: 1, seconds: 8 })")
    page.wait_for_function("EARPlayer.take.shown === 49 && !flows.at(-1)")  # what is there is shown meanwhile
    assert page.evaluate("[EARPlayer.take.state, EARPlayer.take.stalls]") == ["queued", 0]
    hello(page, 12)
    make(page, 50, FRAMES)
    page.wait_for_function("!EARPlayer.playing")
    assert page.evaluate("[paints.at(-1), EARPlayer.take.stalls]") == [FRAMES - 1, 0]
