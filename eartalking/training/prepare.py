"""Real talking videos into training clips: `python -m eartalking.training.prepare --videos DIR --out DIR`.

A folder of videos (HDTF, MEAD, your own) becomes `speech` clips as SynthTalk writes them, ready for the encode stage:
25 fps, 16 kHz, cut into spans of one face framed as a portrait is, pose, gaze, blinks, brows, smile, emotion and mouth
opening read by the FaceReader. One crop serves a whole span, so that the head still moves in it. There is no
correspondence: the autoencoder's warp stays SynthTalk's. Your videos' licence, and the consent of the people in them,
are yours to check.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.errors import InputError
from eartalking.io.portrait import crop_around
from eartalking.io.video_reader import read_video
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.perception.face_detector import find_face
from eartalking.perception.face_reader import FaceReader
from eartalking.synth.clips import write_clip

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
DETECT_EVERY = 10  # frames
MAX_DRIFT = 0.6  # of the face's width: a face that wanders further does not fit one crop
SPEECH_LEVEL = 0.15  # of the clip's loudest frames


def spans(frames: Iterator[np.ndarray], length: int) -> Iterator[list[np.ndarray]]:
    """Consecutive lists of `length` frames; a rest shorter than half of that is left out."""
    while len(span := list(islice(frames, length))) >= max(2, length // 2):
        yield span


def crop_span(frames: list[np.ndarray], size: int) -> np.ndarray:
    """The span through one crop: (T, size, size, 3) uint8.

    Raises:
        ValueError: why this span cannot be used.
    """
    boxes = [box for frame in frames[::DETECT_EVERY] if (box := find_face(frame)) is not None]
    needed = len(frames[::DETECT_EVERY])
    if len(boxes) < 0.6 * needed:
        raise ValueError(f"a face in {len(boxes)} of {needed} frames looked at")
    table = np.array(boxes)
    middle = np.median(table, axis=0)
    centres = (table[:, :2] + table[:, 2:]) / 2
    if np.ptp(centres, axis=0).max() > MAX_DRIFT * (middle[2] - middle[0]):
        raise ValueError("the face wanders too far, or the picture cuts to another face")
    return np.stack([crop_around(frame, tuple(middle), size).image for frame in frames])


def label(images: np.ndarray, waveform: np.ndarray, reader: FaceReader) -> dict[str, np.ndarray]:
    """The labels that a SynthTalk clip carries, as far as they can be read from pixels; what cannot is zero."""
    reading = reader.read(images)
    count = len(images)
    units = np.zeros((count, NUM_FACE_UNITS), np.float32)
    units[:, UNIT_INDEX["jawOpen"]] = reading.jaw_open.clip(0, 1)
    units[:, [UNIT_INDEX["eyeBlinkLeft"], UNIT_INDEX["eyeBlinkRight"]]] = reading.blink[:, None]
    odds = np.exp(reading.emotion - reading.emotion.max(1, keepdims=True))
    emotion = odds.mean(0).argmax()  # one for the span: single frames are not to be trusted
    loudness = np.sqrt(np.square(waveform.reshape(count, SAMPLES_PER_FRAME)).mean(1))
    return {
        "head_pose": np.stack([reading.yaw, reading.pitch, reading.roll], axis=1),
        "gaze": np.stack([reading.gaze_yaw, reading.gaze_pitch], axis=1),
        "translation": np.zeros((count, 3), np.float32),
        "face_units": units,
        "blink": reading.blink,
        "brow": reading.brow.clip(-1, 1),
        "smile": reading.smile.clip(-1, 1),
        "mouth_scale": np.ones(count, np.float32),
        "emotion": np.full(count, emotion, np.int32),
        "emotion_intensity": np.full(count, float(emotion != 0) * 0.5, np.float32),
        "phone": np.zeros(count, np.int32),
        "speaking": (loudness > SPEECH_LEVEL * np.quantile(loudness, 0.95)).astype(np.uint8),
        "mouth_open": reading.mouth_open,
    }


def prepare_video(path: Path, length: int, size: int, reader: FaceReader) -> Iterator[dict[str, np.ndarray] | str]:
    """The clips of one video, or for a span that cannot be used the reason.

    Raises:
        InputError: the video cannot be read, or has no sound.
    """
    video = read_video(path, fps=FPS)
    if video.waveform is None:
        raise InputError(path, "no sound track")
    start = 0
    for frames in spans(video.frames, length):
        samples = slice(start * SAMPLES_PER_FRAME, (start + len(frames)) * SAMPLES_PER_FRAME)
        start += len(frames)
        waveform = video.waveform[samples]
        waveform = np.pad(waveform, (0, len(frames) * SAMPLES_PER_FRAME - len(waveform))).astype(np.float32)
        try:
            images = crop_span(frames, size)
        except ValueError as error:
            yield f"frames {start - len(frames)}-{start - 1}: {error}"
            continue
        labels = label(images, waveform, reader)
        portrait = int(np.argmin(labels["mouth_open"] + labels["blink"]))  # mouth closed, eyes open: as portraits are
        tensors = {"reference": images[portrait], "frames": images, "waveform": waveform}
        tensors |= {f"labels.{name}": value for name, value in labels.items()}
        tensors |= {f"reference_labels.{name}": value[portrait : portrait + 1] for name, value in labels.items()}
        yield {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.prepare", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--videos", type=Path, required=True, help=f"folder, searched below; {', '.join(sorted(SUFFIXES))}"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--frames", type=int, default=100, help="frames per clip")
    parser.add_argument("--size", type=int, default=256, help="pixels per side")
    parser.add_argument("--licence", default="unknown", help="recorded in every clip")
    args = parser.parse_args(argv)
    paths = sorted(path for path in args.videos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{args.videos}: no videos here ({', '.join(sorted(SUFFIXES))})")
    args.out.mkdir(parents=True, exist_ok=True)
    reader = FaceReader.load()
    written, left_out = 0, 0
    for path in tqdm(paths, unit="video"):
        try:
            for index, clip in enumerate(prepare_video(path, args.frames, args.size, reader)):
                if isinstance(clip, str):
                    left_out += 1
                    tqdm.write(f"{path}: {clip}; left out")
                    continue
                source = str(path.relative_to(args.videos))
                metadata = {
                    "kind": "speech",
                    "split": "real",
                    "fps": str(FPS),
                    "voice": source,
                    "licence": args.licence,
                }
                name = source.replace("/", "_").replace("\\", "_")
                write_clip(args.out / f"{name}-{index:05d}.safetensors", clip, metadata)
                written += 1
        except InputError as error:
            left_out += 1
            tqdm.write(f"{error}; left out")
    print(json.dumps({"clips": written, "left_out": left_out, "out": str(args.out)}))
    return 0 if written else 1


if __name__ == "__main__":
    raise SystemExit(main())
