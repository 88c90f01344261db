"""What a face does over time: the labels of a clip and the face units that follow from them.

`make_performance` animates an utterance, `random_stills` draws independent states that cover every control's
range, `neutral_portrait` draws the state that people have who sit for a portrait, and `portrait` the states that
people are photographed in. In all of them the labels are the values in force, and `face_units` is
`compose_face_units` of the speech mouth and the labels.
"""

from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import CONTROL_RANGES, EMOTIONS
from eartalking.motion.face_units import NUM_FACE_UNITS, compose_face_units, unit_indices, unit_vector
from eartalking.synth.speech import Utterance
from eartalking.synth.tracks import add_bumps, blink_pulses, drift, episodes, fixations, hold_jumps, steps
from eartalking.synth.visemes import PHONES, frame_phones, frame_times, speech_mouth, viseme_targets

_POSE_LIMITS = np.array([CONTROL_RANGES[track][1] for track in ("yaw", "pitch", "roll")])
CALM = 0.4  # strength of smiles and brows of whom nothing is asked
_GAZE_LIMITS = np.array([CONTROL_RANGES[track][1] for track in ("gaze_yaw", "gaze_pitch")])


@dataclass
class Performance:
    """T frames of a face at 25 fps; every field's first axis is time, float32 unless said otherwise."""

    head_pose: np.ndarray  # (T, 3) yaw, pitch, roll, degrees
    gaze: np.ndarray  # (T, 2) yaw, pitch relative to the head, degrees
    translation: np.ndarray  # (T, 3) in head heights, x right, y up, z to the camera
    face_units: np.ndarray  # (T, 52) in 0..1; eyeLook* are 0: the renderer turns the eyeballs by `gaze`
    blink: np.ndarray  # (T,) 0..1
    brow: np.ndarray  # (T,) -1..1
    smile: np.ndarray  # (T,) -1..1
    mouth_scale: np.ndarray  # (T,) 0..2
    emotion: np.ndarray  # (T,) int32, index into the control table's emotions
    emotion_intensity: np.ndarray  # (T,) 0..1
    phone: np.ndarray  # (T,) int32, index into PHONES
    speaking: np.ndarray  # (T,) bool

    def __len__(self) -> int:
        return len(self.phone)

    def __getitem__(self, index: int | slice | np.ndarray) -> "Performance":
        """The chosen frames; a single integer gives a performance of one frame."""
        if isinstance(index, int | np.integer):
            index = np.array([index])
        return Performance(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def concat(performances: "list[Performance]") -> "Performance":
        """The performances one after the other.

        Raises:
            ValueError: the list is empty.
        """
        if not performances:
            raise ValueError("concat needs at least one performance")
        return Performance(
            **{f.name: np.concatenate([getattr(m, f.name) for m in performances]) for f in fields(Performance)}
        )


# Mouth units that no phone uses, but that a portrait or a grimace may show.
_GRIMACES = ("jawForward", "jawLeft", "jawRight", "mouthLeft", "mouthRight", "cheekPuff", "mouthShrugLower",
             "mouthShrugUpper", "mouthDimple", "mouthUpperUp", "mouthLowerDown", "mouthRollLower",
             "mouthRollUpper", "tongueOut", "mouthFunnel", "mouthPucker", "mouthStretch")  # fmt: skip
_SPOKEN = [target for phone in PHONES[1:] for target in viseme_targets(phone)]


def _viseme_mix(rng: np.random.Generator) -> np.ndarray:
    """One to three random viseme targets in random proportions, at a random strength: (52,)."""
    count = rng.integers(1, 4)
    chosen = [_SPOKEN[i] for i in rng.integers(0, len(_SPOKEN), count)]
    return np.tensordot(rng.dirichlet(np.ones(count)), chosen, axes=1) * rng.uniform(0.3, 1.3)


def _extreme_mouth(rng: np.random.Generator) -> np.ndarray:
    mouth = unit_vector({"jawOpen": rng.uniform(0.35, 1.0)})
    for name in rng.choice(_GRIMACES, rng.integers(0, 4), replace=False):
        mouth[unit_indices(name)] = rng.uniform(0.0, 0.8)
    return mouth


def _grimace(rng: np.random.Generator) -> np.ndarray:
    mouth = unit_vector({"jawOpen": rng.uniform(0.0, 0.25)})
    for name in rng.choice(_GRIMACES, rng.integers(1, 4), replace=False):
        mouth[unit_indices(name)] = rng.uniform(0.2, 1.0)
    return mouth


def _closed_mouth(rng: np.random.Generator) -> np.ndarray:
    return unit_vector({"mouthPress": 0.35 * rng.uniform() ** 2, "mouthShrugLower": 0.1 * rng.uniform() ** 2})


def _random_mouth(rng: np.random.Generator) -> np.ndarray:
    makers = (_viseme_mix, _extreme_mouth, _closed_mouth, _grimace)
    make = makers[int(rng.choice(len(makers), p=[0.6, 0.15, 0.15, 0.1]))]
    return make(rng).astype(np.float32)


def random_stills(n: int, rng: np.random.Generator) -> Performance:
    """n independent states that cover the controls' ranges and more mouths than speech shows.

    Args:
        n: how many. rng: the only source of randomness.
    """
    mouth = np.stack([_random_mouth(rng) for _ in range(n)]) if n else np.zeros((0, NUM_FACE_UNITS))
    wide_pose = rng.uniform(-1, 1, (n, 3)) * _POSE_LIMITS
    frontal_pose = np.clip(rng.normal(0, [6, 4, 3], (n, 3)), -_POSE_LIMITS, _POSE_LIMITS)
    head_pose = np.where(rng.random((n, 1)) < 0.5, wide_pose, frontal_pose)
    gaze = np.where(rng.random((n, 1)) < 0.5, rng.uniform(-1, 1, (n, 2)) * _GAZE_LIMITS,
                    np.clip(rng.normal(0, 4, (n, 2)), -_GAZE_LIMITS, _GAZE_LIMITS))  # fmt: skip
    blink = _sometimes(rng, n, 0.25, np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0, 1, n)))
    brow = _sometimes(rng, n, 0.6, rng.uniform(-1, 1, n))
    smile = _sometimes(rng, n, 0.6, rng.uniform(-1, 1, n))
    mouth_scale = rng.uniform(0.4, 1.6, n)
    emotion = rng.integers(0, len(EMOTIONS), n)
    intensity = _sometimes(rng, n, 0.6, rng.uniform(0.2, 1.0, n)) * (emotion > 0)
    emotion = np.where(intensity > 0, emotion, 0)
    return _performance(
        mouth,
        head_pose=head_pose,
        gaze=gaze,
        translation=np.clip(rng.normal(0, 0.02, (n, 3)), -0.06, 0.06),
        blink=blink,
        brow=brow,
        smile=smile,
        mouth_scale=mouth_scale,
        emotion=emotion,
        emotion_intensity=intensity,
        phone=np.zeros(n),
    )


