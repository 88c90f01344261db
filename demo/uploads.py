"""What users bring: portraits, voices and control files, checked against the limits before they cost anything."""

from __future__ import annotations

import json
import tempfile
import threading
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.settings import PREVIEW_RATE, Limits
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import Controls
from eartalking.errors import InputError
from eartalking.io.portrait import (
    HEAD_ABOVE_BOX,
    HEAD_BELOW_BOX,
    HEAD_CENTRE,
    HEAD_IN_CROP,
    MIN_SIDE,
    Box,
    FaceCrop,
    crop_around,
    load_portrait,
)
from eartalking.io.sound import read_audio, seconds_of_sound, write_beginning
from eartalking.level import is_silent
from eartalking.output import Look
from eartalking.perception.face_detector import FaceChoiceError, NoFaceError, chosen_face, crop_face

_PEAKS_PER_SECOND = 50
_PREVIEW_SAMPLES = PREVIEW_RATE // FPS
_DETECTING = threading.Lock()  # the detector keeps its work in itself: two threads at once would get wrong boxes
_DECODING = threading.Lock()  # reading a voice takes five times the memory that it keeps: one at a time
_TOLERANCE_SECONDS = 0.5  # a voice may be longer by this; the padding of some formats counts as sound
_WHOLE_SIDE = 1024  # pixels
_SMALL = 16  # pixels; where only the box of a crop is wanted


class UploadError(ValueError):
    """Something that cannot be used; the message is a sentence for the user."""


@dataclass(frozen=True)
class CropBox:
    """A square in the portrait's pixels. The automatic one of a face near the edge reaches beyond the picture, where
    the edge is repeated for the model and not shown; see `Portrait.room`."""

    left: float
    top: float
    side: float


@dataclass(frozen=True)
class Portrait:
    """A loaded portrait.

    Attributes:
        path: its file.
        image: (H, W, 3) uint8, upright, reduced where it is large.
        faces: the upright faces that were found, from left to right: boxes (left, top, right, bottom) from brows to
            chin, in pixels of `image`.
        number: which of them speaks, counted from 1; None where no face was found.
        scale: pixels of `image` per pixel of the file's picture.
        asleep: whether the eyes of the face that speaks are shut, and will stay so.
    """

    path: Path
    image: np.ndarray
    faces: tuple[Box, ...] = ()
    number: int | None = None
    scale: float = 1.0
    asleep: bool = False

    @property
    def face(self) -> Box | None:
        """The face that speaks."""
        return None if self.number is None else self.faces[self.number - 1]

    @cached_property
    def box(self) -> CropBox:
        """The square that is cut where no other is asked for: around the face, else the largest one in the middle."""
        left, top, right, _ = self._automatic(_SMALL).box
        return CropBox(left, top, right - left)

    @property
    def file_size(self) -> tuple[int, int]:
        """Width and height of the file's picture, upright, in pixels; to within one where it was reduced."""
        height, width = self.image.shape[:2]
        return round(width / self.scale), round(height / self.scale)

    @property
    def room(self) -> Box:
        """Where a crop may lie (left, top, right, bottom): the picture, and as far beyond it as the automatic crop."""
        height, width = self.image.shape[:2]
        box = self.box
        left, top = min(box.left, 0.0), min(box.top, 0.0)
        return left, top, max(box.left + box.side, float(width)), max(box.top + box.side, float(height))

    def with_face(self, number: int) -> Portrait:
        """The same picture with another of its faces, counted from the left from 1.

        Raises:
            UploadError: there is no such face.
        """
        if not 1 <= number <= len(self.faces):
            raise UploadError(f"There is no face number {number}: {len(self.faces)} were found in this picture.")
        return replace(self, number=number)

    def fitted(self, box: CropBox) -> CropBox:
        """The square that is taken when `box` is asked for: no larger than the room for it, and moved into it.

        Raises:
            UploadError: it shows nothing of the picture, or is too small for a face.
        """
        if box == self.box:
            return box
        height, width = self.image.shape[:2]
        if not (0 < box.left + box.side and box.left < width and 0 < box.top + box.side and box.top < height):
            raise UploadError("This crop lies outside the picture, which has {} x {} pixels.".format(*self.file_size))
        if box.side < MIN_SIDE:
            raise UploadError(f"This crop is too small for a face: it needs {MIN_SIDE} pixels a side.")
        left, top, right, bottom = self.room
        side = min(box.side, right - left, bottom - top)
        x, y = (start + (box.side - side) / 2 for start in (box.left, box.top))
        return CropBox(max(min(x, right - side), left), max(min(y, bottom - side), top), side)

    def cut(self, box: CropBox | None, size: int) -> np.ndarray:
        """The crop (size, size, 3) uint8; without a box, to the pixel the one that the command line takes.

        Raises:
            UploadError: as `fitted`.
        """
        if box is not None and self.fitted(box) != self.box:
            return crop_around(self.image, _face_in(self.fitted(box)), size).image
        return self._automatic(size).image

    def placed(self, box: CropBox | None, look: Look) -> tuple[np.ndarray, Box]:
        """The picture (H, W, 3) uint8 that frames of this look need, and the square of it that `cut` cuts. A whole
        picture is made smaller where it is larger than a browser takes 25 of a second.

        Raises:
            UploadError: as `fitted`.
        """
        square = self.box if box is None else self.fitted(box)
        image, scale = self.image, 1.0
        if look.get("frame") == "portrait" and max(image.shape) > _WHOLE_SIDE:
            small = Image.fromarray(image)
            small.thumbnail((_WHOLE_SIDE, _WHOLE_SIDE), Image.Resampling.LANCZOS)
            image, scale = np.asarray(small), small.width / image.shape[1]
        left, top, side = (value * scale for value in (square.left, square.top, square.side))
        return image, (left, top, left + side, top + side)

    def _automatic(self, size: int) -> FaceCrop:
        if self.face is None:
            return crop_face(self.image, size, mode="center")
        return crop_around(self.image, self.face, size)


