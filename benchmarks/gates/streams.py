"""Streams that are watched: drive a StreamSession and keep what the gates need, never the whole video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.gates.material import Material, Suite
from benchmarks.gates.table import Unavailable
from eartalking import StreamSession, TalkingHeadModel
from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import ControlFrame, Controls
from eartalking.errors import InputError
from eartalking.perception.face_reader import FaceReader, FaceReading
from eartalking.perception.identity import FaceIdentity
from eartalking.perception.mesh_readings import MeshReader
from eval.metrics.boxes import face_fractions, to_pixels
from eval.metrics.signals import Box, sharpness

READ_BATCH = 32
SAMPLE_EVERY = 12  # frames between those that are kept, for identity and for pictures
Schedule = list[dict[str, Any]]  # per frame: the control tracks in force
PICTURE_SIDE = 128
PICTURE_QUALITY = 80  # of JPEG: result pictures are kept in git


@dataclass
class StreamRecord:
    """A watched stream of F frames. reading: all frames, None without a reader; sampled (S, H, W, 3) uint8, every
    `SAMPLE_EVERY`-th frame; sharpness (F,) in the portrait's face box; colour (F, 3) mean of the frame, 0..255."""

    portrait: np.ndarray
    reading: FaceReading | None
    sampled: np.ndarray
    sharpness: np.ndarray
    colour: np.ndarray

    @property
    def read(self) -> FaceReading:
        """The reading of a stream that was watched with a reader."""
        assert self.reading is not None, "this stream was watched without a reader"
        return self.reading

    def __len__(self) -> int:
        return len(self.colour)


@dataclass
class Context:
    """What every measurement works with. Reader and identity are loaded when first needed."""

    model: TalkingHeadModel
    suite: Suite
    material: Material
    seed: int = 0
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    mesh_reader: MeshReader | None = None

    @cached_property
    def reader(self) -> FaceReader:
        try:
            return FaceReader.load()
        except InputError as error:
            raise Unavailable(str(error)) from error

    @cached_property
    def identity(self) -> FaceIdentity:
        try:
            return FaceIdentity()
        except (ImportError, FileNotFoundError) as error:
            raise Unavailable(str(error)) from error

    def face_box(self, portrait: np.ndarray) -> Box:
        """The face in a square portrait, in pixels; the usual place where no detector is installed or no face found."""
        try:
            found = self.identity.find(portrait)
        except Unavailable:
            found = None
        return to_pixels(face_fractions(found, len(portrait)), len(portrait))

    def start(self, portrait: np.ndarray, crop: str = "center") -> StreamSession:
        """A stream; rendered portraits are framed already, photographs take crop="auto"."""
        return StreamSession(self.model, portrait, seed=self.seed, crop=crop)

    def watch(
        self,
        session: StreamSession,
        waveform: np.ndarray,
        schedule: Schedule | None = None,
        read: bool = True,
        title: str = "",
    ) -> StreamRecord:
        """Run the stream over the waveform to its end, with the controls of the schedule from frame to frame."""
        reader = self.reader if read else None
        box = self.face_box(session.portrait)
        pending: list[np.ndarray] = []
        readings: list[FaceReading] = []
        sampled: list[np.ndarray] = []
        sharp: list[float] = []
        colour: list[np.ndarray] = []
        total = -(-len(waveform) // SAMPLES_PER_FRAME)
        with tqdm(total=total, unit="frame", desc=title, mininterval=2, leave=False) as bar:

            def look(image: np.ndarray) -> None:
                if len(colour) % SAMPLE_EVERY == 0:
                    sampled.append(image)
                sharp.append(sharpness(image, box))
                colour.append(image.mean((0, 1)))
                if reader is not None:
                    pending.append(image)
                    if len(pending) == READ_BATCH:
                        readings.append(reader.read(np.stack(pending)))
                        pending.clear()
                bar.update()

            drive(session, waveform, schedule, look)
        if pending and reader is not None:
            readings.append(reader.read(np.stack(pending)))
        reading = FaceReading.concat(readings) if reader is not None else None
        return StreamRecord(session.portrait, reading, np.stack(sampled), np.array(sharp), np.stack(colour))

    def distances(self, reference: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Identity distances (T,), nan without a face; Unavailable when the reference shows none."""
        try:
            return self.identity.distances(reference, frames)
        except ValueError as error:
            raise Unavailable(str(error)) from error


def drive(
    session: StreamSession, waveform: np.ndarray, schedule: Schedule | None, look: Callable[[np.ndarray], object]
) -> None:
    """Run the stream to its end, each frame under the controls that the schedule has for it."""
    controls = None if schedule is None else ScheduledControls(schedule)
    for frames in (session.push(waveform, controls), session.flush(controls)):
        for made in frames:
            look(made.image)


class ScheduledControls(Controls):
    """The controls of a schedule; the last entry holds for all frames after it."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._frames = [ControlFrame(asked) for asked in schedule]

    def at(self, frame: int) -> ControlFrame:
        return self._frames[min(frame, len(self._frames) - 1)]


def strip(rows: list[list[np.ndarray]]) -> Image.Image:
    """Rows of pictures (H, W, 3) uint8 as one picture; shorter rows are filled with grey."""
    width = max(map(len, rows))
    blank = np.full((PICTURE_SIDE, PICTURE_SIDE, 3), 128, np.uint8)
    filled = [[_small(image) for image in row] + [blank] * (width - len(row)) for row in rows]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in filled]))


def _small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS))


def spread(frames: np.ndarray, count: int) -> list[np.ndarray]:
    """`count` frames evenly over time."""
    return [frames[i] for i in np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]


def save_pictures(pictures: dict[str, Image.Image], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.jpg", quality=PICTURE_QUALITY)