def _sometimes(rng: np.random.Generator, n: int, probability: float, values: np.ndarray) -> np.ndarray:
    """The values where a coin with that probability falls heads, else 0: (n,)."""
    return np.where(rng.random(n) < probability, values, 0.0)


def _performance(mouth_units: np.ndarray, **labels: np.ndarray) -> Performance:
    """A Performance whose face units follow from the speech mouth and the labels."""
    types = {"emotion": np.int32, "phone": np.int32}
    labels = {name: np.asarray(track).astype(types.get(name, np.float32)) for name, track in labels.items()}
    expression = [labels[n] for n in ("blink", "brow", "smile", "mouth_scale", "emotion", "emotion_intensity")]
    return Performance(face_units=compose_face_units(mouth_units, *expression), speaking=labels["phone"] > 0, **labels)


def neutral_portrait(rng: np.random.Generator) -> Performance:
    """One frame as people look in a portrait: nearly frontal, eyes open and towards the camera, half of them
    smiling a little, some of those with their teeth showing."""
    yaw_spread = 8.0 if rng.random() < 0.3 else 3.5
    head_pose = np.clip(rng.normal(0, [yaw_spread, 2.5, 2.0]), [-15, -8, -7], [15, 8, 7])
    smile = rng.uniform(0.1, 0.8) if rng.random() < 0.5 else rng.uniform(-0.08, 0.08)
    mouth = _closed_mouth(rng)
    if smile > 0.25 and rng.random() < 0.5:
        parted = rng.uniform(0.4, 1.0)
        mouth = parted * unit_vector({"jawOpen": 0.10, "mouthUpperUp": 0.35, "mouthLowerDown": 0.25})
    elif rng.random() < 0.15:
        mouth = unit_vector({"jawOpen": rng.uniform(0.02, 0.10)})
    return _performance(
        mouth[None],
        head_pose=head_pose[None],
        gaze=np.clip(-head_pose[None, :2] + rng.normal(0, 2, (1, 2)), -_GAZE_LIMITS, _GAZE_LIMITS),
        translation=np.clip(rng.normal(0, 0.01, (1, 3)), -0.03, 0.03),
        blink=np.array([0.12 * rng.uniform() ** 3]),
        brow=np.clip(rng.normal(0, 0.1, 1), -0.25, 0.25),
        smile=np.array([smile]),
        mouth_scale=np.ones(1),
        emotion=np.zeros(1),
        emotion_intensity=np.zeros(1),
        phone=np.zeros(1),
    )


