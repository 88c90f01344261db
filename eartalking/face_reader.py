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
ROLL = READINGS.index("roll")
LOCATOR_SIZE, FACE_SIZE = 64, 128
STEM = 4
# The square that is cut out around the face, as a fraction of the frame's side, and where the point between the eyes
# lies in it (-1 top, 1 bottom): from above the brows to below the chin.
FACE_SIDE, EYES_Y = 0.55, -0.5
WEIGHTS_FOLDER = Path(__file__).parent / "weights" / "face_reader"


class Trunk(nn.Module):
    """Images (B, 3, S, S) in 0..1 -> features (B, hidden). Convolutions, flattened: pose and gaze are about where
    things are, so nothing is pooled."""

    def __init__(self, size: int, widths: tuple[int, ...], out_channels: int, hidden: int) -> None:
        super().__init__()
        # Nothing is convolved at full resolution: four by four pixels become channels first.
        layers: list[nn.Module] = [nn.PixelUnshuffle(STEM), *_conv(3 * STEM**2, widths[0], 3, 1)]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [*_conv(before, after, 3, 2), _Residual(after)]
        side = size // STEM // 2 ** (len(widths) - 1)
        layers += [*_conv(widths[-1], out_channels, 1, 1), nn.Flatten(), nn.Dropout(0.1)]
        self.layers = nn.Sequential(*layers, nn.Linear(out_channels * side**2, hidden), nn.GELU())

    def forward(self, images: Tensor) -> Tensor:
        images = images - images.mean(dim=(1, 2, 3), keepdim=True)
        spread = images.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return self.layers((images / (spread + 0.05)).contiguous(memory_format=torch.channels_last))


class FaceLocator(nn.Module):
    """Whole frames (B, 3, 64, 64) -> where the face is (B, 3): the point between the eyes, x and y in [-1, 1], and roll
    in degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(LOCATOR_SIZE, (24, 40, 56), 16, 64)
        self.place = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        place = self.place(self.trunk(images))
        return torch.cat([place[:, :2] * 0.2, place[:, 2:] * SCALES["roll"]], dim=1)


class FaceCropNet(nn.Module):
    """Aligned faces (B, 3, 128, 128) -> readings (B, 10) in units of SCALES (the roll is what the alignment left over)
    and emotion logits (B, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(FACE_SIZE, (32, 72, 112), 24, 128)
        self.readings = nn.Linear(128, len(READINGS))
        self.emotion = nn.Linear(128, len(EMOTIONS))

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(faces)
        return self.readings(hidden), self.emotion(hidden)


class FaceReaderNet(nn.Module):
    """Frames (B, 3, H, W) in 0..1 -> readings (B, 10) in units of SCALES and emotion logits (B, 8): finds the face, cuts
    it out upright at full resolution, reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.locator = FaceLocator()
        self.face = FaceCropNet()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        place = self.locator(shrink(frames))
        readings, emotion = self.face(cut_faces(frames, place))
        readings[:, ROLL] += place[:, 2] / SCALES["roll"]
        return readings, emotion


def shrink(frames: Tensor) -> Tensor:
    """Frames (B, 3, H, W) as the locator sees them."""
    size = (LOCATOR_SIZE, LOCATOR_SIZE)
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def cut_faces(frames: Tensor, place: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """The aligned faces (B, 3, 128, 128): cut out around place (B, 3) and turned upright; `scale` enlarges the cut."""
    axis = (torch.arange(FACE_SIZE, device=frames.device) + 0.5) * (2 / FACE_SIZE) - 1
    v, u = torch.meshgrid(axis - EYES_Y, axis, indexing="ij")
    angle = torch.deg2rad(place[:, 2])[:, None, None]
    cos, sin = torch.cos(angle) * FACE_SIDE * scale, torch.sin(angle) * FACE_SIDE * scale
    # Clockwise as seen: y points down in the grid.
    x, y = place[:, 0, None, None] + cos * u - sin * v, place[:, 1, None, None] + sin * u + cos * v
    return F.grid_sample(frames, torch.stack([x, y], dim=-1), padding_mode="border", align_corners=False)


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
        self.net = net.eval().requires_grad_(False)
        self.accuracy = accuracy or {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str] = WEIGHTS_FOLDER) -> FaceReader:
        """Raises InputError: no reader there."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            net = FaceReaderNet()
            weights = load_file(folder / "reader.safetensors")
            net.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in weights.items()})
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(folder, f"no face reader here ({str(error).splitlines()[0]})") from error
        return cls(net, config["accuracy"])

    @staticmethod
    def about(folder: str | os.PathLike[str]) -> dict[str, object]:
        """What `save` was told besides the accuracy."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return {name: value for name, value in config.items() if name != "accuracy"}

    def save(self, folder: str | os.PathLike[str], **about: object) -> None:
        """Write float16 weights and a config with the accuracy and whatever else is told `about` the training."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: v.half() if v.is_floating_point() else v for n, v in self.net.state_dict().items()}
        save_file({n: v.contiguous() for n, v in weights.items()}, folder / "reader.safetensors")
        config = {"accuracy": self.accuracy, **about}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @torch.inference_mode()
    def read(self, frames: np.ndarray, batch_size: int = 32) -> FaceReading:
        """Frames (T, H, W, 3) uint8, T >= 1, square crops framed as `eartalking.face` frames them."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise ValueError(f"expected frames (T >= 1, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
        values, logits = [], []
        for start in range(0, len(frames), batch_size):
            images = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch_size]))
            readings, emotion = self.net(images.permute(0, 3, 1, 2).float() / 255)
            values.append(readings)
            logits.append(emotion)
        table = (torch.cat(values) * torch.tensor(list(SCALES.values()))).numpy()
        named = dict(zip(READINGS, np.ascontiguousarray(table.T), strict=True))
        named["blink"] = named["blink"].clip(0, 1)
        named["mouth_open"] = named["mouth_open"].clip(0)
        return FaceReading(**named, emotion=torch.cat(logits).numpy())
