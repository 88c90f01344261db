"""The control timeline's curves, presets and files equal eartalking.controls."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium
from control_tracks import controls, random_tracks, values
from playwright.sync_api import Error

from demo.timeline import file_from_tracks, tracks_from_file
from demo.timeline.component import WEB, read_controls, script, write_controls
from demo.timeline.files import as_json, thin
from eartalking.controls import CONTROL_RANGES, EMOTIONS, SCALAR_TRACKS


@pytest.fixture(scope="module")
def curves(browser: Any) -> Iterator[Callable[[str, Any], Any]]:
    """Evaluates an expression over `Curves`, `Presets` and `argument` in the browser."""
    page = browser.new_page()
    head = script("timeline", "").split("// Curves:")[0] + "".join(
        (WEB / f"{name}.js").read_text() for name in ("curves", "presets")
    )
    yield lambda expression, argument: page.evaluate(f"(argument) => {{ {head}; return {expression}; }}", argument)
    page.close()


@needs_chromium
def test_browser_and_python_ask_for_the_same_values(curves: Callable[[str, Any], Any]) -> None:
    chance = random.Random(0)
    for _ in range(25):
        tracks = random_tracks(chance)
        frames = "[...Array(111).keys()].map((frame) => Curves.valueAt(name, keys, frame))"
        rows = curves(
            f"Object.fromEntries(Object.entries(Curves.checkTracks(argument)).map(([name, keys]) => [name, {frames}]))",
            tracks,
        )
        expected = as_json({track: [(0, value) for value in values(tracks, track, range(111))] for track in tracks})
        assert rows == {track: [value for _, value in pairs] for track, pairs in expected.items()}


@needs_chromium
@pytest.mark.parametrize(
    "tracks, names",
    [
        ({"yaw": [[0, 31]]}, "yaw"),
        ({"nose": [[0, 1]]}, "nose"),
        ({"yaw": [[1, 0], [1, 2]]}, "keyframe 2"),
        ({"yaw": [[-1, 0]]}, "time"),
        ({"emotion": [[0, "happy"]]}, "emotion"),
        ({"emotion": [[0, ["bored", 1]]]}, "bored"),
        ({"yaw": [[0, "4"]]}, "yaw"),
        ([1], "tracks"),
    ],
)
def test_bad_controls_are_refused_with_the_track(curves: Callable[[str, Any], Any], tracks: Any, names: str) -> None:
    with pytest.raises(Error, match=names):
        curves("Curves.checkTracks(argument)", tracks)


@needs_chromium
def test_live_steering_is_a_step_that_changes_no_other_frame(curves: Callable[[str, Any], Any]) -> None:
    chance = random.Random(1)
    for _ in range(80):
        tracks = random_tracks(chance)
        track = chance.choice([*SCALAR_TRACKS, "emotion"])
        low, high = CONTROL_RANGES.get(track, (0.0, 1.0))
        number = chance.uniform(low, high)
        value = chance.choice([None, [chance.choice(EMOTIONS), number] if track == "emotion" else number])
        frame, latch = chance.randrange(100), chance.random() < 0.3
        keys = tracks.get(track, [])
        after = curves("Curves.record(...argument)", [track, keys, frame, value, latch])
        later = [key for key in keys if key[0] > frame / 25 + 1e-6]
        end = 130 if latch or not later else next(f for f in range(131) if f / 25 + 1e-6 >= later[0][0])
        asked = values({track: after}, track, range(130))
        before = values(tracks, track, range(130))
        expected = tuple(value) if isinstance(value, list) else value
        assert asked[:frame] == pytest.approx(before[:frame]) if track != "emotion" else asked[:frame] == before[:frame]
        assert asked[frame:end] == [expected] * (end - frame)
        assert asked[end:] == (pytest.approx(before[end:]) if track != "emotion" else before[end:])


@needs_chromium
def test_a_slider_in_motion_replays_exactly(curves: Callable[[str, Any], Any]) -> None:
    """Records at many frames, before a keyframe of the timeline: each value holds until the next record."""
    chance = random.Random(2)
    keys: list[Any] = [[1.0, 5.0], [4.0, -5.0]]
    moves = {frame: chance.uniform(-30, 30) for frame in sorted(chance.sample(range(30, 100), 20))}
    for frame, value in moves.items():
        keys = curves("Curves.record(...argument)", ["yaw", keys, frame, value])
    asked = values({"yaw": keys}, "yaw", range(120))
    expected = values({"yaw": [[1.0, 5.0], [4.0, -5.0]]}, "yaw", range(min(moves)))
    for frame in range(min(moves), 100):
        expected.append(moves[max(start for start in moves if start <= frame)])
    assert asked == pytest.approx(expected + [-5.0] * 20)


@needs_chromium
def test_a_log_comes_back_as_few_keyframes_with_the_same_values(curves: Callable[[str, Any], Any]) -> None:
    drawn = {
        "yaw": [[0.4, 0.1], [1.2, 15.3], [2.0, -7.7], [2.8, None], [3.0, 4.0]],
        "brow": [[0.2, 0.3], [0.24, -0.2], [0.28, 0.9]],
    }
    for track, keys in drawn.items():
        log = [[frame / 25, value] for frame, value in enumerate(values({track: keys}, track, range(90)))]
        thinned = curves("Curves.thin(...argument)", [track, log])
        assert values({track: thinned}, track, range(90)) == values({track: keys}, track, range(90))
        assert [key for key in thinned if key[1] is not None][:3] == keys[:3]
        assert sum(key[1] is not None for key in thinned) <= len(keys) + 2


@needs_chromium
@pytest.mark.parametrize("preset", ["nod", "shake", "blink", "smile", "look"])
def test_presets_change_their_own_frames_only(curves: Callable[[str, Any], Any], preset: str) -> None:
    chance = random.Random(3)
    waveform = [1.0 if 50 <= peak < 80 else 0.0 for peak in range(200)]
    for _ in range(12):
        tracks = random_tracks(chance)
        state = {
            "tracks": tracks,
            "waveform": waveform,
            "duration": 4.0,
            "playhead": chance.randrange(80),
            "range": sorted(chance.sample(range(0, 100), 2)) if chance.random() < 0.4 else None,
        }
        result = curves("Presets.apply(argument.preset, argument.state)", {"preset": preset, "state": state})
        first, last = result["span"]
        changed = False
        for track in (*SCALAR_TRACKS, "emotion"):
            asked, before = (values(given, track, range(140)) for given in (result["tracks"], tracks))
            if track not in result["touched"]:
                assert asked == before
                continue
            for frame in (*range(first), *range(last + 1, 140)):
                assert asked[frame] == (before[frame] if before[frame] is None else pytest.approx(before[frame])), (
                    track,
                    frame,
                )
            assert None not in asked[first : last + 1]
            changed |= asked != before
        assert changed


@needs_chromium
def test_smile_finds_the_word(curves: Callable[[str, Any], Any]) -> None:
    waveform = [1.0 if 50 <= peak < 80 else 0.01 for peak in range(200)]  # a word from 1.0 to 1.6 s
    assert curves("Presets.wordAt(argument, 4, 30)", waveform) == [25, 40]
    assert curves("Presets.wordAt(argument, 4, 80)", waveform) is None


def test_a_table_becomes_few_keyframes_with_the_same_values(tmp_path: Path) -> None:
    chance = random.Random(4)
    for _ in range(30):
        tracks = random_tracks(chance, 6)
        if not tracks:
            continue
        loaded = tracks_from_file(file_from_tracks(tracks, "csv", tmp_path))
        for track in tracks:
            frames = range(controls(tracks).num_frames + 5)
            for ours, theirs in zip(values(loaded, track, frames), values(tracks, track, frames), strict=True):
                assert ours == theirs, track


def test_thinning_keeps_steps_and_ends() -> None:
    rows = [(frame / 25, value) for frame, value in enumerate([None, 0.0, 0.0, 0.0, 5.0, 5.0, None, None, 1.0])]
    assert thin("yaw", rows) == [rows[1], rows[3], rows[4], rows[6], rows[8]]


def test_files_name_the_user_s_file_and_refuse_what_is_no_controls_file() -> None:
    answer = read_controls({"name": "my.csv", "content": "eWF3CjkwCg=="})  # yaw, 90
    assert answer == {"error": "my.csv: row 2 (frame 0), track yaw: yaw 90 is outside -30..30"}
    assert ".json or .csv" in read_controls({"name": "my.txt", "content": ""})["error"]
    assert "error" in read_controls({"name": "my.json", "content": "!"})
    assert "yaw" in write_controls({"tracks": {"yaw": [[0, 99]]}, "kind": "json"})["error"]
    assert "error" in write_controls({"tracks": {}, "kind": "exe"})
    assert json.loads(write_controls({"tracks": {"yaw": [[0, 9]]}, "kind": "json"})["text"])["tracks"] == {
        "yaw": [[0.0, 9.0]]
    }