def _photographed_mouth(rng: np.random.Generator) -> np.ndarray:
    """A mouth that a camera caught: open by any amount, in mid-word, showing its teeth, or pressed shut."""
    kind = rng.choice(4, p=[0.3, 0.25, 0.3, 0.15])
    if kind == 0:
        mouth = unit_vector({"jawOpen": rng.uniform(0.05, 0.75)})
        for name in rng.choice(_GRIMACES, rng.integers(0, 3), replace=False):
            mouth[unit_indices(name)] = rng.uniform(0.0, 0.5)
        return mouth
    if kind == 1:
        return _viseme_mix(rng)
    if kind == 2:
        teeth = {"mouthUpperUp": rng.uniform(0.15, 0.8), "mouthLowerDown": rng.uniform(0.0, 0.6)}
        return unit_vector(teeth | {"jawOpen": rng.uniform(0.0, 0.3), "mouthStretch": rng.uniform(0.0, 0.4)})
    rolled = {name: 0.6 * rng.uniform() ** 2 for name in ("mouthRollLower", "mouthRollUpper", "mouthPucker")}
    return unit_vector(rolled | {"mouthPress": rng.uniform(0.0, 1.0)})


def portrait(rng: np.random.Generator) -> Performance:
    """One frame as people are photographed: half of them as `neutral_portrait`, the others in the middle of something,
    with any mouth, half-shut eyes, a glance aside, or the head turned by up to 30 degrees."""
    if rng.random() < 0.5:
        return neutral_portrait(rng)
    turned = rng.random() < 0.5
    head_pose = rng.uniform(-1, 1, 3) * [30, 15, 15] if turned else np.clip(rng.normal(0, [6, 4, 3]), -15, 15)
    glance = rng.uniform(-0.7, 0.7, 2) * _GAZE_LIMITS if rng.random() < 0.4 else rng.normal(0, 2, 2) - head_pose[:2]
    mouth = _photographed_mouth(rng)
    shows_teeth = mouth[unit_indices("mouthUpperUp")].mean() > 0.15
    smile = rng.uniform(0.3, 1.0) if shows_teeth and rng.random() < 0.7 else rng.uniform(-0.5, 0.6)
    emotion = int(rng.integers(1, len(EMOTIONS))) if rng.random() < 0.2 else 0
    return _performance(
        mouth[None],
        head_pose=head_pose[None],
        gaze=np.clip(glance[None], -_GAZE_LIMITS, _GAZE_LIMITS),
        translation=np.clip(rng.normal(0, 0.02, (1, 3)), -0.05, 0.05),
        blink=np.array([rng.uniform(0.2, 0.8) if rng.random() < 0.2 else 0.15 * rng.uniform() ** 2]),
        brow=np.clip(rng.normal(0, 0.25, 1), -0.7, 0.7),
        smile=np.array([smile]),
        mouth_scale=np.ones(1),
        emotion=np.array([emotion]),
        emotion_intensity=np.array([rng.uniform(0.3, 1.0) if emotion else 0.0]),
        phone=np.zeros(1),
    )


