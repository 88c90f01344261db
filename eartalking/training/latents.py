"""Which latents? `python -m eartalking.training.latents --kind learned --checkpoint DIR --data DIR --val DIR --out
RUN`.

Trains one kind of frame latents (`autoencoder.frame_latents`) for the comparison of kinds: no learnt ones beside the
face code, learnt ones beside it, learnt ones alone. What the checkpoint decodes from the exact motion of every still
and of its portrait, which is the best that a face code can do, is made once and kept in RUN/decoded; runs of several
kinds may share it (`--decoded`). Nothing of the checkpoint is trained. Compare kinds after as many steps on the same
stills.

Pixels alone are what is learnt from: the renderer's labels serve the face code, and say where the moving pixels, mouths
and eyes are that count more. (Its exact warp in the loss made frames of `learned` worse.) The latents are small numbers
with noise on them, and a rate penalty lets those that buy no pixels fade.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.frame_latents import KINDS, NOISE, FrameLatents, Kind, Start
from eartalking.autoencoder.reference import Reference
from eartalking.checkpoint import load_model
from eartalking.errors import run_program
from eartalking.modules.pixels import to_float, to_uint8
from eartalking.motion.vector import clip_motion
from eartalking.synth.clips import write_clip
from eartalking.training.data import find_clips, prepare
from eartalking.training.evaluation import psnr, sharpness, to_strip
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.losses import PERCEPTUAL_PART, PerceptualFeatures, detail_loss, importance

CODE_NOISE = 0.05  # on the coordinates of a frame while latents are learnt
MEASURED = 4800  # stills whose registrations the components come from
RATE_WEIGHT = 0.001
MOUTH, EYE = 0.117, 0.078  # half a side of the squares that are looked at, in fractions of the frame
PER_PERSON = ("portrait", "own")  # of `DecodedStills`: one row for all of a person's stills
Rows = dict[str, Tensor]


class DecodedStills:
    """Stills and what the face code makes of them, in memory.

    Per still: `frame`, `portrait`, `image` (S, S, 3) uint8, `image` decoded from the exact `coordinates` (L,) of the
    frame and `own` (L,) of the portrait, by `warp` (2, M, M); the renderer's `true_warp` (2, M, M); `weight`
    (M, M), how much a place matters; `landmarks` (3, 2).
    """

    def __init__(self, folder: Path) -> None:
        self.people = [load_file(path) for path in find_clips(folder)]

    def __len__(self) -> int:
        return sum(len(person["frame"]) for person in self.people)

    def rows(self, chosen: list[tuple[int, int]], device: torch.device) -> Rows:
        """A batch of (person, still)."""
        batch: Rows = {}
        for name in self.people[0]:
            values = [self.people[person][name][0 if name in PER_PERSON else still] for person, still in chosen]
            if values[0].dtype == torch.uint8:
                pictures = to_float(torch.stack(values).to(device))
                batch[name] = pictures.contiguous(memory_format=torch.channels_last)
            else:
                batch[name] = torch.stack([value.float() for value in values]).to(device)
        return batch

    def draw(self, count: int, rng: np.random.Generator, device: torch.device) -> Rows:
        """A random batch, the frames' coordinates a little beside the truth."""
        people = rng.integers(len(self.people), size=count).tolist()
        chosen = [(person, int(rng.integers(len(self.people[person]["frame"])))) for person in people]
        batch = self.rows(chosen, device)
        return batch | {"coordinates": batch["coordinates"] + CODE_NOISE * torch.randn_like(batch["coordinates"])}

    def each(self, device: torch.device) -> Iterator[Rows]:
        """Every person's stills as a batch."""
        for number, person in enumerate(self.people):
            yield self.rows([(number, still) for still in range(len(person["frame"]))], device)


@torch.inference_mode()
def decode_stills(autoencoder: FrameAutoencoder, data: Path, out: Path, device: torch.device) -> None:
    """Write a file per person of a folder of `stills` clips, as `DecodedStills` wants them; those there are kept."""
    out.mkdir(parents=True, exist_ok=True)
    for path in tqdm(find_clips(data), unit="clip", desc="decode", mininterval=5):
        clip = load_file(path)
        for prefix in ("", "twin_"):
            file = out / f"{prefix}{path.name}"
            if prefix + "reference" in clip and not file.exists():
                rows = _decode_person(autoencoder, clip, prefix, device)
                write_clip(file, {name: value.contiguous().cpu().numpy() for name, value in rows.items()}, {})


