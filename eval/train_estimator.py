"""Train the FaceReader: `python -m eval.train_estimator --data DIR [DIR ...] --val DIR --out eartalking/weights/face_reader`.

DIR are folders of SynthTalk clips (eartalking.synth.clips), `stills` or `speech`, of the training split; `--val` holds
other identities. First the locator learns where the face is (the point between the portrait's eyes, followed
through the exact correspondence), then the face net learns to read faces that are cut out a little wrongly. Images are
blurred, compressed and recoloured, so that the reader also works on what a model draws.
The last line printed is JSON: the accuracy on held-out identities.
"""
from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from tqdm import tqdm

from eartalking.controls import EMOTIONS
from eartalking.face_reader import READINGS, ROLL, SCALES, FaceReader, FaceReaderNet, cut_faces, shrink
from eartalking.synth.face_units import UNIT_INDEX
from eval.identity import FaceIdentity

MIRRORED = tuple(READINGS.index(name) for name in ("yaw", "roll", "gaze_yaw"))
GAZE = slice(READINGS.index("gaze_yaw"), READINGS.index("gaze_pitch") + 1)
CLEAR_INTENSITY = 0.6  # from here on an emotion must be recognisable
LOCATOR_SHARE = 0.12  # of the training time
# How wrongly the face may be cut out: position (of [-1, 1]), roll (degrees), log of the size.
PLACE_JITTER, ROLL_JITTER, SIZE_JITTER = 0.02, 3.0, 0.06


@dataclass
class ReaderData:
    """images (F, 3, S, S) and small (F, 3, 64, 64) uint8, the frames as the face net and as the locator get them; place
    (F, 3) where the face is (x, y in [-1, 1], roll in degrees); values (F, 10) in units of SCALES; emotion (F,) index;
    weight (F,) of the emotion; clear (F,) bool: the emotion is strong (or absent) and no brow or smile control contradicts
    it."""

    images: Tensor
    small: Tensor
    place: Tensor
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


def eye_positions(point: np.ndarray, correspondence: Tensor, visibility: Tensor) -> Tensor:
    """Where a point of the portrait, (2,) in [-1, 1], is in each frame: (T, 2), nan where it is hidden.

    correspondence (T, M, M, 2), visibility (T, M, M) 0/255: the weighted mean of the map's pixels that show the point's
    neighbourhood, moved by what is left.
    """
    size = correspondence.shape[1]
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    here = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # (M, M, 2)
    target = torch.from_numpy(point).float()
    correspondence = correspondence.float()
    weight = torch.exp(-(correspondence - target).square().sum(-1) / (2 * 0.04**2)) * (visibility > 127)  # (T, M, M)
    total = weight.sum((1, 2))[:, None]
    found = [(weight[..., None] * value).sum((1, 2)) / total for value in (here, correspondence)]
    return torch.where(total > 0.5, found[0] + target - found[1], math.nan)


def load_data(folders: list[Path], max_clips: int, max_frames: int, placed: bool) -> ReaderData:
    """Frames (and twin frames) of the clips; of clips longer than `max_frames`, that many spread over the clip.

    With `placed` (for training; needs clips with correspondence) portraits without a detected face, and frames that hide
    the point between the eyes, are left out; without, every frame is there and `place` is nan.
    """
    paths = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))][:max_clips]
    if not paths:
        raise FileNotFoundError(f"no clips (*.safetensors) in {', '.join(map(str, folders))}")
    faces = FaceIdentity() if placed else None
    parts: dict[str, list[Tensor]] = {name: [] for name in ReaderData.__dataclass_fields__}
    for path in tqdm(paths, unit="clip", mininterval=2):
        with safe_open(path, "pt") as clip:
            names = set(clip.keys())
            labels = {name[len("labels.") :]: clip.get_tensor(name) for name in names if name.startswith("labels.")}
            total = len(labels["emotion"])
            rows = torch.linspace(0, total - 1, min(total, max_frames)).round().long()
            labels = {name: value[rows] for name, value in labels.items()}
            for prefix in ("", "twin_"):
                if prefix + "frames" not in names:
                    continue
                place = torch.full((len(rows), 3), math.nan)
                if faces is not None:
                    eyes = faces.between_eyes(clip.get_tensor(prefix + "reference").numpy())
                    if eyes is None:
                        continue
                    maps = (clip.get_tensor(prefix + name)[rows] for name in ("correspondence", "visibility"))
                    place = torch.cat([eye_positions(eyes, *maps), labels["head_pose"][:, 2:].float()], dim=1)
                kept = place.isfinite().all(1) | (faces is None)
                images = clip.get_tensor(prefix + "frames")[rows].permute(0, 3, 1, 2).contiguous()
                small = (shrink(to_unit(images)) * 255).round().byte()
                frames = {"images": images, "small": small, "place": place, **_answers(labels)}
                for name, value in frames.items():
                    parts[name].append(value[kept])
    return ReaderData(**{name: torch.cat(values) for name, values in parts.items()})


