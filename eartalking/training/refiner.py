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
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from eartalking.autoencoder.decoder import Geometry
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.part_refiner import EYE, MOUTH, PartRefiner, corners, cut, cut_size, fade
from eartalking.checkpoint import load_model, save_model
from eartalking.errors import run_program
from eartalking.modules.pixels import to_float
from eartalking.modules.res_block import upsample
from eartalking.modules.warp import identity_grid
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, GAZE, MOTION_SCALES
from eartalking.training.augmentation import LATENT_NOISE, PORTRAIT_NOISE
from eartalking.training.data import prepare
from eartalking.training.evaluation import psnr, sharpness, to_strip
from eartalking.training.loop import Losses, RunOptions, has_bf16, train
from eartalking.training.losses import PerceptualFeatures, detail
from eartalking.training.marks import MarkedStills

MARGIN = 4  # pixels on every side: at use a part is not found exactly where it is
OPENING = (0.08, 0.045)  # half width and half height of an eye, in fractions of the frame
EYE_UNITS = slice(UNIT_INDEX["eyeBlinkLeft"], UNIT_INDEX["eyeWideRight"] + 1)
AROUND = 2.2  # in the same measure: what lies up to here carries an eye along
READ_SHARE = 0.5  # of the portraits are as they are read, the others known
KINDS = ("decoded", "target", "portrait")
PERCEPTUAL_FROM, PERCEPTUAL_PART = (
    0.5,
    4,
)  # in the second half of the run, on one cut in so many: they cost as much as all the rest
PERCEPTUAL_WEIGHT, EDGE_WEIGHT, DETAIL_WEIGHT, MOVE_WEIGHT = 0.1, 0.5, 0.7, 20.0
Rows = dict[str, Tensor]


def aligned(geometry: Geometry, unmoved: Geometry, batch: Rows) -> Geometry:
    """The geometry with the true warp for its last one; but an eye is carried along by what is around it (the affine
    map that fits it best), and shut and turned as in `geometry` against `unmoved`, where it does as in the portrait.
    """
    warp = batch["warp"]
    side = warp.shape[-1]
    reach = torch.tensor(OPENING, device=warp.device)
    places = (identity_grid(side, warp.device) + 1) / 2  # (1, M, M, 2)
    seen = (batch["visibility"] * (warp.abs().sum(1, keepdim=True) > 1e-3))[:, 0]  # (B, M, M)
    out, moved = warp, geometry.warps[-1] - unmoved.warps[-1]
    for eye in range(2):
        offset = (places - batch["landmarks"][:, eye, None, None]) / reach  # (B, M, M, 2)
        far = offset.norm(dim=-1)
        terms = torch.cat([torch.ones_like(offset[..., :1]), offset], dim=-1)  # (B, M, M, 3)
        weight = ((far > 1) & (far < AROUND)) * seen
        products = torch.einsum("bmn,bmni,bmnj->bij", weight, terms, terms) + 1e-3 * torch.eye(3, device=warp.device)
        targets = torch.einsum("bmn,bmni,bcmn->bic", weight, terms, warp)
        carried = torch.einsum("bmni,bic->bcmn", terms, torch.linalg.solve(products, targets))
        out = torch.where((far < 1)[:, None], carried + moved, out)
    reach = F.adaptive_max_pool2d(geometry.reach, side)
    return geometry._replace(warps=[*geometry.warps[:-1], out], warp=out, reach=reach)


@torch.no_grad()
def make_cuts(
    autoencoder: FrameAutoencoder, stills: MarkedStills, device: torch.device, share: float, batch_size: int = 16
) -> Rows:
    """Cuts of a share of the stills, and of the portraits as their own frames: `eyes_KIND` (M, 2, 3, h, w) uint8, the
    second one mirrored; `mouth_KIND` (M, 3, h, w) uint8; `motion` and `own` (M, L), coordinates as the decoder got
    them; `landmarks` and `portrait_landmarks` (M, 3, 2)."""
    each = stills.frames_per_clip
    chosen = [index for index in range(len(stills)) if index % each < share * each]
    portraits = list(range(0, len(stills), each))
    read = read_portraits(autoencoder, Subset(stills, portraits), device)
    parts = []
    with tqdm(total=len(chosen) + len(portraits), unit="still", desc="cuts", mininterval=5) as bar:
        for source, still in ((chosen, False), (portraits, True)):
            rows = iter(torch.tensor(source).split(batch_size))
            for batch in DataLoader(Subset(stills, source), batch_size):
                people = next(rows) // each
                batch = prepare(batch, device) | {"read": read[people]}
                if still:
                    batch |= {
                        "frame": batch["portrait"],
                        "motion": batch["portrait_motion"],
                        "landmarks": batch["portrait_landmarks"],
                    }
                    batch |= {"warp": torch.zeros_like(batch["warp"])}
                parts.append(_cut_batch(autoencoder, batch))
                bar.update(len(batch["frame"]))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.inference_mode()
