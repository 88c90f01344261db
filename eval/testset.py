"""Test sets: portrait, true video, voice and exact labels per clip, with one manifest.

    python -m eval.testset --out data/testset/quick --suite quick           # also: small, full, longform, controls
    python -m eval.testset --out data/testset/mine --videos DIR             # HDTF, MEAD, any folder of talking videos

SynthTalk-test is held out by identity, text and voice (split "test" of eartalking.synth). The same seed and voices give
the same clips; clips that are there already are kept. The voices come from a corpus (`--speech`, made by
`eartalking.synth.speech --split test`) or are made here from what is installed: espeakng-loader by pip, flite and
asterisk-core-sounds-en-g722 asterisk-core-sounds-en by apt; rendering needs libegl1 and libgl1-mesa-dri. Without them,
the small set in benchmarks/testset_small is what there is.

A set is a folder: `manifest.json`, and per clip `NAME.mp4` (the truth, 25 fps, with sound), `NAME.portrait.png`,
`NAME.wav` (16 kHz), `NAME.labels.npz` (one row per frame) and, where the face follows a script, `NAME.controls.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from eartalking.config import FPS, SAMPLE_RATE
from eartalking.controls import CONTROL_RANGES, EMOTION_TRACK, EMOTIONS, Controls
from eartalking.errors import InputError
from eartalking.io.portrait import crop_around
from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import VideoWriter
from eartalking.perception.face_detector import find_face

if TYPE_CHECKING:
    from eartalking.synth.performance import Performance
    from eartalking.synth.render import Renderer
    from eartalking.synth.speech import Utterance

MANIFEST = "manifest.json"
SMALLEST_SPEECH_SHARE = 0.6  # of a clip's frames; in silence there is nothing to be in time with
SPAN_DRAWS = 12
CORPUS_HOURS = 0.3
SCRIPTED_TRACKS = ("yaw", "pitch", "roll", "gaze_yaw", "gaze_pitch", "blink", "smile", EMOTION_TRACK)
HOLD = 20  # frames between the steps of a script
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


@dataclass(frozen=True)
class Suite:
    """`clips` of `shortest` to `longest` seconds; `lengths` replaces them by given ones; `tracks`: the control track
    that each clip's script moves, None for none, from the start again when they run out."""

    clips: int
    shortest: float = 4.0
    longest: float = 4.0
    lengths: tuple[float, ...] = ()
    tracks: tuple[str | None, ...] = (None,)


SUITES = {
    "small": Suite(8, tracks=(None, None, None, "yaw", None, None, None, "blink")),  # what the repository holds
    "quick": Suite(12),
    "full": Suite(64, 4.0, 6.0),
    "longform": Suite(3, lengths=(60.0, 60.0, 300.0)),
    "controls": Suite(2 * len(SCRIPTED_TRACKS), tracks=SCRIPTED_TRACKS),
}


@dataclass(frozen=True)
class ClipEntry:
    """One entry of a manifest, its paths made whole. What a set of real videos does not know is None or empty."""

    name: str
    ref: Path
    portrait: Path
    audio: Path
    num_frames: int
    controls: Path | None = None
    labels: Path | None = None
    voice: str = ""
    text: str = ""
    identity: str = ""
    licence: str = ""


def read_manifest(folder: Path) -> list[ClipEntry]:
    """The clips of a test set, in the order of its manifest.

    Raises:
        InputError: no manifest, not one, or an entry that names a missing file.
    """
    path = Path(folder) / MANIFEST
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["clips"]
        return [_entry(path, entry) for entry in entries]
    except FileNotFoundError:
        raise InputError(path, "no test set here; make one with python -m eval.testset") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(path, f"not the manifest of a test set ({type(error).__name__}: {error})") from None


def _entry(manifest: Path, entry: dict) -> ClipEntry:
    known = {field.name for field in dataclasses.fields(ClipEntry)}
    values = {key: value for key, value in entry.items() if key in known}
    for key in ("ref", "portrait", "audio", "controls", "labels"):
        if values.get(key) is not None:
            values[key] = manifest.parent / values[key]
            if not values[key].is_file():
                raise InputError(manifest, f"clip {entry.get('name')!r}: {values[key].name} is missing")
    return ClipEntry(**values)


