"""Train the FaceReader: `python -m eval.train_estimator --data DIR [DIR ...] --val DIR --out eartalking/weights/face_reader`.

DIR are folders of SynthTalk clips (eartalking.synth.clips), `stills` or `speech`, of the training split; `--val` holds
other identities. Frames are blurred, compressed, recoloured, warped and shifted, so that the reader also works on
what a model draws. The last line printed is JSON: the accuracy on held-out identities.
"""
from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from eartalking.controls import EMOTIONS
from eartalking.face_reader import CROP, INPUT_SIZE, READINGS, SCALES, FaceReader, FaceReaderNet, cut_face
from eartalking.synth.face_units import UNIT_INDEX

# Images are kept a little wider than the reader's crop, so that shifts and turns bring in real pixels.
STORED_SIZE = 152
_MARGIN = (CROP[2] - CROP[0]) * (STORED_SIZE / INPUT_SIZE - 1) / 2
STORED_CROP = (CROP[0] - _MARGIN, CROP[1] - _MARGIN, CROP[2] + _MARGIN, CROP[3] + _MARGIN)
MIRRORED = tuple(READINGS.index(name) for name in ("yaw", "roll", "gaze_yaw"))
GAZE = slice(READINGS.index("gaze_yaw"), READINGS.index("gaze_pitch") + 1)
CLEAR_INTENSITY = 0.6  # from here on an emotion must be recognisable


@dataclass
class ReaderData:
    """images (F, 3, S, S) uint8; values (F, 10) in units of SCALES; emotion (F,) index; weight (F,) of the emotion;
    clear (F,) bool: the emotion is strong (or absent) and no brow or smile control contradicts it."""

    images: Tensor
    values: Tensor
    emotion: Tensor
    weight: Tensor
    clear: Tensor

    def __len__(self) -> int:
        return len(self.images)


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


