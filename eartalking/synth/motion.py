"""What a face does over time: the labels of a clip and the face units that follow from them.

`make_motion` animates an utterance, `random_stills` draws independent states that cover every control's
range, `neutral_portrait` draws the state that people have in a portrait. In all of them the labels are the
values in force, and `face_units` is `compose_face_units` of the speech mouth and the labels.
"""

from dataclasses import dataclass, fields

import numpy as np

from eartalking.synth.face_units import EMOTION_UNITS, NUM_FACE_UNITS, compose_face_units, unit_indices, unit_vector
from eartalking.synth.visemes import PHONES, viseme_targets


@dataclass
class Motion:
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

    def __getitem__(self, index: int | slice | np.ndarray) -> "Motion":
        """The chosen frames; a single integer gives a motion of one frame."""
        if isinstance(index, int | np.integer):
            index = np.array([index])
        return Motion(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def concat(motions: "list[Motion]") -> "Motion":
        """The motions one after the other.

        Raises:
            ValueError: the list is empty.
        """
        if not motions:
            raise ValueError("concat needs at least one motion")
        return Motion(**{f.name: np.concatenate([getattr(m, f.name) for m in motions]) for f in fields(Motion)})


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
    make = rng.choice([_viseme_mix, _extreme_mouth, _closed_mouth, _grimace], p=[0.6, 0.15, 0.15, 0.1])
    return make(rng).astype(np.float32)


def random_stills(n: int, rng: np.random.Generator) -> Motion:
    """n independent states that cover the controls' ranges and more mouths than speech shows.

    Args:
        n: how many. rng: the only source of randomness.
    """
    mouth = np.stack([_random_mouth(rng) for _ in range(n)]) if n else np.zeros((0, NUM_FACE_UNITS))
    pose_limits = np.array([30.0, 20.0, 20.0])
    wide_pose = rng.uniform(-1, 1, (n, 3)) * pose_limits
    frontal_pose = np.clip(rng.normal(0, [6, 4, 3], (n, 3)), -pose_limits, pose_limits)
    head_pose = np.where(rng.random((n, 1)) < 0.5, wide_pose, frontal_pose)
    gaze_limits = np.array([25.0, 20.0])
    gaze = np.where(rng.random((n, 1)) < 0.5, rng.uniform(-1, 1, (n, 2)) * gaze_limits,
                    np.clip(rng.normal(0, 4, (n, 2)), -gaze_limits, gaze_limits))  # fmt: skip
    blink = _sometimes(rng, n, 0.25, np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0, 1, n)))
    brow = _sometimes(rng, n, 0.6, rng.uniform(-1, 1, n))
    smile = _sometimes(rng, n, 0.6, rng.uniform(-1, 1, n))
    mouth_scale = rng.uniform(0.4, 1.6, n)
    emotion = rng.integers(0, len(EMOTION_UNITS), n)
    intensity = _sometimes(rng, n, 0.6, rng.uniform(0.2, 1.0, n)) * (emotion > 0)
    emotion = np.where(intensity > 0, emotion, 0)
    return Motion(
        head_pose=head_pose.astype(np.float32),
        gaze=gaze.astype(np.float32),
        translation=np.clip(rng.normal(0, 0.02, (n, 3)), -0.06, 0.06).astype(np.float32),
        face_units=compose_face_units(mouth, blink, brow, smile, mouth_scale, emotion, intensity),
        blink=blink.astype(np.float32),
        brow=brow.astype(np.float32),
        smile=smile.astype(np.float32),
        mouth_scale=mouth_scale.astype(np.float32),
        emotion=emotion.astype(np.int32),
        emotion_intensity=intensity.astype(np.float32),
        phone=np.zeros(n, np.int32),
        speaking=np.zeros(n, bool),
    )


def _sometimes(rng: np.random.Generator, n: int, probability: float, values: np.ndarray) -> np.ndarray:
    """The values where a coin with that probability falls heads, else 0: (n,)."""
    return np.where(rng.random(n) < probability, values, 0.0)
