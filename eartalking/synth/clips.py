"""Render SynthTalk clips to disk: `python -m eartalking.synth.clips --out DIR --kind stills|speech --split train
--count N`.

A clip is one safetensors file. `stills` clips hold independent states of one identity, and the same states on a second
identity (its *twin*): what the autoencoder learns from. `speech` clips hold consecutive frames of a talking head with
the voice: what the autoregressive model learns from. `portraits` clips hold pictures of one identity and the surface
that each pixel
shows: what the surface encoder learns from. The same seed gives the same clip anywhere.

Tensors (T frames, S pixels, M map pixels):
    reference (S, S, 3) uint8, frames (T, S, S, 3) uint8,
    correspondence (T, M, M, 2) float16, visibility (T, M, M) uint8        against `reference` (render.py)
    landmarks (T, 3, 2), reference_landmarks (1, 3, 2) float32: eyes and mouth, see landmarks.py
    twin_reference, twin_frames, twin_correspondence, twin_visibility      `stills` only
    twin_landmarks, twin_reference_landmarks                               `stills` only
    twin_reference_labels.*                                                `stills` only
    surface_*                                                              `portraits` only, see surface.py; they have
    no `reference` waveform (samples,) float32 at 16 kHz                                  `speech` only
    labels.*: one row per frame, the fields of `performance.Performance`, and mouth_open; reference_labels.*: one row
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from eartalking.errors import run_program
from eartalking.synth.head import HeadBundle, load_bundle
from eartalking.synth.identity import sample_identity
from eartalking.synth.landmarks import project_landmarks
from eartalking.synth.performance import Performance, make_performance, portrait, random_stills
from eartalking.synth.render import Renderer
from eartalking.synth.speech import SAMPLE_RATE, Utterance, corpus_files
from eartalking.synth.surface_maps import surface_maps

MAP_SHARE = 4  # pixels per map pixel: the autoencoder's finest level
SPLITS = ("train", "val", "test")
KINDS = ("stills", "speech", "portraits")


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What to render; with `seed` it determines the clip completely."""

    kind: str  # of KINDS
    split: str
    size: int
    num_frames: int  # stills: how many; speech: at most this many
    speech: Path | None = None
    correspondence: bool = True
    released: bool = False  # speech: people of whom nothing is asked, no control jumps


def render_clip(spec: ClipSpec, seed: int, renderer: Renderer, bundle: HeadBundle) -> tuple[dict, dict[str, str]]:
    """Tensors and metadata of one clip, as the module's docstring lists them."""
    rng = np.random.default_rng([SPLITS.index(spec.split), KINDS.index(spec.kind), seed])
    metadata = {"kind": spec.kind, "split": spec.split, "seed": str(seed), "fps": "25"}
    tensors: dict[str, np.ndarray] = {}
    if spec.kind == "portraits":
        # Far from the identities of the other kinds.
        return _portraits(spec, rng, 2_000_000 + seed, renderer, bundle), metadata | {"identity": str(2_000_000 + seed)}
    if spec.kind == "stills":
        performance = random_stills(spec.num_frames, rng)
        identities = [2 * seed, 2 * seed + 1]
    else:
        utterance = _draw_speech(spec, rng)
        jumps = not spec.released and bool(rng.random() < 0.35)
        performance = make_performance(utterance, rng, control_jumps=jumps, released=spec.released)
        tensors["waveform"] = utterance.waveform.astype(np.float32)
        metadata |= {"voice": utterance.voice, "text": utterance.text, "licence": utterance.licence}
        # Speech clips draw their identities from the far end of the seed space: no autoencoder twin among them.
        identities = [1_000_000 + seed]
    metadata["identity"] = ",".join(str(identity) for identity in identities)
    for prefix, identity in zip(("", "twin_"), identities, strict=False):
        person = sample_identity(identity, spec.split, bundle)
        renderer.set_identity(person)
        rest = portrait(rng)
        tensors[prefix + "reference"] = renderer.set_reference(rest)
        tensors[prefix + "frames"] = renderer.render(performance)
        if spec.correspondence:
            correspondence, visibility = renderer.correspondence(performance)
            tensors[prefix + "correspondence"] = correspondence.astype(np.float16)
            tensors[prefix + "visibility"] = visibility
        if not prefix:
            tensors |= _labels("labels", performance, renderer)
        tensors |= _labels(prefix + "reference_labels", rest, renderer)
        for name, states in (("landmarks", performance), ("reference_landmarks", rest)):
            tensors[prefix + name] = project_landmarks(
                person, bundle, states.head_pose, states.translation, states.face_units
            )
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata


