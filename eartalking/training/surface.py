"""Stage 3, the surface encoder: `python -m eartalking.training.surface --checkpoint DIR --data DIR --val DIR --out
RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 128 --steps 6000 --max-minutes 9` (resumes slice by slice).

From a portrait and the marks of its face to the point of the head that each of its pixels shows, and how it moves. What
counts is where pixels go: the main loss moves the surface that was read and the true one by the same random motion and
compares positions; the fields themselves are compared, too. Lips and lids are a few hundred of many thousand pixels and
what people look at, and how far they move is little beside how far a head turns: so they weigh more, and are compared
once more under motions that keep the portrait's pose. Damage keeps the encoder from trusting the renderer's finish: the
portrait that a user brings is a photograph.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from eartalking.autoencoder.surface import CAMERA_SPREAD, POINT_SPREAD, SurfaceEncoder, SurfaceFields
from eartalking.checkpoint import load_model, save_model
from eartalking.errors import run_program
from eartalking.modules.pixels import to_float
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES, TRANSLATION, motion_vector
from eartalking.perception.face_mesh import NUM_POINTS
from eartalking.synth.head import MASKS, HeadBundle, load_bundle
from eartalking.synth.performance import random_stills
from eartalking.synth.surface_maps import mover_components
from eartalking.training.augmentation import Damage
from eartalking.training.data import endless, find_clips
from eartalking.training.evaluation import to_strip
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.marks import as_of_a_photograph, clip_marks

PER_PICTURE = ("frames", "surface_point", "surface_weight", "surface_vertices", "surface_shares")
BACKGROUND = -2  # in `surface_vertices`
POINT_PICTURES = 1000  # from which the places are measured that the mesh's points mark
MOTIONS = 4000  # random states from which each sample's motion is drawn
SCALES = {"moved": 1.0, "shaped": 2.0, "cover": 1.0, "point": 0.5, "components": 0.3, "weight": 1.0, "camera": 0.1}
STRENGTH_BATCHES = 30  # of portraits, on which is measured how far units are read to move a face
STRONGEST = 1.5  # by so much at most is a unit made to move it farther
PARTS = 6.0  # how much more lips and lids weigh than the rest of a face
# Share of the samples whose brightness is bent smoothly over the picture: light that no renderer here makes; and of
# those that are hidden behind colours of no meaning, by how much: there the marks alone say where a face is and how it
# stands. Renders can be read without marks, so a network that sees nothing else need not learn to use them.
TEXTURE_SHARE, HIDDEN_SHARE, HIDDEN = 0.5, 0.3, (0.5, 0.95)


class PortraitSurfaces(Dataset):
    """One item per picture of a folder of `portraits` clips, its surface as the clip has it, its motion vector and the
    marks of its face."""

    def __init__(self, folder: Path) -> None:
        self.paths = find_clips(folder)
        self.marks = [clip["frames"] for clip in clip_marks(folder)]
        self.files = [safe_open(path, "pt") for path in self.paths]
        self.each = self.files[0].get_slice("frames").get_shape()[0]
        self.motion = [
            motion_vector({name: file.get_tensor(f"labels.{name}") for name in MOTION_SCALES}) for file in self.files
        ]

    def __len__(self) -> int:
        return len(self.files) * self.each

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, row = divmod(index, self.each)
        file = self.files[number]
        item = {name: file.get_slice(name)[row] for name in PER_PICTURE}
        item["surface_point"] = item["surface_point"].float()
        return item | {
            "surface_camera": file.get_tensor("surface_camera")[0],
            "motion": self.motion[number][row],
            "marks": self.marks[number][row],
        }


def mark_points(pictures: PortraitSurfaces, count: int = POINT_PICTURES) -> Tensor:
    """Which place of a head at rest each point of the mesh marks, in head space, in the middle over `count` pictures
    spread over all: (NUM_POINTS, 3)."""
    found = []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(int):
        item = pictures[int(index)]
        size = len(item["surface_point"])
        column, row = (item["marks"][:NUM_POINTS, :2] * size).long().clamp(0, size - 1).unbind(1)
        shown = item["surface_vertices"][row, column, 0].long() != BACKGROUND
        if item["marks"].any():
            found.append(torch.where(shown[:, None], item["surface_point"][row, column], torch.nan))
    return torch.stack(found).nanmedian(0).values.nan_to_num(0.0) if found else torch.zeros(NUM_POINTS, 3)


class SurfaceTrainer(nn.Module):
    """The surface encoder, and what turns a clip's surface into the fields that it should read."""

    table: Tensor
    importance: Tensor

    def __init__(self, encoder: SurfaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        bundle = load_bundle()
        components, basis = mover_components(bundle, encoder.num_components)
        encoder.basis.copy_(torch.from_numpy(basis))
        encoder.pivot.copy_(torch.from_numpy(bundle.pivot))
        table = torch.cat(
            [torch.from_numpy(components), torch.zeros(2, encoder.num_components)]
        )  # -1 and -2 do not move
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("importance", vertex_importance(bundle), persistent=False)

    def truth(self, batch: dict[str, Tensor]) -> SurfaceFields:
        """The fields of a batch of `PortraitSurfaces`."""
        vertices = batch["surface_vertices"].long()
        shares = batch["surface_shares"].float() / 255
        shares = torch.cat([shares, 1 - shares.sum(-1, keepdim=True)], dim=-1)
        components = F.embedding_bag(
            (vertices % len(self.table)).view(-1, 3), self.table, per_sample_weights=shares.view(-1, 3), mode="sum"
        ).view(*vertices.shape[:3], -1)
        cover = (vertices[..., 0] != BACKGROUND).float()[:, None]
        return SurfaceFields(
            batch["surface_point"].float().permute(0, 3, 1, 2),
            batch["surface_weight"].float()[:, None] / 255,
            cover,
            components.permute(0, 3, 1, 2),
            batch["surface_camera"],
            torch.zeros_like(cover),
        )

    def weights(self, batch: dict[str, Tensor]) -> Tensor:
        """How much each pixel matters: (B, 1, S, S), 0 where the person is not."""
        return self.importance[batch["surface_vertices"][..., 0].long() % len(self.importance)][:, None]

    def forward(self, portrait: Tensor, marks: Tensor) -> SurfaceFields:
        return self.encoder(portrait, marks)


def vertex_importance(bundle: HeadBundle) -> Tensor:
    """(V + 2,): 0.5 for what no face unit moves, 1.5 for a face, PARTS times as much for lips and lids, 0 for what is
    not the person.
    """
    moving = np.abs(bundle.deltas).max(axis=(0, 2)) > 0
    part = bundle.masks[:, [MASKS.index("lips"), MASKS.index("eyelids")]].max(1)
    weight = np.where(moving, 1.5, 0.5) * (1 + (PARTS - 1) * part)
    return torch.from_numpy(np.append(weight, [0.0, 0.5]).astype(np.float32))  # -2 and -1: background, what stays


@torch.no_grad()
def strengths(trainer: SurfaceTrainer, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    """By how much each face unit moves what was read of portraits too little, least squares over their pixels:
    (NUM_FACE_UNITS,). Losses of absolute errors ask for a median, where most of a face does not move; and what
    components leave out of a unit is missing."""
    basis = trainer.encoder.basis[:, :NUM_FACE_UNITS].flatten(1)
    deltas = torch.from_numpy(load_bundle().deltas).to(basis)  # (U, V, 3)
    deltas = deltas.permute(1, 0, 2).flatten(1)
    both, own = basis.new_zeros(2, NUM_FACE_UNITS)
    for batch in batches:
        found = trainer(batch["portrait"], batch["marks"])
        shown = (batch["surface_vertices"][..., 0] >= 0).flatten()
        nearest = batch["surface_vertices"].gather(-1, _largest_share(batch["surface_shares"])).flatten()[shown].long()
        true = deltas[nearest].unflatten(1, (-1, 3))  # (M, U, 3)
        read = (found.components.permute(0, 2, 3, 1).flatten(0, 2)[shown] @ basis).unflatten(1, (-1, 3))
        both += (true * read).sum((0, 2))
        own += read.square().sum((0, 2))
    return torch.where(own > 0, both / own.clamp_min(1e-12), 1.0)


def _largest_share(shares: Tensor) -> Tensor:
    """Which corner of its triangle a point is nearest to: shares (..., 2) of the first two, of 255 -> (..., 1)."""
    first, second = shares.float().unbind(-1)
    return torch.stack([first, second, 255 - first - second], dim=-1).argmax(-1, keepdim=True)


def damaged(portraits: Tensor) -> Tensor:
    """Portraits (B, 3, H, W) in [-1, 1] with the damage of `Damage`, in some a light that bends smoothly over the
    picture, and some nearly hidden behind colours.
    """
    count, device = len(portraits), portraits.device

    def smooth(cells: int) -> Tensor:
        noise = torch.randn(count, 3, cells, cells, device=device)
        return F.interpolate(noise, size=portraits.shape[-2:], mode="bicubic", align_corners=False)

    def often(share: float) -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device) < share

    pictures = (portraits + 1) / 2 * torch.exp(0.25 * often(TEXTURE_SHARE) * smooth(3))
    pictures = Damage.draw(count, device).apply(pictures) * 2 - 1
    low, high = HIDDEN
    behind = often(HIDDEN_SHARE) * (low + (high - low) * torch.rand(count, 1, 1, 1, device=device))
    return torch.lerp(pictures, (0.5 * smooth(9)).clamp(-1, 1), behind)


def compute_losses(trainer: nn.Module, batch: dict[str, Tensor], motions: Tensor) -> Losses:
    plain = trainer if isinstance(trainer, SurfaceTrainer) else trainer.module  # several processes wrap it
    with torch.no_grad():
        truth = plain.truth(batch)
    found = trainer(damaged(batch["portrait"]), as_of_a_photograph(batch["marks"]))
    encoder, own = plain.encoder, batch["motion"]
    motion = motions[torch.randint(len(motions), (len(own),), device=motions.device)]
    weight = plain.weights(batch)
    weight = weight / weight.mean()
    with torch.autocast(own.device.type, enabled=False):  # which refuses this function on a GPU
        cover = F.binary_cross_entropy(found.cover.clamp(1e-5, 1 - 1e-5), truth.cover)
    home = encoder.home(found, own)
    with torch.no_grad():
        true_home = encoder.home(truth, own)
    moved = {}
    for name, state in (("moved", motion), ("shaped", in_the_pose_of(own, motion))):
        ours = encoder.displace(found, state, home)[0]
        with torch.no_grad():
            goal = encoder.displace(truth, state, true_home)[0]
        moved[name] = 64 * (weight * (ours - goal).abs()).mean()  # in pixels of a map of 128
    losses = moved | {
        "cover": cover,
        "point": (weight * (found.point - truth.point).abs()).mean() / POINT_SPREAD,
        "components": (weight * (found.components - truth.components).abs()).mean(),
        "weight": (weight * (found.weight - truth.weight).abs()).mean(),
        "camera": ((found.camera - truth.camera) / truth.camera.new_tensor(CAMERA_SPREAD)).abs().mean(),
    }
    return losses | {"loss": sum(scale * losses[name] for name, scale in SCALES.items())}


def prepare(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    batch = {name: value.to(device) for name, value in batch.items()}
    return batch | {"portrait": to_float(batch["frames"])}


def in_the_pose_of(own: Tensor, motion: Tensor) -> Tensor:
    """Motion vectors (B, L) with pose and place of `own` (B, L)."""
    motion = motion.clone()
    for columns in (HEAD_POSE, TRANSLATION):
        motion[:, columns] = own[:, columns]
    return motion


@torch.no_grad()
def evaluate(
    trainer: SurfaceTrainer, batch: dict[str, Tensor], motions: Tensor, out: Path, step: int
) -> dict[str, float]:
    """On held-out people: how far pixels of the person land from where they should, in pixels of 256, beside how far
    they move; of lips and lids under motions that keep the pose, too, and which share of their way these go.
    """
    truth, found = trainer.truth(batch), trainer(batch["portrait"], batch["marks"])
    motion = motions[torch.arange(len(truth.point)) % len(motions)]
    encoder, own, weights = trainer.encoder, batch["motion"], trainer.weights(batch)[:, 0]
    person = truth.cover[:, 0] > 0
    face, parts = (weights >= 1) & person, (weights > 1.5 * (1 + PARTS) / 2) & person
    scores: dict[str, float] = {}
    for names, state in (
        ((("moved", person), ("face", face)), motion),
        ((("parts", parts),), in_the_pose_of(own, motion)),
    ):
        moved, goal = (encoder.displace(fields, state, encoder.home(fields, own))[0] for fields in (found, truth))
        error, distance = 128 * (moved - goal).norm(dim=1), 128 * goal.norm(dim=1)
        along = (moved * goal).sum(1)
        for name, where in names:
            scores |= {f"{name}_px": float(error[where].mean()), f"{name}_of": float(distance[where].mean())}
            scores[f"{name}_share"] = float(along[where].sum() / goal.square().sum(1)[where].sum())
            scores[f"{name}_p90"] = float(error[where].quantile(0.9))
    (out / "samples").mkdir(exist_ok=True)
    columns = [F.avg_pool2d(batch["portrait"], 2)]
    for fields in (truth, found):
        columns += [
            fields.point[:, 2:] * 2,
            fields.cover * 2 - 1,
            *(fields.components[:, k : k + 3] / 3 for k in (0, 3)),
        ]
    to_strip([column[:: max(1, len(person) // 8)] for column in columns]).save(out / "samples" / f"{step:06d}.jpg")
    return scores | {"cover": float(((found.cover > 0.5) != (truth.cover > 0.5)).float().mean())}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.surface", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=5000, batch_size=12, learning_rate=1e-3)
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint with the motion code (eartalking.training.code)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of `portraits` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `portraits` clips, validation split")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    model = load_model(args.checkpoint)
    trainer = (
        SurfaceTrainer(model.autoencoder.surface).train().requires_grad_(True).to(memory_format=torch.channels_last)
    )
    workers = 0 if accelerator.device.type == "cpu" else 8
    pictures = PortraitSurfaces(args.data)
    if not trainer.encoder.mark_points.any():
        trainer.encoder.mark_points.copy_(mark_points(pictures))
    stream = endless(
        DataLoader(pictures, min(options.batch_size, len(pictures)), shuffle=True, drop_last=True, num_workers=workers)
    )
    held_out = prepare(next(iter(DataLoader(PortraitSurfaces(args.val), 64))), accelerator.device)
    states = random_stills(MOTIONS, np.random.default_rng(options.seed))
    motions = motion_vector({name: torch.from_numpy(getattr(states, name)) for name in MOTION_SCALES}).to(
        accelerator.device
    )
    average = train(
        trainer,
        lambda: prepare(next(stream), accelerator.device),
        lambda module, batch, progress: compute_losses(module, batch, motions),
        lambda module, step: evaluate(module, held_out, motions, options.out, step),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        kept = SurfaceTrainer(average.encoder).to(accelerator.device)
        loader = DataLoader(pictures, min(options.batch_size, len(pictures)), shuffle=True)
        some = (prepare(batch, accelerator.device) for batch in islice(loader, STRENGTH_BATCHES))
        strength = strengths(kept, some).clamp(1, STRONGEST)
        strength[[index for name, index in UNIT_INDEX.items() if name.startswith("eye")]] = 1  # lids are drawn
        kept.encoder.basis[:, :NUM_FACE_UNITS] *= strength[:, None]
        model.autoencoder.surface.load_state_dict(kept.encoder.state_dict())
        save_model(model, options.out / "checkpoint")
    return 0


if __name__ == "__main__":
    run_program(main)
