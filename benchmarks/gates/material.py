"""What the gates are measured on: held-out identities, voices and texts, made once and kept in data/quality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file
from tqdm import tqdm

from benchmarks.gates.table import Unavailable
from benchmarks.record import ROOT
from eartalking.config import SAMPLE_RATE
from eartalking.io.sound import read_audio

SPLIT = "test"
CACHE = ROOT / "data" / "quality"
EXAMPLE_PHOTO, EXAMPLE_PORTRAIT, EXAMPLE_SPEECH = (
    ROOT / "examples" / name for name in ("photo.jpg", "portrait.png", "speech.wav")
)
CORPUS_HOURS = 0.15
LONGEST_RECORDING = 10  # seconds


@dataclass(frozen=True)
class Suite:
    """How much is measured."""

    still_clips: int
    stills_per_clip: int
    speech_clips: int
    clip_frames: int
    identities: int  # for identity, silence and control
    real_utterances: int
    control_steps: int  # held values per track
    control_hold: int  # frames that each is held
    drift_seconds: int
    motion_voices: int
    motion_hour_seconds: int  # 0: not measured


SUITES = {
    "quick": Suite(12, 6, 8, 100, 2, 3, 8, 15, 60, 4, 0),
    "full": Suite(40, 12, 24, 150, 6, 12, 16, 20, 3600, 8, 3600),
}

Clip = dict[str, np.ndarray]


class Material:
    """Stills, clips and voices of the test split; each is made when first asked for.

    Raises (all methods): Unavailable, when a package or data that is needed is not here.
    """

    def __init__(
        self, suite: Suite, size: int, stills: Path | None = None, clips: Path | None = None, speech: Path | None = None
    ) -> None:
        """`size` is the model's image size; folders that are not given are filled here."""
        self.suite = suite
        self.size = size
        self._folders = {"stills": stills, "speech": clips}
        self._speech = speech
        self._loaded: dict[str, list[Clip]] = {}

    def stills(self) -> list[Clip]:
        """`stills` clips with correspondence."""
        return self._clips("stills", self.suite.still_clips, self.suite.stills_per_clip)

    def clips(self) -> list[Clip]:
        """`speech` clips of different identities."""
        return self._clips("speech", self.suite.speech_clips, self.suite.clip_frames)

    def portraits(self) -> list[np.ndarray]:
        """Rendered portraits (S, S, 3) uint8 of `suite.identities` held-out people."""
        return [clip["reference"] for clip in self.clips()[: self.suite.identities]]

    def photographs(self) -> list[np.ndarray]:
        """Pictures of real people, uncropped: the example (of the same person as scikit-image's), or that one."""
        if EXAMPLE_PHOTO.is_file():
            return [np.asarray(Image.open(EXAMPLE_PHOTO).convert("RGB"))]
        try:
            from skimage.data import astronaut

            return [astronaut()]
        except (ImportError, OSError) as error:
            message = f"no photograph: {EXAMPLE_PHOTO.relative_to(ROOT)} is missing and scikit-image is not installed"
            raise Unavailable(message) from error

    def voice(self, seconds: float, skip: int = 0) -> np.ndarray:
        """Held-out speech of that length, utterance after utterance, from the `skip`-th on; float32 at 16 kHz."""
        utterances = self._waveforms(real=False)
        utterances = utterances[skip % len(utterances) :] + utterances[: skip % len(utterances)]
        joined = np.concatenate(utterances)
        samples = round(seconds * SAMPLE_RATE)
        return np.tile(joined, -(-samples // len(joined)))[:samples]

    def real_voices(self) -> list[np.ndarray]:
        """Recorded human speech: the example, and prompts of the test split where the corpus has some."""
        found = [read_audio(EXAMPLE_SPEECH)] if EXAMPLE_SPEECH.is_file() else []
        try:
            found += self._waveforms(real=True)
        except Unavailable:
            pass  # the example alone; the row's n tells
        if not found:
            raise Unavailable(
                f"no recorded speech: {EXAMPLE_SPEECH.relative_to(ROOT)} is missing, the corpus has no prompts"
            )
        return [voice[: LONGEST_RECORDING * SAMPLE_RATE] for voice in found[: self.suite.real_utterances]]

    def _waveforms(self, real: bool) -> list[np.ndarray]:
        from eartalking.synth.speech import Utterance, corpus_files

        utterances = [Utterance.load(path) for path in corpus_files(self.speech_folder())]
        found = [u.waveform for u in utterances if u.voice.startswith("prompts/") == real]
        if not found:
            raise Unavailable("the speech corpus has no " + ("recorded prompts" if real else "synthetic voices"))
        return found

    def speech_folder(self) -> Path:
        """The speech corpus of the test split; built with the engines that are installed here."""
        if self._speech is not None:
            return self._speech
        folder = CACHE / "voices"
        if not (folder / "manifest.csv").is_file():
            engines = tuple(engine for engine in ("espeak", "flite", "prompts") if _engine_works(engine))
            if not engines:
                raise Unavailable("no speech engine is installed (README: Train it), and no --speech was given")
            from eartalking.synth.speech import build_corpus

            build_corpus(folder, SPLIT, CORPUS_HOURS, 0, engines)
        self._speech = folder
        return folder

    def _clips(self, kind: str, count: int, frames: int) -> list[Clip]:
        if kind not in self._loaded:
            folder = self._folders[kind]
            if folder is None:
                folder = CACHE / f"{kind}_{self.size}_{frames}"
                self._render(kind, folder, count, frames)
            paths = sorted(folder.glob("*.safetensors"))[:count]
            if not paths:
                raise Unavailable(f"{folder}: no clips here")
            clips = [load_file(path) for path in paths]
            if clips[0]["frames"].shape[1] != self.size:
                raise Unavailable(
                    f"{folder}: clips of {clips[0]['frames'].shape[1]} pixels, the model takes {self.size}"
                )
            self._loaded[kind] = clips
        return self._loaded[kind]

    def _render(self, kind: str, folder: Path, count: int, frames: int) -> None:
        missing = [seed for seed in range(count) if not (folder / f"{seed:07d}.safetensors").is_file()]
        if not missing:
            return
        corpus = self.speech_folder() if kind == "speech" else None
        try:
            from eartalking.synth.clips import MAP_SHARE, ClipSpec, render_clip, write_clip
            from eartalking.synth.head import load_bundle
            from eartalking.synth.render import Renderer

            bundle, renderer = load_bundle(), Renderer(size=self.size, map_size=self.size // MAP_SHARE)
        except Exception as error:  # a missing package or a machine without EGL: many kinds, one meaning
            raise Unavailable(f"clips cannot be rendered here ({error}); give --stills and --clips") from error
        folder.mkdir(parents=True, exist_ok=True)
        spec = ClipSpec(kind, SPLIT, self.size, frames, corpus, correspondence=kind == "stills")
        for seed in tqdm(missing, unit="clip", desc=f"render {kind}", mininterval=2, leave=False):
            write_clip(folder / f"{seed:07d}.safetensors", *render_clip(spec, seed, renderer, bundle))
        renderer.release()


def _engine_works(engine: str) -> bool:
    from eartalking.synth.speech import utterances

    try:
        return next(utterances(SPLIT, 1e-3, 0, (engine,)), None) is not None
    except (RuntimeError, ImportError, OSError):
        return False
