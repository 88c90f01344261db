"""Known answers of the benchmark mathematics, the logic of the gates, and the speed report on a tiny random model."""

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from benchmarks import quality, stream_latency
from benchmarks.gates import photograph_finding, stream, streams
from benchmarks.gates.control import (
    Followed,
    _unless_blind,
    asked_levels,
    blind_to,
    hits,
    latency_row,
    mean_error,
    schedule_of,
)
from benchmarks.gates.material import SUITES, Material
from benchmarks.gates.streams import Context, drive
from benchmarks.gates.table import ALL_GATES, GATES, GateRow, Unavailable, judge, table, unavailable
from benchmarks.gates.voice import best_within, lag_reason, shuffled_floor
from eartalking import StreamSession, TalkingHeadModel
from eartalking.checkpoint import save_model
from eartalking.config import SAMPLE_RATE, SAMPLES_PER_FRAME, TINY
from eartalking.controls import CONTROL_RANGES, CONTROL_TRACKS, EMOTIONS, ControlFrame
from eartalking.perception.face_reader import READINGS, FaceReading
from eartalking.perception.identity import summarise
from eartalking.session import Frame
from eval.metrics.boxes import follow, mouth_fractions
from eval.metrics.latency import STAGES, StreamTiming, deadline_misses, run_flat_out, stage_clock
from eval.metrics.signals import (
    best_lag,
    box_mse,
    correlation,
    first_seen,
    lag_correlations,
    psnr,
    relative_change,
    sharpness,
    step_response,
    voice_envelope,
)


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    torch.manual_seed(0)
    return TalkingHeadModel(TINY).eval().requires_grad_(False)


def portrait() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def voice(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * 16000)).astype(np.float32)


def reading(count: int, **tracks: np.ndarray) -> FaceReading:
    return FaceReading(**{**{name: np.zeros(count) for name in READINGS}, "emotion": np.zeros((count, 8)), **tracks})


# ---- signals ----------------------------------------------------------------


@pytest.mark.parametrize("lag", [-4, -1, 0, 3, 5])
def test_a_shifted_signal_is_found_at_its_lag(lag: int) -> None:
    rng = np.random.default_rng(1)
    long = rng.normal(size=220)
    truth, late = long[10:210], long[10 - lag : 210 - lag]
    found = lag_correlations(late, truth, 5)
    assert best_lag(found) == lag and found[lag] == pytest.approx(1)
    assert all(abs(value) < 0.3 for other, value in found.items() if other != lag)
    assert lag_reason(found, abs(lag)) == "" and (lag == 0 or str(lag) in lag_reason(found, abs(lag) - 1))


def test_correlation_knows_scale_sign_and_stillness() -> None:
    x = np.sin(np.arange(50))
    assert correlation(x, 3 * x + 2) == pytest.approx(1) and correlation(x, -x) == pytest.approx(-1)
    assert math.isnan(correlation(x, np.ones(50)))
    assert math.isnan(best_within({0: math.nan}, 1))
    with pytest.raises(ValueError, match="does not move"):
        best_lag({0: math.nan})


def test_unrelated_clips_score_near_nothing() -> None:
    rng = np.random.default_rng(0)
    signals = [rng.normal(size=300) for _ in range(6)]
    assert shuffled_floor(signals, signals, 1) < 0.15
    assert shuffled_floor(signals[:1], signals[:1], 1) < 0.2


def test_envelope_is_the_loudness_of_each_frame() -> None:
    waveform = np.zeros(640 * 20, np.float32)
    waveform[640 * 8 : 640 * 12] = 0.5
    loud = voice_envelope(waveform, 20)
    assert loud[9:11] == pytest.approx([0.5, 0.5]) and loud[:7].max() == 0 and loud[13:].max() == 0
    assert len(voice_envelope(waveform[:1000], 20)) == 20


