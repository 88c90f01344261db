"""Gates of photographs, read by networks that know real faces, which no part of the model was trained from.

Each portrait speaks once, then falls silent, and is steered once; every frame is read as it comes and not kept. What is
right is told by true renders: neutral heads that make the very motion that the stream emitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.gates.photograph_finding import measure_finding
from benchmarks.gates.photograph_material import (
    Renders,
    Spoken,
    Subject,
    motion_of_controls,
    photographs,
    spoken,
)
from benchmarks.gates.photograph_output import measure_outputs
from benchmarks.gates.photograph_parts import parts_row, parts_sharpness
from benchmarks.gates.photograph_teeth import measure_teeth
from benchmarks.gates.streams import SAMPLE_EVERY, Context, Schedule, drive, spread, strip
from benchmarks.gates.table import GATES, GateRow, Unavailable, farthest_share, judge, unavailable, worst_row
from eartalking.config import SAMPLES_PER_FRAME
from eartalking.perception.face_follower import FaceFollower
from eartalking.perception.face_mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, FaceMesh
from eartalking.perception.identity import summarise
from eartalking.perception.lips import with_lips
from eartalking.perception.mesh_readings import FaceState, MeshReader, lip_gap
from eartalking.perception.turned_square import Picture
from eval.metrics.signals import Box, correlation, sharpness

CLOSED = 0.03  # largest lip gap of a closed mouth
SEEN_CLOSED = 0.02  # the same where lips are looked at a second time, by which shut ones are read 0.003 apart
SMALLEST_SPEECH = 0.06  # smallest lip gap (p90) of a mouth that speaks
SETTLED = 5  # frames of silence before the mouth must be shut
SHUT = 0.4  # of the eye's median opening
HOLD = 5  # frames of each step; the last two are read
NOSE_WINGS, INNER_EYES = (129, 358), (133, 362)
# Corners of a mouth that smiles lie higher than the middle of its lips.
CHEEKS, BELOW_EYES, ABOVE_MOUTH = (50, 280), (145, 374), (61, 37, 0, 267, 291)
STRONG: list[dict[str, Any]] = [
    {"yaw": 20.0}, {"yaw": -20.0}, {"pitch": 12.0}, {"pitch": -12.0}, {"roll": 12.0}, {"roll": -12.0},
    {"gaze_yaw": 15.0}, {"gaze_yaw": -15.0}, {"gaze_pitch": 10.0}, {"gaze_pitch": -10.0},
    {}, {"blink": 1.0}, {}, {"blink": 1.0}, {"smile": 1.0}, {"emotion": ("disgusted", 1.0)},
]  # fmt: skip
STILL = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "gaze_yaw": 0.0, "gaze_pitch": 0.0, "blink": 0.0}
LEVELS = [STILL | level for level in STRONG]
DEGREES = ("yaw", "pitch", "roll", "gaze_yaw", "gaze_pitch")


@dataclass
class Seen:
    """What the mesh reads in F frames: state (None where no face is certain), nose height, and sharpness of the cheeks;
    the lip gap where lips are looked at a second time, as portraits are read (empty where they are not); one frame of
    `SAMPLE_EVERY` is kept."""

    states: list[FaceState | None] = field(default_factory=list)
    noses: list[float] = field(default_factory=list)
    sharp: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    kept: list[np.ndarray] = field(default_factory=list)

    def track(self, name: str) -> np.ndarray:
        """(F,) one reading over time, nan where there is none."""
        return np.array([math.nan if state is None else getattr(state, name) for state in self.states])


class Watcher:
    """Reads the frames of one face, each from where it was in the frame before; its lips twice if asked to."""

    def __init__(self, reader: MeshReader, lips_twice: bool = False) -> None:
        self.seen, self.lips_twice = Seen(), lips_twice
        self._follower = FaceFollower(reader)

    def look(self, image: np.ndarray) -> None:
        """The next frame (S, S, 3) uint8."""
        seen = self.seen
        if len(seen.states) % SAMPLE_EVERY == 0:
            seen.kept.append(image)
        found = self._follower.look(image)
        seen.states.append(found and found[1])
        if self.lips_twice:
            seen.gaps.append(lip_gap(with_lips(Picture(image), found[0])) if found else math.nan)
        seen.noses.append(nose_height(found[0]) if found else math.nan)
        seen.sharp.append(sharpness(image, cheek_box(found[0], len(image))) if found else math.nan)


def nose_height(mesh: FaceMesh) -> float:
    """From the inner corners of the eyes to the wings of the nose, over the distance of the outer eye corners; a
    wrinkled nose is shorter."""
    points = mesh.points
    height = points[list(NOSE_WINGS)].mean(0) - points[list(INNER_EYES)].mean(0)
    return float(np.linalg.norm(height) / np.linalg.norm(points[LEFT_EYE_OUTER] - points[RIGHT_EYE_OUTER]))


def cheek_box(mesh: FaceMesh, size: int) -> Box:
    """Nose and cheeks, between the eyes and the mouth, in pixels of a square picture."""
    points = mesh.points[:, :2]
    left, right = sorted(points[list(CHEEKS), 0])
    top, bottom = points[list(BELOW_EYES), 1].max() + 2, points[list(ABOVE_MOUTH), 1].min() - 2
    left, top = min(max(round(left), 0), size - 8), min(max(round(top), 0), size - 8)
    return left, top, min(max(round(right), left + 8), size), min(max(round(bottom), top + 8), size)


@dataclass
class Take:
    """One subject: its speech, its motion (F, 60) and the same on a true render, its steering, its likeness; of
    rendered people, how sharp its eyes and its mouth are, of true ones."""

    subject: Subject
    said: Spoken
    speech: Seen
    true_speech: Seen
    opening: np.ndarray
    steered: Seen
    identity: np.ndarray
    portrait_sharpness: float
    parts: dict[str, float] | None


def watch(
    context: Context, subject: Subject, waveform: np.ndarray, schedule: Schedule | None
) -> tuple[Seen, np.ndarray]:
    """The stream as the mesh reads it, and the motion vectors (F, 60) that it emitted."""
    session, watcher = context.start(subject.image), Watcher(_mesh_reader(context), lips_twice=schedule is None)
    code, motions = context.model.autoencoder.code, []

    def look(image: np.ndarray) -> None:
        departure = session._moment.model.departure
        assert departure is not None, "the checkpoint has no departure head"
        motions.append(code.coordinates_to_motion(departure.recent[:, 0])[0].cpu().numpy())
        watcher.look(image)

    drive(session, waveform, schedule, look)
    return watcher.seen, np.stack(motions)


def see(context: Context, frames: np.ndarray, lips_twice: bool = False) -> Seen:
    """Frames (F, S, S, 3) as the mesh reads them."""
    watcher = Watcher(_mesh_reader(context), lips_twice)
    for image in frames:
        watcher.look(image)
    return watcher.seen


def _mesh_reader(context: Context) -> MeshReader:
    if context.mesh_reader is None:
        context.mesh_reader = MeshReader.load()
    return context.mesh_reader


def take(context: Context, renders: Renders, subject: Subject, said: Spoken, number: int) -> Take:
    """Everything that is measured of one subject."""
    speech, motion = watch(context, subject, said.waveform, None)
    true_frames, opening = renders.true_frames(number % 2, motion[: said.speech_frames])
    schedule = [level for level in LEVELS for _ in range(HOLD)]
    steered, _ = watch(context, subject, np.zeros(len(schedule) * SAMPLES_PER_FRAME, np.float32), schedule)
    try:
        identity = context.distances(subject.image, np.stack(speech.kept + steered.kept[:1]))
    except Unavailable:
        identity = np.full(1, math.nan)
    own = see(context, subject.image[None]).sharp[0]
    parts = None
    if subject.person is not None:
        true, _ = renders.true_frames(subject.person, motion[::SAMPLE_EVERY])
        parts = parts_sharpness(_mesh_reader(context), np.stack(speech.kept), true)
    true_speech = see(context, true_frames, lips_twice=True)
    return Take(subject, said, speech, true_speech, opening, steered, identity, own, parts)


def measure_photographs(context: Context) -> list[GateRow]:
    """All gates of the section; a photograph whose package is not installed is left out."""
    names = [name for name in GATES["photographs"] if name not in ("photographs_found", "photographs_false_finds")]
    finding = measure_finding()
    try:
        renders = Renders(context.model.config.autoencoder.image_size)
        voices = spoken(context.material)
        subjects = photographs(context.model.config.autoencoder.image_size) + renders.subjects()
        if context.model.departure_head is None:
            raise Unavailable("the checkpoint draws no departures: its motion is not known")
    except Unavailable as error:
        return [*(unavailable(name, str(error)) for name in names), *finding]
    bar = tqdm(subjects, unit="portrait", desc="photographs", mininterval=2, leave=False)
    takes = [take(context, renders, one, voices[i % len(voices)], i) for i, one in enumerate(bar)]
    truth = [see(context, renders.true_frames(person, _steered_motion())[0]) for person in (0, 1)]
    renders.release()
    shown = [one for one in takes if one.subject.shown][:4]
    rows = [[t.subject.image, *spread(np.stack(t.speech.kept), 3), *spread(np.stack(t.steered.kept), 3)] for t in shown]
    context.pictures["photographs"] = strip(rows)
    outputs = measure_outputs(context, voices[0].waveform, lambda frames: float(np.nanmean(see(context, frames).sharp)))
    faces = [*lip_rows(takes), blink_row(takes, truth), *_face_rows(takes)]
    return [*faces, measure_teeth(context), *outputs, *control_rows(takes, truth), *finding]


def _steered_motion() -> np.ndarray:
    return np.repeat(motion_of_controls(LEVELS), HOLD, axis=0)


def closed_share(gap: np.ndarray, said: Spoken, closed: float = CLOSED) -> float:
    """How many of the frames whose lips must be shut have them shut; a frame without a face has not."""
    must = [*said.closures, *range(said.speech_frames + SETTLED, said.frames)]
    return float((gap[[index for index in must if index < len(gap)]] <= closed).mean())


def lip_rows(takes: list[Take]) -> list[GateRow]:
    """Lips in closures and silence, how far they open in speech, and whether they follow the emitted opening."""
    closed, seen_closed, ratio, seen_ratio, follows, gaps = {}, {}, {}, {}, {}, {}
    for one in takes:
        name, spoken_frames = one.subject.name, one.said.speech_frames
        gap = one.speech.track("lip_gap")
        closed[name] = closed_share(gap, one.said)
        seen_closed[name] = round(closed_share(np.array(one.speech.gaps), one.said, SEEN_CLOSED), 4)
        gap, true_gap = gap[:spoken_frames], one.true_speech.track("lip_gap")
        tops = [float(np.nanpercentile(values, 90)) for values in (gap, true_gap)]
        gaps[name] = [round(float(np.nanpercentile(gap, 10)), 4), *(round(top, 4) for top in tops)]
        ratio[name] = tops[0] / max(tops[1], 1e-6)
        seen_tops = [float(np.nanpercentile(of.gaps[:spoken_frames], 90)) for of in (one.speech, one.true_speech)]
        seen_ratio[name] = round(seen_tops[0] / max(seen_tops[1], 1e-6), 4)
        seen = np.isfinite(gap)
        follows[name] = correlation(gap[seen], one.opening[: len(gap)][seen])
    true_follows = np.mean([correlation(t.true_speech.track("lip_gap"), t.opening) for t in takes])
    silent = [one for one in gaps if gaps[one][1] < SMALLEST_SPEECH]
    row = worst_row("photographs_lips_speech", ratio, farthest_share(ratio),
                    "portraits", p10_p90_true_p90=gaps, by_lips=seen_ratio, below_smallest=silent)  # fmt: skip
    return [
        worst_row("photographs_lips_closed", closed, min(closed, key=closed.__getitem__), "portraits",
                  by_lips=seen_closed),
        row,
        worst_row("photographs_lips_follow", follows, min(follows, key=follows.__getitem__), "portraits",
                  true_renders=round(float(true_follows), 3)),
    ]  # fmt: skip


def held(values: np.ndarray) -> np.ndarray:
    """The last two frames of every step: (steps, 2)."""
    return values[: len(LEVELS) * HOLD].reshape(len(LEVELS), HOLD)[:, -2:]


def blink_depth(seen: Seen) -> np.ndarray:
    """Opening of the eyes over their median, of every commanded blink."""
    eyes = seen.track("eye_opening")
    asked = [index for index, level in enumerate(LEVELS) if level["blink"] > 0]
    return np.nanmin(held(eyes)[asked], axis=1) / np.nanmedian(eyes)


def blink_row(takes: list[Take], truth: list[Seen]) -> GateRow:
    """How many of the commanded blinks shut the eye."""
    depth = {one.subject.name: blink_depth(one.steered) for one in takes}
    share = float(np.mean([values < SHUT for values in depth.values()]))
    told = {name: round(float(values.mean()), 3) for name, values in depth.items()}
    true = round(float(np.mean([blink_depth(one) for one in truth])), 3)
    return judge("photographs_blink", share, 2 * len(takes), "blinks", opening=told, true_renders=true)


def _face_rows(takes: list[Take]) -> list[GateRow]:
    sharp = {t.subject.name: float(np.nanmean(t.speech.sharp) / max(t.portrait_sharpness, 1e-6)) for t in takes}
    rows = [
        worst_row("photographs_sharpness", sharp, farthest_share(sharp), "portraits"),
        parts_row({t.subject.name: t.parts for t in takes if t.parts is not None}),
    ]
    alike = {t.subject.name: summarise(t.identity).distance for t in takes}
    known = {name: value for name, value in alike.items() if value is not None}
    if not known:
        return [unavailable("photographs_identity", "no identity network, or no face that it finds"), *rows]
    return [worst_row("photographs_identity", known, max(known, key=known.__getitem__), "portraits"), *rows]


def errors(seen: Seen, track: str) -> np.ndarray:
    """Errors in degrees where a track was asked for, without the portrait's own offset (the mesh has one per face)."""
    read = np.nanmean(held(seen.track(track)), axis=1)
    asked = np.array([level[track] for level in LEVELS])
    open_eyes = np.array([level["blink"] == 0 for level in LEVELS])
    off = read - asked - np.nanmedian((read - asked)[open_eyes])
    return np.abs(off[asked != 0])


