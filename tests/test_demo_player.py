"""The player's clock and its buffer, and the player against a server that a test plays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chromium import needs_chromium
from player_page import FRAMES, hello, lead, load, make, player_page
from playwright.sync_api import Page

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with player_page() as page:
        yield page


@pytest.fixture
def player(page: Page) -> Page:
    return load(page)


@pytest.mark.parametrize(
    ("left", "speed", "stalls", "frames"),
    [
        (1500, 100, 0, 3),
        (1500, None, 0, 3),
        (1500, 28.75, 0, 3),
        (1500, 27.5, 0, 6),  # 3 and a third of 9
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
    assert lead(player) == 4
    make(player, 0, 3)
    player.wait_for_function("paints.length > 0")
    assert player.evaluate("said") == []


def test_a_slow_machine_shows_a_picture_says_how_long_and_then_plays_without_a_stall(player: Page) -> None:
    hello(player, 20)
    wanted = 27  # 24 % of 60, and 12
    assert lead(player) == wanted + 1
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
    assert lead(player) == 51
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
    assert lead(player) == 26  # a second, and 1
    make(player, 5, 31)
    player.wait_for_function("paints.at(-1) > 5")
    assert lead(player) == 4
    player.evaluate("EARPlayer.pause()")
    assert lead(player) == 4


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
