"""Sound and video files: every format in, exact length out, nothing left behind by a failure."""

from __future__ import annotations

import os
import resource
import signal
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from eartalking.errors import InputError
from eartalking.io.sound import read_audio
from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import AI_NOTE, VideoWriter, check_output

CODECS = {
    "wav": "pcm_s16le",
    "mp3": "libmp3lame",
    "flac": "flac",
    "ogg": "libopus",
    "m4a": "aac",
    "aac": "aac",
    "mkv": "pcm_f32le",
}


def tone(seconds: float, rate: int) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, rate: int, layout: str = "mono", codec: str | None = None) -> Path:
    """`samples` (n,) in every channel, or (channels, n)."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix[1:]], rate=rate, layout=layout)
        samples = np.tile(samples, (len(stream.layout.channels), 1)) if samples.ndim == 1 else samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def picture(shift: int = 0, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([(x + shift) % 64 * 3, y % 64 * 3, np.full_like(x, 90)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("suffix", "rate", "layout"),
    [
        ("wav", 8000, "mono"),
        ("wav", 96000, "stereo"),
        ("wav", 44100, "5.1"),
        ("mp3", 44100, "stereo"),
        ("mp3", 8000, "mono"),
        ("flac", 96000, "mono"),
        ("flac", 48000, "5.1"),
        ("ogg", 48000, "stereo"),
        ("m4a", 44100, "stereo"),
        ("m4a", 22050, "mono"),
        ("aac", 48000, "mono"),
        ("mkv", 32000, "stereo"),
    ],
)
def test_read_audio_takes_every_format(tmp_path: Path, suffix: str, rate: int, layout: str) -> None:
    path = write_sound(tmp_path / f"a.{suffix}", tone(1.0, rate), rate, layout)
    waveform = read_audio(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    # Raw AAC has no header to say how much of it is the encoder's padding.
    assert len(waveform) == pytest.approx(16000, abs=2100 if suffix == "aac" else 650)
    spectrum = np.abs(np.fft.rfft(waveform[4000:12000]))
    assert abs(np.argmax(spectrum) * 2 - 300) <= 2
    assert np.std(waveform[4000:12000]) == pytest.approx(0.4 / 2**0.5, rel=0.1), "mixing down keeps the level"


@pytest.mark.parametrize(
    "name", ["two words.wav", "голос é 声.wav", "-dash.wav", "100%d%s%05d.wav", "a:b.wav", "x.y.wav"]
)
def test_read_audio_takes_every_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sound(tmp_path / "a.wav", tone(0.2, 16000), 16000).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_audio(name)) == 3200


def test_read_audio_from_video_and_centre_channel(tmp_path: Path) -> None:
    voice = np.zeros((6, 48000), np.float32)
    voice[2] = tone(1.0, 48000)
    mixed = read_audio(write_sound(tmp_path / "centre.flac", voice, 48000, "5.1"))
    assert np.abs(mixed).max() > 0.12, "a voice in the centre channel stays audible"
    with VideoWriter(tmp_path / "v.mp4", (64, 64), audio=tmp_path / "centre.flac") as writer:
        for frame in range(25):
            writer.write(picture(frame))
    assert len(read_audio(tmp_path / "v.mp4")) == pytest.approx(16000, abs=2)


def test_an_unnamed_stereo_wav_stays_stereo(tmp_path: Path) -> None:
    left_only = np.stack([tone(1.0, 48000), np.zeros(48000, np.float32)], axis=1)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2), file.setsampwidth(2), file.setframerate(48000)
        file.writeframes((left_only * 32767).astype("<i2").tobytes())
    with VideoWriter(tmp_path / "v.mp4", (64, 64), audio=tmp_path / "a.wav") as writer:
        writer.write(picture())
    with av.open(str(tmp_path / "v.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert sound[0].std() > 0.25 and sound[1].std() < 0.01


@pytest.mark.parametrize("balance", [1.0, 0.8])
def test_channels_that_cancel_each_other_leave_the_better_one(tmp_path: Path, balance: float) -> None:
    sound = tone(1, 16000)
    path = write_sound(tmp_path / "opposite.wav", np.stack([sound, -balance * sound]), 16000, "stereo")
    assert np.abs(read_audio(path)).max() == pytest.approx(np.abs(sound).max(), rel=0.02)


def test_two_voices_side_by_side_are_still_mixed(tmp_path: Path) -> None:
    left, right = np.array_split(tone(1, 16000), 2)
    quiet = np.zeros_like(left)
    path = write_sound(
        tmp_path / "dialogue.wav",
        np.stack([np.concatenate([left, quiet]), np.concatenate([quiet, right])]),
        16000,
        "stereo",
    )
    mixed = read_audio(path)
    assert (
        np.abs(mixed[:4000]).max() > 0.2 * np.abs(left).max()
        and np.abs(mixed[-4000:]).max() > 0.2 * np.abs(right).max()
    )


def test_loud_float_audio_is_scaled_down(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5, 16000) * 10, 16000, codec="pcm_f32le")
    assert np.abs(read_audio(path)).max() == pytest.approx(1.0)


def test_read_audio_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not sound\n" * 20)
    (tmp_path / "folder.wav").mkdir()
    write_sound(tmp_path / "short.wav", tone(0.03, 16000), 16000)
    write_sound(tmp_path / "nan.wav", np.full(8000, np.nan, np.float32), 16000, codec="pcm_f32le")
    with VideoWriter(tmp_path / "mute.mp4", (64, 64)) as writer:
        writer.write(picture())
    with wave.open(str(tmp_path / "header.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
    causes = {
        "empty.wav": "empty",
        "text.wav": "not an audio or video file",
        "folder.wav": "is a folder",
        "missing.wav": "no such file",
        "short.wav": "too short",
        "nan.wav": "not finite",
        "mute.mp4": "no sound track",
        "header.wav": "",
        "line\nbreak.wav": "no such file",
        "null\0.wav": "",
    }
    for name, cause in causes.items():
        with pytest.raises(InputError) as caught:
            read_audio(tmp_path / name)
        assert cause in str(caught.value) and "\n" not in str(caught.value)
        assert name.split("\n")[0].split("\0")[0] in str(caught.value)


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32), 16000)
    path.write_bytes(path.read_bytes()[:30000])
    assert 4000 < len(read_audio(path)) < 32000


@pytest.mark.parametrize(
    ("samples", "rate", "layout"), [(3200, 16000, "mono"), (132377, 44100, "stereo"), (9601, 8000, "5.1")]
)
def test_writer_makes_exact_h264_with_the_original_sound(tmp_path: Path, samples: int, rate: int, layout: str) -> None:
    source = write_sound(tmp_path / "a.wav", tone(samples / rate, rate), rate, layout)
    waveform = read_audio(source)
    frames = -(-len(waveform) // 640)
    with VideoWriter(tmp_path / "v.mp4", (64, 96), audio=source) as writer:
        for frame in range(frames):
            writer.write(picture(frame, (64, 96)))
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "v.mp4"]
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "faststart"
    with av.open(str(tmp_path / "v.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec.name, video.pix_fmt, video.average_rate, video.frames) == (
            "h264",
            "yuv420p",
            25,
            frames,
        )
        assert (audio.codec.name, audio.rate) == ("aac", 48000)
        assert audio.layout.name == ("mono" if layout == "mono" else "stereo")
        assert float(audio.duration * audio.time_base) == pytest.approx(samples / rate, abs=1e-3)
        assert container.metadata["comment"] == AI_NOTE
        assert "creation_time" not in container.metadata
    clip = read_video(tmp_path / "v.mp4")
    shown = list(clip.frames)
    assert (len(shown), clip.fps, clip.size) == (frames, 25, (64, 96))
    error = np.stack(shown).astype(float) - np.stack([picture(frame, (64, 96)) for frame in range(frames)])
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 3, "no colour shift"
    length = min(len(waveform), len(clip.waveform))
    assert np.corrcoef(waveform[:length], clip.waveform[:length])[0, 1] > 0.99, "sound is in place to the sample"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.mp3", tone(0.8, 44100), 44100, "stereo")
    for name in ("1.mp4", "2.mp4"):
        with VideoWriter(tmp_path / name, (64, 64), audio=source) as writer:
            for frame in range(20):
                writer.write(picture(frame))
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "2.mp4").read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "v.mp4").write_text("old")
    with pytest.raises(error), VideoWriter(tmp_path / "v.mp4", (64, 64)) as writer:
        writer.write(picture())
        raise error
    assert os.listdir(tmp_path) == ["v.mp4"] and (tmp_path / "v.mp4").read_text() == "old"


@pytest.mark.parametrize("limit", [500, 20_000, 60_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    rng = np.random.default_rng(0)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        with (
            pytest.raises(InputError, match=r"v\.mp4"),
            VideoWriter(tmp_path / "v.mp4", (128, 128)) as writer,
        ):
            for _ in range(8):
                writer.write(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_outputs_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "pipe.mp4").symlink_to("/dev/null")
    for name in ("folder.mp4", "pipe.mp4", "no/v.mp4", "v.avi", "x" * 300 + ".mp4"):
        with pytest.raises(InputError):
            check_output(tmp_path / name)
    (tmp_path / "v.mp4").write_text("old")
    assert check_output(tmp_path / "v.mp4") == tmp_path / "v.mp4"
    assert (tmp_path / "v.mp4").read_text() == "old"
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(InputError, match="Read-only"):
        check_output(tmp_path / "new.mp4")


def test_writer_rejects_wrong_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "v.mp4", (63, 64))
    with pytest.raises(ValueError, match="uint8"), VideoWriter(tmp_path / "v.mp4", (64, 64)) as writer:
        writer.write(picture().astype(np.float32))
    assert os.listdir(tmp_path) == []


def test_read_video_at_another_rate_and_its_errors(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", (64, 64), fps=50) as writer:
        for frame in range(50):
            writer.write(np.full((64, 64, 3), 4 * frame, np.uint8))
    clip = read_video(tmp_path / "v.mp4", fps=25)
    levels = [float(image.mean()) for image in clip.frames]
    assert len(levels) == 25 and clip.waveform is None and clip.fps == 25
    assert levels == pytest.approx([8 * frame for frame in range(25)], abs=3)
    write_sound(tmp_path / "a.wav", tone(0.5, 16000), 16000)
    for name in ("a.wav", "missing.mp4"):
        with pytest.raises(InputError, match=name):
            read_video(tmp_path / name)