def _answers(labels: dict[str, Tensor]) -> dict[str, Tensor]:
    intensity, emotion = labels["emotion_intensity"].float(), labels["emotion"].long()
    calm = (labels["smile"].abs() < 0.35) & (labels["brow"].abs() < 0.35)
    return {
        "values": targets(labels) / torch.tensor(list(SCALES.values())),
        "emotion": emotion,
        "weight": torch.where(emotion > 0, intensity, 0.3) * torch.where(calm, 1.0, 0.3),
        "clear": calm & ((emotion == 0) | (intensity >= CLEAR_INTENSITY)),
    }


def to_unit(images: Tensor) -> Tensor:
    """uint8 -> float in 0..1."""
    return images.float() / 255


def face_batch(images: Tensor, place: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, 3, S, S) -> damaged faces, cut out a little wrongly, half of them mirrored, and their values: the roll
    is what the cut left over."""
    batch, values = len(images), values.clone()
    wrong = place + torch.randn(batch, 3) * torch.tensor([PLACE_JITTER, PLACE_JITTER, ROLL_JITTER])
    values[:, ROLL] -= wrong[:, 2] / SCALES["roll"]
    faces = cut_faces(images, wrong, torch.exp(SIZE_JITTER * torch.randn(batch, 1, 1)))
    mirrored = torch.rand(batch) < 0.5
    faces[mirrored] = faces[mirrored].flip(-1)
    values[mirrored.nonzero(), torch.tensor(MIRRORED)] *= -1
    return damage(faces), values


def locator_batch(small: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Small frames (B, 3, 64, 64) -> damaged ones, mirrored, moved and scaled, and where the face is in them."""
    small, place = small.clone(), place.clone()
    mirrored = torch.rand(len(small)) < 0.5
    small[mirrored] = small[mirrored].flip(-1)
    place[mirrored] *= torch.tensor([-1.0, 1.0, -1.0])
    scale, shift = torch.exp(0.08 * torch.randn(len(small), 1)), 0.1 * torch.randn(len(small), 2)
    theta = torch.cat([torch.diag_embed(scale.expand(-1, 2)), shift[:, :, None]], dim=2)
    moved = F.grid_sample(small, F.affine_grid(theta, list(small.shape), align_corners=False), padding_mode="border", align_corners=False)
    return damage(moved), torch.cat([(place[:, :2] - shift) / scale, place[:, 2:]], dim=1)


