"""Test sets: portrait, true video, voice and exact labels per clip, with one manifest.

    python -m eval.testset --out data/testset/quick --suite quick     # small, full, longform, controls, photographs
    python -m eval.testset --out data/testset/mine --videos DIR       # HDTF, MEAD, any folder of talking videos

SynthTalk-test is held out by identity, text and voice (split "test" of eartalking.synth). The same seed and voices give
the same clips; clips that are there already are kept. The voices come from a corpus (`--speech`, made by
`eartalking.synth.speech --split test`) or are made here from what is installed: espeakng-loader by pip, flite and
asterisk-core-sounds-en-g722 asterisk-core-sounds-en by apt. Rendering needs libegl1 and libgl1-mesa-dri. A small set
that needs none of this is in benchmarks/testset_small.

A set is a folder: `manifest.json`, and per clip `NAME.mp4` (the truth, 25 fps, with sound), `NAME.portrait.png`,
`NAME.wav` (16 kHz), `NAME.labels.npz` (one row per frame) and, where the face follows a script, `NAME.controls.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from eartalking.config import FPS, SAMPLE_RATE
from eartalking.controls import EMOTION_TRACK
from eartalking.errors import InputError
from eartalking.io.portrait import crop_around
from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import VideoWriter
from eartalking.perception.face_detector import crop_face, find_face

if TYPE_CHECKING:
    from eartalking.synth.render import Renderer
    from eartalking.synth.speech import Utterance

MANIFEST = "manifest.json"
SCRIPTED_TRACKS = ("yaw", "pitch", "roll", "gaze_yaw", "gaze_pitch", "blink", "smile", EMOTION_TRACK)
FACE_LOOKS = 9  # frames of a real video in which its face is looked for
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


@dataclass(frozen=True)
class SuitePlan:
    """`clips` clips of `shortest` to `longest` seconds, or of the given `lengths`. tracks: the control track that each
    clip's script moves, None for no script; after the last one they start again. photographs: the portraits are those
    of `eval.photographs`, who were never filmed; the true video shows another person who says the same.
    """

    clips: int
    shortest: float = 4.0
    longest: float = 4.0
    lengths: tuple[float, ...] = ()
    tracks: tuple[str | None, ...] = (None,)
    photographs: bool = False


FREE, STEERED = (None,) * 8, ("blink", "yaw", "smile", "pitch", "blink", "gaze_yaw", "roll", "blink")  # eight faces
SUITES = {
    "small": SuitePlan(8, tracks=(None, None, None, "yaw", None, None, None, "blink")),  # what the repository holds
    "quick": SuitePlan(12),
    "full": SuitePlan(64, 4.0, 6.0),
    "longform": SuitePlan(3, lengths=(60.0, 60.0, 300.0)),
    "controls": SuitePlan(2 * len(SCRIPTED_TRACKS), tracks=SCRIPTED_TRACKS),
    "photographs": SuitePlan(16, tracks=(*FREE, *STEERED), photographs=True),
}


@dataclass(frozen=True)
class ClipEntry:
    """One entry of a manifest, with whole paths. What is not known of a real video is None or empty."""

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
        RuntimeError: no voice is installed and no corpus given, no photograph is here, or nothing can be rendered here;
        the message says what to install.
        ValueError: the corpus has too few utterances.
    """
    # Here, because the synthesis takes a second to import and reading a set needs none of it.
    from eval.testset_voices import joined, load_corpus, make_corpus, spans

    plan = SUITES[suite]
    count = plan.clips if count is None else count
    out.mkdir(parents=True, exist_ok=True)
    number = list(SUITES).index(suite)
    photographs = _photographs(size) if plan.photographs else []
    corpus = load_corpus(speech or make_corpus(out.parent / "voices"))
    if plan.lengths:
        spoken = list(joined(corpus, plan.lengths[:count]))
    else:
        spoken = spans(corpus, count, (plan.shortest, plan.longest), np.random.default_rng([seed, number]))
    renderer, entries = None, []
    for index, utterance in enumerate(tqdm(spoken, unit="clip", desc=suite)):
        name = f"{suite}_{index:03d}"
        described = out / f".{name}.json"
        if not described.is_file():
            renderer = renderer or _renderer(size)
            track = plan.tracks[index % len(plan.tracks)]
            entry = _make_clip(out / name, utterance, renderer, np.random.default_rng([seed, number, index]), track)
            if photographs:
                photograph, image = photographs[index % len(photographs)]
                Image.fromarray(image).save(out / f"{name}.portrait.png", optimize=True)
                entry["photograph"] = photograph
            described.write_text(json.dumps(entry), encoding="utf-8")
        entries.append(json.loads(described.read_text(encoding="utf-8")))
    if renderer is not None:
        renderer.release()
    about = {"suite": suite, "source": "SynthTalk", "split": "test", "seed": seed, "size": size, "fps": FPS}
    _write_manifest(out, about, entries)


def _photographs(size: int) -> list[tuple[str, np.ndarray]]:
    """Name and framed face of every photograph. Raises RuntimeError: there is none."""
    from eval.photographs import faces

    found = [(name, crop_face(picture, size, face=face).image) for name, picture, face, _ in faces()]
    if not found:
        raise RuntimeError("no photograph is here: pip install scikit-image matplotlib insightface")
    return found