def _portraits(
    spec: ClipSpec, rng: np.random.Generator, number: int, renderer: Renderer, bundle: HeadBundle
) -> dict[str, np.ndarray]:
    """Pictures of one person and the surface that each shows: every fourth one as `stills` have them, the others as
    portraits are.
    """
    performance = Performance.concat(
        [random_stills(1, rng) if index % 4 == 3 else portrait(rng) for index in range(spec.num_frames)]
    )
    person = sample_identity(number, spec.split, bundle)
    renderer.set_identity(person)
    tensors = (
        {"frames": renderer.render(performance)}
        | surface_maps(renderer, person, performance)
        | _labels("labels", performance, renderer)
    )
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _labels(prefix: str, performance: Performance, renderer: Renderer) -> dict[str, np.ndarray]:
    labels = {
        f"{prefix}.{item.name}": np.asarray(getattr(performance, item.name)) for item in dataclasses.fields(performance)
    }
    labels = {name: value.astype(np.uint8) if value.dtype == bool else value for name, value in labels.items()}
    return labels | {f"{prefix}.mouth_open": renderer.mouth_open(performance)}


def _draw_speech(spec: ClipSpec, rng: np.random.Generator) -> Utterance:
    """A span of at most `num_frames` frames of a random utterance; it may start in the middle of a word."""
    if spec.speech is None:
        raise ValueError("clips of speech need a speech corpus")
    paths = corpus_files(spec.speech)
    utterance = Utterance.load(paths[int(rng.integers(len(paths)))])
    seconds = spec.num_frames / 25
    start = float(rng.uniform(0, max(0.0, utterance.seconds - seconds))) if rng.random() < 0.7 else 0.0
    return cut(utterance, start, min(start + seconds, utterance.seconds))


def cut(utterance: Utterance, start: float, end: float) -> Utterance:
    """The part of an utterance between two times in seconds, with its phones and stresses moved along."""
    phones = [
        (phone, max(a, start) - start, min(b, end) - start) for phone, a, b in utterance.phones if a < end and b > start
    ]
    return dataclasses.replace(
        utterance,
        waveform=utterance.waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)],
        phones=phones,
        stresses=[time - start for time in utterance.stresses if start <= time < end],
    )


def write_clip(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write under a temporary name first: a file that exists is a whole clip."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial, metadata=metadata)
    os.replace(partial, path)


def _render_share(spec: ClipSpec, seeds: list[int], out: Path, show_progress: bool) -> None:
    bundle = load_bundle()
    renderer = Renderer(size=spec.size, map_size=spec.size // MAP_SHARE)
    for seed in tqdm(seeds, unit="clip", disable=not show_progress):
        path = out / f"{seed:07d}.safetensors"
        if not path.exists():
            write_clip(path, *render_clip(spec, seed, renderer, bundle))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.synth.clips", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips; clips already there are kept")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--count", type=int, required=True, help="number of clips")
    parser.add_argument("--frames", type=int, default=12, help="frames per clip (speech: at most)")
    parser.add_argument("--size", type=int, default=256, help="pixels per side")
    parser.add_argument("--speech", type=Path, help="speech corpus of the same split (speech.py); for --kind speech")
    parser.add_argument("--no-correspondence", action="store_true", help="leave out the correspondence maps")
    parser.add_argument("--released", action="store_true", help="speech: people of whom nothing is asked")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--workers", type=int, default=1, help="renderer processes")
    args = parser.parse_args(argv)
    if (args.kind == "speech") != (args.speech is not None):
        parser.error("--speech belongs to --kind speech, and is needed there")
    if args.released and args.kind != "speech":
        parser.error("--released belongs to --kind speech")
    correspondence = not args.no_correspondence
    spec = ClipSpec(args.kind, args.split, args.size, args.frames, args.speech, correspondence, args.released)
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = list(range(args.start, args.start + args.count))
    shares = [seeds[worker :: args.workers] for worker in range(args.workers)]
    context = multiprocessing.get_context("spawn")  # a GL context does not survive a fork
    others = [context.Process(target=_render_share, args=(spec, share, args.out, False)) for share in shares[1:]]
    for process in others:
        process.start()
    _render_share(spec, shares[0], args.out, True)
    for process in others:
        process.join()
    if any(process.exitcode for process in others):
        print("a renderer process failed; run the command again to fill the gaps")
        return 1
    print(json.dumps({"clips": len(list(args.out.glob("*.safetensors"))), "out": str(args.out)}))
    return 0


if __name__ == "__main__":
    run_program(main)