@dataclass(frozen=True)
class Voice:
    """A decoded voice.

    Attributes:
        path: the file, whose sound goes into the mp4.
        waveform: (samples,) float32 mono 16 kHz, what the model hears.
        preview: (samples,) int16 mono at PREVIEW_RATE, what the browser plays.
        peaks: loudness 0..1, 50 a second, for drawing.
        note: a sentence for the user where only the beginning is used, else "".
    """

    path: Path
    waveform: np.ndarray
    preview: np.ndarray
    peaks: list[float]
    note: str = ""

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE

    @property
    def num_frames(self) -> int:
        return -(-len(self.waveform) // SAMPLES_PER_FRAME)

    def sound_of_frame(self, index: int) -> bytes:
        """The 40 ms of preview sound that belong to a frame, little-endian, padded with silence at the end."""
        piece = self.preview[index * _PREVIEW_SAMPLES : (index + 1) * _PREVIEW_SAMPLES]
        return np.pad(piece, (0, _PREVIEW_SAMPLES - len(piece))).astype("<i2").tobytes()


def open_portrait(path: Path, limits: Limits, face: str = "largest") -> Portrait:
    """Load a picture and find the faces in it; without one the box is the largest square in the middle.

    Args:
        face: which of several speaks: "largest", "left", "right", or a number that counts from the left, 1 first.

    Raises:
        UploadError: too large, not a picture that can be read, or without the face that is asked for.
    """
    _check_not_empty(path, "picture")
    wide, high = _size(path)
    pixels = wide * high
    if pixels > limits.portrait_pixels:
        raise UploadError(
            f"This picture has {pixels / 1e6:.0f} megapixels; up to {limits.portrait_pixels / 1e6:.0f} can be used. "
            "Please make it smaller."
        )
    try:
        image = load_portrait(path)
    except InputError as error:
        raise UploadError(f"This picture cannot be used: {error.cause}.") from None
    scale = max(image.shape) / (max(wide, high) or max(image.shape))  # a picture on its side was set upright, too
    try:
        with _DETECTING:
            found = chosen_face(image, face)
    except NoFaceError:
        return Portrait(path, image, scale=scale)
    except FaceChoiceError as error:
        raise UploadError(f"This face cannot be used: {error}.") from None
    return Portrait(path, image, found.boxes, found.number, scale)


def open_voice(path: Path, limits: Limits) -> Voice:
    """Decode the sound of a recording or a video. Of one that is too long the beginning is used: it is written beside
    the file, which is deleted.

    Raises:
        UploadError: silent, or not sound that can be read.
    """
    _check_not_empty(path, "recording")
    note = ""
    try:
        with _DECODING:
            seconds = seconds_of_sound(path)
            if seconds > limits.voice_seconds + _TOLERANCE_SECONDS:
                path, note = _beginning(path, limits.voice_seconds), _cut_note(seconds, limits.voice_seconds)
            waveform = read_audio(path)
            preview = np.rint(read_audio(path, PREVIEW_RATE) * 32767).astype(np.int16)
    except InputError as error:
        raise UploadError(f"This recording cannot be used: {error.cause}.") from None
    if is_silent(waveform):
        raise UploadError("This recording is silent. Please check the microphone or choose another file.")
    return Voice(path, _on_disk(waveform), _on_disk(preview), _peaks(waveform), note)


def _beginning(path: Path, seconds: float) -> Path:
    """The file that takes the place of one that is too long. Raises InputError: it has no sound that can be read."""
    beginning = path.with_name(f"{path.stem}.beginning.flac")
    write_beginning(path, beginning, seconds)
    path.unlink()
    return beginning


def _cut_note(seconds: float, used: float) -> str:
    return f"This recording is {_minutes(seconds)} long: its first {_minutes(used)} are used. Trim it to choose others."


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d} minutes" if whole >= 60 else f"{whole} seconds"


