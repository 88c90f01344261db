"""What users bring: portraits, voices and control files, checked against the limits before they cost anything."""

from __future__ import annotations

import json
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.settings import PREVIEW_RATE, Limits
from eartalking.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from eartalking.controls import Controls
from eartalking.errors import InputError
from eartalking.io.portrait import HEAD_ABOVE_BOX, HEAD_BELOW_BOX, HEAD_CENTRE, HEAD_IN_CROP, crop_around, load_portrait
from eartalking.io.sound import read_audio, seconds_of_sound
from eartalking.perception.face_detector import crop_face, find_face

_PEAKS_PER_SECOND = 50
_SILENT = 1e-3  # of full scale; below it there is nothing that could move a mouth
_PREVIEW_SAMPLES = PREVIEW_RATE // FPS
_DETECTING = threading.Lock()  # the detector keeps its work in itself: two threads at once would get wrong boxes
_SMALL = 16  # pixels; where only the box of a crop is wanted


class UploadError(ValueError):
    """Something that cannot be used; the message is a sentence for the user."""


@dataclass(frozen=True)
class CropBox:
    """A square in the portrait's pixels; may lie partly outside, where the edge is repeated."""

    left: float
    top: float
    side: float


@dataclass(frozen=True)
class Portrait:
    """A loaded portrait: `image` (H, W, 3) uint8, the detected `face` (None without one), and the `box` that frames the
    head.
    """

    path: Path
    image: np.ndarray
    face: tuple[float, float, float, float] | None
    box: CropBox

    def cut(self, box: CropBox | None, size: int) -> np.ndarray:
        """The crop (size, size, 3) uint8; without a box, to the pixel the one that the command line takes."""
        if box is not None and box != self.box:
            return crop_around(self.image, _face_in(box), size).image
        if self.face is None:
            return crop_face(self.image, size, mode="center").image
        return crop_around(self.image, self.face, size).image


@dataclass(frozen=True)
class Voice:
    """A decoded voice.

    Attributes:
        path: the file, whose sound goes into the mp4.
        waveform: (samples,) float32 mono 16 kHz, what the model hears.
        preview: (samples,) int16 mono at PREVIEW_RATE, what the browser plays.
        peaks: loudness 0..1, 50 a second, for drawing.
    """

    path: Path
    waveform: np.ndarray
    preview: np.ndarray
    peaks: list[float]

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


def open_portrait(path: Path, limits: Limits) -> Portrait:
    """Load a picture and find the face in it; without a face the box is the largest square in the middle.

    Raises:
        UploadError: too large, or not a picture that can be read.
    """
    _check_not_empty(path, "picture")
    pixels = _pixels(path)
    if pixels > limits.portrait_pixels:
        raise UploadError(
            f"This picture has {pixels / 1e6:.0f} megapixels; up to {limits.portrait_pixels / 1e6:.0f} can be used. "
            "Please make it smaller."
        )
    try:
        image = load_portrait(path)
    except InputError as error:
        raise UploadError(f"This picture cannot be used: {error.cause}.") from None
    with _DETECTING:
        face = find_face(image)
    crop = crop_face(image, _SMALL, mode="center") if face is None else crop_around(image, face, _SMALL)
    left, top, right, _ = crop.box
    return Portrait(path, image, face, CropBox(left, top, right - left))


def open_voice(path: Path, limits: Limits) -> Voice:
    """Decode a voice.

    Raises:
        UploadError: too large, too long, silent, or not sound that can be read.
    """
    _check_not_empty(path, "recording")
    try:
        seconds = seconds_of_sound(path, limits.voice_seconds)
        if seconds > limits.voice_seconds + 0.5:
            raise UploadError(f"This recording is longer than {limits.voice_seconds:.0f} seconds. Please trim it.")
        waveform = read_audio(path)
        preview = read_audio(path, PREVIEW_RATE)
    except InputError as error:
        raise UploadError(f"This recording cannot be used: {error.cause}.") from None
    if np.abs(waveform).max() < _SILENT:
        raise UploadError("This recording is silent. Please check the microphone or choose another file.")
    return Voice(path, waveform, np.rint(preview * 32767).astype(np.int16), _peaks(waveform))


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


def _face_in(box: CropBox) -> tuple[float, float, float, float]:
    """The detector's box for which `crop_around` cuts exactly `box`."""
    height = box.side * HEAD_IN_CROP / (1 + HEAD_ABOVE_BOX + HEAD_BELOW_BOX)
    middle = box.top + HEAD_CENTRE * box.side  # between chin and crown
    top = middle - height * (1 + HEAD_BELOW_BOX - HEAD_ABOVE_BOX) / 2
    centre = box.left + box.side / 2
    return centre - height / 2, top, centre + height / 2, top + height


def _check_not_empty(path: Path, what: str) -> None:
    if path.stat().st_size == 0:
        raise UploadError(f"This {what} is empty.")


def _pixels(path: Path) -> int:
    """Width times height from the file's header; 0 where it cannot be told, and the loader will say why."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                return image.width * image.height
        except Image.DecompressionBombError:
            return 2 * (limit or 0)
        except Exception:  # Pillow's decoders raise anything on damaged data
            return 0


def _peaks(waveform: np.ndarray) -> list[float]:
    step = SAMPLE_RATE // _PEAKS_PER_SECOND
    padded = np.pad(np.abs(waveform), (0, -len(waveform) % step)).reshape(-1, step).max(axis=1)
    return [round(float(peak), 3) for peak in padded / max(float(padded.max()), 1e-6)]
