"""syncnet_v2, the network that LSE-C and LSE-D are defined by: mouths and sounds as vectors of 1024 numbers.

No package ships it in a form that installs beside a current torch, so its layers are written out here; a test holds
them to those of syncnet-python.

Preprocessing after joonson/syncnet_python: windows of five frames, cut by a smoothed face track, 224x224, BGR, 0..255;
against them 20 steps of 13 MFCCs (100 a second). Names follow the state dict of the published weights.

The published pipeline finds faces by S3FD, we by dlib, whose box ends at the brows: it is grown to S3FD's. Scores of
one protocol compare with each other; against published ones they can be off by what the detectors differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from python_speech_features import mfcc
from scipy.ndimage import median_filter
from torch import Tensor, nn

from eartalking.config import SAMPLE_RATE, SAMPLES_PER_FRAME

WINDOW = 5  # frames
STEPS_PER_FRAME = 4
SHORTEST_TRACK = 50  # frames
CROP_SCALE = 0.4
SIDE = 224
PAD_VALUE = 110
_MEDIAN = 13
# dlib's box runs from the brows to the chin; S3FD's from the hairline: it is this much higher, at the same width.
_S3FD_ABOVE = 0.25


def _conv2d(before: int, after: int, kernel: tuple[int, int] = (3, 3), padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=padding), nn.BatchNorm2d(after), nn.ReLU()]


def _conv3d(before: int, after: int, kernel: tuple[int, int, int], **options: object) -> list[nn.Module]:
    return [nn.Conv3d(before, after, kernel, **options), nn.BatchNorm3d(after), nn.ReLU()]


class SyncNetV2(nn.Module):
    """`sound` takes (B, 1, 13, 20), `mouth` (B, 3, 5, 224, 224); both give (B, 1024)."""

    def __init__(self) -> None:
        super().__init__()
        # The pool of 1 does nothing; it is there because the published weights number it.
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64), nn.MaxPool2d(1), *_conv2d(64, 192), nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384), *_conv2d(384, 256), *_conv2d(256, 256), nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )  # fmt: skip
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), stride=(1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), *_conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6)),
        )  # fmt: skip
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)) for _ in range(2)
        )

    def sound(self, x: Tensor) -> Tensor:
        return self.netfcaud(self.netcnnaud(x).flatten(1))

    def mouth(self, x: Tensor) -> Tensor:
        return self.netfclip(self.netcnnlip(x).flatten(1))

    @classmethod
    def load(cls, path: Path) -> SyncNetV2:
        """From the published `syncnet_v2.model`."""
        network = cls()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.eval().requires_grad_(False)

    @torch.inference_mode()
    def embed(self, crops: np.ndarray, waveform: np.ndarray, batch_size: int = 20) -> tuple[np.ndarray, np.ndarray]:
        """Cropped frames (T, 224, 224, 3) uint8 RGB and sound at 16 kHz -> video (W, 1024), audio (W, 1024), row w for
        frames w..w+4. W is five below the shorter of the two, as published.

        Raises:
            ValueError: too short.
        """
        count = min(len(crops), len(waveform) // SAMPLES_PER_FRAME) - WINDOW
        if count < 1:
            raise ValueError(f"SyncNet needs more than {WINDOW} frames with sound, got {count + WINDOW}")
        device = next(self.parameters()).device
        blue_first = np.ascontiguousarray(crops[..., ::-1])
        images = torch.from_numpy(blue_first).permute(3, 0, 1, 2)  # (3, T, H, W)
        sound = torch.from_numpy(cepstra(waveform)).float().T[None]  # (1, 13, steps)
        video, audio = [], []
        for start in range(0, count, batch_size):
            rows = range(start, min(start + batch_size, count))
            mouths = torch.stack([images[:, row : row + WINDOW] for row in rows]).float().to(device)
            steps = [sound[..., STEPS_PER_FRAME * row : STEPS_PER_FRAME * (row + WINDOW)] for row in rows]
            video.append(self.mouth(mouths).cpu())
            audio.append(self.sound(torch.stack(steps).to(device)).cpu())
        return torch.cat(video).numpy(), torch.cat(audio).numpy()


def cepstra(waveform: np.ndarray) -> np.ndarray:
    """(n,) in [-1, 1] at 16 kHz -> (steps, 13) float64, 100 steps a second: python_speech_features' MFCC of 16-bit
    sound, which is what the network was trained on.
    """
    return mfcc(np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16), SAMPLE_RATE)


def s3fd_box(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """dlib's face box (left, top, right, bottom) -> what S3FD would draw."""
    left, top, right, bottom = box
    return left, top - _S3FD_ABOVE * (bottom - top), right, bottom


def crop_track(frames: Iterable[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """Cut every frame (H, W, 3) uint8 by its face box, boxes (T, 4) left, top, right, bottom -> (T, 224, 224, 3).

    Half-size and centre are smoothed by a median over 13 frames; what lies outside the picture is filled with 110.
    """
    left, top, right, bottom = boxes.T
    track = np.stack([np.maximum(right - left, bottom - top) / 2, (left + right) / 2, (top + bottom) / 2])
    half, x, y = median_filter(track, (1, _MEDIAN), mode="constant")  # zeros beyond the ends, as published
    cut = []
    for frame, size, column, row in zip(frames, half, x, y, strict=True):
        pad = int(size * (1 + 2 * CROP_SCALE))
        padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=PAD_VALUE)
        row, column = row + pad, column + pad
        face = padded[int(row - size) : int(row + size * (1 + 2 * CROP_SCALE)),
                      int(column - size * (1 + CROP_SCALE)) : int(column + size * (1 + CROP_SCALE))]  # fmt: skip
        image = torch.from_numpy(np.ascontiguousarray(face)).permute(2, 0, 1)[None].float()
        # Plain bilinear, as the published pipeline resizes: an antialiased one gives other numbers.
        resized = F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0]
        cut.append(resized.permute(1, 2, 0).round().byte().numpy())
    return np.stack(cut)