def _on_disk(values: np.ndarray) -> np.ndarray:
    """The same numbers in a file without a name, which goes with them: the system may drop them from memory whenever it
    needs room, and a visitor's voices take 160 kB a second."""
    with tempfile.TemporaryFile() as file:
        values.tofile(file)
        file.flush()
        return np.asarray(np.memmap(file, values.dtype, "r+", shape=values.shape))


def read_controls(source: Any) -> Controls:
    """Controls from the path of a .json or .csv file, or from a JSON document, as text or parsed; nothing at all is
    none.

    Raises:
        UploadError: naming the track and the keyframe or row.
    """
    if source is None or source == "":
        return Controls()
    try:
        if isinstance(source, Path):
            return Controls.load(source)
        with tempfile.TemporaryDirectory() as folder:  # the one strict reader takes files
            file = Path(folder) / "controls.json"
            file.write_text(source if isinstance(source, str) else json.dumps(source), encoding="utf-8")
            return Controls.load(file)
    except InputError as error:
        raise UploadError(f"These controls cannot be used: {error.cause}.") from None
    except (TypeError, ValueError) as error:  # not JSON at all
        raise UploadError(f"These controls cannot be used: {error}.") from None


def _face_in(box: CropBox) -> Box:
    """The detector's box for which `crop_around` cuts exactly `box`."""
    height = box.side * HEAD_IN_CROP / (1 + HEAD_ABOVE_BOX + HEAD_BELOW_BOX)
    middle = box.top + HEAD_CENTRE * box.side  # between chin and crown
    top = middle - height * (1 + HEAD_BELOW_BOX - HEAD_ABOVE_BOX) / 2
    centre = box.left + box.side / 2
    return centre - height / 2, top, centre + height / 2, top + height


def _check_not_empty(path: Path, what: str) -> None:
    if path.stat().st_size == 0:
        raise UploadError(f"This {what} is empty.")


def _size(path: Path) -> tuple[int, int]:
    """Width and height from the file's header; 0 where they cannot be told, and the loader will say why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                return image.size
        except Image.DecompressionBombError:
            return 2 * (Image.MAX_IMAGE_PIXELS or 0), 1
        except Exception:  # Pillow's decoders raise anything on damaged data
            return 0, 0


def _peaks(waveform: np.ndarray) -> list[float]:
    step = SAMPLE_RATE // _PEAKS_PER_SECOND
    padded = np.pad(np.abs(waveform), (0, -len(waveform) % step)).reshape(-1, step).max(axis=1)
    return [round(float(peak), 3) for peak in padded / max(float(padded.max()), 1e-6)]