def make_synthtalk(
    out: Path, suite: str, seed: int = 0, speech: Path | None = None, count: int | None = None, size: int = 256
) -> None:
    """Render the clips of a suite that `out` does not hold yet, and write its manifest.

    Raises:
        RuntimeError: no voice is installed and no corpus given, or nothing can be rendered here; the message says what
        to install.
        ValueError: the corpus has too few utterances.
    """
    plan = SUITES[suite]
    count = plan.clips if count is None else count
    out.mkdir(parents=True, exist_ok=True)
    utterances = _utterances(speech or _corpus(out.parent / "voices"))
    spoken = list(_spans(utterances, plan, count, np.random.default_rng([seed, list(SUITES).index(suite)])))
    renderer, entries = None, []
    for index, utterance in enumerate(tqdm(spoken, unit="clip", desc=suite)):
        name = f"{suite}_{index:03d}"
        described = out / f".{name}.json"
        if not described.is_file():
            renderer = renderer or _renderer(size)
            track = plan.tracks[index % len(plan.tracks)]
            entry = _make_clip(
                out, name, utterance, renderer, np.random.default_rng([seed, list(SUITES).index(suite), index]), track
            )
            described.write_text(json.dumps(entry), encoding="utf-8")
        entries.append(json.loads(described.read_text(encoding="utf-8")))
    if renderer is not None:
        renderer.release()
    _write_manifest(
        out, {"suite": suite, "source": "SynthTalk", "split": "test", "seed": seed, "size": size, "fps": FPS}, entries
    )


def _make_clip(
    out: Path, name: str, utterance: Utterance, renderer: Renderer, rng: np.random.Generator, track: str | None
) -> dict[str, object]:
    from eartalking.synth.head import load_bundle
    from eartalking.synth.identity import sample_identity
    from eartalking.synth.performance import make_performance, neutral_portrait

    identity = int(rng.integers(2_000_000, 1_000_000_000))  # far from the seeds of rendered training and quality clips
    renderer.set_identity(sample_identity(identity, "test", load_bundle()))
    portrait = renderer.set_reference(neutral_portrait(rng))
    motion = make_performance(utterance, rng, control_jumps=False)
    entry: dict[str, object] = {"name": name, "kind": "scripted" if track else "speech"}
    if track is not None:
        motion, controls = follow_script(motion, utterance, track, rng)
        controls.save(out / f"{name}.controls.json")
        entry |= {"controls": f"{name}.controls.json", "track": track}
    Image.fromarray(portrait).save(out / f"{name}.portrait.png", optimize=True)
    write_wav(out / f"{name}.wav", utterance.waveform)
    with VideoWriter(out / f"{name}.mp4", portrait.shape[:2], audio=out / f"{name}.wav") as writer:
        for start in range(0, len(motion), 256):  # a long clip does not fit in memory at once
            for image in renderer.render(motion[start : start + 256]):
                writer.write(image)
    labels = {field.name: getattr(motion, field.name) for field in dataclasses.fields(motion)}
    np.savez_compressed(out / f"{name}.labels.npz", **labels, mouth_open=renderer.mouth_open(motion))
    return entry | {
        "ref": f"{name}.mp4", "portrait": f"{name}.portrait.png", "audio": f"{name}.wav", "labels": f"{name}.labels.npz",
        "num_frames": len(motion), "identity": str(identity), "voice": utterance.voice, "text": utterance.text,
        "licence": utterance.licence,
    }  # fmt: skip


