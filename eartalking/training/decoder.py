"""Stage 4, the decoder: `python -m eartalking.training.decoder --checkpoint DIR --data DIR --val DIR --out RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 128 --steps 12000 --max-minutes 9` (resumes slice by slice).

From a portrait, its motion and the motion of the frame (exact, through the fixed code, with a little noise) to the
frame. The checkpoint's surface encoder (training.surface) stays as it is: its warp is what the decoder starts from.
- The warp and the visibility are supervised by SynthTalk's exact correspondence.
- The code says nothing of whose face it is, so every identity teaches the same code.

The frame encoder (training.encoder) learns beside this, from the same stills: neither needs the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eartalking.autoencoder.decoder import DECIDED, LEANS, Decoded
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.checkpoint import load_model, save_model
from eartalking.errors import run_program
from eartalking.training.augmentation import LATENT_NOISE, PORTRAIT_NOISE
from eartalking.training.data import endless, fixed_batch, prepare
from eartalking.training.evaluation import psnr, sharpness, to_strip
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.losses import (
    PERCEPTUAL_FROM,
    PERCEPTUAL_PART,
    PerceptualFeatures,
    detail_loss,
    importance,
    warp_loss,
)
from eartalking.training.marks import MarkedStills, as_of_a_photograph


class DecoderTrainer(nn.Module):
    """The autoencoder, decoding from true motion."""

    def __init__(self, autoencoder: FrameAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, batch: dict[str, Tensor], noise: float = 1.0) -> Decoded:
        """The batch's frames from its motion, with `noise` times the usual noise on the codes."""
        autoencoder = self.autoencoder
        latents, own = (autoencoder.code.motion_to_latents(batch[name]) for name in ("motion", "portrait_motion"))
        latents = latents + noise * LATENT_NOISE * torch.randn_like(latents)
        own = own + noise * PORTRAIT_NOISE * torch.randn_like(own)
        marks = as_of_a_photograph(batch["portrait_marks"]) if noise else batch["portrait_marks"]
        reference = autoencoder.reference_of(batch["portrait"], own, batch["portrait_landmarks"], marks)
        if not reference.pyramid[0].requires_grad and torch.is_grad_enabled():
            # PyTorch 2.13's backward of a channels-last group norm crashes the process where its input needs no
            # gradient.
            reference = reference._replace(pyramid=[level.requires_grad_() for level in reference.pyramid])
        return autoencoder.paint(autoencoder.geometry(latents, reference), latents, reference)


def compute_losses(
    trainer: nn.Module, batch: dict[str, Tensor], progress: float, perceptual: PerceptualFeatures | None
) -> Losses:
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
    # The blend learns what is visible, and nothing else: left to the pixels, it hides each small error of the warp
    # behind a blurred painting of the face. It learns it as a probability, before it takes sides.
    blend = decoded.blend.detach()
    undecided = torch.logit(decoded.blend, 1e-6) / DECIDED - LEANS
    image = blend * decoded.warped + (1 - blend) * decoded.painted
    losses |= {
        "image": (weights * (image - target).abs()).mean(),
        "painted": (weights * (decoded.painted - target).abs()).mean(),
        "warped": (seen * weights * (decoded.warped - target).abs()).mean(),
        "blend": F.binary_cross_entropy_with_logits(undecided, seen, weight=weights),
    }
    scales = {"warp": 1.0, "visibility": 0.3, "image": 2.0, "painted": 0.3, "warped": 0.5, "blend": 0.5, "detail": 0.3}
    if perceptual is not None and progress > PERCEPTUAL_FROM:
        few = -(-len(target) // PERCEPTUAL_PART)
        crop = (slice(few), slice(None), *_random_crop(target.shape[-1]))
        losses["perceptual"] = perceptual.distance(image[crop], target[crop])
        scales["perceptual"] = 0.1
    losses["detail"] = detail_loss(image, target, weights)
    losses["loss"] = sum(scale * losses[name] for name, scale in scales.items())
    return losses


def _random_crop(size: int) -> tuple[slice, slice]:
    """Half-size crop, mostly over the lower middle, where mouth and eyes are."""
    top = int(size * np.random.uniform(0.15, 0.5))
    left = int(size * np.random.uniform(0.15, 0.35))
    return slice(top, top + size // 2), slice(left, left + size // 2)


def evaluate(trainer: DecoderTrainer, batch: dict[str, Tensor], out: Path, step: int) -> dict[str, float]:
    """PSNR over all, moving and hidden pixels on held-out identities; and a strip of pictures."""
    decoded = trainer(batch, noise=0.0)
    target = batch["frame"]
    moves = F.interpolate((batch["warp"].abs().sum(1, keepdim=True) > 1e-3).float(), size=target.shape[-2:])
    hidden = F.interpolate(1 - batch["visibility"], size=target.shape[-2:]) * moves
    (out / "samples").mkdir(exist_ok=True)
    columns = [batch["portrait"], target, decoded.image, decoded.warped, decoded.painted, decoded.blend * 2 - 1]
    to_strip([column[::6] for column in columns]).save(out / "samples" / f"{step:06d}.jpg")
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
    parser.add_argument(
        "--keep-reference",
        action="store_true",
        help="leave the reference encoder, whose features the model knows, alone",
    )
    parser.add_argument("--no-perceptual", action="store_true", help="leave out the EfficientNet feature loss")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    model = load_model(args.checkpoint)
    trainer = DecoderTrainer(model.autoencoder).train().requires_grad_(True).to(memory_format=torch.channels_last)
    autoencoder = model.autoencoder
    kept: list[nn.Module] = [autoencoder.encoder, autoencoder.refiner, autoencoder.surface]
    for part in [*kept, autoencoder.reference_encoder] if args.keep_reference else kept:
        part.requires_grad_(False)
    perceptual = None if args.no_perceptual else PerceptualFeatures().to(accelerator.device)
    workers = 0 if accelerator.device.type == "cpu" else 8
    stills = MarkedStills(args.data)
    loader = DataLoader(stills, options.batch_size, shuffle=True, drop_last=True, num_workers=workers)
    if not len(loader):
        parser.error(f"{args.data} holds {len(stills)} stills, fewer than one batch of {options.batch_size}")
    held_out = fixed_batch(MarkedStills(args.val), accelerator.device)
    stream = endless(loader)
    average = train(
        trainer,
        lambda: prepare(next(stream), accelerator.device),
        lambda module, batch, progress: compute_losses(module, batch, progress, perceptual),
        lambda module, step: evaluate(module, held_out, options.out, step),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        autoencoder.load_state_dict(average.autoencoder.state_dict())
        save_model(model, options.out / "checkpoint")
    return 0


if __name__ == "__main__":
    run_program(main)