def control_rows(takes: list[Take], truth: list[Seen]) -> list[GateRow]:
    """Pose, gaze, smile and disgust on the photographs alone; the renders' numbers stay beside them."""
    real = [one.steered for one in takes if one.subject.real]
    if not real:
        names = [f"photographs_{track}_deg" for track in DEGREES] + ["photographs_smile", "photographs_disgust"]
        return [unavailable(name, "no package with photographs is installed") for name in names]
    rows = []
    for track in DEGREES:
        found = np.concatenate([errors(seen, track) for seen in real])
        true = float(np.nanmean([errors(seen, track) for seen in truth]))
        rendered = [errors(t.steered, track) for t in takes if not t.subject.real]
        of_renders = round(float(np.nanmean(rendered)), 2) if rendered else None
        rows.append(judge(f"photographs_{track}_deg", float(np.nanmean(found)), int(np.isfinite(found).sum()), "steps",
                          true_renders=round(true, 2), rendered_portraits=of_renders))  # fmt: skip
    for name, level, sign in (("smile", -2, 1), ("disgust", -1, -1)):
        changes = {t.subject.name: sign * expression_change(t.steered, name, level) for t in takes}
        half = 0.5 * float(np.mean([sign * expression_change(seen, name, level) for seen in truth]))
        visible = [changes[t.subject.name] >= half for t in takes if t.subject.real]
        told = {subject: round(change, 4) for subject, change in changes.items()}
        rows.append(judge(f"photographs_{name}", float(np.mean(visible)), len(visible), "photographs",
                          needed=round(half, 4), change=told))  # fmt: skip
    return rows


def expression_change(seen: Seen, name: str, level: int) -> float:
    """How much wider the mouth, or longer the nose, is at a step than at the steps where nothing is asked."""
    values = held(seen.track("mouth_width") if name == "smile" else np.array(seen.noses)).mean(1)
    rest = [index for index, asked in enumerate(STRONG) if not asked]
    return float(values[level] - np.nanmean(values[rest]))