def follow_script(
    motion: Performance, utterance: Utterance, track: str, rng: np.random.Generator
) -> tuple[Performance, Controls]:
    """The same motion with one control track stepped through its range, a new value every `HOLD` frames, and the
    script.
    """
    from eartalking.motion.face_units import compose_face_units
    from eartalking.synth.visemes import speech_mouth

    steps = -(-len(motion) // HOLD)
    if track == EMOTION_TRACK:
        chosen = np.resize(rng.permutation(np.arange(1, len(EMOTIONS))), steps)
        values: list = [(EMOTIONS[index], 1.0) for index in chosen]
        held = {
            "emotion": np.repeat(chosen, HOLD)[: len(motion)].astype(np.int32),
            "emotion_intensity": np.ones(len(motion), np.float32),
        }
    else:
        low, high = CONTROL_RANGES[track]
        # Alternately from the upper and the lower part of the range, so that every step can be seen; lids are open or
        # closed.
        parts = [(low, low / 3) if step % 2 else (high / 3, high) for step in range(steps)]
        values = [float(step % 2) if track == "blink" else float(rng.uniform(*part)) for step, part in enumerate(parts)]
        column = np.repeat(values, HOLD)[: len(motion)].astype(np.float32)
        held = {track: column}
    labels = {field.name: getattr(motion, field.name).copy() for field in dataclasses.fields(motion)}
    columns = {"yaw": ("head_pose", 0), "pitch": ("head_pose", 1), "roll": ("head_pose", 2)}
    columns |= {"gaze_yaw": ("gaze", 0), "gaze_pitch": ("gaze", 1)}
    for key, column in held.items():
        name, index = columns.get(key, (key, None))
        labels[name][... if index is None else (slice(None), index)] = column
    mouth = speech_mouth(utterance.phones, utterance.waveform, len(motion))
    expression = [labels[key] for key in ("blink", "brow", "smile", "mouth_scale", "emotion", "emotion_intensity")]
    keyframes = []
    for step, value in enumerate(values):
        keyframes.append((step * HOLD / FPS, value))
        if track != EMOTION_TRACK:
            keyframes.append(
                ((min((step + 1) * HOLD, len(motion)) - 1) / FPS, value)
            )  # held until the last frame before the step
    return type(motion)(**(labels | {"face_units": compose_face_units(mouth, *expression)})), Controls(
        {track: keyframes}
    )


def write_wav(path: Path, waveform: np.ndarray) -> None:
    """(samples,) float in [-1, 1] at 16 kHz as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())


def _utterances(corpus: Path) -> list[Utterance]:
    """All of a corpus, every third a recorded prompt as long as there are some: any first part of the list is mixed."""
    from eartalking.synth.speech import Utterance, corpus_files

    loaded = [Utterance.load(path) for path in corpus_files(corpus)]
    rng = np.random.default_rng(0)
    loaded = [loaded[index] for index in rng.permutation(len(loaded))]
    real = [utterance for utterance in loaded if utterance.voice.startswith("prompts/")]
    other = [utterance for utterance in loaded if not utterance.voice.startswith("prompts/")]
    mixed = []
    while real or other:
        take = real if real and (len(mixed) % 3 == 2 or not other) else other
        mixed.append(take.pop(0))
    return mixed


def _spans(utterances: list[Utterance], plan: Suite, count: int, rng: np.random.Generator) -> Iterator[Utterance]:
    """One span per utterance; long ones are joined from many."""
    if plan.lengths:
        start = 0
        for seconds in plan.lengths[:count]:
            joined, start = _joined(utterances, start, seconds)
            yield joined
        return
    found = 0
    for utterance in utterances * 2:  # a second round through a small corpus gives other spans of it
        if found == count:
            return
        span = _span(utterance, round(rng.uniform(plan.shortest, plan.longest) * FPS) / FPS, rng)
        if span is not None:
            found += 1
            yield span
    if found < count:
        raise ValueError(
            f"the corpus gives {found} clips with enough speech, {count} are wanted: make a longer one (--hours)"
        )


def _span(utterance: Utterance, seconds: float, rng: np.random.Generator) -> Utterance | None:
    """The span with the most speech of some random ones; None when even that is mostly silence."""
    from eartalking.synth.clips import cut

    if utterance.seconds < seconds:
        return None
    starts = rng.uniform(0, utterance.seconds - seconds, SPAN_DRAWS)
    spans = [cut(utterance, float(start), float(start + seconds)) for start in starts]
    best = max(spans, key=_speech_share)
    return best if _speech_share(best) >= SMALLEST_SPEECH_SHARE else None


def _speech_share(utterance: Utterance) -> float:
    return sum(end - start for phone, start, end in utterance.phones if phone != "SIL") / utterance.seconds


def _joined(utterances: list[Utterance], start: int, seconds: float) -> tuple[Utterance, int]:
    """Utterances one after the other, cut to that length, and the index of the next one."""
    from eartalking.synth.clips import cut

    parts, length = [], 0.0
    while length < seconds:
        parts.append(utterances[start % len(utterances)])
        length += parts[-1].seconds
        start += 1
    phones, stresses, time = [], [], 0.0
    for part in parts:
        phones += [(phone, time + a, time + b) for phone, a, b in part.phones]
        stresses += [time + stress for stress in part.stresses]
        time += part.seconds
    licences = " + ".join(sorted({part.licence for part in parts}))
    whole = dataclasses.replace(
        parts[0], waveform=np.concatenate([part.waveform for part in parts]), phones=phones, stresses=stresses,
        text="", voice="many", licence=licences,
    )  # fmt: skip
    return cut(whole, 0.0, seconds), start


def _corpus(folder: Path) -> Path:
    """A corpus of the test split from the voices that are installed, made once."""
    from eartalking.synth.speech import build_corpus, utterances

    if (folder / "manifest.csv").is_file():
        return folder
    working = []
    for engine in ("espeak", "flite", "prompts"):
        try:
            working += [engine] if next(utterances("test", 1e-3, 0, (engine,)), None) is not None else []
        except (RuntimeError, ImportError, OSError):
            continue
    if not working:
        raise RuntimeError("no voice is installed: pip install espeakng-loader pocketsphinx, or apt install flite "
                           "asterisk-core-sounds-en-g722 asterisk-core-sounds-en, or give --speech")  # fmt: skip
    build_corpus(folder, "test", CORPUS_HOURS, 0, tuple(working))
    return folder


def _renderer(size: int) -> Renderer:
    from eartalking.synth.render import Renderer

    try:
        return Renderer(size=size, map_size=size // 4)
    except Exception as error:  # a machine without EGL fails in many ways that all mean this
        raise RuntimeError(f"nothing can be rendered here ({error}): apt install libegl1 libgl1-mesa-dri") from error


def from_videos(out: Path, videos: Path, seconds: float = 10.0, size: int = 256) -> list[str]:
    """A test set from a folder of talking videos: 25 fps, the face framed by the box of the middle frames, at most so
    long, the first frame as portrait. Returns a line per video that cannot be used.

    Raises:
        InputError: the folder holds no video.
    """
    paths = sorted(path for path in Path(videos).rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise InputError(videos, f"no videos ({' '.join(VIDEO_SUFFIXES)}) here")
    out.mkdir(parents=True, exist_ok=True)
    entries, problems = [], []
    for path in tqdm(paths, unit="video"):
        try:
            entries.append(
                _from_video(
                    path, path.relative_to(videos).with_suffix("").as_posix().replace("/", "_"), out, seconds, size
                )
            )
        except InputError as error:
            problems.append(str(error))
    _write_manifest(out, {"suite": "videos", "source": Path(videos).name, "size": size, "fps": FPS}, entries)
    return problems


def _from_video(path: Path, name: str, out: Path, seconds: float, size: int) -> dict[str, object]:
    video = read_video(path, FPS)
    if video.waveform is None:
        raise InputError(path, "the video has no sound track")
    frames = [frame for frame, _ in zip(video.frames, range(round(seconds * FPS)), strict=False)]
    looked = [
        find_face(frames[index]) for index in np.linspace(0, len(frames) - 1, min(9, len(frames))).round().astype(int)
    ]
    boxes = [box for box in looked if box is not None]
    if not boxes:
        raise InputError(path, "no face found")
    box = tuple(float(edge) for edge in np.median(boxes, axis=0))
    images = [crop_around(frame, box, size).image for frame in frames]
    Image.fromarray(images[0]).save(out / f"{name}.portrait.png")
    write_wav(out / f"{name}.wav", video.waveform[: len(images) * SAMPLE_RATE // FPS])
    with VideoWriter(out / f"{name}.mp4", (size, size), audio=out / f"{name}.wav") as writer:
        for image in images:
            writer.write(image)
    files = {"ref": f"{name}.mp4", "portrait": f"{name}.portrait.png", "audio": f"{name}.wav"}
    return {"name": name, "kind": "video", **files, "num_frames": len(images)}


def _write_manifest(out: Path, about: dict[str, object], entries: list[dict[str, object]]) -> None:
    text = json.dumps(about | {"clips": entries}, indent=1)
    (out / MANIFEST).write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Command line; the last line printed is JSON."""
    parser = argparse.ArgumentParser(prog="python -m eval.testset", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the set; clips already there are kept")
    parser.add_argument("--suite", choices=SUITES, default="quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--speech", type=Path, help="corpus of the test split (default: made from the installed voices)"
    )
    parser.add_argument("--count", type=int, help="clips (default: the suite's number)")
    parser.add_argument("--size", type=int, default=256, help="pixels per side")
    parser.add_argument("--videos", type=Path, help="make the set from this folder of real videos instead")
    parser.add_argument("--seconds", type=float, default=10.0, help="with --videos: at most so much of each")
    args = parser.parse_args(argv)
    problems: list[str] = []
    try:
        if args.videos is not None:
            problems = from_videos(args.out, args.videos, args.seconds, args.size)
        else:
            make_synthtalk(args.out, args.suite, args.seed, args.speech, args.count, args.size)
    except (InputError, RuntimeError, ValueError) as error:
        print(f"error: {error}")
        return 1
    clips = read_manifest(args.out)
    print(
        json.dumps(
            {
                "clips": len(clips),
                "frames": sum(clip.num_frames for clip in clips),
                "out": str(args.out),
                "problems": problems,
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
