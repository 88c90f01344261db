"""What the photographs section is measured on: photographs of real people, renders that are not neutral, voices.

The photographs are those of `eval.photographs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.gates.material import SPLIT, Material
from benchmarks.gates.table import Unavailable
from eartalking.config import FPS, SAMPLE_RATE
from eartalking.controls import EMOTIONS
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX, compose_face_units, unit_vector
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES, TRANSLATION
from eartalking.perception.face_detector import crop_face
from eartalking.synth.clips import cut
from eartalking.synth.head import load_bundle
from eartalking.synth.identity import GROUPS, Identity, sample_identity
from eartalking.synth.performance import Performance, neutral_portrait
from eartalking.synth.render import Renderer
from eartalking.synth.speech import Utterance, corpus_files
from eval.photographs import faces

FIRST_IDENTITY = 1_500_000  # of the test split, beyond those of the clips
FIRST_STANDING = 1_600_000
SPEECH_SECONDS, SILENCE_SECONDS = 3.0, 1.0
VOICES = 3
FEWEST_CLOSURES = 3
FACELESS = ("brick", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "horse", "moon", "page", "text")


@dataclass(frozen=True)
class Subject:
    """One portrait (S, S, 3) uint8 at the model's size. real: a photograph. shown: pictures of it may be kept. person:
    whom it shows, of the rendered people."""

    name: str
    image: np.ndarray
    real: bool
    shown: bool
    person: int | None = None


@dataclass(frozen=True)
class Spoken:
    """Speech, then silence: waveform (samples,) at 16 kHz; closures (C,), the frames of shut lips; frames of speech and
    of both."""

    waveform: np.ndarray
    closures: np.ndarray
    speech_frames: int
    frames: int


def photographs(size: int) -> list[Subject]:
    """Every face of every photograph that is here."""
    return [
        Subject(name, crop_face(picture, size, face=face).image, True, shown) for name, picture, face, shown in faces()
    ]


def spoken(material: Material) -> list[Spoken]:
    """VOICES cuts of utterances by different voices, each with several closures, and a silence after it."""
    chosen: dict[str, Spoken] = {}
    for path in corpus_files(material.speech_folder()):
        utterance = Utterance.load(path)
        if utterance.voice in chosen or utterance.voice.startswith("prompts/") or utterance.seconds < SPEECH_SECONDS:
            continue
        one = _spoken(cut(utterance, 0.0, SPEECH_SECONDS))
        if len(one.closures) >= FEWEST_CLOSURES:
            chosen[utterance.voice] = one
        if len(chosen) == VOICES:
            return list(chosen.values())
    raise Unavailable(f"the speech corpus has no {VOICES} voices with {FEWEST_CLOSURES} lip closures each")


def _spoken(utterance: Utterance) -> Spoken:
    speech, total = round(SPEECH_SECONDS * FPS), round((SPEECH_SECONDS + SILENCE_SECONDS) * FPS)
    closures = utterance.closures
    silence = np.zeros(round(SILENCE_SECONDS * SAMPLE_RATE), np.float32)
    waveform = np.concatenate([utterance.waveform.astype(np.float32), silence])
    return Spoken(waveform, closures[(closures > 0) & (closures < speech)], speech, total)


class Renders:
    """Rendered heads of the test split: portraits that are not neutral, and what a motion looks like in truth.

    Raises Unavailable: nothing can be rendered here.
    """

    def __init__(self, size: int) -> None:
        try:
            self._bundle, self._renderer = load_bundle(), Renderer(size=size)
        except Exception as error:  # a missing package or a machine without EGL: many kinds, one meaning
            raise Unavailable(f"heads cannot be rendered here ({error})") from error

    def release(self) -> None:
        self._renderer.release()

    @cached_property
    def _people(self) -> list[Identity]:
        """Two people without glasses, and one with; natural skin."""
        bare: list[Identity] = []
        with_glasses: list[Identity] = []
        seed = FIRST_IDENTITY
        while len(bare) < 2 or not with_glasses:
            person = sample_identity(seed, SPLIT, self._bundle)
            seed += 1
            if person.look.random_texture == 0:
                (with_glasses if GROUPS["glasses"] in person.group else bare).append(person)
        return [*bare[:2], with_glasses[0]]

    def subjects(self) -> list[Subject]:
        """A neutral head, an open mouth, a smile with teeth, and glasses."""
        ways: tuple[tuple[str, int, dict[str, float], float], ...] = (
            ("render_neutral", 0, {}, 0.0),
            ("render_open", 0, {"jawOpen": 0.5}, 0.0),
            ("render_smile", 1, {"jawOpen": 0.1, "mouthUpperUp": 0.35, "mouthLowerDown": 0.25}, 0.9),
            ("render_glasses", 2, {}, 0.0),
        )
        found = []
        for name, person, mouth, smile in ways:
            self._renderer.set_identity(self._people[person])
            state = at_rest(1)
            units = composed(unit_vector(mouth)[None], smile=np.array([smile]))
            frame = self._renderer.render(dataclasses.replace(state, face_units=units))[0]
            found.append(Subject(name, frame, False, True, person))
        return found

    def standing(self, motion: np.ndarray) -> np.ndarray:
        """Portraits (V, S, S, 3) of as many people, other ones than above, under motion vectors (V, 60)."""
        found = []
        for number, vector in enumerate(motion):
            self._renderer.set_identity(sample_identity(FIRST_STANDING + number, SPLIT, self._bundle))
            found.append(self._renderer.render(performance_of(vector[None]))[0])
        return np.stack(found)

    def true_frames(self, person: int, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Motion vectors (T, 60) as neutral head `person` (0 to 2) shows them: frames (T, S, S, 3), opening (T,)."""
        self._renderer.set_identity(self._people[person])
        state = performance_of(motion)
        return self._renderer.render(state), self._renderer.mouth_open(state)