def read_portraits(autoencoder: FrameAutoencoder, portraits: Subset, device: torch.device) -> Tensor:
    """Latents (M, N, C) of portraits as a stream reads them."""
    latents = []
    for item in tqdm(portraits, unit="portrait", desc="read", mininterval=5):
        portrait, marks = to_float(item["portrait"])[None].to(device), item["portrait_marks"][None].to(device)
        latents.append(autoencoder.reference(portrait, marks).latents)
    return torch.cat(latents)


def _cut_batch(autoencoder: FrameAutoencoder, batch: Rows) -> Rows:
    frame, portrait = batch["frame"], batch["portrait"]
    latents, own = (autoencoder.code.motion_to_latents(batch[name]) for name in ("motion", "portrait_motion"))
    noise = PORTRAIT_NOISE * torch.randn_like(own)
    latents = latents + LATENT_NOISE * torch.randn_like(latents)
    # Half of the portraits are known but for a little noise, half are as they are read, with the errors of that.
    own = torch.where(torch.rand(len(own), 1, 1, device=own.device) < READ_SHARE, batch["read"], own + noise)
    # A person's portrait does not move against itself, whatever is read of it.
    shared = (batch["motion"] == batch["portrait_motion"]).all(1).view(-1, 1, 1)
    latents = torch.where(shared, own, latents)
    landmarks, portrait_landmarks = batch["landmarks"], batch["portrait_landmarks"]
    with torch.autocast(frame.device.type, torch.bfloat16, enabled=has_bf16()):
        reference = autoencoder.reference_of(portrait, own, portrait_landmarks, batch["portrait_marks"])
        unmoved = autoencoder.geometry(_with_eyes_of(own, latents, autoencoder.code), reference)
        geometry = aligned(autoencoder.geometry(latents, reference), unmoved, batch)
        decoded = autoencoder.paint(geometry, latents, reference).image.float()
    size = frame.shape[-1]
    rows = {
        "motion": autoencoder.code.latents_to_coordinates(latents), "own": autoencoder.code.latents_to_coordinates(own),
        "landmarks": landmarks, "portrait_landmarks": portrait_landmarks,
    }  # fmt: skip
    for kind, image, places in zip(
        KINDS, (decoded, frame, portrait), (landmarks, landmarks, portrait_landmarks), strict=True
    ):
        cuts = []
        for part, shape in enumerate((EYE, EYE, MOUTH)):
            height, width = cut_size(shape, size)
            box = (height + 2 * MARGIN, width + 2 * MARGIN)
            pixels = cut(image, corners(places[:, part], box, size), box)
            cuts.append(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte())
        rows[f"eyes_{kind}"] = torch.stack([cuts[0], cuts[1].flip(-1)], dim=1)
        rows[f"mouth_{kind}"] = cuts[2]
    return {name: value.cpu() for name, value in rows.items()}


def _with_eyes_of(own: Tensor, latents: Tensor, code: MotionCode) -> Tensor:
    """Latents (B, N, C) with lids and gaze of `own` (B, N, C)."""
    mine, theirs = code.latents_to_coordinates(latents), code.latents_to_coordinates(own)
    change = torch.zeros_like(mine)
    for columns in (EYE_UNITS, GAZE):
        change[:, columns] = (theirs - mine)[:, columns]
    return latents + code.change_to_latents(change)


def load_cuts(autoencoder: FrameAutoencoder, data: Path, path: Path, device: torch.device, share: float = 1.0) -> Rows:
    """The cuts of a folder of stills; made when they are first asked for."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(make_cuts(autoencoder, MarkedStills(data), device, share), partial)
        partial.rename(path)
    return load_file(path)


def without_pictures(rows: Rows) -> Rows:
    """The rows but for the cuts."""
    return {name: value for name, value in rows.items() if not name.startswith(("eyes_", "mouth_"))}


def draw(rows: Rows, count: int, sizes: tuple[tuple[int, int], tuple[int, int]], device: torch.device) -> Rows:
    """A random batch, cut somewhat beside the parts and tinted; pictures as floats in [-1, 1]."""
    chosen = torch.randint(len(rows["motion"]), (count,))
    batch = {name: value[chosen].to(device) for name, value in without_pictures(rows).items()}
    gain = 1 + 0.15 * torch.randn(count, 3, 1, 1, device=device)
    shift = 0.1 * torch.randn(count, 3, 1, 1, device=device)
    for part, (height, width) in zip(("eyes", "mouth"), sizes, strict=True):
        top, left = torch.randint(2 * MARGIN + 1, (2,)).tolist()
        far_top, far_left = torch.randint(2 * MARGIN + 1, (2,)).tolist()
        for kind in KINDS:
            y, x = (far_top, far_left) if kind == "portrait" else (top, left)
            pixels = to_unit(rows[f"{part}_{kind}"][chosen][..., y : y + height, x : x + width]).to(device)
            tints = (gain, shift) if part == "mouth" else (gain[:, None], shift[:, None])
            batch[f"{part}_{kind}"] = pixels * tints[0] + tints[1]
    return batch


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 -> floats in [-1, 1]."""
    return pixels.float() / 127.5 - 1


