"""StreamSession on random weights: chunking, determinism, clone, save, isolation, length and controls."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import DRAWN, MASKED_AR, tiny_model

from eartalking import Controls, StreamSession, TalkingHeadModel
from eartalking.config import TINY
from eartalking.controls import SCALAR_TRACKS, ControlFrame
from eartalking.errors import InputError
from eartalking.motion.blinks import spontaneous_blink


@pytest.fixture(scope="module", params=[TINY, MASKED_AR, DRAWN], ids=["flow", "masked_ar", "drawn"])
def model(request: pytest.FixtureRequest) -> TalkingHeadModel:
    return tiny_model(request.param)


def portrait(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000)).astype(np.float32)


def start(model: TalkingHeadModel, seed: int = 0, face: int = 0) -> StreamSession:
    return StreamSession(model, portrait(face), seed=seed, crop="center")


def images(frames) -> np.ndarray:
    return np.stack([frame.image for frame in frames])


def whole(session: StreamSession, waveform: np.ndarray) -> np.ndarray:
    return images([*session.push(waveform), *session.flush()])


@pytest.mark.parametrize("chunk", [1600, 640, 1001, 50])
def test_any_chunking_gives_the_same_frames(model: TalkingHeadModel, chunk: int) -> None:
    waveform = voice(0.5)
    expected = whole(start(model), waveform)
    session = start(model)
    frames = [f for i in range(0, len(waveform), chunk) for f in session.push(waveform[i : i + chunk])]
    frames += session.flush()
    np.testing.assert_array_equal(images(frames), expected)


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 3200, 8001])
def test_as_many_frames_as_the_audio_has(model: TalkingHeadModel, samples: int) -> None:
    frames = whole(start(model), voice(1.0)[:samples])
    assert len(frames) == -(-samples // 640)
    assert frames.shape[1:] == (64, 64, 3) and frames.dtype == np.uint8


def test_a_frame_waits_for_its_lookahead_and_no_longer(model: TalkingHeadModel) -> None:
    session = start(model)
    lookahead = TINY.audio.lookahead
    for count in range(1, lookahead + 4):
        frames = list(session.push(voice(0.04, seed=count)))
        assert [frame.index for frame in frames] == ([count - 1 - lookahead] if count > lookahead else [])


def test_later_audio_never_changes_earlier_frames(model: TalkingHeadModel) -> None:
    first, second = voice(1.0), voice(1.0, seed=1)
    second[:9600] = first[:9600]
    a, b = whole(start(model), first), whole(start(model), second)
    known = 9600 // 640 - TINY.audio.lookahead
    np.testing.assert_array_equal(a[:known], b[:known])
    assert (a[known:] != b[known:]).any()


def test_temperature_is_how_far_a_frame_is_drawn(model: TalkingHeadModel, tmp_path: Path) -> None:
    waveform = voice(0.3)

    def at(temperature: float, seed: int) -> StreamSession:
        return StreamSession(model, portrait(), seed=seed, crop="center", temperature=temperature)

    np.testing.assert_array_equal(whole(at(1.0, 1), waveform), whole(start(model, 1), waveform))
    assert (whole(at(0.5, 1), waveform) != whole(at(1.0, 1), waveform)).any()
    np.testing.assert_array_equal(whole(at(0.0, 1), waveform), whole(at(0.0, 2), waveform))
    at(0.5, 1).save(tmp_path / "stream")
    assert StreamSession.restore(model, tmp_path / "stream").temperature == 0.5
    with pytest.raises(ValueError, match="temperature"):
        at(1.6, 1)


def test_seed_decides(model: TalkingHeadModel) -> None:
    waveform = voice(0.3)
    np.testing.assert_array_equal(whole(start(model, 1), waveform), whole(start(model, 1), waveform))
    assert (whole(start(model, 1), waveform) != whole(start(model, 2), waveform)).any()


def test_interleaved_sessions_do_not_touch(model: TalkingHeadModel) -> None:
    waves = voice(0.6), voice(0.6, seed=1)
    alone = [whole(start(model, face=i), wave) for i, wave in enumerate(waves)]
    sessions = [start(model, face=i) for i in range(2)]
    frames: list[list] = [[], []]
    for at in range(0, 9600, 800):
        for i in range(2):
            frames[i] += sessions[i].push(waves[i][at : at + 800])
    for i in range(2):
        frames[i] += sessions[i].flush()
        np.testing.assert_array_equal(images(frames[i]), alone[i])


def test_clone_reset_and_restore(model: TalkingHeadModel, tmp_path) -> None:
    waveform = voice(1.0)
    expected = whole(start(model), waveform)
    session = start(model)
    head = list(session.push(waveform[:8100]))
    session.set(yaw=10)
    twin = session.clone()
    session.save(tmp_path / "stream.safetensors")
    session.release("yaw")
    tail = [*session.push(waveform[8100:]), *session.flush()]
    np.testing.assert_array_equal(images(head + tail), expected)
    restored = StreamSession.restore(model, tmp_path / "stream.safetensors")
    for other in (twin, restored):
        frames = [*other.push(waveform[8100:]), *other.flush()]
        assert frames[0].applied["yaw"] == 10
        assert (images(frames) != images(tail)).any()
    twin.reset()
    np.testing.assert_array_equal(whole(twin, waveform), expected)


def test_restored_equals_uninterrupted(model: TalkingHeadModel, tmp_path) -> None:
    waveform = voice(1.2)
    expected = whole(start(model, seed=5), waveform)
    session = start(model, seed=5)
    frames = list(session.push(waveform[:10007]))
    session.save(tmp_path / "s")
    frames += (again := StreamSession.restore(model, tmp_path / "s")).push(waveform[10007:])
    frames += again.flush()
    np.testing.assert_array_equal(images(frames), expected)


def test_not_a_saved_stream(model: TalkingHeadModel, tmp_path) -> None:
    (tmp_path / "s").write_bytes(b"nonsense")
    for path, cause in ((tmp_path / "s", "not a saved stream"), (tmp_path / "missing", "no such file")):
        with pytest.raises(InputError, match=cause):
            StreamSession.restore(model, path)


def test_set_acts_from_the_next_frame(model: TalkingHeadModel) -> None:
    session, plain = start(model), start(model)
    waveform = voice(0.4)
    frames, reference = session.push(waveform), plain.push(waveform)
    a = [next(frames), next(frames)]
    session.set(yaw=20, emotion=("happy", 0.5))
    a += [next(frames), next(frames)]
    b = [next(reference) for _ in range(4)]
    np.testing.assert_array_equal(images(a[:2]), images(b[:2]))
    assert (a[2].image != b[2].image).any()
    assert dict(a[2].applied.given()) == {"yaw": 20.0, "emotion": ("happy", 0.5)}
    assert not a[1].applied.given()


def test_controls_file_is_followed_by_frame_index(model: TalkingHeadModel) -> None:
    controls = Controls({"yaw": [(0.08, 10.0), (0.16, None)]})
    frames = [*(session := start(model)).push(voice(0.4), controls), *session.flush(controls)]
    assert [frame.applied["yaw"] for frame in frames][:6] == [None, None, 10.0, 10.0, None, None]


@pytest.mark.parametrize(
    ("waveform", "cause"),
    [
        (np.zeros((2, 640)), "takes mono sound"),
        (np.array([np.nan]), "samples that are not finite"),
        (np.array([np.inf]), "samples that are not finite"),
        (np.zeros(640, np.int16), "floating-point sound in -1..1, not int16"),
    ],
)
def test_bad_audio_is_refused_and_changes_nothing(model: TalkingHeadModel, waveform: np.ndarray, cause: str) -> None:
    session = start(model)
    with pytest.raises(ValueError, match=cause):
        list(session.push(waveform))
    np.testing.assert_array_equal(whole(session, voice(0.2)), whole(start(model), voice(0.2)))


@pytest.mark.parametrize(
    "asked",
    [
        {"crop": (1000.0, 1000.0, 1300.0, 1300.0)},
        {"crop": (5.0, 5.0, 5.0, 5.0)},
        {"crop": (0.0, 0.0, 100.0, 50.0)},
        {"crop": (0.0, 0.0, float("nan"), 5.0)},
        {"threads": 0},
        {"seed": 1.7},
        {"background": None},
    ],
)
def test_what_a_session_cannot_be_is_refused_at_once(model: TalkingHeadModel, asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(asked))):
        StreamSession(model, np.full((64, 64, 3), 128, np.uint8), **({"crop": "center"} | asked))


def test_bad_controls_are_refused(model: TalkingHeadModel) -> None:
    session = start(model)
    for tracks in ({"yaw": 99}, {"tilt": 1}, {"emotion": ("bored", 1)}):
        with pytest.raises(ValueError):
            session.set(**tracks)


def test_no_audio_after_flush(model: TalkingHeadModel) -> None:
    session = start(model)
    list(session.flush())
    with pytest.raises(ValueError, match="flushed"):
        list(session.push(voice(0.1)))


def test_eyes_blink_by_themselves_and_seeds_blink_apart() -> None:
    tracks = [np.array([spontaneous_blink(seed, index) for index in range(450)]) for seed in (0, 1)]
    for track in tracks:
        assert (track.reshape(5, 90).max(1) == 1).all() and (track > 0).mean() < 0.1
        assert track[:10].max() == 0, "a stream does not begin with closed eyes"
    assert (tracks[0] != tracks[1]).any()
    assert spontaneous_blink(-3, 7) in (0.0, *tracks[0])


def test_who_shows_an_emotion_still_blinks() -> None:
    """An emotion keeps the lids from being drawn, so blinks are asked for as of models that draw none."""
    model = tiny_model(DRAWN)
    assert model.draws_blinks
    session = start(model)
    shut = next(index for index in range(90) if spontaneous_blink(0, index) == 1)
    blink = SCALAR_TRACKS.index("blink")
    assert not session._asked(shut, ControlFrame()).given[..., blink].any()
    asked = session._asked(shut, ControlFrame(emotion=("happy", 1.0)))
    assert asked.given[..., blink].all() and (asked.values[..., blink] == 1).all()
    open_eyes = session._asked(shut, ControlFrame(emotion=("happy", 1.0), blink=0.0))
    assert (open_eyes.values[..., blink] == 0).all()