def damage(x: Tensor) -> Tensor:
    """Images (B, 3, S, S) in 0..1 with other colours, blur, compression and noise."""
    batch = len(x)
    gain, lift = 1 + 0.2 * torch.randn(batch, 3, 1, 1), 0.06 * torch.randn(batch, 3, 1, 1)
    x = (x.clamp(0, 1) ** torch.exp(0.25 * torch.randn(batch, 1, 1, 1))) * gain + lift
    grey = torch.rand(batch) < 0.1
    x[grey] = x[grey].mean(1, keepdim=True)
    # Each damage hits a slice of the batch, which is in random order anyway.
    part = max(1, batch // 5)
    x[:part] = _reduced(x[:part], float(np.random.uniform(0.4, 0.9)))
    kernel = torch.softmax(-((torch.arange(-3, 4) / np.random.uniform(0.4, 1.8)) ** 2) / 2, 0)
    x[part : 2 * part] = _blurred(x[part : 2 * part], kernel)
    x[part // 2 : part // 2 + part] = _blocky(x[part // 2 : part // 2 + part], float(np.random.uniform(0.02, 0.12)))
    x[2 * part : 3 * part] += 0.06 * torch.rand(1) * torch.randn_like(x[2 * part : 3 * part])
    return x.clamp(0, 1)


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


def reading_loss(net: nn.Module, faces: Tensor, values: Tensor, emotion: Tensor, weight: Tensor) -> Tensor:
    """`net` is the FaceCropNet; a gaze counts only where the eyes are open."""
    with torch.autocast("cpu", torch.bfloat16):
        readings, logits = net(faces)
    error = F.smooth_l1_loss(readings.float(), values, beta=0.5, reduction="none")
    open_eyes = (values[:, READINGS.index("blink")] * SCALES["blink"] < 0.5).float()
    error[:, GAZE] = 2 * error[:, GAZE] * open_eyes[:, None]
    naming = F.cross_entropy(logits.float(), emotion, reduction="none", label_smoothing=0.02)
    return error.mean() + 0.15 * (naming * weight).sum() / weight.sum().clamp_min(1e-6)


def place_loss(net: nn.Module, frames: Tensor, place: Tensor) -> Tensor:
    """`net` is the FaceLocator."""
    with torch.autocast("cpu", torch.bfloat16):
        found = net(frames)
    return F.smooth_l1_loss((found.float() - place) / torch.tensor([0.1, 0.1, SCALES["roll"]]), torch.zeros_like(place), beta=0.5)


@torch.inference_mode()
def measure(net: FaceReaderNet, data: ReaderData) -> dict[str, float]:
    """Mean absolute error per reading (gaze: where the eyes are open), emotions recognised where they are clear, and
    how often the blink is on the right side of one half."""
    net.eval()
    values, logits = (torch.cat(parts) for parts in zip(*(net(to_unit(part)) for part in data.images.split(32)), strict=True))
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


def train(net: nn.Module, next_loss: Callable[[nn.Module], Tensor], minutes: float, peak_rate: float) -> tuple[nn.Module, int]:
    """Train for that long, the learning rate following the clock; the averaged net and the number of steps.

    The clock is this process's own processor time: on a busy machine, or paused, it learns no less.
    """
    net = net.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak_rate, weight_decay=0.02)
    started, step = time.process_time(), 0
    with tqdm(total=100, unit="%", mininterval=10, desc=type(net).__name__) as bar:
        while (share := (time.process_time() - started) / (60 * minutes)) < 1:
            rate = peak_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = next_loss(net)
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


def train_reader(
    reader: FaceReaderNet, data: ReaderData, minutes: float, batch_size: int, peak_rate: float
) -> tuple[FaceReaderNet, dict[str, int]]:
    """Both parts one after the other, each on the true place of the face; and the steps of each."""

    def locator_loss(net: nn.Module) -> Tensor:
        rows = torch.randint(len(data), (batch_size,))
        return place_loss(net, *locator_batch(to_unit(data.small[rows]), data.place[rows]))

    def face_loss(net: nn.Module) -> Tensor:
        rows = torch.randint(len(data), (batch_size,))
        faces, values = face_batch(to_unit(data.images[rows]), data.place[rows], data.values[rows])
        return reading_loss(net, faces, values, data.emotion[rows], data.weight[rows])

    reader.requires_grad_(True)
    reader.locator, locator_steps = train(reader.locator, locator_loss, LOCATOR_SHARE * minutes, peak_rate)
    reader.face, face_steps = train(reader.face, face_loss, (1 - LOCATOR_SHARE) * minutes, peak_rate)
    return reader, {"locator_steps": locator_steps, "face_steps": face_steps}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.train_estimator", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", help="folders of clips, training split; without, --out is measured again")
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="folders of clips of held-out identities")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="reader to start from")
    parser.add_argument("--minutes", type=float, default=12.0, help="of processor time")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-clips", type=int, default=700, help="clips held in memory (5 MB each)")
    parser.add_argument("--max-frames", type=int, default=12, help="frames taken from one clip")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    if args.data is None:
        net, about = FaceReader.load(args.out).net, FaceReader.about(args.out)
    else:
        data = load_data(args.data, args.max_clips, args.max_frames, placed=True)
        start = FaceReader.load(args.init).net if args.init else FaceReaderNet()
        net, steps = train_reader(start, data, args.minutes, args.batch_size, args.learning_rate)
        about = {**steps, "batch_size": args.batch_size, "training_images": len(data), "emotions": list(EMOTIONS)}
    held_out = load_data(args.val, args.max_clips, args.max_frames, placed=False)
    accuracy = measure(net, held_out)
    about |= {"held_out_images": len(held_out)}
    FaceReader(net, accuracy).save(args.out, **about)
    print(json.dumps({**about, **accuracy}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
