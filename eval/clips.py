"""Pairs of a made video and the true one, read, cropped and re-encoded alike.

A pair is read lazily: it is decoded only for a feature that is not in the cache. Long videos are streamed, so memory
does not grow with their length.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import Controls
from eartalking.errors import InputError, os_cause
from eartalking.io.portrait import Box, crop_around, load_portrait
from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import VideoWriter
from eartalking.perception.face_detector import NoFaceError, crop_face
from eartalking.perception.frontal_detector import find_frontal_face
from eval.cache import Arrays, FeatureCache, file_hash
from eval.protocol import Protocol

ARRAYS_SUFFIX = ".npz"  # frames (T, H, W, 3) uint8 or float 0..1, and a waveform (n,) at 16 kHz
FACE_LOOKS = 9  # frames of the truth in which its face is looked for
KEPT_FRAMES = 1000  # videos up to this length are decoded once and kept; longer ones are streamed every time
LARGEST_STRETCH = 0.02  # difference of the two sides' aspect ratios that is still the same framing


class Footage:
    """One video of a pair, as the protocol reads it: square frames at 25 fps, and its sound at 16 kHz.

    limit: frames that both videos of the pair have, None for all. face: the box of the face that it is cut by, as
    fractions of the picture, None for the centred square. sound: the file of the sound, None for the video's own.
    """

    def __init__(
        self,
        path: Path,
        protocol: Protocol,
        cache: FeatureCache,
        limit: int | None = None,
        face: Box | None = None,
        sound: Path | None = None,
    ) -> None:
        self.path, self.protocol, self.cache = path, protocol, cache
        self.limit, self.face = limit, face
        self.sound = sound or path
        self._encoded: Path | None = None
        self._folder: tempfile.TemporaryDirectory | None = None

    @cached_property
    def key(self) -> str:
        """Content, not name: SHA-256 of the files, how they are read, and what is kept of them."""
        kept = f"{self.limit} {self.face}"
        return "|".join((_hash(self.path), _hash(self.sound), self.protocol.reading(), kept))

    @property
    def num_frames(self) -> int:
        return self.limit if self.limit is not None else len(self.frames)

    @cached_property
    def frames(self) -> np.ndarray:
        """(T, size, size, 3) uint8, the whole video.

        Raises:
            InputError: it cannot be read, or holds no frame.
        """
        frames = list(self._decoded())
        if not frames:
            raise InputError(self.path, "the video has no frames")
        return np.stack(frames)

    def batches(self, size: int = 32, every: int = 1) -> Iterator[np.ndarray]:
        """Every `every`-th frame in order, in batches (B <= size, H, W, 3) uint8."""
        if self.num_frames <= KEPT_FRAMES:
            chosen = self.frames[::every]
            yield from (chosen[start : start + size] for start in range(0, len(chosen), size))
            return
        batch = []
        for index, frame in enumerate(self._decoded()):
            if index % every == 0:
                batch.append(frame)
            if len(batch) == size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    @cached_property
    def waveform(self) -> np.ndarray:
        """(n,) float32 mono at 16 kHz, no longer than the picture.

        Raises:
            InputError: there is no sound.
        """
        if self.sound.suffix.lower() == ARRAYS_SUFFIX:
            sound = _arrays(self.sound).get("waveform")
        else:
            sound = read_video(self.sound, self.protocol.fps).waveform
        if sound is None or not len(sound):
            raise InputError(self.sound, "the video has no sound track")
        sound = np.asarray(sound, np.float32).reshape(-1)
        if not np.isfinite(sound).all():
            raise InputError(self.sound, "the sound contains samples that are not finite numbers")
        return sound[: self.num_frames * SAMPLES_PER_FRAME]

    def features(self, name: str, extract: Callable[[Footage], Mapping[str, np.ndarray]]) -> Arrays:
        """What `extract` finds in this footage, from the cache if it is there under `name`."""
        return self.cache.get((name, self.key), lambda: extract(self))

    def release(self) -> None:
        """Forget the decoded frames."""
        self.__dict__.pop("frames", None)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder, self._encoded = None, None

    def _decoded(self) -> Iterator[np.ndarray]:
        """Framed and re-encoded."""
        if not self.protocol.codec:
            return self._framed()
        if self._encoded is None:
            self._folder = tempfile.TemporaryDirectory(prefix="eval-")
            encoded = Path(self._folder.name) / "frames.mp4"
            with VideoWriter(encoded, (self.protocol.size, self.protocol.size), self.protocol.fps) as writer:
                for frame in self._framed():
                    writer.write(frame)
            if not writer.num_frames:
                raise InputError(self.path, "the video has no frames")
            self._encoded = encoded
        return read_video(self._encoded).frames

    def _framed(self) -> Iterator[np.ndarray]:
        for index, image in enumerate(_read(self.path, self.protocol.fps)):
            if self.limit is not None and index == self.limit:
                return
            yield frame_square(image, self.face, self.protocol.size)


def frame_square(image: np.ndarray, face: Box | None, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3): the head around a face box (fractions of the picture), or the centred
    square.
    """
    if face is None:
        return image if image.shape[:2] == (size, size) else crop_face(image, size, "center").image
    height, width = image.shape[:2]
    box = (face[0] * width, face[1] * height, face[2] * width, face[3] * height)
    return crop_around(image, box, size).image


