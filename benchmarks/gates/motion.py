"""Gates of motion: whether a face of which nothing is asked moves as people do, and speaks in time.

No picture is made. Motion is what the model emits, in many streams side by side, against what SynthTalk's people do who
say the same. What is then drawn of it the other gates see.

Notation: V voices, K draws of each, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.signal import welch
from torch import Tensor
from tqdm import tqdm

from benchmarks.gates.photograph_material import Renders
from benchmarks.gates.streams import Context
from benchmarks.gates.table import GATES, POSE_TRACKS, GateRow, Unavailable, judge, unavailable
from eartalking import TalkingHeadModel
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import ControlBatch
from eartalking.modules.frame_noise import frame_noise
from eartalking.modules.pixels import to_float
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES, NUM_MOTION_LABELS, units_of
from eartalking.synth.head import SHUT_GAP, load_bundle
from eartalking.synth.speech import Utterance
from eval.metrics.head_motion import shake
from eval.metrics.signals import correlation

SECONDS, LIPS_SECONDS = 60.0, 15.0
POSE_DRAWS, LIPS_DRAWS = 4, 16
TRUE_DRAWS = 8  # performances of each utterance
FIRST_FRAMES = 10
HOUR_DRAWS = 10
JAW = UNIT_INDEX["jawOpen"]
BANDS, BAND_SECONDS = (0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 12.5), 4  # of the spectrum that is compared, Hz; its windows
# Of the portraits, one after the other: how they stand, degrees.
STANDS = ((0.0, 0.0, 0.0), (12.0, -5.0, 0.0), (-15.0, 0.0, 6.0), (0.0, 8.0, -8.0))


@dataclass(frozen=True)
class Moved:
    """pose (V, K, T, 3) in degrees, jaw (V, K, T) in 0..1, and gap (V, K, T) of the lips in head heights."""

    pose: np.ndarray
    jaw: np.ndarray
    gap: np.ndarray


def portraits(count: int) -> np.ndarray:
    """Motion vectors (V, L) of faces at rest that stand as `STANDS` says."""
    motion = np.zeros((count, NUM_MOTION_LABELS), np.float32)
    motion[:, HEAD_POSE] = np.resize(np.array(STANDS), (count, 3)) * MOTION_SCALES["head_pose"]
    return motion


@torch.inference_mode()
def looks(model: TalkingHeadModel, count: int) -> Tensor:
    """What a stream sees of `count` rendered people who stand as `portraits` do: their features (V, N, D).

    Raises:
        Unavailable: nothing can be rendered here.
    """
    renders, motion = Renders(model.config.autoencoder.image_size), portraits(count)
    pictures = renders.standing(motion)
    renders.release()
    known = model.autoencoder.code.motion_to_latents(torch.from_numpy(motion))
    return torch.cat([
        model.autoencoder.reference(to_float(torch.from_numpy(picture))[None], known=own[None]).look
        for picture, own in zip(pictures, known, strict=True)
    ])  # fmt: skip


@torch.inference_mode()
def emitted(
    model: TalkingHeadModel,
    waveforms: list[np.ndarray],
    seeds: range,
    frames: int,
    title: str,
    look: Tensor | None = None,
) -> Moved:
    """What streams of these voices (samples,), each with each of the seeds, emit. `look`: the features (V, N, D) of
    their portraits; without it, these are faces of which nothing is seen."""
    code, size = model.autoencoder.code, model.config.autoencoder
    count = len(waveforms)
    heard = [torch.from_numpy(waveform[: frames * SAMPLES_PER_FRAME])[None] for waveform in waveforms]
    audio = torch.cat([model.audio_encoder(one) for one in heard]).repeat_interleave(len(seeds), dim=0)
    latents = code.motion_to_latents(torch.from_numpy(portraits(count)))
    if look is None:
        look = torch.zeros(count, size.num_latent_tokens, size.reference_widths[-1])
    state = model.prefill(*(of_each.repeat_interleave(len(seeds), dim=0) for of_each in (latents, look)))
    released = ControlBatch.released(len(audio), 1)
    lip_gap = load_bundle().lip_gap
    found = np.empty((len(audio), frames, 5), np.float32)
    for index in tqdm(range(frames), desc=title, unit="frame", mininterval=2, leave=False):
        noise = torch.stack([frame_noise(seed, index, latents.shape[1:]) for seed in seeds]).repeat(count, 1, 1)
        shown = model.step(audio[:, index], released, noise, state)
        motion = code.latents_to_motion(shown)
        units = units_of(motion).numpy()
        found[:, index, :3] = motion[:, HEAD_POSE].numpy() / MOTION_SCALES["head_pose"]
        found[:, index, 3], found[:, index, 4] = units[:, JAW], lip_gap(units)
    each = found.reshape(count, len(seeds), frames, 5)
    return Moved(each[..., :3], each[..., 3], each[..., 4])


def spoken(
    speech: Path, count: int, seconds: float = SECONDS, draws: int = TRUE_DRAWS
) -> tuple[list[Utterance], Moved]:
    """`count` voices of so many seconds out of a speech corpus, and how people move who say that, `draws` of each.

    Raises:
        Unavailable: the corpus is too short, even when everything in it is said three times.
    """
    from eartalking.synth.clips import cut
    from eartalking.synth.performance import make_performance
    from eartalking.synth.speech import corpus_files, in_a_row

    utterances = [Utterance.load(path) for path in corpus_files(speech)]
    rows: list[list[Utterance]] = [[]]
    for utterance in 3 * utterances:  # a small corpus is said more than once
        if sum(one.seconds for one in rows[-1]) >= seconds:
            if len(rows) == count:
                break
            rows.append([])
        rows[-1].append(utterance)
    if len(rows) < count or sum(one.seconds for one in rows[-1]) < seconds:
        raise Unavailable(f"the speech corpus is too short for {count} voices of {seconds:g} s")
    spans = [cut(in_a_row(row), 0.0, seconds) for row in rows]
    true = [
        [make_performance(span, np.random.default_rng([number, draw]), control_jumps=False, released=True)
         for draw in range(draws)]
        for number, span in enumerate(spans)
    ]  # fmt: skip
    frames = round(seconds * FPS)
    pose = np.array([[one.head_pose[:frames] for one in each] for each in true])
    units = np.array([[one.face_units[:frames] for one in each] for each in true])
    return spans, Moved(pose, units[..., JAW], load_bundle().lip_gap(units))


def measure_motion(context: Context) -> list[GateRow]:
    """All gates of the group."""
    names = list(GATES["motion"])
    if context.model.departure_head is None:
        return [unavailable(name, "the checkpoint draws no departures: every seed moves alike") for name in names]
    try:
        voices, true = spoken(context.material.speech_folder(), context.suite.motion_voices)
        look = looks(context.model, len(voices))
    except (Unavailable, ImportError) as error:
        return [unavailable(name, str(error)) for name in names]
    waveforms = [voice.waveform for voice in voices]
    seeds = range(context.seed, context.seed + LIPS_DRAWS)
    made = emitted(context.model, waveforms, seeds[:POSE_DRAWS], round(SECONDS * FPS), "motion", look)
    frames = round(LIPS_SECONDS * FPS)
    more = emitted(context.model, waveforms, seeds[POSE_DRAWS:], frames, "lips", look)
    jaws = np.concatenate([made.jaw[:, :, :frames], more.jaw], axis=1)
    lips = lip_rows(jaws, true.jaw[:, 0, :frames])
    hour = _hour_row(context, waveforms, look, true)
    return [*pose_rows(made, true), *lips, closures_row(made, true, voices), hour]


def pose_rows(made: Moved, true: Moved) -> list[GateRow]:
    """Head pose: spread, speed and shake against people's, its home, its start, and what seeds share."""
    streams = made.pose.shape[0] * made.pose.shape[1]
    stands = np.resize(np.array(STANDS), (len(made.pose), 1, 3))
    rows = []
    for name, size in (("spread", _spread), ("speed", _speed), ("shake", _shake)):
        ratios = size(made.pose) / np.maximum(size(true.pose), 1e-6)
        worst = float(ratios[np.argmax(np.abs(np.log(np.maximum(ratios, 1e-6))))])
        rows.append(judge(f"motion_{name}", worst, streams, "streams", ratios=_by_axis(ratios),
                          true=_by_axis(size(true.pose))))  # fmt: skip
    bands = _bands(made.pose) / np.maximum(_bands(true.pose), 1e-9)
    rows[-1].extra["bands"] = {
        f"{low:g} to {high:g} Hz": _by_axis(ratio) for (low, high), ratio in zip(pairwise(BANDS), bands, strict=True)
    }
    away = np.abs(made.pose.mean(2) - stands).max(-1)
    rows.append(judge("motion_home_deg", float(away.mean()), streams, "streams", worst=round(float(away.max()), 2)))
    start = np.abs(made.pose[:, :, 0] - stands).max(-1)
    rows.append(judge("motion_start_deg", float(start.max()), streams, "streams"))
    steps = np.abs(np.diff(made.pose[:, :, :FIRST_FRAMES], axis=2)).max((2, 3)).mean()
    most = float(np.percentile(np.abs(np.diff(true.pose, axis=2)).max(-1), 99))
    rows.append(judge("motion_first_steps", float(steps) / most, streams, "streams", true_p99=round(most, 3)))
    pairs = [
        correlation(draws[one, :, axis], draws[two, :, axis])
        for draws in made.pose
        for one, two in combinations(range(draws.shape[0]), 2)
        for axis in range(3)
    ]
    rows.append(judge("motion_seeds", float(np.mean(pairs)), len(pairs) // 3, "pairs of seeds"))
    return rows


def lip_rows(made: np.ndarray, true: np.ndarray) -> list[GateRow]:
    """Jaws (V, K, T) against people's (V, T): the mean of the draws, one draw, and how far they open."""
    voices, draws = made.shape[:2]

    def follows(jaws: np.ndarray, shift: int) -> float:
        return float(np.mean([correlation(jaw, true[(voice + shift) % voices]) for voice, jaw in enumerate(jaws)]))

    mean, one = follows(made.mean(1), 0), float(np.mean([follows(made[:, draw], 0) for draw in range(draws)]))
    chance = float(np.mean([follows(made[:, draw], 1) for draw in range(draws)]))
    spread = float(made.std(2).mean() / true.std(1).mean())
    return [
        judge("motion_lips_mean", mean, voices, f"voices, {draws} draws each", follows(made.mean(1), 1)),
        judge("motion_lips_draw", one, voices * draws, "streams", chance),
        judge("motion_lips_shuffled", chance, voices * draws, "streams"),
        judge("motion_lips_spread", spread, voices * draws, "streams"),
    ]


def closures_row(made: Moved, true: Moved, voices: list[Utterance]) -> GateRow:
    """How many of the b, m and p have shut lips; the floor are all other frames, so that a mouth that is always shut
    does not pass."""
    closed = np.zeros((len(voices), made.gap.shape[-1]), bool)
    for row, voice in zip(closed, voices, strict=True):
        row[voice.closures[voice.closures < len(row)]] = True

    def shares(gap: np.ndarray) -> tuple[float, float]:
        shut = (gap < SHUT_GAP).mean(1)  # of the draws
        return float(shut[closed].mean()), float(shut[~closed].mean())

    (value, elsewhere), people = shares(made.gap), shares(true.gap)
    return judge("motion_lips_closed", value, int(closed.sum()), f"closures, {made.gap.shape[1]} draws each", elsewhere,
                 true=round(people[0], 3), true_elsewhere=round(people[1], 3))  # fmt: skip


def _hour_row(context: Context, waveforms: list[np.ndarray], look: Tensor, true: Moved) -> GateRow:
    """The farthest that any of `HOUR_DRAWS` heads turns from where its portrait stands, over the farthest of people."""
    name, seconds = "motion_hour", context.suite.motion_hour_seconds
    if not seconds:
        return unavailable(name, "--suite full measures an hour")
    joined = np.concatenate(waveforms)
    voice = np.tile(joined, -(-seconds * SAMPLE_RATE // len(joined)))[: seconds * SAMPLE_RATE]
    seeds = range(context.seed, context.seed + HOUR_DRAWS)
    pose = emitted(context.model, [voice], seeds, seconds * FPS, "hour", look[:1]).pose[0]
    far, people = np.abs(pose).max((0, 1)), np.abs(true.pose).max((0, 1, 2))
    return judge(name, float((far / people).max()), HOUR_DRAWS, "streams", farthest=_by_axis(far),
                 people=_by_axis(people), seconds=seconds)  # fmt: skip


def _spread(pose: np.ndarray) -> np.ndarray:
    """(V, K, T, 3) -> (3,), degrees."""
    return pose.std(2).mean((0, 1))


def _speed(pose: np.ndarray) -> np.ndarray:
    """Degrees a frame."""
    return np.abs(np.diff(pose, axis=2)).mean((0, 1, 2))


def _shake(pose: np.ndarray) -> np.ndarray:
    """Root mean square of what is faster than 5 Hz, degrees."""
    streams = pose.reshape(-1, *pose.shape[2:])
    return np.sqrt([np.mean([shake(one[:, axis, None], FPS) for one in streams]) for axis in range(3)])


def _bands(pose: np.ndarray) -> np.ndarray:
    """Root mean square (B, 3), degrees, of what is in each of `BANDS`."""
    frequencies, density = welch(pose, FPS, nperseg=BAND_SECONDS * FPS, axis=2)
    power = density.mean((0, 1))
    each = [(frequencies > low) & (frequencies <= high) for low, high in pairwise(BANDS)]
    return np.sqrt([power[chosen].sum(0) * frequencies[1] for chosen in each])


def _by_axis(values: np.ndarray) -> dict[str, float]:
    return {axis: round(float(value), 3) for axis, value in zip(POSE_TRACKS, values, strict=True)}