def _make_clip(
    base: Path, utterance: Utterance, renderer: Renderer, rng: np.random.Generator, track: str | None
) -> dict[str, object]:
    """Write the files `base`.mp4, `base`.wav and so on; the clip's entry in the manifest."""
    from eartalking.synth.head import load_bundle  # these here, as in `make_synthtalk`
    from eartalking.synth.identity import sample_identity
    from eartalking.synth.performance import make_performance, neutral_portrait
    from eval.testset_script import follow_script

    names = {
        "ref": f"{base.name}.mp4", "portrait": f"{base.name}.portrait.png", "audio": f"{base.name}.wav",
        "labels": f"{base.name}.labels.npz",
    }  # fmt: skip
    files = {key: base.with_name(name) for key, name in names.items()}
    identity = int(rng.integers(2_000_000, 1_000_000_000))  # far from the seeds of rendered training and quality clips
    renderer.set_identity(sample_identity(identity, "test", load_bundle()))
    portrait = renderer.set_reference(neutral_portrait(rng))
    performance = make_performance(utterance, rng, control_jumps=False)
    entry: dict[str, object] = {"name": base.name, "kind": "scripted" if track else "speech"}
    if track is not None:
        performance, controls = follow_script(performance, utterance, track, rng)
        controls.save(base.with_name(f"{base.name}.controls.json"))
        entry |= {"controls": f"{base.name}.controls.json", "track": track}
    Image.fromarray(portrait).save(files["portrait"], optimize=True)
    write_wav(files["audio"], utterance.waveform)
    with VideoWriter(files["ref"], portrait.shape[:2], audio=files["audio"]) as writer:
        for start in range(0, len(performance), 256):  # a long clip does not fit in memory at once
            for image in renderer.render(performance[start : start + 256]):
                writer.write(image)
    labels = {field.name: getattr(performance, field.name) for field in dataclasses.fields(performance)}
    np.savez_compressed(files["labels"], **labels, mouth_open=renderer.mouth_open(performance))
    return entry | names | {
        "num_frames": len(performance), "identity": str(identity), "voice": utterance.voice, "text": utterance.text,
        "licence": utterance.licence,
    }  # fmt: skip


def write_wav(path: Path, waveform: np.ndarray) -> None:
    """(samples,) float in [-1, 1] at 16 kHz as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())


def _renderer(size: int) -> Renderer:
    from eartalking.synth.render import Renderer

    try:
        return Renderer(size=size, map_size=size // 4)
    except Exception as error:  # without an EGL driver moderngl raises plain Exceptions
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
            name = path.relative_to(videos).with_suffix("").as_posix().replace("/", "_")
            entries.append(_from_video(path, out / name, seconds, size))
        except InputError as error:
            problems.append(str(error))
    _write_manifest(out, {"suite": "videos", "source": Path(videos).name, "size": size, "fps": FPS}, entries)
    return problems


def _from_video(path: Path, base: Path, seconds: float, size: int) -> dict[str, object]:
    """Write the clip's files beside `base`; its entry in the manifest."""
    video = read_video(path, FPS)
    if video.waveform is None:
        raise InputError(path, "the video has no sound track")
    frames = [frame for frame, _ in zip(video.frames, range(round(seconds * FPS)), strict=False)]
    looks = np.linspace(0, len(frames) - 1, min(FACE_LOOKS, len(frames))).round().astype(int)
    boxes = [box for index in looks if (box := find_face(frames[index])) is not None]
    if not boxes:
        raise InputError(path, "no face found")
    left, top, right, bottom = np.median(boxes, axis=0).tolist()
    images = [crop_around(frame, (left, top, right, bottom), size).image for frame in frames]
    names = {"ref": f"{base.name}.mp4", "portrait": f"{base.name}.portrait.png", "audio": f"{base.name}.wav"}
    files = {key: base.with_name(name) for key, name in names.items()}
    Image.fromarray(images[0]).save(files["portrait"])
    write_wav(files["audio"], video.waveform[: len(images) * SAMPLE_RATE // FPS])
    with VideoWriter(files["ref"], (size, size), audio=files["audio"]) as writer:
        for image in images:
            writer.write(image)
    return {"name": base.name, "kind": "video", **names, "num_frames": len(images)}


def _write_manifest(out: Path, about: dict[str, object], entries: list[dict[str, object]]) -> None:
    text = json.dumps(about | {"clips": entries}, indent=1)
    (out / MANIFEST).write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Command line; the last line printed is JSON."""
    parser = argparse.ArgumentParser(prog="python -m eval.testset", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the set; clips already there are kept")
    parser.add_argument("--suite", choices=SUITES, default="quick")
    parser.add_argument("--seed", type=int, default=0)
    speech = "corpus of the test split (default: made from the installed voices)"
    parser.add_argument("--speech", type=Path, help=speech)
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
    result = {"clips": len(clips), "frames": sum(clip.num_frames for clip in clips), "out": str(args.out)}
    print(json.dumps(result | {"problems": problems}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