def make_performance(
    utterance: Utterance, rng: np.random.Generator, *, control_jumps: bool, released: bool = False
) -> Performance:
    """Animate an utterance: its mouth, and a head, eyes and expression that go with speaking and listening.

    Args:
        utterance: speech with phones; silence gives a listening face with a closed mouth.
        rng: the only source of randomness.
        control_jumps: let some of the tracks of most clips jump to random values of their whole range at
            random times and stay there for a while.
        released: as people move of whom nothing is asked: no emotion, no mouth scale, smiles and brows CALM as strong.

    Returns:
        ceil(samples / 640) frames.
    """
    num_frames = -(-len(utterance.waveform) // SAMPLES_PER_FRAME)
    times = frame_times(num_frames)
    phone = frame_phones(utterance.phones, num_frames)
    stresses = np.array(utterance.stresses)
    nods = stresses[rng.random(len(stresses)) < rng.uniform(0.1, 0.6)]
    raises = stresses[rng.random(len(stresses)) < rng.uniform(0.0, 0.5)]

    head_pose = _head_pose(times, phone > 0, nods, rng)
    tracks = dict(zip(("yaw", "pitch", "roll"), head_pose.T, strict=True)) | _expressions(times, raises, rng, released)
    emotion, intensity = (_no_emotion if released else _emotion)(times, rng)
    jumping = control_jumps and rng.random() < 0.75
    chosen = {track: jumping and rng.random() < 0.45 for track in (*CONTROL_RANGES, "emotion")}
    _let_jump(tracks, chosen, rng)

    # The eyes follow the pose that is in force; the blinks follow the eyes.
    pose = np.stack([tracks["yaw"], tracks["pitch"]], 1)
    gaze, shifts = fixations(times, pose, rng)
    eyes = {"gaze_yaw": gaze[:, 0], "gaze_pitch": gaze[:, 1], "blink": blink_pulses(times, shifts, rng)}
    if not chosen["brow"]:
        tracks["brow"] -= 0.08 * eyes["blink"]
    _let_jump(eyes, chosen, rng)
    tracks |= eyes
    if chosen["emotion"]:
        for span in hold_jumps(intensity, rng, lambda: rng.uniform(0.3, 1.0)):
            emotion[span] = rng.integers(1, len(EMOTIONS))
    emotion = np.where(intensity > 0, emotion, 0)
    for track, values in tracks.items():
        np.clip(values, *CONTROL_RANGES[track], out=values)

    mouth = speech_mouth(utterance.phones, utterance.waveform, num_frames) + _idle_mouth(times, phone > 0, rng)
    return _performance(
        mouth,
        head_pose=np.stack([tracks["yaw"], tracks["pitch"], tracks["roll"]], 1),
        gaze=np.stack([tracks["gaze_yaw"], tracks["gaze_pitch"]], 1),
        translation=np.clip(np.stack([drift(times, rng, 1.5) for _ in range(3)], 1) * 0.012, -0.06, 0.06),
        emotion=emotion,
        emotion_intensity=intensity,
        phone=phone,
        **{track: tracks[track] for track in ("blink", "brow", "smile", "mouth_scale")},
    )


def _let_jump(tracks: dict[str, np.ndarray], chosen: dict[str, bool], rng: np.random.Generator) -> None:
    """Overwrite stretches of the chosen tracks, in place, by values of their whole range."""
    for track, values in tracks.items():
        if chosen[track]:
            hold_jumps(values, rng, partial(rng.uniform, *CONTROL_RANGES[track]))


def _head_pose(times: np.ndarray, speaking: np.ndarray, nods: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slow sway, livelier in speech; turns to a new direction now and then; nods: (T, 3) degrees."""
    liveliness = rng.uniform(0.4, 1.5) * np.where(speaking, 1.0, 0.6)
    kernel = np.hanning(27)[1:-1]
    if len(times) > len(kernel):
        liveliness = np.convolve(np.pad(liveliness, 12, "edge"), kernel / kernel.sum(), "valid")
    pose = np.stack([drift(times, rng, 1.1) for _ in range(3)], 1) * [3.0, 2.0, 1.6]
    pose = (pose + np.stack([drift(times, rng, 0.3) for _ in range(3)], 1) * [0.7, 0.7, 0.4]) * liveliness[:, None]
    spread = rng.uniform(2, 11)
    turn = steps(times, rng, every=(2.5, 8.0), draw=lambda: rng.normal(0, [spread, 0.45 * spread, 0.35 * spread]))
    pose += turn
    for time in nods:
        depth = rng.uniform(1.5, 5.5)
        add_bumps(pose[:, 1], times, [time], -depth, rng.uniform(0.07, 0.14))
        add_bumps(pose[:, 1], times, [time + 0.3], 0.3 * depth, 0.12)
    return np.clip(pose, -_POSE_LIMITS, _POSE_LIMITS)


def _expressions(
    times: np.ndarray, raises: np.ndarray, rng: np.random.Generator, released: bool
) -> dict[str, np.ndarray]:
    """Brow, smile and mouth scale: (T,) each."""
    strength = CALM if released else 1.0
    return {
        "brow": _brow(times, raises, rng, strength),
        "smile": episodes(
            times, rng, share=rng.choice([0.0, 0.3, 0.7]), draw=lambda: strength * rng.uniform(-0.35, 0.9)
        ),
        "mouth_scale": np.ones(len(times)) if released else _mouth_scale(times, rng),
    }


def _brow(times: np.ndarray, raises: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    brow = 0.06 * drift(times, rng, 0.8)
    brow += episodes(times, rng, share=rng.choice([0.0, 0.25]), draw=lambda: strength * rng.uniform(-0.8, 0.9))
    for time in raises:
        add_bumps(brow, times, [time], rng.uniform(0.2, 0.8), rng.uniform(0.10, 0.25))
    return brow


def _mouth_scale(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    base = 1.0 if rng.random() < 0.5 else rng.uniform(0.3, 1.8)
    if rng.random() < 0.75:
        return np.full(len(times), base)
    return steps(times, rng, every=(1.5, 4.0), draw=lambda: np.array([rng.uniform(0.2, 1.9)]))[:, 0]


def _no_emotion(times: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(times), np.int32), np.zeros(len(times))


def _emotion(times: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Emotion index and intensity: none, one episode after the other, or one mood throughout."""
    emotion, intensity = np.zeros(len(times), np.int32), np.zeros(len(times))
    kind = rng.choice(["none", "episodes", "mood"], p=[0.4, 0.4, 0.2])
    if kind == "mood" and len(times):
        emotion[:] = rng.integers(1, len(EMOTIONS))
        intensity[:] = rng.uniform(0.2, 1.0)
    elif kind == "episodes":
        intensity = episodes(times, rng, share=0.6, draw=lambda: rng.uniform(0.25, 1.0))
        begins = np.flatnonzero((intensity > 0) & (np.concatenate([[0.0], intensity[:-1]]) == 0))
        for begin in begins:
            emotion[begin:] = rng.integers(1, len(EMOTIONS))
    return emotion, intensity


_IDLE_SIZES = {
    "mouthPress": 0.15,
    "mouthShrugLower": 0.06,
    "mouthRollLower": 0.08,
    "mouthLeft": 0.05,
    "mouthRight": 0.05,
    "mouthDimple": 0.06,
    "cheekPuff": 0.03,
}


def _idle_mouth(times: np.ndarray, speaking: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small movements of closed lips and cheeks in silence: (T, 52)."""
    idle = np.zeros((len(times), NUM_FACE_UNITS), np.float32)
    for name, size in _IDLE_SIZES.items():
        activation = size * np.maximum(drift(times, rng, 0.5) - 0.3, 0) * ~speaking
        idle[:, unit_indices(name)] = activation[:, None]
    return idle