class EvalClip:
    """A made video beside the truth.

    pred and ref: `Footage` of one length and framing. length_share: frames judged over frames of the truth. portrait:
    its file, None for the truth's first frame. controls: what was asked for, None where nothing was. notes: lines about
    what differs between the two.
    """

    def __init__(
        self,
        name: str,
        pred: Footage,
        ref: Footage,
        length_share: float,
        portrait: Path | None,
        controls: Controls | None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.pred, self.ref = name, pred, ref
        self.length_share = length_share
        self.controls = controls
        self.notes = notes
        self._portrait = portrait

    @property
    def num_frames(self) -> int:
        return self.pred.num_frames

    @cached_property
    def portrait(self) -> np.ndarray:
        """(size, size, 3) uint8: the portrait's file framed as the video is, else the truth's first frame.

        Raises:
            InputError: the file is no picture, or shows no face.
        """
        if self._portrait is None:
            return next(iter(self.ref.batches(1)))[0]
        try:
            mode = "auto" if self.pred.protocol.crop == "face" else "center"
            return crop_face(load_portrait(self._portrait), self.pred.protocol.size, mode).image
        except NoFaceError as error:
            raise InputError(self._portrait, str(error)) from None

    @property
    def portrait_key(self) -> str:
        """Content of the portrait."""
        if self._portrait is None:
            return f"first frame {self.ref.key}"
        return _hash(self._portrait) + self.pred.protocol.reading()

    def features(self, name: str, extract: Callable[[EvalClip], Mapping[str, np.ndarray]]) -> Arrays:
        """What `extract` finds in the pair, cached by the content of both videos."""
        return self.pred.cache.get((name, self.pred.key, self.ref.key), lambda: extract(self))

    def release(self) -> None:
        """Forget the decoded frames of both."""
        self.pred.release()
        self.ref.release()


def read_pair(
    pred: Path,
    ref: Path,
    protocol: Protocol,
    *,
    name: str | None = None,
    portrait: Path | None = None,
    controls: Path | None = None,
    cache: FeatureCache | None = None,
) -> EvalClip:
    """Open a made video and its truth. name: the clip's, None for the truth's file name. cache: None for one in memory.

    Raises:
        InputError: naming the file that is missing, damaged, empty, without a face (crop "face") or framed otherwise.
    """
    cache = cache or FeatureCache(None)
    name = name or ref.stem
    about_pred, about_ref = (_probe(path, protocol, cache) for path in (pred, ref))
    frames = min(about_pred["frames"], about_ref["frames"])
    face, notes = None, []
    if protocol.crop == "face":
        face = _face(ref, protocol, cache)
        shapes = [about["width"] / about["height"] for about in (about_pred, about_ref)]
        if abs(shapes[0] / shapes[1] - 1) > LARGEST_STRETCH:
            made, true = (f"{about['width']}x{about['height']}" for about in (about_pred, about_ref))
            cause = f"the picture is {made}, the truth's {true}: frame both alike, or use --crop none"
            raise InputError(pred, cause)
    if about_pred["frames"] != about_ref["frames"]:
        lengths = f"{about_pred['frames']} frames, {about_ref['frames']} in the truth"
        notes.append(f"{pred}: {lengths}; the first {frames} are compared")
    truth = Footage(ref, protocol, cache, frames, face)
    footage = Footage(pred, protocol, cache, frames, face, ref if protocol.audio == "reference" else None)
    if footage.key == truth.key:
        footage = truth  # the same content need not be decoded twice
    asked = None if controls is None else Controls.load(controls)
    return EvalClip(name, footage, truth, frames / about_ref["frames"], portrait, asked, tuple(notes))


def _probe(path: Path, protocol: Protocol, cache: FeatureCache) -> dict[str, int]:
    """Number of frames at the protocol's rate, and the picture's size."""

    def count() -> Arrays:
        number, shape = 0, (0, 0)
        for image in _read(path, protocol.fps):
            number, shape = number + 1, image.shape[:2]
        if not number:
            raise InputError(path, "the video has no frames")
        return {"frames": np.asarray(number), "height": np.asarray(shape[0]), "width": np.asarray(shape[1])}

    return {name: int(value) for name, value in cache.get(("probe:1", _hash(path), str(protocol.fps)), count).items()}


def _face(path: Path, protocol: Protocol, cache: FeatureCache) -> Box:
    """The face's median box over some frames, as fractions of the picture."""

    def find() -> Arrays:
        frames = _probe(path, protocol, cache)["frames"]
        wanted = set(np.linspace(0, frames - 1, min(FACE_LOOKS, frames)).round().astype(int).tolist())
        found = []
        for index, image in enumerate(_read(path, protocol.fps)):
            box = find_frontal_face(image) if index in wanted else None
            if box is not None:
                height, width = image.shape[:2]
                found.append((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        if not found:
            cause = f"no face is found in any of {len(wanted)} frames; judge framed faces with --crop none"
            raise InputError(path, cause)
        return {"face": np.median(np.array(found), axis=0)}

    left, top, right, bottom = cache.get(("face:1", _hash(path), str(protocol.fps)), find)["face"].tolist()
    return left, top, right, bottom


def _read(path: Path, fps: float) -> Iterator[np.ndarray]:
    if path.suffix.lower() != ARRAYS_SUFFIX:
        return read_video(path, fps).frames
    frames = _arrays(path).get("frames")
    if frames is None or frames.ndim != 4 or frames.shape[-1] != 3:
        raise InputError(path, "expected an array `frames` (T, H, W, 3)")
    if frames.dtype == np.uint8:
        return iter(frames)
    if not np.isfinite(frames).all():
        bad = int((~np.isfinite(frames)).any(axis=(1, 2, 3)).sum())
        raise InputError(path, f"{bad} of {len(frames)} frames contain numbers that are not finite")
    if frames.min() < 0 or frames.max() > 1:
        raise InputError(path, f"float frames must lie in 0..1, not {frames.min():g}..{frames.max():g}")
    return ((frame * 255).round().astype(np.uint8) for frame in frames)


def _arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise InputError(path, "not a file of arrays, or damaged") from None
    except OSError as error:
        raise InputError(path, os_cause(error)) from None


def _hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise InputError(path, os_cause(error)) from None
