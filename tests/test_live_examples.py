"""The examples in `examples/live`, each run as its users would; those with packages of their own where these are."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from demo_app import EXAMPLES, write_voice
from test_session import portrait
from tiny_model import tiny_model

from eartalking import StreamSession
from eartalking.checkpoint import save_model
from eartalking.io.video_writer import AI_NOTE

LIVE = EXAMPLES / "live"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LIVE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def session() -> StreamSession:
    return StreamSession(tiny_model(), portrait(), crop="center")


def test_broadcast_sends_pictures_and_sound_in_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tiny_model(), tmp_path / "tiny")
    voice, target = write_voice(tmp_path / "voice.wav", 0.6), tmp_path / "air.mp4"
    arguments = [str(EXAMPLES / "photo.jpg"), str(voice), str(target), "--seconds", "2"]
    example("broadcast").main([*arguments, "--checkpoint", str(tmp_path / "tiny")])
    assert "pictures sent" in capsys.readouterr().out
    with av.open(str(target)) as video:
        assert AI_NOTE in video.metadata["comment"]
        seen, heard = video.streams.video[0], video.streams.audio[0]
        assert seen.frames > 5
        assert abs(float(seen.duration * seen.time_base) - float(heard.duration * heard.time_base)) < 0.3


def test_webrtc_answers_with_a_face_that_hears() -> None:
    aiortc = pytest.importorskip("aiortc", reason='pip install ".[live]"')
    webrtc = example("webrtc")

    class Voice(aiortc.AudioStreamTrack):
        async def recv(self) -> Any:
            frame = await super().recv()
            samples = np.random.default_rng(frame.pts).integers(-9000, 9000, frame.samples, dtype=np.int16)
            frame.planes[0].update(samples.tobytes())
            return frame

    async def call() -> list[np.ndarray]:
        caller = aiortc.RTCPeerConnection()
        caller.addTrack(Voice())
        coming: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        caller.on("track", lambda track: coming.done() or coming.set_result(track))
        caller.addTransceiver("video", direction="recvonly")
        await caller.setLocalDescription(await caller.createOffer())
        heard: list[int] = []
        peer = await webrtc.answer(caller.localDescription, session)
        (face,) = [sender.track.face for sender in peer.getSenders() if sender.track is not None]
        hear = face.hear
        face.hear = lambda waveform: heard.append(int(np.abs(waveform).max() > 0.01)) or hear(waveform)
        await caller.setRemoteDescription(peer.localDescription)
        track = await asyncio.wait_for(coming, 60)
        pictures = [(await asyncio.wait_for(track.recv(), 60)).to_ndarray(format="rgb24") for _ in range(10)]
        for _ in range(600):
            if sum(heard) > 5:
                break
            await asyncio.sleep(0.1)
        assert sum(heard) > 5
        await caller.close()
        await peer.close()
        return pictures

    pictures = asyncio.run(call())
    assert {picture.shape for picture in pictures} == {(64, 64, 3)}


def test_pipecat_speaks_in_step_and_obeys_an_interruption() -> None:
    pytest.importorskip("pipecat", reason='pip install ".[live]"')
    from pipecat.frames.frames import InterruptionFrame, OutputImageRawFrame, TextFrame, TTSAudioRawFrame
    from pipecat.tests.utils import SleepFrame, run_test

    face = example("pipecat_face").TalkingFace(session())
    speech = np.random.default_rng(0).integers(-9000, 9000, 24_000 * 4).astype("<i2").tobytes()  # four seconds

    async def converse() -> list[Any]:
        sent = [
            TextFrame("passes"),
            TTSAudioRawFrame(speech, 24_000, 1),
            SleepFrame(sleep=1.5),
            InterruptionFrame(),
            SleepFrame(sleep=1.0),
        ]
        down, _ = await run_test(face, frames_to_send=sent, start_timeout=60.0)
        return list(down)

    out = asyncio.run(converse())
    pictures = [frame for frame in out if isinstance(frame, OutputImageRawFrame)]
    spoken = [frame for frame in out if isinstance(frame, TTSAudioRawFrame)]
    assert any(isinstance(frame, TextFrame) for frame in out)
    assert len(pictures) > 5 and {picture.size for picture in pictures} == {(64, 64)}
    assert 0 < sum(frame.num_frames for frame in spoken) / 16_000 < 3  # and not all four seconds
    before = [out[i - 1] for i, frame in enumerate(out) if getattr(frame, "sync_with_audio", False)]
    assert before and all(isinstance(frame, TTSAudioRawFrame) for frame in before)
    last_sound = max(i for i, frame in enumerate(out) if isinstance(frame, TTSAudioRawFrame))
    assert any(isinstance(frame, OutputImageRawFrame) for frame in out[last_sound + 2 :])  # it lives on in silence