def test_sharpness_falls_under_blur_and_looks_only_into_its_box() -> None:
    image = portrait()
    blurred = ((image.astype(int) + np.roll(image, 1, 0) + np.roll(image, 1, 1)) // 3).astype(np.uint8)
    assert sharpness(blurred) < 0.5 * sharpness(image)
    half = image.copy()
    half[:, 32:] = 128
    assert sharpness(half, (0, 0, 32, 64)) == pytest.approx(sharpness(image, (0, 0, 32, 64)))
    assert sharpness(half, (34, 0, 64, 64)) == 0


def test_psnr_and_relative_change() -> None:
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 51, np.uint8)
    assert psnr(box_mse(black, grey)) == pytest.approx(20 * math.log10(5))
    assert psnr(box_mse(black, black)) == 100
    grey[:, 4:] = 0
    assert box_mse(black, grey, (4, 0, 8, 8)) == 0
    assert relative_change(2.0, 1.8) == pytest.approx(0.1) and relative_change(2.0, 2.2) == pytest.approx(0.1)


def test_step_response_and_first_frame_seen() -> None:
    asked = np.repeat([0.0, 10.0, -10.0, -9.0], 10)
    for delay in (0, 1, 4):
        read = np.concatenate([np.zeros(delay), asked])[: len(asked)]
        response, steps = step_response(read, asked, 5, 8)
        assert steps == 2 and first_seen(response) == 1 + delay
    assert first_seen(step_response(0.4 * asked, asked, 5, 8)[0]) is None
    assert step_response(asked, asked, 100, 8)[1] == 0


def test_boxes_follow_the_head() -> None:
    size = 64
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    grid = np.stack(np.meshgrid(axis, axis), -1)
    seen = np.full((size, size), 255, np.uint8)
    face = (0.25, 0.25, 0.75, 0.75)
    still, moved = follow(face, grid, seen, 256), follow(face, grid - [0.25, 0], seen, 256)
    assert np.allclose(still, (64, 64, 192, 192), atol=6)
    assert moved[0] - still[0] == pytest.approx(32, abs=6) and moved[1] == still[1]
    assert follow((2, 2, 3, 3), grid, seen, 256) is None
    left, top, right, bottom = mouth_fractions(face)
    assert face[0] < left < right < face[2] and 0.5 < top < bottom < face[3]


def test_identity_counts_frames_without_a_face() -> None:
    result = summarise(np.array([0.2, np.nan, 0.4, np.nan]))
    assert result.distance == pytest.approx(0.3) and result.coverage == 0.5 and result.num_frames == 4
    assert summarise(np.array([np.nan])).distance is None


# ---- gates ------------------------------------------------------------------


def test_every_gate_of_the_design_has_limits_and_a_measure() -> None:
    assert set(GATES) == set(quality.MEASURES)
    for name, gate in ALL_GATES.items():
        assert math.isfinite(gate.low) or math.isfinite(gate.high), name
    assert not ALL_GATES["lip_sync"].passes(0.7499, 0.0) and ALL_GATES["lip_sync"].passes(0.75, 0.0)
    assert not ALL_GATES["lip_sync"].passes(0.8, 0.8)  # as good as shuffled audio
    assert ALL_GATES["autoencoder_sharpness"].passes(1.2, 0.99) and not ALL_GATES["autoencoder_sharpness"].passes(
        1.21, None
    )
    assert not ALL_GATES["next_frame_latent"].passes(1.0, 1.0)  # equal to copying is not better than copying
    assert not ALL_GATES["silence"].passes(math.nan, None)


def test_rows_pass_only_when_measured() -> None:
    assert judge("lip_sync", 0.8, 4, "clips", 0.1).passed is True
    assert judge("lip_sync", 0.8, 4, "clips", 0.1, "the best lag is 3 frames").passed is False
    assert judge("lip_sync", 0.8, 0, "clips", 0.1).passed is False
    lost = judge("identity_photo", 0.45, 4, "frames", 0.4)
    assert lost.passed is False and "floor" in lost.reason
    nothing = judge("silence", math.nan, 4, "portraits")
    assert nothing.value is None and nothing.passed is False
    row = unavailable("silence", "no reader")
    assert row.value is None and row.passed is None and row.reason == "no reader"
    text = table([row, lost])
    assert "not measured" in text and "MISSED" in text and text.endswith("0 passed, 1 missed, 1 not measured, of 2")


