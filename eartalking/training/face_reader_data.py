"""What the FaceReader learns from: `python -m eartalking.training.face_reader_data --out FILE --split train --clips DIR
... --render N --speech DIR`.

Frames of SynthTalk clips (eartalking.synth.clips; a few of each), and states rendered for this purpose: wide gazes,
strong emotions on calm faces, lids open and shut, on a mouth that speaks. Everything goes into one safetensors file:

    images (F, 3, 256, 256) uint8; or with --patches, for training, what the reader cuts out of them with some margin:
    whole (F, 3, 112, 112), eyes (F, 2, 3, 80, 80), mouth (F, 3, 88, 88) uint8
    values (F, 10) float32 in units of SCALES; landmarks (F, 3, 2) float32 in fractions of the frame (x right, y down:
    the eye on the picture's left, the other eye, the mouth); emotion (F,) int64; weight (F,) float32: how sure it can
    be told intensity (F,) float32, calm (F,) bool: no brow or smile control contradicts the emotion
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from eartalking.controls import CONTROL_RANGES, EMOTIONS
from eartalking.errors import run_program
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX, compose_face_units
from eartalking.perception.face_parts import WHOLE, cut, part_places, whole_place
from eartalking.perception.face_reader import READINGS, SCALES
from eartalking.synth.clips import SPLITS
from eartalking.synth.head import HeadBundle, load_bundle
from eartalking.synth.identity import sample_identity
from eartalking.synth.landmarks import project_landmarks
from eartalking.synth.performance import Performance
from eartalking.synth.render import Renderer
from eartalking.synth.speech import Utterance, corpus_files
from eartalking.synth.visemes import speech_mouth

SIZE = 256
FIRST_IDENTITY = 2_000_000  # of the rendered states; the clips' identities are below
CALM = 0.35  # a brow or smile control up to here does not contradict an emotion
_POSE_LIMITS = np.array([CONTROL_RANGES[track][1] for track in ("yaw", "pitch", "roll")])
_GAZE_LIMITS = np.array([CONTROL_RANGES[track][1] for track in ("gaze_yaw", "gaze_pitch")])
# Sides of the patches: the pictures that the reader cuts are taken from within them, and must not lose sharpness twice.
WHOLE_PATCH, EYE_PATCH, MOUTH_PATCH = 112, 80, 88
WHOLE_MARGIN, PART_MARGIN = 112 / 96, 4 / 3  # of their sides to those of the pictures
Rows = dict[str, Tensor]


def targets(labels: dict[str, Tensor]) -> Tensor:
    """(T, 10) in the order of READINGS, unscaled: what the face shows, from a clip's labels."""
    units = labels["face_units"].float()

    def unit(*names: str) -> Tensor:
        return torch.stack([units[:, UNIT_INDEX[name]] for name in names]).mean(0)

    raised = 0.5 * unit("browInnerUp") / 0.9 + 0.5 * unit("browOuterUpLeft", "browOuterUpRight")
    columns = {
        "yaw": labels["head_pose"][:, 0], "pitch": labels["head_pose"][:, 1], "roll": labels["head_pose"][:, 2],
        "gaze_yaw": labels["gaze"][:, 0], "gaze_pitch": labels["gaze"][:, 1],
        "blink": unit("eyeBlinkLeft", "eyeBlinkRight"),
        "mouth_open": labels["mouth_open"],
        "jaw_open": unit("jawOpen"),
        "smile": (unit("mouthSmileLeft", "mouthSmileRight") - unit("mouthFrownLeft", "mouthFrownRight")) / 0.85,
        "brow": raised - unit("browDownLeft", "browDownRight"),
    }  # fmt: skip
    return torch.stack([columns[name].float() for name in READINGS], dim=1)


