"""`python -m eartalking.generate`: real files in, a real MP4 out, bad input is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from eartalking import StreamSession, TalkingHeadModel
from eartalking.config import TINY
from eartalking.errors import InputError
from eartalking.generate import main
from eartalking.io.sound import read_audio

EXAMPLES = Path(__file__).parents[1] / "examples"
PHOTO, SPEECH = EXAMPLES / "photo.jpg", EXAMPLES / "speech.wav"


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(0)
    model = TalkingHeadModel(TINY).eval().requires_grad_(False)
    monkeypatch.setattr("eartalking.generate.load_model", lambda checkpoint, device: model)


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "voice é 1.wav", read_audio(SPEECH)[4800 : 4800 + 16001])


def write_wav(path: Path, waveform: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
        file.writeframes((waveform * 32767).astype("<i2").tobytes())
    return path


def test_the_whole_picture_at_the_larger_size(tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    assert main([str(PHOTO), str(voice), "-o", str(out), "--size", "128", "--frame", "portrait"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    with Image.open(PHOTO) as picture:
        assert (result["width"], result["height"]) == picture.size
    assert result["size"] == 128
    with av.open(str(out)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == picture.size


def test_without_a_background_the_video_is_transparent(
    tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(PHOTO), str(voice), "--background", "alpha", "-o"]
    assert main([*arguments, str(tmp_path / "out.mp4")]) == 2
    assert main([*arguments[:2], "-o", str(tmp_path / "out.webm")]) == 2
    assert ".webm is for --background alpha" in capsys.readouterr().err and os.listdir(tmp_path) == [voice.name]
    assert main([*arguments, str(tmp_path / "out.webm")]) == 0
    decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own leaves transparency out
    with av.open(str(tmp_path / "out.webm")) as container:
        assert "AI-generated" in container.metadata["COMMENT"] and container.streams.audio[0].codec_context.name
        packets = list(container.demux(video=0))
    images = [frame.to_ndarray(format="rgba") for packet in packets for frame in decoder.decode(packet)]
    assert len(images) == 26 and images[0].shape == (64, 64, 4)
    assert images[0][:5, :5, 3].max() < 30 and images[0][24:40, 24:40, 3].min() > 225


def test_a_background_of_ones_own(tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    arguments = [str(PHOTO), str(voice), "-o", str(out)]
    assert main([*arguments, "--background", "black"]) == 0
    with av.open(str(out)) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image[2, 2].max() < 8
    out.unlink()
    for option, value, words in (
        ("--background", "no colour", "neither a colour nor a picture"),
        ("--size", "100", "must be 64 or 128"),
    ):
        assert main([*arguments, option, value]) == 2
        assert words in capsys.readouterr().err and not out.exists()


def test_shut_eyes_are_told(
    tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(PHOTO), str(voice), "-o", str(tmp_path / "out.mp4")]
    for asleep in (False, True):
        monkeypatch.setattr(StreamSession, "eyes_stay_shut", asleep)
        assert main(arguments) == 0
        assert ("photo.jpg: the eyes are shut" in capsys.readouterr().err) is asleep


def test_a_video_as_long_as_the_voice_and_one_line_of_json(
    tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    assert main([str(PHOTO), str(voice), "-o", str(out), "--seed", "3", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result) == [
        *(
            "frames",
            "seconds",
            "size",
            "width",
            "height",
            "fps",
            "speed_fps",
            "rtf",
            "ttff_ms",
            "frame_ms_p50",
            "frame_ms_p95",
            "peak_mem_mb",
        ),
        *("device", "checkpoint", "seed"),
    ]
    assert (result["frames"], result["seconds"], result["size"], result["fps"]) == (26, 1.04, 64, 25)
    assert result["speed_fps"] == pytest.approx(25 / result["rtf"], rel=1e-2)
    assert (result["device"], result["checkpoint"], result["seed"]) == ("cpu", "default", 3)
    assert 0 < result["frame_ms_p50"] <= result["frame_ms_p95"] and result["ttff_ms"] > 0 and result["rtf"] > 0
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == 26
        audio = container.streams.audio[0]
        assert float(audio.duration * audio.time_base) == pytest.approx(16001 / 16000, abs=1e-3)
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", voice.name]


def test_same_inputs_and_seed_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path, voice: Path) -> None:
    for name, seed in (("1", "0"), ("2", "0"), ("3", "1")):
        assert main([str(PHOTO), str(voice), "-o", str(tmp_path / f"{name}.mp4"), "--seed", seed]) == 0
    first, second, third = ((tmp_path / f"{name}.mp4").read_bytes() for name in "123")
    assert first == second != third


def test_a_silent_voice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = write_wav(tmp_path / "silence.wav", np.zeros(4000, np.float32))
    assert main([str(PHOTO), str(voice), "-o", str(tmp_path / "out.mp4")]) == 0
    assert "silence.wav: the sound is silent" in capsys.readouterr().err


def test_controls_reach_their_frames(tmp_path: Path, voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.csv").write_text("yaw\n" + "".join(f"{frame}\n" for frame in range(10)))
    applied = []
    push, flush = StreamSession.push, StreamSession.flush

    def record(frames: Iterator) -> Iterator:
        for frame in frames:
            applied.append(frame.applied["yaw"])
            yield frame

    monkeypatch.setattr(StreamSession, "push", lambda *args, **kwargs: record(push(*args, **kwargs)))
    monkeypatch.setattr(StreamSession, "flush", lambda *args, **kwargs: record(flush(*args, **kwargs)))
    controls = ["--controls", str(tmp_path / "c.csv")]
    assert main([str(PHOTO), str(voice), "-o", str(tmp_path / "out.mp4"), *controls]) == 0
    assert applied == [*range(10), *[9] * 16]


def bad_inputs(folder: Path, voice: Path) -> dict[str, tuple[list[str], str]]:
    """Name -> (command line, the path that the error must name)."""
    out = str(folder / "out.mp4")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noface.png")
    (folder / "empty").touch()
    (folder / "text.txt").write_text("hello " * 99)
    (folder / "broken.json").write_text('{"tracks": ')
    (folder / "range.json").write_text('{"tracks": {"yaw": [[0, 99]]}}')
    (folder / "unknown.csv").write_text("nose\n1\n")
    photo, sound = str(PHOTO), str(voice)

    def at(name: str) -> str:
        return str(folder / name)

    return {
        "no face": ([at("noface.png"), sound, "-o", out], "noface.png"),
        "portrait is text": ([at("text.txt"), sound, "-o", out], "text.txt"),
        "portrait is sound": ([sound, sound, "-o", out], voice.name),
        "portrait is empty": ([at("empty"), sound, "-o", out], "empty"),
        "portrait is missing": ([at("gone.png"), sound, "-o", out], "gone.png"),
        "audio is text": ([photo, at("text.txt"), "-o", out], "text.txt"),
        "audio is a picture": ([photo, photo, "-o", out], "photo.jpg"),
        "audio is empty": ([photo, at("empty"), "-o", out], "empty"),
        "audio is missing": ([photo, at("gone.wav"), "-o", out], "gone.wav"),
        "audio is a folder": ([photo, str(folder), "-o", out], folder.name),
        "broken controls": ([photo, sound, "-o", out, "--controls", at("broken.json")], "broken.json"),
        "control out of range": ([photo, sound, "-o", out, "--controls", at("range.json")], "range.json"),
        "unknown control": ([photo, sound, "-o", out, "--controls", at("unknown.csv")], "unknown.csv"),
        "controls are missing": ([photo, sound, "-o", out, "--controls", at("gone.json")], "gone.json"),
        "no output folder": ([photo, sound, "-o", at("no/out.mp4")], "out.mp4"),
        "output is a folder": ([photo, sound, "-o", str(folder)], folder.name),
        "no such face": ([photo, sound, "-o", out, "--face", "2"], "shows 1 face, not 2"),
        "output is not an mp4": ([photo, sound, "-o", at("out.avi")], "out.avi"),
    }


def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = bad_inputs(tmp_path, voice)
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("eartalking.generate.load_model", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    for name, (arguments, named) in cases.items():
        assert main(arguments) == 2, name
        streams = capsys.readouterr()
        assert streams.out == "" and streams.err.count("\n") == 1 and named in streams.err, (name, streams)
        assert sorted(os.listdir(tmp_path)) == before, name


def test_center_takes_a_picture_without_a_face(tmp_path: Path, voice: Path) -> None:
    bad_inputs(tmp_path, voice)
    arguments = [
        str(tmp_path / "noface.png"),
        str(voice),
        "-o",
        str(tmp_path / "out.mp4"),
        "--crop",
        "center",
    ]
    assert main(arguments) == 0


def test_output_over_an_input_is_refused(tmp_path: Path, voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PHOTO), str(voice), "-o", str(tmp_path / "talk.mp4")]) == 0
    before = (tmp_path / "talk.mp4").read_bytes()
    assert main([str(PHOTO), str(tmp_path / "talk.mp4"), "-o", str(tmp_path / "talk.mp4")]) == 2
    assert "overwrite" in capsys.readouterr().err and (tmp_path / "talk.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (InputError("out.mp4", "No space left on device"), 2)]
)
def test_a_stop_in_the_middle_leaves_nothing(
    tmp_path: Path,
    voice: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    push = StreamSession.push

    def stop(session: StreamSession, *args: object, **kwargs: object) -> Iterator:
        for frame in push(session, *args, **kwargs):
            if frame.index == 5:
                raise error
            yield frame

    monkeypatch.setattr(StreamSession, "push", stop)
    assert main([str(PHOTO), str(voice), "-o", str(tmp_path / "out.mp4")]) == code
    assert os.listdir(tmp_path) == [voice.name]
    assert capsys.readouterr().err.count("\n") == 1


def test_the_module_runs_as_a_program_without_a_traceback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "eartalking.generate",
        "gone.png",
        str(SPEECH),
        "-o",
        str(tmp_path / "out.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent, check=False)
    assert done.returncode == 2 and done.stdout == "" and done.stderr == "gone.png: no such file\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "importing the module installs no handler"