def load_data(folders: list[Path], max_clips: int, max_frames: int) -> ReaderData:
    """Frames (and twin frames) of the clips; of clips longer than `max_frames`, that many spread over the clip."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))][:max_clips]
    if not paths:
        raise FileNotFoundError(f"no clips (*.safetensors) in {', '.join(map(str, folders))}")
    parts: dict[str, list[Tensor]] = {name: [] for name in ("images", "values", "emotion", "weight", "clear")}
    for path in tqdm(paths, unit="clip", mininterval=2):
        with safe_open(path, "pt") as clip:
            names = set(clip.keys())
            labels = {name[len("labels.") :]: clip.get_tensor(name) for name in names if name.startswith("labels.")}
            total = len(labels["emotion"])
            rows = torch.linspace(0, total - 1, min(total, max_frames)).round().long()
            labels = {name: value[rows] for name, value in labels.items()}
            intensity, emotion = labels["emotion_intensity"].float(), labels["emotion"].long()
            calm = (labels["smile"].abs() < 0.35) & (labels["brow"].abs() < 0.35)
            for frames in sorted(names & {"frames", "twin_frames"}):
                images = cut_face(clip.get_tensor(frames)[rows], STORED_CROP, STORED_SIZE)
                parts["images"].append((images * 255).round().byte())
                parts["values"].append(targets(labels) / torch.tensor(list(SCALES.values())))
                parts["emotion"].append(emotion)
                parts["weight"].append(torch.where(emotion > 0, intensity, 0.3) * torch.where(calm, 1.0, 0.3))
                parts["clear"].append(calm & ((emotion == 0) | (intensity >= CLEAR_INTENSITY)))
    return ReaderData(**{name: torch.cat(values) for name, values in parts.items()})


def centre(images: Tensor) -> Tensor:
    """Stored images (B, 3, S, S) uint8 -> what the reader sees without augmentation, float in 0..1."""
    margin = (STORED_SIZE - INPUT_SIZE) // 2
    return images[..., margin:-margin, margin:-margin].float() / 255


def augment(images: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Stored images (B, 3, S, S) uint8 and values (B, 10) -> damaged images (B, 3, 128, 128) and their values."""
    batch = len(images)
    x, values = images.float() / 255, values.clone()
    mirrored = torch.rand(batch) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    values[mirrored.nonzero(), torch.tensor(MIRRORED)] *= -1
    x = _warp(x)
    # Colour: casts, contrast, and now and then grey.
    gain, lift = 1 + 0.2 * torch.randn(batch, 3, 1, 1), 0.06 * torch.randn(batch, 3, 1, 1)
    x = (x.clamp(0, 1) ** torch.exp(0.25 * torch.randn(batch, 1, 1, 1))) * gain + lift
    grey = torch.rand(batch) < 0.1
    x[grey] = x[grey].mean(1, keepdim=True)
    # Each damage hits a slice of the batch, which is in random order anyway.
    quarter = max(1, batch // 4)
    x[:quarter] = _reduced(x[:quarter], float(np.random.uniform(0.4, 0.9)))
    kernel = torch.softmax(-((torch.arange(-3, 4) / np.random.uniform(0.4, 1.6)) ** 2) / 2, 0)
    x[quarter : 2 * quarter] = _blurred(x[quarter : 2 * quarter], kernel)
    x[quarter // 2 : quarter // 2 + quarter] = _blocky(x[quarter // 2 : quarter // 2 + quarter], float(np.random.uniform(0.02, 0.12)))
    x[2 * quarter : 3 * quarter] += 0.06 * torch.rand(1) * torch.randn_like(x[2 * quarter : 3 * quarter])
    return x.clamp(0, 1), values


def _warp(x: Tensor) -> Tensor:
    """Random scale, shift and a smooth small distortion, cut to the reader's input size."""
    batch = len(x)
    axis = (torch.arange(INPUT_SIZE) + 0.5) * (2 / INPUT_SIZE) - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) * (INPUT_SIZE / STORED_SIZE)
    scale = torch.exp(0.05 * torch.randn(batch, 1, 1, 2) + 0.05 * torch.randn(batch, 1, 1, 1))
    shift = 0.05 * torch.randn(batch, 1, 1, 2)
    bend = F.interpolate(0.012 * torch.randn(batch, 2, 8, 8), size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=True)
    return F.grid_sample(x, grid * scale + shift + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def _reduced(x: Tensor, factor: float) -> Tensor:
    small = F.interpolate(x, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
    channels = x.shape[1]
    x = F.conv2d(F.pad(x, (3, 3, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(F.pad(x, (0, 0, 3, 3), mode="replicate"), kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)


def _blocky(x: Tensor, step: float) -> Tensor:
    """What JPEG does: the cosine coefficients of 8x8 blocks rounded to coarse steps, coarser where finer."""
    index = torch.arange(8)
    basis = torch.cos(math.pi / 8 * (index[None] + 0.5) * index[:, None]) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    steps = step * (0.5 + 0.25 * (index[None] + index[:, None]))
    blocks = x.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))  # (B, 3, h, 8, w, 8)
    coefficients = torch.einsum("bchiwj,ui,vj->bchwuv", blocks, basis, basis)
    coefficients = (coefficients / steps).round() * steps
    return torch.einsum("bchwuv,ui,vj->bchiwj", coefficients, basis, basis).flatten(-2).flatten(-3, -2)


def reading_loss(net: FaceReaderNet, images: Tensor, values: Tensor, emotion: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        readings, logits = net(images)
    error = F.smooth_l1_loss(readings.float(), values, beta=0.5, reduction="none")
    open_eyes = (values[:, READINGS.index("blink")] * SCALES["blink"] < 0.5).float()
    error[:, GAZE] = error[:, GAZE] * open_eyes[:, None]
    naming = F.cross_entropy(logits.float(), emotion, reduction="none", label_smoothing=0.02)
    return error.mean() + 0.15 * (naming * weight).sum() / weight.sum().clamp_min(1e-6)


@torch.inference_mode()
def measure(net: FaceReaderNet, data: ReaderData) -> dict[str, float]:
    """Mean absolute error per reading (gaze: where the eyes are open), emotions recognised where they are clear, and
    how often the blink is on the right side of one half."""
    net.eval()
    values, logits = (torch.cat(parts) for parts in zip(*(net(centre(part)) for part in data.images.split(64)), strict=True))
    scales = torch.tensor(list(SCALES.values()))
    error, truth = (values - data.values).abs() * scales, data.values * scales
    is_open = truth[:, READINGS.index("blink")] < 0.5
    accuracy = {name: float(error[is_open if name.startswith("gaze") else slice(None), i].mean()) for i, name in enumerate(READINGS)}
    named = (logits.argmax(1) == data.emotion)[data.clear]
    blink = READINGS.index("blink")
    accuracy["emotion_recognised"] = float(named.float().mean()) if len(named) else math.nan
    accuracy["blink_side"] = float(((values[:, blink] * SCALES["blink"] > 0.5) == ~is_open).float().mean())
    mouth = READINGS.index("mouth_open")
    accuracy["mouth_correlation"] = float(torch.corrcoef(torch.stack([values[:, mouth], data.values[:, mouth]]))[0, 1])
    return {name: round(value, 4) for name, value in accuracy.items()}


def train(data: ReaderData, minutes: float, batch_size: int, peak_rate: float) -> tuple[FaceReaderNet, int]:
    """Train for that long, the learning rate following the clock; the averaged net and the number of steps."""
    net = FaceReaderNet().to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak_rate, weight_decay=0.02)
    started, step = time.monotonic(), 0
    with tqdm(total=100, unit="%", mininterval=10) as bar:
        while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
            rate = peak_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = torch.randint(len(data), (batch_size,))
            images, values = augment(data.images[rows], data.values[rows])
            images = images.contiguous(memory_format=torch.channels_last)
            loss = reading_loss(net, images, values, data.emotion[rows], data.weight[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            decay = min(0.998, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
                for mine, theirs in zip(average.buffers(), net.buffers(), strict=True):
                    mine.lerp_(theirs, 1 - decay) if mine.is_floating_point() else mine.copy_(theirs)
            bar.set_postfix(step=step, loss=f"{float(loss.detach()):.3f}", refresh=False)
            bar.update(min(100, round(100 * share)) - bar.n)
    return average, step


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.train_estimator", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of clips, training split")
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="folders of clips of held-out identities")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-clips", type=int, default=1200, help="clips held in memory")
    parser.add_argument("--max-frames", type=int, default=12, help="frames taken from one clip")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    data = load_data(args.data, args.max_clips, args.max_frames)
    net, steps = train(data, args.minutes, args.batch_size, args.learning_rate)
    held_out = load_data(args.val, args.max_clips, args.max_frames)
    accuracy = measure(net, held_out)
    about = {"steps": steps, "batch_size": args.batch_size, "training_images": len(data), "held_out_images": len(held_out),
             "emotions": list(EMOTIONS), "crop": list(CROP)}  # fmt: skip
    FaceReader(net, accuracy).save(args.out, **about)
    print(json.dumps({"steps": steps, "training_images": len(data), "held_out_images": len(held_out), **accuracy}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