def reading_states(mouth: np.ndarray, rng: np.random.Generator) -> Performance:
    """States of a face with these mouths (T, 52): what is hard to read, more often than it happens."""
    count = len(mouth)

    def sometimes(probability: float, values: np.ndarray) -> np.ndarray:
        return np.where(rng.random(count) < probability, values, 0.0).astype(np.float32)

    wide, calm = rng.random((count, 1)) < 0.5, rng.random(count) < 0.6
    pose = np.where(wide, rng.uniform(-1, 1, (count, 3)) * _POSE_LIMITS, rng.normal(0, [8, 5, 4], (count, 3)))
    stares = rng.random((count, 1)) < 0.75
    gaze = np.where(stares, rng.uniform(-1, 1, (count, 2)) * _GAZE_LIMITS, rng.normal(0, 4, (count, 2)))
    blink = np.where(rng.random(count) < 0.15, 1.0, sometimes(0.15, rng.uniform(0, 1, count)))
    emotion = np.where(rng.random(count) < 0.6, rng.integers(1, len(EMOTIONS), count), 0).astype(np.int32)
    intensity = (np.where(rng.random(count) < 0.5, 1.0, rng.uniform(0.4, 1, count)) * (emotion > 0)).astype(np.float32)
    brow, smile = (
        sometimes(0.7, rng.uniform(-1, 1, count)) * np.where(calm & (emotion > 0), 0.3, 1.0) for _ in range(2)
    )
    scale = np.where(rng.random(count) < 0.5, 1.0, rng.uniform(0.3, 1.7, count))
    tracks = {"blink": blink, "brow": brow, "smile": smile, "mouth_scale": scale}
    tracks = {name: value.astype(np.float32) for name, value in tracks.items()}
    return Performance(
        head_pose=np.clip(pose, -_POSE_LIMITS, _POSE_LIMITS).astype(np.float32),
        gaze=np.clip(gaze, -_GAZE_LIMITS, _GAZE_LIMITS).astype(np.float32),
        translation=np.clip(rng.normal(0, 0.02, (count, 3)), -0.06, 0.06).astype(np.float32),
        face_units=compose_face_units(
            mouth, tracks["blink"], tracks["brow"], tracks["smile"], tracks["mouth_scale"], emotion, intensity
        ),
        emotion=emotion,
        emotion_intensity=intensity,
        phone=np.zeros(count, np.int32),
        speaking=np.zeros(count, bool),
        **tracks,
    )


def rendered_rows(
    seed: int, split: str, count: int, speech: list[Path], renderer: Renderer, bundle: HeadBundle
) -> Rows:
    """States of one identity that no clip has, with the mouths of a random utterance."""
    rng = np.random.default_rng([7, SPLITS.index(split), seed])
    utterance = Utterance.load(speech[int(rng.integers(len(speech)))])
    frames = max(1, int(utterance.seconds * 25))
    spoken = speech_mouth(utterance.phones, utterance.waveform, frames)[rng.integers(0, frames, count)]
    mouth = np.where(rng.random((count, 1)) < 0.75, spoken, np.zeros(NUM_FACE_UNITS, np.float32))
    motion = reading_states(mouth, rng)
    identity = sample_identity(FIRST_IDENTITY + seed, split, bundle)
    renderer.set_identity(identity)
    labels = {name: torch.from_numpy(np.asarray(value)) for name, value in vars(motion).items()}
    labels["mouth_open"] = torch.from_numpy(renderer.mouth_open(motion))
    places = project_landmarks(identity, bundle, motion.head_pose, motion.translation, motion.face_units)
    return _rows(torch.from_numpy(renderer.render(motion)), labels, torch.from_numpy(places))