class RefinerTrainer(nn.Module):
    """The part refiner on cuts."""

    def __init__(self, refiner: PartRefiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, batch: Rows, noise: float = LATENT_NOISE) -> tuple[Tensor, Tensor, Tensor]:
        """-> refined eyes (B, 2, 3, h, w) and mouths (B, 3, h, w), and the landmarks it expects (B, 3, 2)."""
        motion = batch["motion"] + noise * torch.randn_like(batch["motion"])
        eyes, mouth = (tuple(batch[f"{part}_{kind}"] for kind in ("decoded", "portrait")) for part in ("eyes", "mouth"))
        added = self.refiner.additions(motion, batch["own"], eyes, mouth)
        refined = (
            part[0] + more * fade(tuple(more.shape[-2:]), more.device)
            for part, more in zip((eyes, mouth), added, strict=True)
        )
        found = batch["portrait_landmarks"] + 0.01 * torch.randn_like(batch["landmarks"]) * (noise > 0)
        return *refined, self.refiner.landmarks(motion, batch["own"], found)


def edges(images: Tensor) -> Tensor:
    """Differences of neighbouring pixels, both ways: what blur takes away."""
    across, down = images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]
    return torch.cat([across.flatten(-2), down.flatten(-2)], dim=-1)


def compute_losses(trainer: nn.Module, batch: Rows, perceptual: PerceptualFeatures | None) -> Losses:
    *refined, landmarks = trainer(batch)
    losses = {"move": (landmarks - batch["landmarks"]).abs().mean()}
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
            distances.append(perceptual.distance(*(upsample(images[:few].clamp(-1, 1)) for images in (ours, target))))
        losses["perceptual"] = torch.stack(distances).mean()
    total = image + EDGE_WEIGHT * edge + DETAIL_WEIGHT * strength + MOVE_WEIGHT * losses["move"]
    total = total + PERCEPTUAL_WEIGHT * losses.get("perceptual", 0.0)
    return losses | {"loss": total}


@torch.no_grad()
def evaluate(
    trainer: RefinerTrainer, rows: Rows, sizes: tuple[tuple[int, int], tuple[int, int]], out: Path, step: int
) -> dict[str, float]:
    """PSNR and sharpness of held-out parts before and after, of shut eyes too; landmarks in pixels of 256; and a strip
    of pictures.
    """
    batch = without_pictures(rows)
    device = next(trainer.parameters()).device
    for part, (height, width) in zip(("eyes", "mouth"), sizes, strict=True):
        for kind in KINDS:
            pixels = rows[f"{part}_{kind}"][..., MARGIN : MARGIN + height, MARGIN : MARGIN + width]
            batch[f"{part}_{kind}"] = to_unit(pixels)
    batch = {name: value.to(device) for name, value in batch.items()}
    eyes, mouth, landmarks = trainer(batch, noise=0.0)
    shut = rows["shut"].to(device)
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
    for part, ours in (("eyes", eyes[:, 0]), ("mouth", mouth)):
        kinds = [batch[f"{part}_{kind}"] for kind in ("portrait", "target", "decoded")]
        columns = [(kind[:, 0] if part == "eyes" else kind)[:: max(1, len(ours) // 24)] for kind in kinds]
        to_strip([*columns, ours[:: max(1, len(ours) // 24)]]).save(out / "samples" / f"{part}-{step:06d}.jpg")
    return scores


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.refiner", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=4000, batch_size=32, learning_rate=1e-3)
    parser.add_argument("--checkpoint", required=True, help="checkpoint with the trained decoder")
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--stills-share", type=float, default=1.0, help="of the states of each identity")
    parser.add_argument("--no-perceptual", action="store_true", help="leave out the EfficientNet feature loss")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    model = load_model(args.checkpoint, accelerator.device)
    autoencoder = model.autoencoder
    held_out = load_cuts(autoencoder, args.val, options.out / "cuts-val.safetensors", accelerator.device)
    cuts = load_cuts(
        autoencoder, args.data, options.out / "cuts-train.safetensors", accelerator.device, args.stills_share
    )
    blinks = autoencoder.code.coordinates_to_motion(held_out["motion"].to(accelerator.device))
    held_out["shut"] = blinks[:, BLINK_COLUMNS].mean(1).cpu() > 0.7 * MOTION_SCALES["face_units"]
    size = model.config.autoencoder.image_size
    sizes = (cut_size(EYE, size), cut_size(MOUTH, size))
    trainer = RefinerTrainer(autoencoder.refiner).train().requires_grad_(True).to(memory_format=torch.channels_last)
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
    run_program(main)
