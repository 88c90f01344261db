"""Performance for SynthTalk: mouths follow the speech, labels are what the face does, ranges and seeds hold."""

from dataclasses import fields

import numpy as np
import pytest

from eartalking.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import CONTROL_RANGES, EMOTIONS
from eartalking.motion.face_units import (
    EMOTION_UNITS,
    FACE_UNITS,
    UNIT_INDEX,
    compose_face_units,
    unit_indices,
    unit_vector,
)
from eartalking.synth.performance import Performance, make_performance, neutral_portrait, random_stills
from eartalking.synth.speech import Utterance, silent_utterance, utterances
from eartalking.synth.visemes import BILABIALS, LABIODENTALS, PHONES, speech_mouth, viseme_targets

JAW = UNIT_INDEX["jawOpen"]


@pytest.fixture(scope="module")
def utterance() -> Utterance:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pocketsphinx")
    return next(utterances("train", 0.01, 5, ("espeak",)))


def spoken(*names: str, length: float = 0.12) -> tuple[list[tuple[str, float, float]], np.ndarray]:
    """Phones of equal length between two silences of half a second, and a waveform of constant loudness."""
    times = 0.5 + length * np.arange(len(names) + 1)
    phones = [(name, float(a), float(b)) for name, a, b in zip(names, times[:-1], times[1:], strict=True)]
    phones = [("SIL", 0.0, 0.5), *phones, ("SIL", float(times[-1]), float(times[-1]) + 0.5)]
    waveform = np.full(round((times[-1] + 0.5) * SAMPLE_RATE), 0.1, np.float32)
    return phones, waveform