def test_what_is_missing_is_told_in_every_row(model: TalkingHeadModel, monkeypatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise Unavailable("not installed")

    for method in ("stills", "clips", "photographs", "voice", "real_voices"):
        monkeypatch.setattr(Material, method, missing)
    monkeypatch.setattr(photograph_finding, "pictures", lambda: [])  # no package with photographs
    context = Context(model, SUITES["quick"], Material(SUITES["quick"], 64))
    rows, _ = quality.run(context, list(GATES))
    assert {row.name for row in rows} == set(ALL_GATES)
    assert all(row.passed is None and row.value is None and row.reason for row in rows)
    json.dumps(quality.report(context, rows, {}), allow_nan=False)


# ---- controls ---------------------------------------------------------------


@pytest.mark.parametrize("track", [track for track in CONTROL_TRACKS if track not in ("brow", "mouth_scale")])
def test_asked_values_are_legal_and_step_far(track: str) -> None:
    levels = asked_levels(track, 8, np.random.default_rng(0))
    assert len(levels) == 8
    for controls in schedule_of(track, np.repeat(levels, 2)):
        ControlFrame(controls)
    if track == "emotion":
        assert set(levels) == set(range(len(EMOTIONS)))
    elif track in CONTROL_RANGES:
        low, high = CONTROL_RANGES[track]
        assert (np.diff(levels)[1:] * np.diff(levels)[:-1] < 0).all() and low <= min(levels) and max(levels) <= high


def test_following_is_judged_per_frame() -> None:
    asked = np.array([1.0, 1.0, 0.0, 0.0])
    assert hits("blink", asked, reading(4, blink=np.array([0.9, 0.4, 0.1, 0.6]))).tolist() == [True, False, True, False]
    smile = reading(4, smile=np.array([0.5, 0.3, -0.5, 0.5]))
    assert hits("smile", np.array([0.8, 0.8, -0.8, -0.8]), smile).tolist() == [True, False, True, False]
    emotion = reading(2, emotion=np.eye(8)[[3, 1]])
    assert hits("emotion", np.array([3, 2]), emotion).tolist() == [True, False]
    error, coverage = mean_error(
        "gaze_yaw", [(np.zeros(4), reading(4, gaze_yaw=np.array([2, 4, 50, 50]), blink=np.array([0, 0, 1, 1])))]
    )
    assert error == 3 and coverage == 0.5


def test_a_reader_that_cannot_see_a_track_never_judges_it() -> None:
    sharp = {"yaw": 1.0, "gaze_yaw": 3.0, "blink_side": 0.97, "smile": 0.1, "emotion_recognised": 0.9}
    assert all(blind_to(track, sharp) == "" for track in ("yaw", "gaze_yaw", "blink", "smile", "emotion"))
    dull = {"yaw": 5.0, "gaze_yaw": 8.0, "blink_side": 0.8, "smile": 0.4, "emotion_recognised": 0.5}
    assert all(
        "cannot see" in blind_to(track, dull) for track in ("yaw", "gaze_yaw", "blink", "smile", "emotion", "pitch")
    )
    blind = {"yaw": "", "gaze_yaw": "blind"}
    rows = [_unless_blind(judge(f"control_{track}_deg", 1.0, 5, "frames", 9.0), blind, {}) for track in blind]
    assert (
        rows[0].passed is True
        and rows[1].passed is None
        and rows[1].value is None
        and rows[1].extra["unreliable_value"] == 1.0
    )


@pytest.mark.parametrize("track", ["yaw", "emotion"])
@pytest.mark.parametrize("delay", [0, 2])
def test_control_latency_counts_from_the_first_frame(track: str, delay: int) -> None:
    levels = [0, 2, 4, 1] if track == "emotion" else [-20.0, 20.0, -20.0, 20.0]
    asked = np.repeat(levels, 15)
    seen = np.concatenate([np.repeat(asked[:1], delay), asked])[: len(asked)]
    tracks = {"emotion": np.eye(8)[seen.astype(int)]} if track == "emotion" else {"yaw": seen}
    still = reading(len(asked))
    row = latency_row(track, [Followed(asked, reading(len(asked), **tracks), still)])
    assert row.value == 1 + delay and row.passed is (delay == 0) and row.n == 3
    never = latency_row("yaw", [Followed(np.repeat([0.0, 30.0], 15), still[:30], still[:30])])
    assert never.passed is False and "never seen" in never.reason


def recorded(frames: Iterator[Frame], seen: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        seen.append(frame)
        yield frame


def test_a_schedule_reaches_its_own_frames(model: TalkingHeadModel) -> None:
    session = StreamSession(model, portrait(), crop="center")
    asked = [{"yaw": float(i)} for i in range(8)]
    seen: list[Frame] = []
    push, flush = session.push, session.flush
    session.push = lambda *given: recorded(push(*given), seen)  # type: ignore[method-assign]
    session.flush = lambda *given: recorded(flush(*given), seen)  # type: ignore[method-assign]
    images: list[np.ndarray] = []
    drive(session, voice(8 / 25), asked, images.append)
    applied = [frame.applied["yaw"] for frame in seen]
    assert len(images) == 8 and applied == [float(i) for i in range(8)]


def test_half_minutes_are_the_streams_own_and_at_equal_pose_of_equal_words(
    model: TalkingHeadModel, monkeypatch
) -> None:
    context = Context(model, SUITES["quick"], Material(SUITES["quick"], 64))
    monkeypatch.setattr(context, "face_box", lambda portrait: (0, 0, 64, 64))
    monkeypatch.setattr(streams, "SAMPLE_EVERY", 1)
    monkeypatch.setattr(stream, "BIN_SECONDS", 1)
    waveform = voice(3)
    found = stream._half_minutes(context, StreamSession(model, portrait(), crop="center"), waveform, [1, 3])
    assert list(found) == [1, 3]
    whole = StreamSession(model, portrait(), crop="center")
    frames = [frame.image for frame in whole.push(waveform)]
    np.testing.assert_array_equal(found[1][0].sampled[:23], frames[:23])
    np.testing.assert_array_equal(found[3][0].sampled[:23], frames[50:73])
    session = StreamSession(model, portrait(), crop="center")
    list(session.push(waveform[: 52 * SAMPLES_PER_FRAME]))
    session.set(yaw=0.0, pitch=0.0, roll=0.0)
    posed = [frame.image for frame in session.push(waveform[:SAMPLE_RATE])]
    np.testing.assert_array_equal(found[3][1].sampled[: len(posed)], posed)


def test_gates_that_are_measured_later_join_those_of_the_same_weights() -> None:
    about = {"checkpoint_sha256": "a", "suite": "quick", "seed": 0}
    fast, shut = ({"name": name, "passed": True, "value": 1.0} for name in ("speed_fps", "silence"))
    earlier = about | {
        "date": "1",
        "commit": "x",
        "seconds_by_group": {"speed": 9, "silence": 1},
        "gates": [shut, fast],
    }
    later = about | {"date": "2", "commit": "y", "seconds_by_group": {"speed": 8}, "gates": [fast | {"passed": False}]}
    both = quality.with_kept(later, earlier)
    assert [row["name"] for row in both["gates"]] == ["silence", "speed_fps"]
    assert (both["passed"], both["missed"], both["date"]) == (1, 1, "2")
    assert both["kept_from"] == {"silence": {"date": "1", "commit": "x"}}
    assert both["seconds_by_group"] == {"speed": 8, "silence": 1}
    again = quality.with_kept(about | {"date": "3", "commit": "z", "seconds_by_group": {}, "gates": []}, both)
    assert again["kept_from"] == {"silence": {"date": "1", "commit": "x"}, "speed": {"date": "2", "commit": "y"}}
    other = later | {"checkpoint_sha256": "b"}
    assert quality.with_kept(other, earlier) is other


# ---- speed ------------------------------------------------------------------


def test_deadlines() -> None:
    assert deadline_misses(np.full(100, 39.0)) == 0
    assert deadline_misses(np.full(10, 50.0)) == 10
    one_slow = np.full(20, 20.0)
    one_slow[5] = 100  # is late itself, and so are those behind it until the time is made up: 100, 80, 60 ms
    assert deadline_misses(one_slow) == 3


def test_memory_growth_is_measured_after_settling() -> None:
    grown = StreamTiming(np.ones(10), 1.0, {}, [100.0] * 10 + [200.0] * 60 + [230.0] * 10)
    assert grown.rss_growth_mb == 30
    assert StreamTiming(np.ones(10), 1.0, {}, [50.0]).rss_growth_mb == 0


def test_stages_add_up_and_the_clock_leaves_no_trace(model: TalkingHeadModel) -> None:
    timing = run_flat_out(StreamSession(model, portrait(), crop="center"), voice(1), lambda image: None, progress=False)
    assert len(timing.frame_ms) == 25 - TINY.audio.lookahead
    stages = set(STAGES) - {"departure_head"}  # this model has none
    assert set(timing.stage_ms) == {*stages, "video_encoder", "rest"}
    assert all(milliseconds > 0 for milliseconds in timing.stage_ms.values())
    with stage_clock(model):
        assert "draw" in vars(model.autoencoder)
    assert "draw" not in vars(model.autoencoder) and "forward" not in vars(model.backbone)


def test_stream_latency_command(model: TalkingHeadModel, tmp_path, capsys, monkeypatch) -> None:
    save_model(model, tmp_path / "tiny")
    monkeypatch.setattr(stream_latency, "cold_start_seconds", lambda *_: 1.0)  # starts a Python of its own: slow
    monkeypatch.setattr(stream_latency, "LIVE_STARTS", 1)
    arguments = [
        "--checkpoint",
        str(tmp_path / "tiny"),
        "--seconds",
        "2",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "out.json"),
    ]
    assert stream_latency.main([*arguments, "--crop", "center"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads((tmp_path / "out.json").read_text())
    timing = {
        "cold_start_s",
        "ttff_ms",
        "frame_ms_p50",
        "frame_ms_p95",
        "frame_ms_p99",
        "fps",
        "rtf",
        "deadline_misses",
    }
    memory = {"peak_mem_mb", "rss_growth_mb", "rss_mb_per_second"}
    assert timing | memory | {"stage_ms", "hardware", "checkpoint_sha256", "commit", "date"} <= set(printed)
    assert printed["frames"] == 48 and printed["hardware"]["threads"] == 1
    assert printed["ttff_ms"] >= 120  # the look-ahead is in it: three pieces of 40 ms have to arrive
    assert stream_latency.main([*arguments, "--crop", "center", "--size", "128"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["size"] == 2 * printed["size"] == 128


def test_quality_command_refuses_unknown_gates(capsys) -> None:
    with pytest.raises(SystemExit):
        quality.main(["--gates", "beauty"])
    assert "unknown gates" in capsys.readouterr().err


def test_rows_survive_json() -> None:
    row = GateRow("silence", None, "<= 0.25", None, None, 0, "", "why")
    assert row.extra == {} and row.passed is None


def test_freezes_and_steps_back_are_counted() -> None:
    judged = pytest.importorskip("benchmarks.demo_latency").judged
    assert judged([(0, 0.0), (1, 40.0), (2, 80.0)]) == {"freezes": 0, "steps_back": 0}
    assert judged([(0, 0.0), (3, 101.0), (2, 141.0), (9, 400.0)]) == {"freezes": 2, "steps_back": 1}
    assert judged([]) == {"freezes": 0, "steps_back": 0}
