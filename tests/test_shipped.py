"""The shipped checkpoint as a stream: what the tiny model's tests promise holds for the weights that people get.

Two minutes run through the autoregression alone, because pixels carry no state; frames are decoded at both ends.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from eartalking import Controls, StreamSession, TalkingHeadModel, load_model
from eartalking.io.sound import read_audio
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import HEAD_POSE
from eartalking.session import Frame

EXAMPLES = Path(__file__).parents[1] / "examples"
SECOND = 16_000


@pytest.fixture(scope="module")
def model() -> Iterator[TalkingHeadModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, so that frames can be compared to the bit
    yield load_model()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return read_audio(EXAMPLES / "speech.wav")[SECOND // 2 : SECOND // 2 + SECOND * 6 // 5]


def session(model: TalkingHeadModel, seed: int = 0) -> StreamSession:
    return StreamSession(model, EXAMPLES / "portrait.png", seed=seed)


def run(stream: StreamSession, voice: np.ndarray, chunk: int | None = None) -> list[Frame]:
    chunk = chunk or len(voice)
    frames: list[Frame] = []
    for start in range(0, len(voice), chunk):
        frames += stream.push(voice[start : start + chunk])
    return frames + list(stream.flush())


def images(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.image for frame in frames])


@pytest.fixture(scope="module")
def offline(model: TalkingHeadModel, voice: np.ndarray) -> np.ndarray:
    """All sound at once: what every other way of streaming has to equal."""
    return images(run(session(model), voice))


@pytest.mark.parametrize("chunk", [160, 1024])
def test_streamed_equals_offline(model: TalkingHeadModel, voice: np.ndarray, offline: np.ndarray, chunk: int) -> None:
    frames = run(session(model), voice, chunk)
    assert [frame.index for frame in frames] == list(range(len(offline))) and len(offline) == 30
    np.testing.assert_array_equal(images(frames), offline)


def test_a_face_speaks(offline: np.ndarray) -> None:
    """No frame is the portrait over and over, and the lower half moves more than the upper corners do."""
    change = np.abs(np.diff(offline.astype(np.int16), axis=0)).mean((0, 3))
    assert change[150:210, 90:166].mean() > 3 * change[:40, :40].mean()
    assert offline.std() > 20


def test_saved_and_restored_equals_uninterrupted(
    model: TalkingHeadModel, voice: np.ndarray, offline: np.ndarray, tmp_path: Path
) -> None:
    stream = session(model)
    first = list(stream.push(voice[:7000]))
    stream.save(tmp_path / "stream.safetensors")
    restored = StreamSession.restore(model, tmp_path / "stream.safetensors")
    rest = [*restored.push(voice[7000:]), *restored.flush()]
    np.testing.assert_array_equal(images(first + rest), offline)


def test_a_damaged_save_is_one_clear_error(model: TalkingHeadModel, voice: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "stream.safetensors"
    session(model).save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="stream.safetensors: not a saved stream"):
        StreamSession.restore(model, path)


def test_seeds_repeat_and_differ(model: TalkingHeadModel, offline: np.ndarray, voice: np.ndarray) -> None:
    """A seed decides how the head moves; what is said, it does not."""
    np.testing.assert_array_equal(images(run(session(model), voice)), offline)
    other = images(run(session(model, seed=1), voice))
    assert all((mine != theirs).any() for mine, theirs in zip(offline[1:], other[1:], strict=True))


def test_lips_say_what_the_voice_says_whatever_the_seed(model: TalkingHeadModel, voice: np.ndarray) -> None:
    """Seeds differ in the head; of a mouth nothing is drawn."""
    streams = [session(model, seed) for seed in (0, 1)]
    for stream in streams:
        list(stream.push(voice))
    jaw = UNIT_INDEX["jawOpen"]
    recent = [stream._moment.model.departure.recent[0] for stream in streams]  # (frames, coordinates)
    motions = [model.autoencoder.code.coordinates_to_motion(one) for one in recent]
    torch.testing.assert_close(motions[0][:, jaw], motions[1][:, jaw], atol=0.02, rtol=0)
    assert (motions[0] - motions[1])[:, HEAD_POSE].abs().max() > 0.05


def test_two_sessions_do_not_touch_each_other(model: TalkingHeadModel, voice: np.ndarray, offline: np.ndarray) -> None:
    mine, other = session(model), session(model, seed=5)
    other.set(yaw=-25, emotion=("angry", 1.0))
    frames: list[Frame] = []
    for start in range(0, len(voice), 2000):
        frames += mine.push(voice[start : start + 2000])
        list(other.push(voice[::-1][start : start + 1500].copy()))
    np.testing.assert_array_equal(images([*frames, *mine.flush()]), offline)


def test_a_control_acts_in_the_next_frame_and_is_given_back(model: TalkingHeadModel, voice: np.ndarray) -> None:
    free, steered = session(model), session(model)
    plain = list(free.push(voice))
    frames = []
    for start in range(0, 640 * 20, 640):
        if start == 640 * 8:
            steered.set(yaw=20)
        if start == 640 * 14:
            steered.release("yaw")
        frames += steered.push(voice[start : start + 640])
    asked = [frame.applied["yaw"] for frame in frames]
    first = asked.index(20.0)
    assert first == 8 - 2  # a frame comes out when its look-ahead of two frames is there
    assert asked == [None] * first + [20.0] * 6 + [None] * (len(asked) - first - 6)
    differs = [not np.array_equal(a.image, b.image) for a, b in zip(frames, plain, strict=False)]
    assert not any(differs[:first]) and all(differs[first : first + 6])
    turned = np.abs(frames[first].image.astype(int) - plain[first].image).mean()
    assert turned > 4 * np.abs(plain[first].image.astype(int) - plain[first - 1].image).mean()


def test_tracks_of_a_file_act_at_their_frames(model: TalkingHeadModel, voice: np.ndarray) -> None:
    controls = Controls({"pitch": [(0.2, 15.0), (0.4, None)]})
    frames = list(session(model).push(voice[: 640 * 16], controls))
    assert [frame.index for frame in frames if frame.applied["pitch"] is not None] == list(range(5, 10))


def test_two_minutes_without_growth(model: TalkingHeadModel, voice: np.ndarray) -> None:
    stream = session(model)
    autoencoder = model.autoencoder
    still = autoencoder.decode(stream._reference.latents, stream._reference)
    autoencoder.geometry = lambda *_: None  # type: ignore[method-assign]
    autoencoder.draw = lambda *_: still  # type: ignore[method-assign]
    try:
        sizes, memory = [], []
        for _ in range(4):  # 4 x 750 frames
            for _ in range(25):
                for frame in stream.push(voice):
                    last = frame.index
            gc.collect()
            sizes.append({name: value.shape for name, value in stream._moment.model.to_tensors().items()})
            memory.append(psutil.Process().memory_info().rss / 2**20)
    finally:
        del autoencoder.geometry, autoencoder.draw
    assert last > 2_990 and all(size == sizes[0] for size in sizes)
    assert memory[-1] - memory[0] < 16
    latents = stream._moment.model.previous
    assert torch.isfinite(latents).all() and latents.abs().max() < 12
    later = list(stream.push(voice[: 640 * 5]))
    assert images(later).std() > 20
