"""Our own SyncNet: whether a mouth and a sound belong together, by embeddings of 0.2 s of both, one window per frame.

The video branch sees the mouth (48x64 grey, five frames), the audio branch the log-mel of the same five frames (20
hops). Both end in unit vectors; their distance, 0 to 2, is small where sound and mouth belong together. Trained on
rendered heads only (`python -m eval.networks.train_syncnet`), so its numbers stand under its own name and are not those
of `syncnet_v2`.

Notation: B clips, T frames = windows, D embedding.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eartalking.audio import HOPS_PER_FRAME, LOG_MEL_MEAN, LOG_MEL_STD, MEL_BINS, log_mel
from eartalking.config import SAMPLES_PER_FRAME
from eval.networks.mouth import CROP_HEIGHT, CROP_WIDTH, face_boxes, mouth_crops

NETWORK_NAME = "syncnet_synthtalk"
WINDOW = 5  # frames
WEIGHTS = Path(__file__).parent / "weights" / "syncnet" / "syncnet.safetensors"
_SPEECH_LEVEL = 0.1  # root mean square of the loud frames that a waveform is brought to
_LOUD_QUANTILE = 0.9
_QUIETEST = 0.01  # below this a clip counts as silent, and its noise is not raised to the level of speech


class SyncNet(nn.Module):
    """Two branches into one space of `dim` numbers.

    The video branch works frame by frame and joins five frames at the end, so a clip costs one pass per frame.
    """

    name = NETWORK_NAME

    def __init__(self, dim: int = 128, width: int = 32) -> None:
        super().__init__()
        self.dim = dim
        self.version = "untrained"  # changes with the weights
        widths = (width, 3 * width // 2, 2 * width, 3 * width, 4 * width)
        self.frame_net = nn.Sequential(
            _conv2d(1, widths[0], 2),  # 24x32
            _conv2d(widths[0], widths[1], 2),  # 12x16
            _conv2d(widths[1], widths[2], 1),
            _conv2d(widths[2], widths[3], 2),  # 6x8
            _conv2d(widths[3], widths[3], 1),
            _conv2d(widths[3], widths[4], 2),  # 3x4
            nn.Flatten(),
            nn.Linear(widths[4] * (CROP_HEIGHT // 16) * (CROP_WIDTH // 16), 256),
        )
        self.join_frames = nn.Sequential(nn.SiLU(), nn.Linear(WINDOW * 256, 256), nn.SiLU(), nn.Linear(256, dim))
        hops = WINDOW * HOPS_PER_FRAME
        self.audio_net = nn.Sequential(
            _conv1d(MEL_BINS, 4 * width, 1),
            _conv1d(4 * width, 6 * width, 2),
            _conv1d(6 * width, 6 * width, 2),
            nn.Flatten(),
            nn.Linear(6 * width * -(-hops // 4), 256),
            nn.SiLU(),
            nn.Linear(256, dim),
        )
        self.log_scale = nn.Parameter(torch.tensor(2.6))  # of the similarities in training

    def embed_video(self, crops: Tensor) -> Tensor:
        """Mouths (B, T, 48, 64), any brightness scale -> (B, T, D) unit vectors."""
        clips = crops.float()
        # Brightness and contrast of the whole clip say nothing about the mouth's movement.
        clips = (clips - clips.mean((1, 2, 3), keepdim=True)) / (clips.std((1, 2, 3), keepdim=True) + 1e-3 * 255)
        features = self.frame_net(clips.flatten(0, 1)[:, None]).unflatten(0, clips.shape[:2])  # (B, T, 256)
        return F.normalize(self.join_frames(_windows(features, WINDOW, 1).flatten(2)), dim=-1)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Log-mel (B, 4 T, 80) -> (B, T, D) unit vectors."""
        scaled = (mel.float() - LOG_MEL_MEAN) / LOG_MEL_STD
        windows = _windows(scaled, WINDOW * HOPS_PER_FRAME, HOPS_PER_FRAME)  # (B, T, 20, 80)
        features = self.audio_net(windows.flatten(0, 1).transpose(1, 2)).unflatten(0, windows.shape[:2])
        return F.normalize(features, dim=-1)

    @torch.inference_mode()
    def embed(self, frames: np.ndarray, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Video (T, H, W, 3) uint8 at 25 fps and its 16 kHz mono waveform -> (T, D), (T, D) float32: row t of both is
        centred on frame t.

        Sound that is missing at the end counts as silence; sound beyond the last frame is left out.

        Raises:
            NoMouthError: no face was found in any frame.
            ValueError: wrong shapes, fewer than WINDOW frames, or a waveform that is not finite.
        """
        if len(frames) < WINDOW:
            raise ValueError(f"{len(frames)} frames are too few: SyncNet's window has {WINDOW}")
        boxes, _ = face_boxes(frames)
        video = self.embed_video(torch.from_numpy(mouth_crops(frames, boxes))[None])[0]
        return video.numpy(), self.embed_audio(clip_mel(waveform, len(frames))[None])[0].numpy()


def clip_mel(waveform: np.ndarray, num_frames: int) -> Tensor:
    """Log-mel (4 T, 80) of a clip, its speech brought to a common loudness.

    Raises:
        ValueError: not one-dimensional or not finite.
    """
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim != 1 or not np.isfinite(waveform).all():
        raise ValueError(f"expected a finite mono waveform (samples,), got shape {waveform.shape}")
    samples = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float32)
    samples[: min(len(samples), len(waveform))] = waveform[: len(samples)]
    loudness = np.sqrt((samples.reshape(num_frames, -1) ** 2).mean(1))
    loud = float(np.quantile(loudness, _LOUD_QUANTILE)) if num_frames else 0.0
    return log_mel(torch.from_numpy(samples * (_SPEECH_LEVEL / max(loud, _QUIETEST)))[None])[0]


def load_syncnet(path: Path) -> SyncNet:
    """Weights from a file that `save_syncnet` wrote.

    Raises:
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing; train it with python -m eval.networks.train_syncnet")
    sizes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["config"]
    net = SyncNet(**sizes)
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    net.version = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return net.requires_grad_(False).eval()


@lru_cache(maxsize=1)
def load_embedded() -> SyncNet:
    """The shipped network, in eval mode, on the CPU. Raises FileNotFoundError when it is not there."""
    return load_syncnet(WEIGHTS)


def save_syncnet(net: SyncNet, path: Path, record: dict) -> None:
    """Half-precision weights, and beside them a JSON with the sizes and what is known about the training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().half().contiguous() for name, value in net.state_dict().items()}, path)
    about = {"config": {"dim": net.dim, "width": net.frame_net[0][0].out_channels}, **record}
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _windows(x: Tensor, size: int, step: int) -> Tensor:
    """(B, L, C) -> (B, L / step, size, C): windows around each step, the ends repeated."""
    before = (size - step) // 2
    padded = torch.cat([x[:, :1].expand(-1, before, -1), x, x[:, -1:].expand(-1, size - step - before, -1)], dim=1)
    return padded.unfold(1, size, step).transpose(2, 3)


def _conv2d(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU())


def _conv1d(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU())
