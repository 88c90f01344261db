"""Stage 5, the part refiner: `python -m eartalking.training.refiner --checkpoint DIR --data DIR --val DIR --out RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 256 --steps 8000 --max-minutes 9` (resumes slice by slice).

`--checkpoint` has a trained decoder, which stays as it is. It decodes every still once, from true motion; eyes and
mouths are cut out of these, of the stills and of the portraits, with a margin, and kept in RUN/cuts-*.safetensors. A
training step sees nothing but such cuts, so it costs a small fraction of a step of the decoder.

The decoder puts a turned head some pixels beside where it is. Against the still itself the best answer to that is a
blur over eye and mouth, so here it is given the true warp; in the eyes, the decoder's own movement of lids and eyeballs
on what carries them along (`aligned`). What is left to learn is what such a warp cannot say, wherever the decoder has
put the face.

By its error alone a network would rather wipe lashes, pores and a camera's noise away than put them a pixel beside
where they are: it took faces from 0.75 of the truth's sharpness to 0.28. So the strength of the detail counts by itself
(`detail`).

The code of a mouth's inside (`autoencoder.inner_mouth`) is learnt with it: from other pictures of the same person while
a mouth is drawn, and from the portrait alone to foretell that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from eartalking.autoencoder.inner_mouth import Belief
from eartalking.autoencoder.part_refiner import PartRefiner, fade
from eartalking.autoencoder.portrait_parts import EYE, MOUTH, Parts, cut_size
from eartalking.checkpoint import load_model, save_model
from eartalking.model import TalkingHeadModel
from eartalking.modules.res_block import upsample
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, MOTION_SCALES
from eartalking.training.augmentation import LATENT_NOISE
from eartalking.training.evaluation import psnr, sharpness, to_strip
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.losses import PerceptualFeatures, detail
from eartalking.training.part_cuts import (
    KINDS,
    MARGIN,
    Rows,
    draw,
    load_cuts,
    other_pictures,
    to_unit,
    without_pictures,
)

PERCEPTUAL_FROM, PERCEPTUAL_PART = (
    0.5,
    4,
)  # in the second half of the run, on one cut in so many: they cost as much as all the rest
PERCEPTUAL_WEIGHT, EDGE_WEIGHT, DETAIL_WEIGHT, MOVE_WEIGHT = 0.1, 0.5, 0.7, 20.0
TOLD_WEIGHT = 1e-4  # of a nat of the code that the portrait does not foretell
OF_THE_CODE = ("autoencoder.refiner.inner_mouth.", "autoencoder.refiner.from_code.")


class RefinerTrainer(nn.Module):
    """The part refiner on cuts."""

    def __init__(self, refiner: PartRefiner, image_size: int) -> None:
        super().__init__()
        self.refiner = refiner
        self.image_size = image_size

    def believed(self, batch: Rows) -> tuple[Belief, Belief]:
        """What a person's other pictures and the portrait say of the mouth's inside, and what the portrait alone
        says."""
        inner = self.refiner.inner_mouth
        if inner is None:
            nothing = Belief(*batch["motion"].new_zeros(2, len(batch["motion"]), 0))
            return nothing, nothing
        told = inner.opinions(batch["told"].flatten(0, 1), batch["told_motion"].flatten(0, 1))
        own = inner.opinions(batch["mouth_portrait"], batch["own"])[:, None]
        seen = torch.ones_like(batch["seen"][:, :1])
        all_opinions = torch.cat([told.unflatten(0, (len(own), -1)), own], dim=1)
        return inner.believe(all_opinions, torch.cat([batch["seen"], seen], dim=1)), inner.believe(own, seen)

    def forward(self, batch: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As in training -> what `refine` gives, by codes drawn from what a person's pictures say; and what the
        portraits do not foretell of these, in nats (B,)."""
        told, own = self.believed(batch)
        return *self.refine(batch, told.draw(), LATENT_NOISE), told.divergence(own)

    def refine(self, batch: Rows, code: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """-> refined eyes (B, 2, 3, h, w) and mouths (B, 3, h, w), these with the `code` (B, C), and the landmarks it
        expects (B, 3, 2)."""
        motion = batch["motion"] + noise * torch.randn_like(batch["motion"])
        eyes, mouth = batch["eyes_decoded"], batch["mouth_decoded"]
        parts = Parts(
            batch["eyes_portrait"],
            batch["eyes_lidded"],
            batch["mouth_portrait"],
            batch["portrait_landmarks"],
            batch["own"],
            code,
        )
        added = self.refiner.additions(motion, batch["turn"], eyes, mouth, parts, self.image_size)
        refined = (
            part + more * fade(tuple(more.shape[-2:]), more.device)
            for part, more in zip((eyes, mouth), added, strict=True)
        )
        found = batch["portrait_landmarks"] + 0.01 * torch.randn_like(batch["landmarks"]) * (noise > 0)
        return *refined, self.refiner.landmarks(motion, batch["own"], found)


def edges(images: Tensor) -> Tensor:
    """Differences of neighbouring pixels, both ways: what blur takes away."""
    across, down = images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]
    return torch.cat([across.flatten(-2), down.flatten(-2)], dim=-1)