def known_reference(autoencoder: FrameAutoencoder, portrait: Tensor, motion: Tensor) -> Reference:
    """A portrait (H, W, 3) uint8 whose motion vector (1, L) is known."""
    image = to_float(portrait)[None].to(motion.device)
    return autoencoder.reference(image, known=autoencoder.code.motion_to_latents(motion))


def start_of(autoencoder: FrameAutoencoder, kind: Kind, reference: Reference, motion: Tensor) -> Start:
    """What frames of motion vectors (B, L) are decoded from, on one portrait."""
    everywhere = reference.expand(len(motion))
    if kind == "pixels":
        return Start.still(everywhere.image)
    code = autoencoder.code
    latents = code.motion_to_latents(motion)
    geometry = autoencoder.geometry(latents, everywhere)
    image = autoencoder.draw(geometry, latents, everywhere).image
    own = code.latents_to_coordinates(everywhere.latents)
    return Start.moved(image, everywhere.image, geometry.warps[-1], code.motion_to_coordinates(motion), own)


def _decode_person(autoencoder: FrameAutoencoder, clip: Rows, prefix: str, device: torch.device) -> Rows:
    motion, own = (clip_motion(clip, name).to(device) for name in ("labels", f"{prefix}reference_labels"))
    reference = known_reference(autoencoder, clip[prefix + "reference"], own)
    start = start_of(autoencoder, "face_code", reference, motion)
    visibility = clip[prefix + "visibility"].float() / 255
    truth = prepare(
        {"frame": clip[prefix + "frames"], "portrait": clip[prefix + "reference"][None],
         "correspondence": clip[prefix + "correspondence"].float(), "visibility": visibility},
        device,
    )  # fmt: skip
    return {
        "frame": clip[prefix + "frames"],
        "portrait": clip[prefix + "reference"][None],
        "image": to_uint8(start.image),
        "coordinates": autoencoder.code.motion_to_coordinates(motion),
        "own": autoencoder.code.latents_to_coordinates(reference.latents),
        "warp": start.warp.half(),
        "true_warp": truth["warp"].half(),
        "weight": importance(truth)[:, 0].half(),
        "landmarks": clip[prefix + "landmarks"],
    }


class LatentsTrainer(nn.Module):
    """Frames through latents of one kind."""

    def __init__(self, latents: FrameLatents) -> None:
        super().__init__()
        self.latents = latents

    def start(self, batch: Rows) -> Start:
        """What the batch's frames are decoded from."""
        if self.latents.kind == "pixels":
            return Start.still(batch["portrait"])
        return Start.moved(batch["image"], batch["portrait"], batch["warp"], batch["coordinates"], batch["own"])

    def forward(self, batch: Rows, noise: float = NOISE) -> tuple[Tensor, Tensor | None]:
        """Images (B, 3, H, W), latents (B, Z)."""
        drawn, latents = self.latents(batch["frame"], self.start(batch), noise)
        return drawn.image, latents


