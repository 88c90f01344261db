"""What the part refiner trains on: eyes and mouths of stills, as the decoder draws them, as they are, and as in the
portrait.

`make_cuts` decodes every still once and keeps the cuts, with a margin; `draw` makes training batches of them. A tensor
of the dict is a *row* for each still and each portrait: `eyes_KIND` (M, 2, 3, h, w) uint8, the second one mirrored;
`mouth_KIND` (M, 3, h, w) uint8; `motion` and `own` (M, L), coordinates as the decoder got them; `turn` (M, 2), how far
irises go; `landmarks` and `portrait_landmarks` (M, 3, 2); `person` (M,), of each the same number.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from eartalking.autoencoder.decoder import Geometry
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.portrait_parts import (
    EYE,
    MOUTH,
    corners,
    cut,
    cut_eyes,
    cut_size,
    eye_turn,
    without_eyes,
)
from eartalking.modules.pixels import to_float
from eartalking.modules.warp import identity_grid
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import GAZE
from eartalking.training.augmentation import LATENT_NOISE, PORTRAIT_NOISE
from eartalking.training.data import prepare
from eartalking.training.loop import has_bf16
from eartalking.training.marks import MarkedStills

MARGIN = 4  # pixels on every side: at use a part is not found exactly where it is
OPENING = (0.08, 0.045)  # half width and half height of an eye, in fractions of the frame
EYE_UNITS = slice(UNIT_INDEX["eyeBlinkLeft"], UNIT_INDEX["eyeWideRight"] + 1)
AROUND = 2.2  # in the same measure: what lies up to here carries an eye along
READ_SHARE = 0.5  # of the portraits are as they are read, the others known
KINDS = {"eyes": ("decoded", "target", "portrait", "lidded"), "mouth": ("decoded", "target", "portrait")}
OF_PORTRAIT = ("portrait", "lidded")
TOLD = 3  # other pictures of a person, at most, from which the code of the mouth is learnt
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
    return geometry._replace(warps=[*geometry.warps[:-1], out])


@torch.no_grad()
def make_cuts(
    autoencoder: FrameAutoencoder, stills: MarkedStills, device: torch.device, share: float, batch_size: int = 16
) -> Rows:
    """Cuts of a share of the stills, and of the portraits as their own frames."""
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
                parts.append(_cut_batch(autoencoder, batch) | {"person": people})
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
    motion, own_motion = autoencoder.code.latents_to_motion(latents), autoencoder.code.latents_to_motion(own)
    rows = {
        "motion": autoencoder.code.latents_to_coordinates(latents), "own": autoencoder.code.latents_to_coordinates(own),
        "landmarks": landmarks, "portrait_landmarks": portrait_landmarks,
        "turn": eye_turn(motion, own_motion, portrait_landmarks),
    }  # fmt: skip
    lidded = without_eyes(portrait, batch["portrait_marks"])
    images = {"decoded": decoded, "target": frame, "portrait": portrait, "lidded": lidded}
    for part, kinds in KINDS.items():
        for kind in kinds:
            places = portrait_landmarks if kind in OF_PORTRAIT else landmarks
            rows[f"{part}_{kind}"] = _to_bytes(_with_margin(images[kind], places, part))
    return {name: value.cpu() for name, value in rows.items()}


def _with_margin(images: Tensor, places: Tensor, part: str) -> Tensor:
    """Cuts of eyes (B, 2, 3, h, w) or mouths (B, 3, h, w) around landmarks (B, 3, 2), with a margin."""
    size = images.shape[-1]
    height, width = cut_size(EYE if part == "eyes" else MOUTH, size)
    box = (height + 2 * MARGIN, width + 2 * MARGIN)
    return cut_eyes(images, places, box) if part == "eyes" else cut(images, corners(places[:, 2], box, size), box)


def _to_bytes(pixels: Tensor) -> Tensor:
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()


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
    others = other_pictures(rows["person"], chosen, TOLD)
    batch = {name: value[chosen].to(device) for name, value in without_pictures(rows).items()}
    gain = 1 + 0.15 * torch.randn(count, 3, 1, 1, device=device)
    shift = 0.1 * torch.randn(count, 3, 1, 1, device=device)
    for part, (height, width) in zip(("eyes", "mouth"), sizes, strict=True):
        top, left = torch.randint(2 * MARGIN + 1, (2,)).tolist()
        far_top, far_left = torch.randint(2 * MARGIN + 1, (2,)).tolist()
        for kind in KINDS[part]:
            y, x = (far_top, far_left) if kind in OF_PORTRAIT else (top, left)
            pixels = to_unit(rows[f"{part}_{kind}"][chosen][..., y : y + height, x : x + width]).to(device)
            tints = (gain, shift) if part == "mouth" else (gain[:, None], shift[:, None])
            batch[f"{part}_{kind}"] = pixels * tints[0] + tints[1]
    height, width = sizes[1]
    told = to_unit(rows["mouth_target"][others][..., top : top + height, left : left + width]).to(device)
    batch["told"] = told * gain[:, None] + shift[:, None]
    batch["told_motion"] = rows["motion"][others].to(device)
    batch["seen"] = (torch.arange(TOLD) < torch.randint(1, TOLD + 1, (count, 1))).float().to(device)
    return batch


def other_pictures(person: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Rows (B, count) of the persons (M,) whom the rows `chosen` (B,) show, without these themselves, in random order;
    all there are, and no more, where that is fewer."""
    each = int((person == person[0]).sum())
    rows_of = person.argsort(stable=True).view(-1, each)  # (P, each)
    of_same = rows_of[torch.searchsorted(person[rows_of[:, 0]].contiguous(), person[chosen])]  # (B, each)
    place = (of_same == chosen[:, None]).int().argmax(1, keepdim=True)
    steps = torch.rand(len(chosen), each - 1).argsort(1)[:, :count] + 1
    return of_same.gather(1, (place + steps) % each)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 -> floats in [-1, 1]."""
    return pixels.float() / 127.5 - 1
