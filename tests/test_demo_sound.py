"""The voice that a visitor brings: what of it is heard, of a video, of one that is too long, of typed words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from demo_app import LIMITS, PORTRAIT, SPEECH, film, one_thread, tiny_engine, write_voice

from demo.sessions import Sessions
from demo.settings import PREVIEW_RATE
from demo.typed import say
from demo.uploads import UploadError, open_voice
from eartalking import Controls
from eartalking.io.sound import read_audio


@pytest.fixture(scope="module")
def shared() -> Iterator[Sessions]:
    with one_thread():
        made = Sessions(tiny_engine(), LIMITS)
        yield made
        made.close_all()


@pytest.fixture
def sessions(shared: Sessions) -> Iterator[Sessions]:
    yield shared
    shared.close("tab")


def test_a_voice_is_what_the_command_line_hears() -> None:
    voice = open_voice(SPEECH, LIMITS)
    np.testing.assert_array_equal(voice.waveform, read_audio(SPEECH))
    assert len(voice.preview) == pytest.approx(voice.seconds * PREVIEW_RATE, abs=64)
    assert len(voice.peaks) == pytest.approx(50 * voice.seconds, abs=1) and max(voice.peaks) == 1.0


def webm(path: Path, voice: Path) -> Path:
    """Pictures and sound as browsers record them."""
    with av.open(str(path), "w") as target, av.open(str(voice)) as source:
        picture, sound = target.add_stream("libvpx", rate=25), target.add_stream("libopus", rate=48000)
        picture.width = picture.height = 64
        for _ in range(25):
            target.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")))
        for frame in source.decode(audio=0):
            target.mux(sound.encode(frame))
        target.mux(picture.encode(None)), target.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("make", [film, webm])
def test_a_video_lends_its_voice(sessions: Sessions, tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    recorded = write_voice(tmp_path / "voice.wav", 1.0)
    video = make(tmp_path / f"video.{'mp4' if make is film else 'webm'}", recorded)
    session = sessions.get("tab")
    voice = sessions.set_voice(session, video)
    np.testing.assert_array_equal(voice.waveform, read_audio(video))
    assert voice.seconds == pytest.approx(1.0, abs=0.05) and voice.note == ""
    sessions.set_portrait(session, PORTRAIT)
    take = sessions.start_take(session, controls=Controls(), seed=0, pace="free")
    assert take.wait(60) and take.has_video


def test_of_a_long_voice_the_beginning_is_used_and_the_user_is_told(sessions: Sessions, tmp_path: Path) -> None:
    long = write_voice(tmp_path / "long.wav", LIMITS.voice_seconds + 65)
    session = sessions.get("tab")
    voice = sessions.set_voice(session, long)
    assert voice.note.startswith("This recording is 1:25 minutes long: its first 20 seconds are used.")
    assert voice.seconds == pytest.approx(LIMITS.voice_seconds, abs=1e-3)
    # Noise at 16 kHz loses what is close to 8 kHz by way of the file's 48 kHz; it is in time to the sample.
    assert np.corrcoef(voice.waveform, read_audio(long)[: len(voice.waveform)])[0, 1] > 0.97
    assert os.listdir(session.folder) == ["voice.beginning.flac"]
    sessions.set_portrait(session, PORTRAIT)
    take = sessions.start_take(session, controls=Controls(), seed=0, pace="free")
    assert take.wait(60) and take.job.num_frames == 25 * LIMITS.voice_seconds
    with av.open(str(take.video)) as made:
        assert float(made.streams.audio[0].duration * made.streams.audio[0].time_base) == pytest.approx(20, abs=0.05)
    assert sessions.set_voice(session, SPEECH).note == ""
    assert [path.name for path in session.folder.glob("voice.*")] == ["voice.wav"]


def test_typed_text_is_spoken_and_nonsense_refused(tmp_path: Path) -> None:
    texts = ("Hello.", "Hello there, this is a longer text.")
    short, long = (open_voice(say(text, tmp_path / "typed.wav"), LIMITS) for text in texts)
    assert 0.3 < short.seconds < long.seconds < 8
    for text, words in (("  ", "type what"), ("?!", "type what"), ("a " * 300, "characters")):
        with pytest.raises(UploadError, match=words):
            say(text, tmp_path / "typed.wav")


def test_a_voice_stays_out_of_memory() -> None:
    voice = open_voice(SPEECH, LIMITS)
    assert isinstance(voice.waveform.base, np.memmap) and isinstance(voice.preview.base, np.memmap)
    assert type(voice.waveform) is np.ndarray