def composed(mouth: np.ndarray, **tracks: np.ndarray) -> np.ndarray:
    """Face units (T, 52) of mouths (T, 52) under blink, brow, smile, emotion and intensity (T,); zero if not given."""
    zeros = np.zeros(len(mouth))
    given = {name: tracks.get(name, zeros) for name in ("blink", "brow", "smile", "emotion", "intensity")}
    return compose_face_units(mouth, mouth_scale=zeros + 1, **given)


def at_rest(length: int) -> Performance:
    """A face that looks ahead, (length,) frames."""
    rest = Performance.concat([neutral_portrait(np.random.default_rng(0))] * length)
    zeros = {name: np.zeros_like(getattr(rest, name)) for name in ("head_pose", "gaze", "translation", "face_units")}
    return dataclasses.replace(rest, **zeros)


def performance_of(motion: np.ndarray) -> Performance:
    """The performance that motion vectors (T, 60) describe; face units are held in 0..1."""
    units = np.clip(motion[:, :NUM_FACE_UNITS] / MOTION_SCALES["face_units"], 0, 1)
    units[:, [index for name, index in UNIT_INDEX.items() if name.startswith("eyeLook")]] = 0  # follow the gaze
    return dataclasses.replace(
        at_rest(len(motion)),
        face_units=units.astype(np.float32),
        head_pose=(motion[:, HEAD_POSE] / MOTION_SCALES["head_pose"]).astype(np.float32),
        gaze=(motion[:, GAZE] / MOTION_SCALES["gaze"]).astype(np.float32),
        translation=(motion[:, TRANSLATION] / MOTION_SCALES["translation"]).astype(np.float32),
    )


def motion_of_controls(levels: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Motion vectors (T, 60) of a silent face that does exactly what each level asks for."""
    motion = np.zeros((len(levels), TRANSLATION.stop))
    for index, level in enumerate(levels):
        emotion, intensity = level.get("emotion", ("neutral", 0.0))
        tracks = {"blink": level.get("blink", 0.0), "smile": level.get("smile", 0.0), "intensity": intensity}
        named = {name: np.array([value]) for name, value in tracks.items()}
        units = composed(np.zeros((1, NUM_FACE_UNITS)), emotion=np.array([EMOTIONS.index(emotion)]), **named)[0]
        motion[index, :NUM_FACE_UNITS] = units * MOTION_SCALES["face_units"]
        motion[index, HEAD_POSE] = [level.get(name, 0.0) for name in ("yaw", "pitch", "roll")]
        motion[index, HEAD_POSE] *= MOTION_SCALES["head_pose"]
        motion[index, GAZE] = [level.get(name, 0.0) * MOTION_SCALES["gaze"] for name in ("gaze_yaw", "gaze_pitch")]
    return motion
