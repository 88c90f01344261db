"""What the truth scores at the gates of the controls: `python -m benchmarks.ceiling --suite quick`.

SynthTalk's renderer takes the model's place: streams that show exactly what is asked for, on held-out identities that
speak, watched by the same code, read by the same FaceReader and judged by the same gates. A gate that these do not pass
measures the ruler and not the model, and is not judged (measure_control.missed_by_truth). To be run again after every
training of the reader. Prints the table of benchmarks.quality; the last stdout line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.gates.control import CEILING, measure_control, reader_hash
from benchmarks.gates.material import SPLIT, SUITES, Material, Suite
from benchmarks.gates.streams import Context, save_pictures
from benchmarks.gates.table import LATENCY_TRACKS, GateRow, table
from benchmarks.record import write_result
from eartalking.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import EMOTIONS, ControlFrame, Controls
from eartalking.errors import run_program
from eartalking.motion.face_units import compose_face_units
from eartalking.session import Frame
from eartalking.synth.head import load_bundle
from eartalking.synth.identity import Identity, sample_identity
from eartalking.synth.performance import Performance, make_performance, neutral_portrait
from eartalking.synth.render import Renderer
from eartalking.synth.speech import Utterance, corpus_files
from eartalking.synth.visemes import speech_mouth

IMAGE_SIZE = 256
FIRST_IDENTITY = 1_000_000  # as in the clips of the benchmark
LOOKAHEAD = 2  # frames of audio that a frame waits for, as the model's does: schedules must not depend on it


class TrueStream:
    """A renderer with the face of StreamSession: what is asked for shows at once and fully; what is released lives on
    as in SynthTalk's clips, and the mouth says an utterance, whatever audio is pushed."""

    def __init__(
        self, renderer: Renderer, identity: Identity, portrait: np.ndarray, spoken: Utterance, seed: int
    ) -> None:
        self.portrait = portrait
        self.next_index = 0
        self._renderer, self._identity = renderer, identity
        self._released = make_performance(spoken, np.random.default_rng(seed), control_jumps=False)
        self._mouth = speech_mouth(spoken.phones, spoken.waveform, len(self._released))
        self._samples = 0

    def push(self, waveform: np.ndarray, controls: Controls | None = None) -> Iterator[Frame]:
        self._samples += len(waveform)
        return self._frames(self._samples // SAMPLES_PER_FRAME - LOOKAHEAD, controls)

    def flush(self, controls: Controls | None = None) -> Iterator[Frame]:
        return self._frames(-(-self._samples // SAMPLES_PER_FRAME), controls)

    def _frames(self, until: int, controls: Controls | None) -> Iterator[Frame]:
        while self.next_index < until:
            index = self.next_index
            applied = ControlFrame() if controls is None else controls.at(index)
            if self._renderer.identity is not self._identity:
                self._renderer.set_identity(self._identity)
            image = self._renderer.render(self.state(index, applied))[0]
            self.next_index += 1
            yield Frame(image, index, applied)

    def state(self, index: int, controls: ControlFrame) -> Performance:
        """The one state of the face at a frame: the controls where they are given, else what goes on without them."""
        index %= len(self._released)
        motion, asked = self._released[index], controls.given()
        pose = [asked.get(track, motion.head_pose[0, i]) for i, track in enumerate(("yaw", "pitch", "roll"))]
        gaze = [asked.get(track, motion.gaze[0, i]) for i, track in enumerate(("gaze_yaw", "gaze_pitch"))]
        names = ("blink", "brow", "smile", "mouth_scale")
        tracks = {name: np.array([asked.get(name, getattr(motion, name)[0])], np.float32) for name in names}
        emotion, intensity = motion.emotion, motion.emotion_intensity
        if isinstance(felt := asked.get("emotion"), tuple):
            name, strength = felt
            emotion, intensity = np.array([EMOTIONS.index(name)], np.int32), np.array([strength], np.float32)
        return dataclasses.replace(
            motion,
            head_pose=np.array([pose], np.float32),
            gaze=np.array([gaze], np.float32),
            emotion=emotion,
            emotion_intensity=intensity,
            face_units=compose_face_units(
                self._mouth[index : index + 1],
                tracks["blink"],
                tracks["brow"],
                tracks["smile"],
                tracks["mouth_scale"],
                emotion,
                intensity,
            ),
            **tracks,
        )


class TruePeople(Material):
    """Held-out identities, rendered here, and what they say."""

    def __init__(self, suite: Suite, speech: Path | None = None, spoken: list[Utterance] | None = None) -> None:
        """`spoken` instead of a corpus: what each of the people says. Raises whatever moderngl raises without
        OpenGL.
        """
        super().__init__(suite, IMAGE_SIZE, speech=speech)
        self._spoken = spoken
        bundle = load_bundle()
        self.renderer = Renderer(size=IMAGE_SIZE, map_size=IMAGE_SIZE // 4, bundle=bundle)
        self._identities = [sample_identity(FIRST_IDENTITY + i, SPLIT, bundle) for i in range(suite.identities)]
        self._portraits = []
        for seed, identity in enumerate(self._identities):
            self.renderer.set_identity(identity)
            self._portraits.append(self.renderer.render(neutral_portrait(np.random.default_rng(seed)))[0])

    def portraits(self) -> list[np.ndarray]:
        return list(self._portraits)

    def voice(self, seconds: float, skip: int = 0) -> np.ndarray:
        return np.zeros(round(seconds * SAMPLE_RATE), np.float32)  # nobody listens: the mouth says what it says

    def stream(self, portrait: np.ndarray, seed: int) -> TrueStream:
        """A stream of one of the portraits."""
        index = next(i for i, own in enumerate(self._portraits) if own is portrait)
        if self._spoken is None:
            self._spoken = [Utterance.load(path) for path in corpus_files(self.speech_folder())[: len(self._portraits)]]
        return TrueStream(
            self.renderer, self._identities[index], portrait, self._spoken[index % len(self._spoken)], seed
        )


class TrueContext(Context):
    """A Context without a model: its streams show the truth."""

    def __init__(self, people: TruePeople, seed: int = 0) -> None:
        # Nothing but `start` asks for the model, and nothing but `start` for streams of the material.
        super().__init__(None, people.suite, people, seed)  # type: ignore[arg-type]
        self._people = people

    def start(self, portrait: np.ndarray, crop: str = "center") -> TrueStream:  # type: ignore[override]
        return self._people.stream(portrait, self.seed)


def measure_ceiling(
    people: TruePeople, seed: int = 0, tracks: tuple[str, ...] = LATENCY_TRACKS
) -> tuple[list[GateRow], TrueContext]:
    """The rows of the controls' gates on true streams, and the context with their pictures."""
    context = TrueContext(people, seed)
    return measure_control(context, tracks, missed={}), context


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceiling", description=__doc__.split("\n")[0])
    parser.add_argument("--suite", choices=sorted(SUITES), default="quick")
    parser.add_argument("--speech", type=Path, help="speech corpus of the test split; default: synthesised here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CEILING, help="strips go beside it")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    started = time.monotonic()
    rows, context = measure_ceiling(TruePeople(SUITES[args.suite], args.speech), args.seed)
    about = {"suite": args.suite, "seed": args.seed, "seconds": round(time.monotonic() - started, 1),
             "face_reader_accuracy": context.reader.accuracy, "face_reader_sha256": reader_hash()}  # fmt: skip
    write_result(args.out, about | {"gates": [dataclasses.asdict(row) for row in rows]})
    save_pictures(context.pictures, args.out.with_suffix(""))
    print(table(rows))
    print(
        json.dumps(
            about
            | {"missed": [row.name for row in rows if not row.passed], "values": {row.name: row.value for row in rows}}
        )
    )
    return 0


if __name__ == "__main__":
    run_program(main)