def compute_losses(trainer: nn.Module, batch: Rows, perceptual: nn.Module | None) -> Losses:
    *refined, landmarks, untold = trainer(batch)
    losses = {"move": (landmarks - batch["landmarks"]).abs().mean(), "untold": untold.mean()}
    image = edge = strength = 0.0
    for part, ours in zip(("eyes", "mouth"), refined, strict=True):
        target = batch[f"{part}_target"]
        before = (batch[f"{part}_decoded"] - target).abs().mean()
        losses[f"{part}_share"] = (ours - target).abs().mean() / before  # of the decoder's error that is left
        image = image + (ours - target).abs().mean()
        edge = edge + (edges(ours) - edges(target)).abs().mean()
        strength = strength + (detail(ours) - detail(target)).abs().mean()
    losses |= {"image": image, "edge": edge, "detail": strength}
    if perceptual is not None:
        pairs = [(refined[0].flatten(0, 1), batch["eyes_target"].flatten(0, 1)), (refined[1], batch["mouth_target"])]
        distances = []
        for ours, target in pairs:
            few = -(-len(ours) // PERCEPTUAL_PART)
            features = zip(*(perceptual(upsample(images[:few].clamp(-1, 1))) for images in (ours, target)), strict=True)
            distances.append(torch.stack([(a.float() - b.float()).abs().mean() for a, b in features]).mean())
        losses["perceptual"] = torch.stack(distances).mean()
    total = image + EDGE_WEIGHT * edge + DETAIL_WEIGHT * strength + MOVE_WEIGHT * losses["move"]
    total = total + TOLD_WEIGHT * losses["untold"]
    total = total + PERCEPTUAL_WEIGHT * losses.get("perceptual", 0.0)
    return losses | {"loss": total}


@torch.no_grad()
def evaluate(
    trainer: RefinerTrainer, rows: Rows, sizes: tuple[tuple[int, int], tuple[int, int]], out: Path, step: int
) -> dict[str, float]:
    """PSNR and sharpness of held-out parts before and after, of shut eyes and open mouths too, these also where other
    pictures of the person tell of them (`told`); landmarks in pixels of 256; and a strip of pictures.
    """
    batch = without_pictures(rows)
    device = next(trainer.parameters()).device
    for part, (height, width) in zip(("eyes", "mouth"), sizes, strict=True):
        for kind in KINDS[part]:
            pixels = rows[f"{part}_{kind}"][..., MARGIN : MARGIN + height, MARGIN : MARGIN + width]
            batch[f"{part}_{kind}"] = to_unit(pixels)
    others = other_pictures(rows["person"], torch.arange(len(rows["person"])), len(rows["person"]))
    batch |= {"told": batch["mouth_target"][others], "told_motion": batch["motion"][others]}
    batch |= {"seen": torch.ones(others.shape)}
    batch = {name: value.to(device) for name, value in batch.items()}
    by_others, by_portrait = trainer.believed(batch)
    eyes, mouth, landmarks = trainer.refine(batch, by_portrait.mean)
    told = trainer.refine(batch, by_others.mean)[1]
    shut, wide = rows["shut"].to(device), rows["wide"].to(device)
    scores = {"landmarks_px": float((landmarks - batch["landmarks"]).norm(dim=2).mean()) * 256}
    for name, ours, before, target in (
        ("eyes", eyes.flatten(0, 1), batch["eyes_decoded"].flatten(0, 1), batch["eyes_target"].flatten(0, 1)),
        (
            "shut",
            eyes[shut].flatten(0, 1),
            batch["eyes_decoded"][shut].flatten(0, 1),
            batch["eyes_target"][shut].flatten(0, 1),
        ),
        ("mouth", mouth, batch["mouth_decoded"], batch["mouth_target"]),
        ("wide", mouth[wide], batch["mouth_decoded"][wide], batch["mouth_target"][wide]),
        ("told", told[wide], batch["mouth_decoded"][wide], batch["mouth_target"][wide]),
    ):
        if len(ours):
            scores |= {f"{name}_psnr": psnr(ours, target), f"{name}_psnr_before": psnr(before, target)}
            whole = torch.ones_like(target[:, :1])
            sharp, sharp_before, sharp_target = (sharpness(images, whole) for images in (ours, before, target))
            scores |= {
                f"{name}_sharpness": sharp / sharp_target,
                f"{name}_sharpness_before": sharp_before / sharp_target,
            }
    (out / "samples").mkdir(exist_ok=True)
    for part, ours in (("eyes", [eyes[:, 0]]), ("mouth", [mouth, told])):
        kinds = [batch[f"{part}_{kind}"] for kind in ("portrait", "target", "decoded")]
        columns = [*((kind[:, 0] if part == "eyes" else kind) for kind in kinds), *ours]
        few = slice(None, None, max(1, len(mouth) // 24))
        to_strip([column[few] for column in columns]).save(out / "samples" / f"{part}-{step:06d}.jpg")
    return scores


def with_mouth_channels(model: TalkingHeadModel, count: int) -> TalkingHeadModel:
    """The model, its mouths drawn by a new code of so many numbers, which says nothing at first."""
    autoencoder = dataclasses.replace(model.config.autoencoder, mouth_channels=count)
    changed = TalkingHeadModel(dataclasses.replace(model.config, autoencoder=autoencoder))
    theirs = {name: value for name, value in model.state_dict().items() if not name.startswith(OF_THE_CODE)}
    mine = {name: value for name, value in changed.state_dict().items() if name.startswith(OF_THE_CODE)}
    changed.load_state_dict(theirs | mine)
    return changed.eval().requires_grad_(False)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.refiner", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=4000, batch_size=32, learning_rate=1e-3)
    parser.add_argument("--checkpoint", required=True, help="checkpoint with the trained decoder")
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--stills-share", type=float, default=1.0, help="of the states of each identity")
    parser.add_argument(
        "--mouth-channels", type=int, help="numbers of the code of a mouth's inside, a new one; default: as it is"
    )
    parser.add_argument("--no-perceptual", action="store_true", help="leave out the EfficientNet feature loss")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    model = load_model(args.checkpoint, accelerator.device)
    if args.mouth_channels is not None:
        model = with_mouth_channels(model, args.mouth_channels).to(accelerator.device)
    autoencoder = model.autoencoder
    held_out = load_cuts(autoencoder, args.val, options.out / "cuts-val.safetensors", accelerator.device)
    cuts = load_cuts(
        autoencoder, args.data, options.out / "cuts-train.safetensors", accelerator.device, args.stills_share
    )
    motion = autoencoder.code.coordinates_to_motion(held_out["motion"].to(accelerator.device))
    held_out["shut"] = motion[:, BLINK_COLUMNS].mean(1).cpu() > 0.7 * MOTION_SCALES["face_units"]
    held_out["wide"] = motion[:, UNIT_INDEX["jawOpen"]].cpu() > 0.25 * MOTION_SCALES["face_units"]
    size = model.config.autoencoder.image_size
    sizes = (cut_size(EYE, size), cut_size(MOUTH, size))
    trainer = (
        RefinerTrainer(autoencoder.refiner, size).train().requires_grad_(True).to(memory_format=torch.channels_last)
    )
    perceptual = None if args.no_perceptual else PerceptualFeatures().to(accelerator.device)
    average = train(
        trainer,
        lambda: draw(cuts, options.batch_size, sizes, accelerator.device),
        lambda module, batch, progress: compute_losses(
            module, batch, perceptual if progress > PERCEPTUAL_FROM else None
        ),
        lambda module, step: evaluate(module, held_out, sizes, options.out, step),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        autoencoder.refiner.load_state_dict(average.refiner.state_dict())
        save_model(model, options.out / "checkpoint")
        print(json.dumps(evaluate(average, held_out, sizes, options.out, options.steps)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
