"""Stage 2, the frame encoder: `python -m eartalking.training.encoder --checkpoint DIR --data DIR --val DIR --out RUN`.

CPU preset: the defaults. GPU preset: `--batch-size 256 --steps 8000 --max-minutes 9` (resumes slice by slice).

From a frame and the portrait to the frame's coordinates in the fixed motion code, and to where eyes and mouth are. A
stream needs it once, for the portrait itself; real video (training.prepare) needs it for every frame. Mirrored faces
double the identities; damage keeps the encoder from trusting the renderer's finish. `--trunks` starts from a face
reader that has seen
such heads already: the two look at faces in the same way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eartalking.checkpoint import load_model, save_model
from eartalking.errors import run_program
from eartalking.modules.pixels import to_float
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import FACE_UNITS, UNIT_INDEX
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES, NUM_MOTION_LABELS, TRANSLATION
from eartalking.perception.face_parts import WHOLE_SIZE, cut, cut_parts, from_whole, whole_place
from eartalking.perception.face_reader import FaceReader
from eartalking.perception.frame_encoder import FrameEncoder, Look
from eartalking.training.augmentation import Damage, misplaced, somewhere
from eartalking.training.data import StillPairs, endless
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.losses import coordinate_error

NAMES = ("frame", "portrait", "motion", "portrait_motion", "landmarks", "portrait_landmarks")
ANGLES = slice(HEAD_POSE.start, GAZE.stop)


def mirror_of(name: str) -> str:
    """The unit that a mirror makes of a unit."""
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    return name.removesuffix("Right") + "Left" if name.endswith("Right") else name


def mirrored(motion: Tensor) -> Tensor:
    """Motion vectors (B, NUM_MOTION_LABELS) as a mirror shows them."""
    order = list(range(NUM_MOTION_LABELS))
    order[: len(FACE_UNITS)] = [UNIT_INDEX[mirror_of(name)] for name in FACE_UNITS]
    signs = torch.ones(NUM_MOTION_LABELS, device=motion.device)
    signs[[HEAD_POSE.start, HEAD_POSE.start + 2, GAZE.start, TRANSLATION.start]] = -1  # yaw, roll, gaze yaw, x
    return motion[:, order] * signs


def mirrored_landmarks(landmarks: Tensor) -> Tensor:
    """Landmarks (B, 3, 2) as a mirror shows them: the eyes swap."""
    swapped = landmarks[:, [1, 0, 2]]
    return torch.stack([1 - swapped[..., 0], swapped[..., 1]], dim=-1)


class EncoderTrainer(nn.Module):
    """The frame encoder alone, on frames and portraits cut at places of its own or at true ones."""

    def __init__(self, encoder: FrameEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """-> coordinates of the frames and of the portraits (B, L) each, landmarks found in both (2B, 3, 2)."""
        images = (torch.cat([batch["frame"], batch["portrait"]]) + 1) / 2
        truth = torch.cat([batch["landmarks"], batch["portrait_landmarks"]])
        count, device = len(images), images.device
        damage = Damage.draw(count // 2, device)

        def damaged(pictures: Tensor) -> Tensor:
            return torch.cat([damage.apply(half) for half in pictures.chunk(2)])

        where = somewhere(count, device)
        features, found = self.encoder.locate(damaged(cut(F.avg_pool2d(images, 2), whole_place(where), WHOLE_SIZE)))
        found = from_whole(found.float(), where)
        cuts = misplaced(found, truth)
        look = self.encoder.look_closer(features, cuts, *(damaged(part) for part in cut_parts(images, cuts)))
        frame, portrait = (Look(*halves) for halves in zip(*(value.chunk(2) for value in look), strict=True))
        return self.encoder.read(frame, portrait).float(), self.encoder.read(portrait, portrait).float(), found


def prepare(batch: dict[str, Tensor], device: torch.device, training: bool) -> dict[str, Tensor]:
    """Images to floats; in training half of the samples as a mirror shows them."""
    batch = {name: batch[name].to(device) for name in NAMES}
    batch |= {name: to_float(batch[name]) for name in ("frame", "portrait")}
    if training:
        flip = torch.rand(len(batch["frame"]), device=device) < 0.5
        for name, change in (
            ("frame", lambda x: x.flip(3)),
            ("portrait", lambda x: x.flip(3)),
            ("motion", mirrored),
            ("portrait_motion", mirrored),
            ("landmarks", mirrored_landmarks),
            ("portrait_landmarks", mirrored_landmarks),
        ):
            batch[name] = torch.where(flip.view(-1, *[1] * (batch[name].ndim - 1)), change(batch[name]), batch[name])
    return batch


def compute_losses(trainer: nn.Module, batch: dict[str, Tensor], code: MotionCode) -> Losses:
    frame, portrait, found = trainer(batch)
    weights = torch.ones(len(code.scale), device=found.device)
    weights[GAZE] = 3.0
    weights[HEAD_POSE] = 2.0
    losses = {
        "landmarks": F.smooth_l1_loss(found, torch.cat([batch["landmarks"], batch["portrait_landmarks"]]), beta=0.01)
        / 0.02
    }
    for name, read, motion in (("frame", frame, batch["motion"]), ("portrait", portrait, batch["portrait_motion"])):
        losses[name] = (coordinate_error(read, motion, code) * weights).mean()
    return losses | {"loss": sum(losses.values())}


@torch.no_grad()
def evaluate(trainer: EncoderTrainer, batches: list[dict[str, Tensor]], code: MotionCode) -> dict[str, float]:
    """Errors on held-out identities: of frames and of portraits, of their poses and gazes in degrees, of landmarks in
    pixels of 256.
    """
    errors: dict[str, list[Tensor]] = {}
    encoder = trainer.encoder
    for batch in batches:
        frame, portrait = encoder.look(batch["frame"]), encoder.look(batch["portrait"])
        errors.setdefault("landmarks_px", []).append((frame.landmarks - batch["landmarks"]).norm(dim=2).mean() * 256)
        for kind, look, motion in (("frame", frame, batch["motion"]), ("portrait", portrait, batch["portrait_motion"])):
            target = code.motion_to_coordinates(motion)
            error = encoder.read(look, portrait).float() - target
            errors.setdefault(f"{kind}_error", []).append(error.pow(2).mean())
            errors.setdefault(f"{kind}_chance", []).append((target - target.mean(0)).pow(2).mean())
            angles = (error[:, ANGLES] / code.scale[ANGLES]).abs().mean(0)
            for axis, value in zip(("yaw", "pitch", "roll", "gaze_yaw", "gaze_pitch"), angles, strict=True):
                scale = MOTION_SCALES["gaze" if axis.startswith("gaze") else "head_pose"]
                errors.setdefault(f"{kind}_{axis}", []).append(value / scale)
    return {name: float(torch.stack(values).mean()) for name, values in errors.items()}


@torch.no_grad()
def usual_error(encoder: FrameEncoder, batches: list[dict[str, Tensor]], code: MotionCode) -> Tensor:
    """Root mean square of the error of each coordinate (L,) on held-out people."""
    errors = [
        encoder(batch["frame"], batch["portrait"]).float() - code.motion_to_coordinates(batch["motion"])
        for batch in batches
    ]
    return torch.cat(errors).square().mean(0).sqrt()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.encoder", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=3000, batch_size=32, learning_rate=1e-3)
    parser.add_argument(
        "--checkpoint", required=True, help="checkpoint with the motion code (eartalking.training.code)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--val", type=Path, required=True, help="folder of `stills` clips, validation split")
    parser.add_argument("--trunks", type=Path, help="folder of a trained face reader whose trunks to start from")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    model = load_model(args.checkpoint)
    autoencoder = model.autoencoder
    if args.trunks:
        start_from(autoencoder.encoder, FaceReader.load(args.trunks).net)
    trainer = EncoderTrainer(autoencoder.encoder).train().requires_grad_(True).to(memory_format=torch.channels_last)
    code = autoencoder.code.to(accelerator.device)
    workers = 0 if accelerator.device.type == "cpu" else 8
    stills = StillPairs(args.data)
    stream = endless(
        DataLoader(stills, min(options.batch_size, len(stills)), shuffle=True, drop_last=True, num_workers=workers)
    )
    held_out = [prepare(batch, accelerator.device, False) for batch in DataLoader(StillPairs(args.val), 48)]
    average = train(
        trainer,
        lambda: prepare(next(stream), accelerator.device, True),
        lambda module, batch, progress: compute_losses(module, batch, code),
        lambda module, step: evaluate(module, held_out, code),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        autoencoder.encoder.load_state_dict(average.encoder.state_dict())
        autoencoder.encoder.error.copy_(usual_error(average.encoder, held_out, code))
        save_model(model, options.out / "checkpoint")
    return 0


def start_from(encoder: FrameEncoder, reader: nn.Module) -> None:
    """Take over the trunks of a trained face reader. ValueError: they have other widths."""
    if encoder.widths != reader.widths:
        raise ValueError(f"the face reader's trunks have widths {reader.widths}, the encoder's {encoder.widths}")
    names = encoder.state_dict().keys()
    encoder.load_state_dict({name: value for name, value in reader.state_dict().items() if name in names}, strict=False)


if __name__ == "__main__":
    run_program(main)
