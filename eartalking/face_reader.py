"""FaceReader: head pose, gaze, blink, mouth and expression, read from the pixels of one frame.

The eye of the control and lip-sync gates. It is independent of the model under test: it sees neither the portrait nor
any latent, and has weights of its own, trained on SynthTalk clips of the training split by `eval.train_estimator`.
Its own error on held-out identities is stored beside the weights: no gate can be read more finely than that.
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

# What is read, each with the spread that makes one unit of loss: degrees, 0..1, head heights, 0..1, -1..1, -1..1.
SCALES = {
    "yaw": 10.0, "pitch": 8.0, "roll": 8.0, "gaze_yaw": 8.0, "gaze_pitch": 8.0,
    "blink": 0.3, "mouth_open": 0.02, "jaw_open": 0.2, "smile": 0.4, "brow": 0.4,
}  # fmt: skip
READINGS = tuple(SCALES)
INPUT_SIZE = 128
STEM = 4
# The part of the frame that faces reach in every pose, as fractions: left, top, right, bottom.
CROP = (0.12, 0.17, 0.88, 0.93)
WEIGHTS_FOLDER = Path(__file__).parent / "weights" / "face_reader"


class FaceReaderNet(nn.Module):
    """Images (B, 3, 128, 128) in 0..1 -> readings (B, 10) in units of SCALES and emotion logits (B, 8)."""

    def __init__(self, widths: tuple[int, ...] = (32, 72, 128)) -> None:
        super().__init__()
        self.widths = widths
        # Nothing is convolved at full resolution: four by four pixels become channels first.
        layers: list[nn.Module] = [nn.PixelUnshuffle(STEM), *_conv(3 * STEM**2, widths[0], 3, 1)]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [*_conv(before, after, 3, 2), _Residual(after)]
        self.trunk = nn.Sequential(*layers, *_conv(widths[-1], 24, 1, 1))
        # Flattened, not pooled: pose and gaze are about where things are.
        side = INPUT_SIZE // STEM // 2 ** (len(widths) - 1)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(24 * side**2, 128), nn.GELU())
        self.readings = nn.Linear(128, len(READINGS))
        self.emotion = nn.Linear(128, len(EMOTIONS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        images = images - images.mean(dim=(1, 2, 3), keepdim=True)
        spread = images.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        hidden = self.hidden(self.trunk(images / (spread + 0.05)))
        return self.readings(hidden), self.emotion(hidden)


def _conv(before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_conv(channels, channels, 3, 1))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


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
        """Frames (T, H, W, 3) uint8, T >= 1, square crops framed as `eartalking.face` frames them."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise ValueError(f"expected frames (T >= 1, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
        values, logits = [], []
        for start in range(0, len(frames), batch_size):
            images = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch_size]))
            readings, emotion = self.net(cut_face(images, CROP, INPUT_SIZE).contiguous(memory_format=torch.channels_last))
            values.append(readings)
            logits.append(emotion)
        table = (torch.cat(values) * torch.tensor(list(SCALES.values()))).numpy()
        named = dict(zip(READINGS, np.ascontiguousarray(table.T), strict=True))
        named["blink"] = named["blink"].clip(0, 1)
        named["mouth_open"] = named["mouth_open"].clip(0)
        return FaceReading(**named, emotion=torch.cat(logits).numpy())


def cut_face(images: Tensor, crop: tuple[float, float, float, float], size: int) -> Tensor:
    """(B, H, W, 3) uint8 -> the part `crop` of it, antialiased to (B, 3, size, size) float in 0..1."""
    height, width = images.shape[1:3]
    left, top, right, bottom = (round(edge * side) for edge, side in zip(crop, (width, height) * 2, strict=True))
    part = images[:, top:bottom, left:right].permute(0, 3, 1, 2).float() / 255
    return F.interpolate(part, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