def mouth_of(*names: str, length: float = 0.12) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    phones, waveform = spoken(*names, length=length)
    return speech_mouth(phones, waveform, len(waveform) // SAMPLES_PER_FRAME), phones


def labels_in_range(motion: Performance) -> None:
    values = np.column_stack(
        [motion.head_pose, motion.gaze, motion.blink, motion.brow, motion.smile, motion.mouth_scale]
    )
    for column, (track, (low, high)) in zip(values.T, CONTROL_RANGES.items(), strict=True):
        assert column.min() >= low - 1e-5 and column.max() <= high + 1e-5, track
    assert motion.emotion.min() >= 0 and motion.emotion.max() < len(EMOTIONS)
    assert motion.emotion_intensity.min() >= 0 and motion.emotion_intensity.max() <= 1
    assert motion.face_units.min() >= 0 and motion.face_units.max() <= 1
    assert not motion.face_units[:, [i for i, name in enumerate(FACE_UNITS) if "Look" in name]].any()


def test_there_are_52_units_with_both_sides() -> None:
    assert len(set(FACE_UNITS)) == 52 and FACE_UNITS[0] == "eyeBlinkLeft" and FACE_UNITS[-1] == "tongueOut"
    assert [FACE_UNITS[i] for i in unit_indices("mouthSmile")] == ["mouthSmileLeft", "mouthSmileRight"]
    with pytest.raises(KeyError, match="mouthGrin"):
        unit_indices("mouthGrin")


def test_emotions_come_in_the_control_tables_order() -> None:
    assert tuple(EMOTION_UNITS) == EMOTIONS


def test_every_phone_has_targets() -> None:
    for phone in PHONES:
        for target in viseme_targets(phone):
            assert target.shape == (52,) and 0 <= target.min() and target.max() <= 1


@pytest.mark.parametrize("consonant", sorted(BILABIALS | LABIODENTALS))
@pytest.mark.parametrize("length", [0.03, 0.06, 0.12])
def test_lip_contacts_are_reached_between_open_vowels(consonant: str, length: float) -> None:
    mouth, phones = mouth_of("AA", "AA", consonant, "AA", "AA", length=length)
    _, start, end = phones[3]
    frames = slice(int((start - 0.02) * 25), int((end + 0.02) * 25) + 1)
    assert mouth[frames, JAW].min() < 0.06
    if length >= 0.12:
        assert mouth[:, JAW].max() > 0.45


def test_mouth_is_shut_in_silence_and_open_in_vowels() -> None:
    mouth, _ = mouth_of("AA", "AE", "AA")
    assert not mouth[:8].max() > 0.02 and not mouth[-8:].max() > 0.02
    assert mouth[:, JAW].max() > 0.4


def test_rounding_is_anticipated() -> None:
    mouth, phones = mouth_of("T", "IY", "T", "UW", "T")
    pucker = mouth[:, UNIT_INDEX["mouthPucker"]]
    assert pucker.max() > 0.5
    assert pucker[int((phones[4][1] - 0.06) * 25)] > 0.1


def test_jaw_follows_the_voice_without_lag(utterance: Utterance) -> None:
    num_frames = -(-len(utterance.waveform) // SAMPLES_PER_FRAME)
    jaw = speech_mouth(utterance.phones, utterance.waveform, num_frames)[:, JAW]
    padded = np.pad(utterance.waveform, (0, num_frames * SAMPLES_PER_FRAME - len(utterance.waveform)))
    envelope = np.sqrt((padded.reshape(num_frames, -1) ** 2).mean(1))
    correlation = {lag: np.corrcoef(np.roll(jaw, -lag)[4:-4], envelope[4:-4])[0, 1] for lag in range(-4, 5)}
    assert correlation[0] > 0.3
    assert abs(max(correlation, key=correlation.get)) <= 1


def test_loudness_of_the_recording_does_not_matter(utterance: Utterance) -> None:
    loud = speech_mouth(utterance.phones, utterance.waveform, 50)
    quiet = speech_mouth(utterance.phones, 0.25 * utterance.waveform, 50)
    assert np.allclose(loud, quiet, atol=0.02)


@pytest.mark.parametrize("control_jumps", [False, True])
def test_motion_has_all_frames_and_keeps_the_ranges(utterance: Utterance, control_jumps: bool) -> None:
    for seed in range(12):
        motion = make_performance(utterance, np.random.default_rng(seed), control_jumps=control_jumps)
        assert len(motion) == -(-len(utterance.waveform) // SAMPLES_PER_FRAME)
        labels_in_range(motion)
        assert (motion.speaking == (motion.phone > 0)).all()


def test_the_seed_decides(utterance: Utterance) -> None:
    first, second, other = (
        make_performance(utterance, np.random.default_rng(seed), control_jumps=True) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Performance))
    assert not np.array_equal(first.head_pose, other.head_pose)


def test_jumps_are_abrupt_and_only_where_asked_for(utterance: Utterance) -> None:
    def largest_step(control_jumps: bool) -> float:
        clips = (
            make_performance(utterance, np.random.default_rng(seed), control_jumps=control_jumps) for seed in range(10)
        )
        return max(float(np.abs(np.diff(clip.head_pose[:, 0])).max()) for clip in clips)

    assert largest_step(False) < 8
    assert largest_step(True) > 15


def test_a_listener_keeps_the_mouth_closed() -> None:
    for seed in range(8):
        motion = make_performance(silent_utterance(4.0), np.random.default_rng(seed), control_jumps=False)
        assert len(motion) == 100 and not motion.speaking.any()
        assert motion.face_units[:, JAW].max() <= 0.15


def test_blinks_close_the_lids(utterance: Utterance) -> None:
    motions = [make_performance(silent_utterance(8.0), np.random.default_rng(s), control_jumps=False) for s in range(3)]
    for motion in motions:
        assert motion.blink.max() > 0.8 and (motion.blink > 0.5).mean() < 0.3
        assert np.allclose(motion.face_units[:, unit_indices("eyeBlink")], motion.blink[:, None])


@pytest.mark.parametrize(
    ("control", "value", "units"),
    [
        ("brow", 1.0, "browOuterUp"),
        ("brow", -1.0, "browDown"),
        ("smile", 1.0, "mouthSmile"),
        ("smile", -1.0, "mouthFrown"),
        ("blink", 1.0, "eyeBlink"),
    ],
)
def test_controls_drive_their_units(control: str, value: float, units: str) -> None:
    controls = {"blink": 0.0, "brow": 0.0, "smile": 0.0, "mouth_scale": 1.0, "intensity": 0.0} | {control: value}
    arrays = {name: np.array([value]) for name, value in controls.items()}
    face = compose_face_units(np.zeros((1, 52)), emotion=np.array([0]), **arrays)
    assert face[0, unit_indices(units)].min() > 0.8


@pytest.mark.parametrize("emotion", range(len(EMOTIONS)))
def test_no_emotion_opens_closed_lips(emotion: int) -> None:
    closed = viseme_targets("B")[0][None]
    zero, one = np.zeros(1), np.ones(1)
    face = compose_face_units(closed, zero, zero, zero, one, np.array([emotion]), one)[0]
    assert face[[JAW, *unit_indices("mouthUpperUp")]].max() < 1e-6


def test_mouth_scale_scales_speech_only() -> None:
    mouth = unit_vector({"jawOpen": 0.3, "mouthPucker": 0.2})[None]
    zero, one, emotion = np.zeros(1), np.ones(1), np.zeros(1, int)
    faces = [compose_face_units(mouth, zero, one, zero, np.array([s]), emotion, zero)[0] for s in (0, 1, 2)]
    assert [round(float(face[JAW]), 3) for face in faces] == [0, 0.3, 0.6]
    assert len({float(face[UNIT_INDEX["browOuterUpLeft"]]) for face in faces}) == 1


def test_stills_cover_the_ranges() -> None:
    stills = random_stills(1500, np.random.default_rng(0))
    labels_in_range(stills)
    assert np.abs(stills.head_pose).max(0) == pytest.approx([30, 20, 20], abs=1)
    assert np.abs(stills.gaze).max(0) == pytest.approx([25, 20], abs=1)
    assert set(stills.emotion) == set(range(len(EMOTIONS)))
    assert 0.2 < (stills.blink > 0).mean() < 0.3
    assert (stills.face_units[:, JAW] > 0.5).mean() > 0.08 and (stills.face_units[:, JAW] < 0.05).mean() > 0.15


def test_portraits_look_at_the_camera() -> None:
    portraits = Performance.concat([neutral_portrait(np.random.default_rng(seed)) for seed in range(200)])
    labels_in_range(portraits)
    assert np.abs(portraits.head_pose[:, 0]).max() <= 15
    assert portraits.face_units[:, JAW].max() < 0.15 and portraits.blink.max() < 0.2
    assert np.abs(portraits.gaze + portraits.head_pose[:, :2]).max() < 12
    assert 0.35 < (portraits.smile > 0.1).mean() < 0.65


def test_motion_slices_and_concatenates(utterance: Utterance) -> None:
    motion = make_performance(utterance, np.random.default_rng(0), control_jumps=False)
    joined = Performance.concat([motion[:10], motion[np.arange(10, len(motion))]])
    assert all(np.array_equal(getattr(joined, f.name), getattr(motion, f.name)) for f in fields(Performance))
    assert len(motion[3]) == 1
    with pytest.raises(ValueError, match="at least one"):
        Performance.concat([])
