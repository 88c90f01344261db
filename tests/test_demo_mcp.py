"""Every MCP tool, called by an MCP client over streamable HTTP as a program would, gives what it promises."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import jsonschema
import pytest
from demo_app import LIMITS, PHOTO, write_voice
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from demo.sessions import Sessions
from eartalking.controls import CONTROL_RANGES, CONTROL_TRACKS

TOOLS = {"generate", "stream", "begin", "steer", "status", "stop", "leaderboard"}
CONTROLS = {"fps": 25, "tracks": {"yaw": [[0, -5], [0.4, 12], [0.6, None]], "emotion": [[0.2, ["happy", 0.5]]]}}
Call = Callable[..., Awaitable[list[Any]]]


def data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def talk(address: str, conversation: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    """What a conversation with the server comes to."""

    async def run() -> Any:
        async with streamablehttp_client(f"{address}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                return await conversation(session)

    return asyncio.run(run())


async def called(session: ClientSession, tool: str, **arguments: Any) -> list[Any]:
    """The parts of a tool's answer; fails where it is an error."""
    answer = await session.call_tool(tool, arguments)
    texts = [part.text for part in answer.content]
    assert not answer.isError, texts
    return [_value(text) for text in texts]


def _value(text: str) -> Any:
    """Gradio sends structures as Python writes them."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


async def refused(session: ClientSession, tool: str, **arguments: Any) -> str:
    answer = await session.call_tool(tool, arguments)
    assert answer.isError
    return answer.content[0].text


def inputs(folder: Path, seconds: float) -> dict[str, Any]:
    voice = write_voice(folder / "voice.wav", seconds)
    return {"portrait": data_url(PHOTO, "image/jpeg"), "voice": data_url(voice, "audio/wav"), "consent": True}


def frames_of(video: dict[str, Any]) -> int:
    with urllib.request.urlopen(video["url"], timeout=30) as answer, av.open(answer) as container:
        return sum(1 for _ in container.decode(video=0))


def test_schemas_say_every_track_its_range_and_the_whole_story(demo: tuple[str, Sessions]) -> None:
    tools = {tool.name: tool for tool in talk(demo[0], lambda session: session.list_tools()).tools}
    assert set(tools) == TOOLS
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.inputSchema)
        for name, schema in tool.inputSchema["properties"].items():
            assert schema["description"].endswith("."), (tool.name, name)
    for schema in (
        tools["generate"].inputSchema["properties"]["controls"]["properties"]["tracks"],
        tools["steer"].inputSchema["properties"]["tracks"],
    ):
        assert set(schema["properties"]) == set(CONTROL_TRACKS)
    steered = jsonschema.Draft202012Validator(tools["steer"].inputSchema["properties"]["tracks"])
    for track, (low, high) in CONTROL_RANGES.items():
        assert steered.is_valid({track: low}) and steered.is_valid({track: high}) and steered.is_valid({track: None})
        assert not steered.is_valid({track: high + 0.1}) and not steered.is_valid({track: "much"})
    assert steered.is_valid({"emotion": ["happy", 0.5]}) and not steered.is_valid({"emotion": ["bored", 0.5]})
    timeline = jsonschema.Draft202012Validator(tools["generate"].inputSchema["properties"]["controls"])
    assert timeline.is_valid(CONTROLS) and not timeline.is_valid({"tracks": {"yaw": [[0, 99]]}})
    assert "AI-generated" in tools["generate"].inputSchema["properties"]["consent"]["description"]


def test_generate_gives_a_video(demo: tuple[str, Sessions], tmp_path: Path) -> None:
    arguments = inputs(tmp_path, 0.8) | {"controls": CONTROLS, "seed": 7, "badge": True, "face": "left"}
    ((video, log, about),) = talk(demo[0], lambda session: called(session, "generate", **arguments))
    assert frames_of(video) == about["frames"] == 20 and log["tracks"]["yaw"][0] == [0.0, -5.0]


def test_stream_runs_to_its_end(demo: tuple[str, Sessions], tmp_path: Path) -> None:
    ((status, video),) = talk(demo[0], lambda session: called(session, "stream", **inputs(tmp_path, 0.4)))
    assert status["state"] == "finished" and frames_of(video) == 10


def test_a_stream_is_started_steered_asked_about_and_stopped(demo: tuple[str, Sessions], tmp_path: Path) -> None:
    async def conversation(session: ClientSession) -> tuple[Any, ...]:
        (begun,) = await called(session, "begin", **inputs(tmp_path, LIMITS.voice_seconds))
        take = begun["take"]
        (answer,) = await called(session, "steer", take=take, tracks={"yaw": 12.5, "emotion": ["sad", 0.5]})
        (status,) = await called(session, "status", take=take)
        words = await refused(session, "steer", take=take, tracks={"yaw": 99})
        return status, answer, words, (await called(session, "stop", take=take))

    status, answer, words, stopped = talk(demo[0], conversation)
    assert answer["applied_frame"] >= 0 and status["applied"]["yaw"] == 12.5 and "99" in words
    ended, video = stopped if len(stopped) == 2 else stopped[0]
    assert ended["state"] == "stopped" and ended["controls"]["tracks"]["yaw"]
    assert 0 < ended["frames"] == frames_of(video) < 25 * LIMITS.voice_seconds


def test_the_leaderboard_is_short_and_more_for_who_asks(demo: tuple[str, Sessions]) -> None:
    async def conversation(session: ClientSession) -> tuple[Any, ...]:
        whole = await session.call_tool("leaderboard", {})
        (few,) = await called(session, "leaderboard", suite="full", columns="psnr, ttff_ms")
        (one,) = await called(session, "leaderboard", suite="full", method="ours", columns="all")
        return whole.content[0].text, few, one, await refused(session, "leaderboard", columns="beauty")

    text, few, one, words = talk(demo[0], conversation)
    rows = ast.literal_eval(text)
    assert len(text) < 20_000 and len(rows) > 20 and {"method", "kind", "suite", "source"} <= set(rows[0])
    ours = next(row for row in rows if (row["method"], row["suite"]) == ("ours", "full"))
    assert ours["psnr_ci_low"] < ours["psnr"] < ours["psnr_ci_high"]
    assert {row["suite"] for row in few} == {"full"} and "fid_lite0" not in few[0]
    assert len(one) == 1 and one[0]["protocol"] and one[0]["commit"]
    assert "beauty" in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"consent": False}, "consent"),
        ({"controls": {"tracks": {"nose": []}}}, "nose"),
        ({"seed": -1}, "minimum"),
        ({"face": "third"}, "third"),
        ({"face": "2"}, "shows 1 face, not 2"),
        ({"crop": {"left": 900, "top": 0, "side": 99}}, "outside the picture, which has 340 x 340"),
        ({"crop": {"left": 0, "top": 0}}, "side"),
    ],
)
def test_bad_calls_say_why(demo: tuple[str, Sessions], tmp_path: Path, change: dict, words: str) -> None:
    said = talk(demo[0], lambda session: refused(session, "generate", **(inputs(tmp_path, 0.2) | change)))
    assert words in said, json.dumps(said)
