"""FaceReader: head pose, gaze, blink, mouth and expression, read from the pixels of one frame.

The control and lip-sync gates read frames by it. It sees neither the portrait nor any latent and has weights of its
own, trained on SynthTalk frames of the training split by `eartalking.training.face_reader`; but the model's frame
encoder started from its trunks, so it is not independent of the model that it measures. Its own error on held-out
identities is stored beside the weights: no gate can be read more finely than that.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eartalking.controls import EMOTIONS
from eartalking.errors import InputError
from eartalking.perception.face_parts import (
    LANDMARKS,
    PART_FEATURES,
    WHOLE_FEATURES,
    FaceTrunks,
    cut_parts,
    cut_whole,
    everywhere,
    from_whole,
    placed,
)

# What is read, each with the spread that makes one unit of loss: degrees, 0..1, head heights, 0..1, -1..1, -1..1.
SCALES = {
    "yaw": 10.0, "pitch": 8.0, "roll": 8.0, "gaze_yaw": 8.0, "gaze_pitch": 8.0,
    "blink": 0.3, "mouth_open": 0.02, "jaw_open": 0.2, "smile": 0.4, "brow": 0.4,
}  # fmt: skip
READINGS = tuple(SCALES)
GAZE = slice(READINGS.index("gaze_yaw"), READINGS.index("gaze_pitch") + 1)
INPUT_SIZE = 256
WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights" / "face_reader"


class FaceReaderNet(FaceTrunks):
    """Images (B, 3, 256, 256) in 0..1 -> readings (B, 10) in units of SCALES, emotion logits (B, 8) and landmarks (B,
    3, 2) as fractions of the frame."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 80)) -> None:
        super().__init__(widths)
        pose = WHOLE_FEATURES + 2 * len(LANDMARKS)
        self.hidden = nn.Sequential(nn.Linear(pose + 3 * PART_FEATURES, 160), nn.GELU(), nn.Dropout(0.1))
        self.readings = nn.Linear(160, len(READINGS))
        self.emotion = nn.Linear(160, len(EMOTIONS))
        # What the irises add to the gaze; a head on its own, because it needs the pose and nothing of the expression.
        self.gaze = nn.Sequential(nn.Linear(pose + 2 * PART_FEATURES, 96), nn.GELU(), nn.Linear(96, 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, landmarks = self.locate(cut_whole(images))
        landmarks = from_whole(landmarks, everywhere(images))
        return (*self.read(features, landmarks, *cut_parts(images, landmarks)), landmarks)

    def read(
        self, features: Tensor, landmarks: Tensor, eyes: Tensor, irises: Tensor, mouth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Readings and emotion logits from `locate`'s features, landmarks in fractions and what `cut_parts` cut."""
        eyes, irises, mouth = self.look_at_parts(eyes, irises, mouth)
        places = placed(landmarks)
        hidden = self.hidden(torch.cat([features, eyes, mouth, places], dim=1))
        gaze = F.pad(self.gaze(torch.cat([features, irises, places], dim=1)), (GAZE.start, len(READINGS) - GAZE.stop))
        return self.readings(hidden) + gaze, self.emotion(hidden)


@dataclass(frozen=True)
class FaceReading:
    """What was read from T frames; every field (T,) float32, `emotion` (T, 8) logits in the order of EMOTIONS.

    yaw, pitch, roll, gaze_yaw, gaze_pitch in degrees with the signs of the control table; blink 0..1; mouth_open in
    head heights; jaw_open 0..1; smile and brow -1..1 as they show on the face, whatever control caused them.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    gaze_yaw: np.ndarray
    gaze_pitch: np.ndarray
    blink: np.ndarray
    mouth_open: np.ndarray
    jaw_open: np.ndarray
    smile: np.ndarray
    brow: np.ndarray
    emotion: np.ndarray

    def __len__(self) -> int:
        return len(self.yaw)

    def __getitem__(self, index: slice | np.ndarray) -> FaceReading:
        return FaceReading(**{name: value[index] for name, value in vars(self).items()})

    @staticmethod
    def concat(readings: list[FaceReading]) -> FaceReading:
        """The readings one after the other; ValueError without any."""
        if not readings:
            raise ValueError("concat needs at least one reading")
        return FaceReading(**{name: np.concatenate([getattr(r, name) for r in readings]) for name in vars(readings[0])})


class FaceReader:
    """Reads frames; `accuracy` is its own mean absolute error per reading on held-out identities."""

    def __init__(self, net: FaceReaderNet, accuracy: dict[str, float] | None = None) -> None:
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.accuracy = accuracy or {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str] = WEIGHTS_FOLDER) -> FaceReader:
        """Raises InputError: no reader there."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            net = FaceReaderNet(tuple(config["widths"]))
            weights = load_file(folder / "reader.safetensors")
            net.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in weights.items()})
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(folder, f"no face reader here ({str(error).splitlines()[0]})") from error
        return cls(net, config["accuracy"])

    def save(self, folder: str | os.PathLike[str], **about: object) -> None:
        """Write float16 weights and a config with the accuracy and whatever else is told `about` the training."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: v.half() if v.is_floating_point() else v for n, v in self.net.state_dict().items()}
        save_file({n: v.contiguous() for n, v in weights.items()}, folder / "reader.safetensors")
        config = {"widths": list(self.net.widths), "accuracy": self.accuracy, **about}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @torch.inference_mode()
    def read(self, frames: np.ndarray, batch_size: int = 32) -> FaceReading:
        """Frames (T, H, W, 3) uint8, T >= 1, square crops framed as `eartalking.perception.face_detector` frames
        them.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise ValueError(f"expected frames (T >= 1, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
        values, logits = [], []
        for start in range(0, len(frames), batch_size):
            readings, emotion, _ = self.net(to_images(frames[start : start + batch_size]))
            values.append(readings)
            logits.append(emotion)
        table = (torch.cat(values) * torch.tensor(list(SCALES.values()))).numpy()
        named = dict(zip(READINGS, np.ascontiguousarray(table.T), strict=True))
        named["blink"] = named["blink"].clip(0, 1)
        named["mouth_open"] = named["mouth_open"].clip(0)
        return FaceReading(**named, emotion=torch.cat(logits).numpy())


def to_images(frames: np.ndarray) -> Tensor:
    """Frames (T, H, W, 3) uint8 as the net takes them: (T, 3, 256, 256) float in 0..1."""
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
        images = F.interpolate(
            images, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True, align_corners=False
        )
    return images.contiguous()
