"""Every endpoint through `gradio_client`; `/generate` gives the command line's own pictures; every tool is described
for MCP.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import urllib.request
from pathlib import Path

import av
import pytest
from demo_app import LIMITS, PHOTO, write_voice
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from demo.sessions import Sessions
from eartalking import Controls
from eartalking.generate import main
from eartalking.io.video_writer import VideoWriter

TRACKS = {"yaw": [[0.0, -5], [0.6, 12]], "emotion": [[0.2, ["happy", 0.5]]], "blink": [[0.1, 1], [0.3, None]]}
CONTROLS = {"fps": 25, "tracks": TRACKS}
ENDPOINTS = {"/generate", "/stream", "/begin", "/steer", "/status", "/stop", "/leaderboard"}


@pytest.fixture(scope="module")
def client(demo: tuple[str, Sessions]) -> Client:
    return Client(demo[0], verbose=False)


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return write_voice(tmp_path / "my voice.wav", 1.0)


def packets(path: Path | str, kind: str) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.best(kind)
        return sorted((packet.pts, bytes(packet)) for packet in container.demux(stream) if packet.size)


def test_generate_is_the_command_line(
    client: Client, demo: tuple[str, Sessions], voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, log, about = client.predict(
        handle_file(str(PHOTO)), handle_file(str(voice)), CONTROLS, 7, False, True, api_name="/generate"
    )
    sessions = demo[1]
    monkeypatch.setattr("eartalking.generate.load_model", lambda checkpoint, device: sessions.engine.model)
    (tmp_path / "controls.json").write_text(json.dumps(CONTROLS))
    files = ["-o", str(tmp_path / "line.mp4"), "--controls", str(tmp_path / "controls.json")]
    pixels, write = hashlib.sha256(), VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image: (pixels.update(image), write(self, image)))
    assert main([str(PHOTO), str(voice), *files, "--seed", "7"]) == 0
    monkeypatch.undo()
    assert about["fingerprint"] == pixels.hexdigest()
    # Not the bytes: of equal pictures x264 makes files that differ by a few bytes now and then.
    assert Path(video).stat().st_size == pytest.approx((tmp_path / "line.mp4").stat().st_size, rel=0.02)
    assert packets(video, "audio") == packets(tmp_path / "line.mp4", "audio")
    assert [time for time, _ in packets(video, "video")] == [
        time for time, _ in packets(tmp_path / "line.mp4", "video")
    ]
    assert about["frames"] == about["total"] == 25
    # The log alone makes it again.
    again, log_again, about_again = client.predict(
        handle_file(str(PHOTO)), handle_file(str(voice)), log, 7, False, True, api_name="/generate"
    )
    assert about_again["fingerprint"] == about["fingerprint"] and log_again == log
    _until(lambda: not [key for key in sessions._sessions if key.startswith("api-")])
    assert sessions.engine.slots.free == LIMITS.takes + LIMITS.waiting


def test_the_whole_picture_is_that_of_the_command_line(
    client: Client, demo: tuple[str, Sessions], voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (handle_file(str(PHOTO)), handle_file(str(voice)), {}, 7, False, True, "largest")
    video, _, about = client.predict(*arguments, {"size": 128, "frame": "portrait"}, api_name="/generate")
    monkeypatch.setattr("eartalking.generate.load_model", lambda checkpoint, device: demo[1].engine.model)
    pixels, write = hashlib.sha256(), VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, image: (pixels.update(image), write(self, image)))
    files = ["-o", str(tmp_path / "line.mp4"), "--size", "128", "--frame", "portrait"]
    assert main([str(PHOTO), str(voice), *files, "--seed", "7"]) == 0
    monkeypatch.undo()
    assert about["fingerprint"] == pixels.hexdigest()
    with av.open(video) as container, Image.open(PHOTO) as photo:
        assert (container.streams.video[0].width, container.streams.video[0].height) == photo.size
    for look, words in (
        ({"size": 100}, "64 or 128"),
        ({"background": "/etc/hostname"}, "unknown color"),
        ("no", "pass crop"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(*arguments, look, api_name="/generate")


def test_stream_is_steered_watched_and_finished(client: Client, tmp_path: Path) -> None:
    voice = write_voice(tmp_path / "long.wav", 10.0)
    job = client.submit(handle_file(str(PHOTO)), handle_file(str(voice)), {}, 0, True, True, api_name="/stream")
    _until(lambda: bool(job.outputs()))
    take = job.outputs()[0][0]["take"]
    answer = client.predict(take, {"yaw": 12.5, "emotion": ["sad", 0.5]}, api_name="/steer")
    assert answer["applied_frame"] >= 0 and answer["state"] == "running"
    in_force = client.predict(take, api_name="/status")["applied"]
    assert in_force["yaw"] == 12.5 and list(in_force["emotion"]) == ["sad", 0.5]
    with pytest.raises(AppError, match="yaw"):
        client.predict(take, {"yaw": 99}, api_name="/steer")
    status, video = job.result(timeout=60)
    assert status["state"] == "finished" and status["frames"] == 250 and job.outputs()[0][1] is None
    with av.open(video) as container:
        assert container.streams.video[0].frames == 250


def test_stop_ends_a_stream_and_gives_its_log_and_what_was_made(client: Client, tmp_path: Path) -> None:
    voice = write_voice(tmp_path / "long.wav", 15.0)
    controls = {"tracks": {"roll": [[0, 3]]}}
    job = client.submit(handle_file(str(PHOTO)), handle_file(str(voice)), controls, 0, False, True, api_name="/stream")
    _until(lambda: bool(job.outputs()))
    _until(lambda: job.outputs()[-1][0]["frames"] > 0)
    stopped, kept = client.predict(job.outputs()[0][0]["take"], api_name="/stop")
    assert stopped["state"] == "stopped" and stopped["frames"] < 375
    assert stopped["controls"]["tracks"]["roll"][0] == [0.0, 3.0]
    status, video = job.result(timeout=30)
    assert status["state"] == "stopped"
    for path in (kept, video):
        with av.open(path) as container:
            assert container.streams.video[0].frames == stopped["frames"]


def test_a_started_stream_stays_until_its_video_is_fetched_or_nobody_asks(
    client: Client, demo: tuple[str, Sessions], voice: Path
) -> None:
    begun = client.predict(handle_file(str(PHOTO)), handle_file(str(voice)), {}, 0, False, True, api_name="/begin")
    _until(lambda: client.predict(begun["take"], api_name="/status")["state"] == "finished")
    for _ in range(2):  # as often as one likes
        status, video = client.predict(begun["take"], api_name="/stop")
        with av.open(video) as container:
            assert status["state"] == "finished" and container.streams.video[0].frames == 25
    (session,) = (session for key, session in demo[1]._sessions.items() if key.startswith("api-"))
    session.seen -= LIMITS.idle_seconds + 1
    demo[1].sweep()
    with pytest.raises(AppError, match="no such take"):
        client.predict(begun["take"], api_name="/stop")


def test_without_a_face_a_crop_is_asked_for_and_taken(client: Client, voice: Path, tmp_path: Path) -> None:
    photo = Image.open(PHOTO)
    grey = Image.new("RGB", (photo.width, photo.height), "grey")
    grey.save(tmp_path / "grey.png")
    arguments = (handle_file(str(tmp_path / "grey.png")), handle_file(str(voice)), {}, 0, False, True)
    with pytest.raises(AppError, match="No face was found in this picture: pass crop .* which has 340 x 340, chin"):
        client.predict(*arguments, api_name="/generate")
    box = {"left": 20, "top": 10, "side": 300}
    about = client.predict(*arguments, crop=box, api_name="/generate")[2]
    # A corner beyond the picture is moved inside.
    moved = client.predict(*arguments, crop=box | {"left": 40, "top": 40}, api_name="/generate")[2]
    outside = client.predict(*arguments, crop=box | {"left": 90, "top": 99}, api_name="/generate")[2]
    assert about["frames"] == 25 and moved["fingerprint"] == outside["fingerprint"]
    with pytest.raises(AppError, match="outside"):
        client.predict(*arguments, crop=box | {"left": 340}, api_name="/generate")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"consent": False}, "consent"),
        ({"controls": {"tracks": {"nose": []}}}, "nose"),
        ({"portrait": None}, "portrait"),
        ({"swap": True}, "cannot be used"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 10**20}, "seed"),
        ({"face": "2"}, "shows 1 face, not 2"),
        ({"face": "middle"}, "the face must be largest, left, right"),
        ({"crop": {"left": 1}}, "pass crop as"),
    ],
)
def test_bad_requests_say_why_and_leave_nothing(
    client: Client, demo: tuple[str, Sessions], voice: Path, change: dict, words: str
) -> None:
    portrait = None if "portrait" in change else handle_file(str(voice if "swap" in change else PHOTO))
    with pytest.raises(AppError, match=words):
        arguments = (change.get("controls", {}), change.get("seed", 0), False, change.get("consent", True))
        more = {key: change[key] for key in ("face", "crop") if key in change}
        client.predict(portrait, handle_file(str(voice)), *arguments, **more, api_name="/generate")
    _until(lambda: not [key for key in demo[1]._sessions if key.startswith("api-")])


def test_an_unknown_take_is_a_sentence(client: Client) -> None:
    for name, arguments in (("/steer", [{"yaw": 1}]), ("/status", []), ("/stop", [])):
        with pytest.raises(AppError, match="no such take"):
            client.predict("nonsense", *arguments, api_name=name)


def test_leaderboard_is_the_csv(client: Client) -> None:
    rows = client.predict(api_name="/leaderboard")
    assert isinstance(rows, list)


def test_endpoints_are_documented_and_nothing_else_is_public(client: Client) -> None:
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert set(described) == ENDPOINTS
    names = [parameter["parameter_name"] for parameter in described["/generate"]["parameters"]]
    assert names == ["portrait", "voice", "controls", "seed", "badge", "consent", "face", "crop"]


def test_every_endpoint_is_an_mcp_tool(demo: tuple[str, Sessions]) -> None:
    with urllib.request.urlopen(f"{demo[0]}gradio_api/mcp/schema", timeout=10) as answer:
        tools = {tool["name"]: tool for tool in json.load(answer)}
    by_endpoint = {name: [tool for tool in tools if tool.endswith(name[1:])] for name in ENDPOINTS}
    assert all(len(found) == 1 for found in by_endpoint.values()), sorted(tools)
    generate = tools[by_endpoint["/generate"][0]]
    assert "portrait" in generate["description"].lower()
    assert "yaw" in json.dumps(generate["inputSchema"]["properties"]["controls"]) + generate["description"]


def test_files_are_served_only_from_their_own_folder(demo: tuple[str, Sessions]) -> None:
    address, sessions = demo
    secret = sessions.root / "secret.txt"
    secret.write_text("secret")
    for path in (
        f"gradio_api/file={secret}",
        "live/nonsense/talking.mp4",
        "live/../secret.txt",
        "live/nonsense/controls.py",
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(address + path, timeout=10)
        assert error.value.code in (403, 404), path
    assert os.path.exists(secret)


@pytest.mark.parametrize("late", [FileNotFoundError(2, "No such file"), RuntimeError("File at path x does not exist.")])
def test_a_file_that_goes_while_it_is_asked_for_is_gone_and_no_error(
    demo: tuple[str, Sessions], monkeypatch: pytest.MonkeyPatch, late: Exception
) -> None:
    def too_late(*_: object) -> None:
        raise late

    monkeypatch.setattr("gradio.routes.file_fetch", too_late)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{demo[0]}gradio_api/file={PHOTO}", timeout=10)
    assert error.value.code == 404


def test_frames_are_not_compressed_once_more_on_their_way(demo: tuple[str, Sessions], voice: Path) -> None:
    address, sessions = demo
    session = sessions.get("socket")
    try:
        sessions.set_portrait(session, PHOTO)
        sessions.set_voice(session, voice)
        take = sessions.start_take(session, controls=Controls(), seed=0)
        host, port = address.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            lines = [
                f"GET /{take.url}/stream HTTP/1.1",
                f"Host: {host}:{port}",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Extensions: permessage-deflate",
            ]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101") and b"permessage-deflate" not in answer.split(b"\r\n\r\n")[0]
    finally:
        sessions.close("socket")


def _until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