def clip_rows(path: Path, count: int) -> list[Rows]:
    """Of the frames (and the twin's frames) of a clip, `count` spread over it."""
    with safe_open(path, "pt") as clip:
        names = set(clip.keys())
        labels = {name[len("labels.") :]: clip.get_tensor(name) for name in names if name.startswith("labels.")}
        total = len(labels["emotion"])
        chosen = torch.linspace(0, total - 1, min(total, count)).round().long()
        labels = {name: value[chosen] for name, value in labels.items()}
        return [
            _rows(clip.get_tensor(prefix + "frames")[chosen], labels, clip.get_tensor(prefix + "landmarks")[chosen])
            for prefix in ("", "twin_")
            if prefix + "frames" in names
        ]


def _rows(frames: Tensor, labels: dict[str, Tensor], places: Tensor) -> Rows:
    emotion, intensity = labels["emotion"].long(), labels["emotion_intensity"].float()
    calm = (labels["smile"].abs() < CALM) & (labels["brow"].abs() < CALM)
    return {
        "images": frames.permute(0, 3, 1, 2).contiguous(),
        "values": targets(labels) / torch.tensor(list(SCALES.values())),
        "landmarks": places,
        "emotion": emotion,
        "weight": torch.where(emotion > 0, intensity, 0.4) * torch.where(calm, 1.0, 0.4),
        "intensity": intensity,
        "calm": calm,
    }


def stored_places(landmarks: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Places (B, 3, 3) of the patches: the whole face's, the two eyes', the mouth's."""
    where = torch.tensor([*WHOLE[:2], WHOLE[2] * WHOLE_MARGIN]).expand(len(landmarks), 3)
    wider = torch.diag(torch.tensor([PART_MARGIN, PART_MARGIN, 1.0]))
    eyes, _, mouth = part_places(landmarks)
    return whole_place(where), [eye @ wider for eye in eyes], mouth @ wider


def patches(rows: Rows) -> Rows:
    """The rows with what the reader cuts, and a margin, in the place of images."""
    rows = dict(rows)
    images = rows.pop("images").float()
    face, eyes, mouth = stored_places(rows["landmarks"])
    eyes = torch.stack([cut(images, place, EYE_PATCH) for place in eyes], 1)
    found = {
        "whole": cut(F.avg_pool2d(images, 2), face, WHOLE_PATCH),
        "eyes": eyes,
        "mouth": cut(images, mouth, MOUTH_PATCH),
    }
    return {name: value.round().byte() for name, value in found.items()} | rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.training.face_reader_data", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--split", choices=SPLITS, default="train", help="of the rendered states")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="folders of SynthTalk clips of 256 pixels")
    parser.add_argument("--clip-frames", type=int, default=10, help="frames taken of a clip and identity")
    parser.add_argument("--render", type=int, default=0, help="identities to render states of")
    parser.add_argument("--start", type=int, default=0, help="first seed of --render")
    parser.add_argument("--states", type=int, default=10, help="states of each rendered identity")
    parser.add_argument("--speech", type=Path, help="speech corpus of the same split, for --render")
    parser.add_argument(
        "--patches", action="store_true", help="for training: two fifths of the size, much faster to learn from"
    )
    args = parser.parse_args(argv)
    if args.render and args.speech is None:
        parser.error("--render needs --speech")
    keep = patches if args.patches else dict
    parts: list[Rows] = []
    for path in tqdm(
        [path for folder in args.clips for path in sorted(folder.glob("*.safetensors"))], unit="clip", mininterval=5
    ):
        parts += map(keep, clip_rows(path, args.clip_frames))
    if args.render:
        bundle, speech = load_bundle(), corpus_files(args.speech)
        renderer = Renderer(size=SIZE, map_size=SIZE // 4, bundle=bundle)
        for seed in tqdm(range(args.start, args.start + args.render), unit="identity", mininterval=5):
            parts.append(keep(rendered_rows(seed, args.split, args.states, speech, renderer, bundle)))
        renderer.release()
    if not parts:
        parser.error("nothing to do: give --clips with clips in them, or --render")
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(rows, args.out)
    print(json.dumps({"frames": len(rows["values"]), "identities": len(parts)}))
    return 0


if __name__ == "__main__":
    run_program(main)