def compute_losses(trainer: nn.Module, batch: Rows, perceptual: PerceptualFeatures, rng: np.random.Generator) -> Losses:
    """Pixels, their detail and features; the latents' rate."""
    image, latents = trainer(batch)
    target, places = batch["frame"], batch["weight"][:, None]
    weights = F.interpolate(places / places.mean(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    losses = {
        "image": (weights * (image - target).abs()).mean(),
        "detail": detail_loss(image, target, weights),
    }
    half, few = target.shape[-1] // 2, -(-len(target) // PERCEPTUAL_PART)
    top, left = (int(rng.integers(half)) for _ in range(2))
    crop = (slice(few), slice(None), slice(top, top + half), slice(left, left + half))
    losses["perceptual"] = perceptual.distance(image[crop], target[crop])
    loss = 2 * losses["image"] + 0.3 * losses["detail"] + 0.1 * losses["perceptual"]
    if latents is not None:
        losses["rate"] = 0.5 * torch.log1p((latents / NOISE).square()).mean()
        loss = loss + RATE_WEIGHT * losses["rate"]
    return losses | {"loss": loss}


@torch.no_grad()
def evaluate(
    trainer: LatentsTrainer, stills: DecodedStills, perceptual: PerceptualFeatures, out: Path, step: int
) -> dict[str, float]:
    """Held-out people: PSNR of what moves, of mouths and of eyes in dB, sharpness, distance of features; of what is
    drawn, and of its start (`start_`); and a strip of pictures."""
    device = next(trainer.parameters()).device
    scores: dict[str, list[float]] = {}
    strips: list[list[Tensor]] = []
    for batch in stills.each(device):
        start, target = trainer.start(batch).image, batch["frame"]
        drawn = trainer(batch, noise=0.0)[0]
        places = (batch["true_warp"].abs().sum(1, keepdim=True) > 1e-3).float()
        moves = F.interpolate(places, size=target.shape[-2:])
        for prefix, image in (("", drawn), ("start_", start)):
            for name, value in _scores(image, target, moves, batch["landmarks"], perceptual).items():
                scores.setdefault(prefix + name, []).append(value)
        if len(strips) < 8:
            strips.append([pictures[:1] for pictures in (batch["portrait"], target, start, drawn)])
    (out / "samples").mkdir(exist_ok=True)
    to_strip([torch.cat(column) for column in zip(*strips, strict=True)]).save(out / "samples" / f"{step:06d}.jpg")
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _scores(
    image: Tensor, target: Tensor, moves: Tensor, landmarks: Tensor, perceptual: PerceptualFeatures
) -> dict[str, float]:
    boxes = {"moving": moves, "mouth": _square(landmarks[:, 2], MOUTH, target.shape[-1])}
    boxes["eyes"] = torch.maximum(*(_square(landmarks[:, eye], EYE, target.shape[-1]) for eye in (0, 1)))
    scores = {}
    for name, box in boxes.items():
        rows = zip(image[:, None], target[:, None], box[:, None], strict=True)
        scores[f"{name}_psnr"] = float(np.mean([psnr(*row) for row in rows]))
    return scores | {
        "sharpness": sharpness(image, moves) / sharpness(target, moves),
        "perceptual": float(perceptual.distance(image, target)),
    }


def _square(centre: Tensor, reach: float, size: int) -> Tensor:
    """(B, 1, S, S), one within `reach` of the points (B, 2), both in fractions of the frame."""
    axis = (torch.arange(size, device=centre.device) + 0.5) / size
    near = (axis - centre[..., None]).abs() < reach  # (B, 2, S): x, y
    return (near[:, 1, :, None] & near[:, 0, None, :])[:, None].float()


def measured(trainer: LatentsTrainer, stills: DecodedStills, rng: np.random.Generator, device: torch.device) -> None:
    """Let the latents be components of what the stills' registrations look like."""
    flows, count = [], max(2 * trainer.latents.size, min(MEASURED, len(stills)))
    for _ in tqdm(range(-(-count // 32)), desc="components", mininterval=5):
        batch = stills.draw(32, rng, device)
        flows.append(trainer.latents.registered(batch["frame"], trainer.start(batch)))
    trainer.latents.measure(torch.cat(flows))


def save_latents(latents: FrameLatents, path: Path) -> None:
    """Weights, kind and size."""
    weights = {name: value.contiguous() for name, value in latents.state_dict().items()}
    save_file(weights, path, metadata={"kind": latents.kind, "size": str(latents.size)})


def load_latents(path: Path, autoencoder: FrameAutoencoder) -> FrameLatents:
    """What `save_latents` wrote, for use."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
    config = autoencoder.config
    latents = FrameLatents(about["kind"], int(about["size"]), config.image_size, config.motion_size)
    latents.load_state_dict(load_file(path))
    return latents.requires_grad_(False).eval()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.latents", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=1000, batch_size=16, learning_rate=6e-4, warmup_steps=100, ema_decay=0.998)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--size", type=int, default=192, help="latents of a frame")
    parser.add_argument("--checkpoint", required=True, help="checkpoint whose face code and autoencoder to take")
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--decoded", type=Path, help="folder of what the face code decodes, default: RUN/decoded")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    device, autoencoder = accelerator.device, load_model(args.checkpoint, accelerator.device).autoencoder
    decoded = args.decoded or options.out / "decoded"
    for split, folder in (("train", args.data), ("val", args.val)):
        decode_stills(autoencoder, folder, decoded / split, device)
    stills, held_out = DecodedStills(decoded / "train"), DecodedStills(decoded / "val")
    config = autoencoder.config
    latents = FrameLatents(args.kind, args.size, config.image_size, config.motion_size)
    trainer = LatentsTrainer(latents).to(device).train().to(memory_format=torch.channels_last)
    rng = np.random.default_rng(options.seed)
    if latents.size and not (options.out / "state.pt").exists():
        measured(trainer, stills, rng, device)
    perceptual = PerceptualFeatures().to(device)
    average = train(
        trainer,
        lambda: stills.draw(options.batch_size, rng, device),
        lambda module, batch, progress: compute_losses(module, batch, perceptual, rng),
        lambda module, step: evaluate(module, held_out, perceptual, options.out, step),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        save_latents(average.latents, options.out / "latents.safetensors")
        print(json.dumps(evaluate(average, held_out, perceptual, options.out, options.steps)))
    return 0


if __name__ == "__main__":
    run_program(main)
