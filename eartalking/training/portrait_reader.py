"""Stage 3, the portrait reader: `python -m eartalking.training.portrait_reader --checkpoint DIR --data DIR --val DIR
--out RUN`.

A few minutes on one core. From the marks of rendered portraits to what the face does in them. At the end, each
coordinate is trusted as much as its error on held-out people deserves beside the frame encoder's; but all except the
translation come from the marks alone wherever these are half as good, for photographs the frame encoder reads badly.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from eartalking.checkpoint import load_model, save_model
from eartalking.modules.pixels import to_float
from eartalking.motion.code import MotionCode
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES, TRANSLATION
from eartalking.perception.frame_encoder import FrameEncoder
from eartalking.perception.portrait_reader import PortraitReader
from eartalking.training.data import StillPairs
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.losses import coordinate_error
from eartalking.training.marks import clip_marks, with_noise
from eartalking.training.surface import PortraitSurfaces

PREFERRED = 4.0  # squared errors of the marks may be so many times the encoder's
Rows = dict[str, Tensor]


def portraits(surfaces: list[Path], stills: list[Path]) -> Rows:
    """marks (M, K, 3), motion (M, L), and of `stills` alone landmarks (M, 3, 2), nan elsewhere; faces without marks are
    left out."""
    parts: list[Rows] = []
    for folder in surfaces:
        marks = torch.cat([clip["frames"] for clip in clip_marks(folder)])
        motion = torch.cat(PortraitSurfaces(folder).motion)
        parts.append({"marks": marks, "motion": motion, "landmarks": torch.full((len(marks), 3, 2), torch.nan)})
    for folder in stills:
        pairs, read = StillPairs(folder), clip_marks(folder)
        for prefix in ("", "twin_"):
            parts.append(
                {
                    "marks": torch.stack([marks[prefix + "reference"] for marks in read]),
                    "motion": torch.stack(pairs.portrait_motion[prefix]),
                    "landmarks": torch.stack([clip[prefix + "reference_landmarks"][0] for clip in pairs.clips]),
                }
            )
    rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    seen = rows["marks"].abs().amax((1, 2)) > 0
    if seen.sum() < 2:
        raise ValueError(f"{surfaces[0]}: no faces can be read in these pictures")
    return {name: value[seen] for name, value in rows.items()}


def compute_losses(reader: PortraitReader, rows: Rows, count: int, code: MotionCode) -> Losses:
    chosen = torch.randint(len(rows["marks"]), (count,))
    reading = reader(with_noise(rows["marks"][chosen]))
    motion, landmarks = rows["motion"][chosen], rows["landmarks"][chosen]
    known = ~landmarks.isnan()
    places = F.smooth_l1_loss(reading.landmarks[known], landmarks[known], beta=0.01) / 0.02
    losses = {"coordinates": coordinate_error(reading.coordinates, motion, code).mean(), "landmarks": places}
    return losses | {"loss": losses["coordinates"] + 0.1 * places}


@torch.no_grad()
def squared_errors(reader: PortraitReader, rows: Rows, code: MotionCode) -> Tensor:
    """Mean squared error of each coordinate (L,)."""
    return (reader(rows["marks"]).coordinates - code.motion_to_coordinates(rows["motion"])).square().mean(0)


@torch.no_grad()
def encoder_errors(encoder: FrameEncoder, folder: Path, code: MotionCode) -> Tensor:
    """The same of the frame encoder, on a folder of `portraits` clips."""
    errors = []
    for batch in DataLoader(PortraitSurfaces(folder), 32):
        look = encoder.look(to_float(batch["frames"]))
        errors.append(encoder.read(look, look).float() - code.motion_to_coordinates(batch["motion"]))
    return torch.cat(errors).square().mean(0)


def trusted(marks: Tensor, encoder: Tensor) -> Tensor:
    """Squared errors (L,) of both -> how much each coordinate counts that is read from the marks (L,)."""
    preferred = marks < PREFERRED * encoder
    preferred[TRANSLATION] = False
    return torch.where(preferred, 1.0, encoder / (encoder + marks).clamp_min(1e-9))


def summary(errors: Tensor, code: MotionCode) -> dict[str, float]:
    """Root mean square errors: over all coordinates, and of pose and gaze in degrees."""
    found = {"all": float(errors.mean().sqrt())}
    for names, columns, scale in (
        (("yaw", "pitch", "roll"), HEAD_POSE, MOTION_SCALES["head_pose"]),
        (("gaze_yaw", "gaze_pitch"), GAZE, MOTION_SCALES["gaze"]),
    ):
        degrees = errors[columns].sqrt() / code.scale[columns] / scale
        found |= {name: float(value) for name, value in zip(names, degrees, strict=True)}
    return {name: round(value, 4) for name, value in found.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.training.portrait_reader", description=__doc__.split("\n")[0]
    )
    RunOptions.add_arguments(parser, steps=12000, batch_size=128, learning_rate=1e-3, precision="no", eval_every=2000)
    parser.add_argument("--checkpoint", required=True, help="checkpoint with the motion code and a frame encoder")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of `portraits` clips, training")
    parser.add_argument("--stills", type=Path, nargs="+", required=True, help="folders of `stills` clips, training")
    parser.add_argument("--val", type=Path, required=True, help="folder of `portraits` clips, validation split")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=True)  # it is small
    model = load_model(args.checkpoint)
    autoencoder, code = model.autoencoder, model.autoencoder.code
    rows, held_out = portraits(args.data, args.stills), portraits([args.val], [])
    reader = autoencoder.portrait_reader.train().requires_grad_(True)
    reader.measure(rows["marks"])
    average = train(
        reader,
        lambda: rows,
        lambda module, batch, step: compute_losses(module, batch, options.batch_size, code),
        lambda module, step: summary(squared_errors(module, held_out, code), code),
        options,
        accelerator,
    )
    errors, others = squared_errors(average, held_out, code), encoder_errors(autoencoder.encoder, args.val, code)
    average.trust.copy_(trusted(errors, others) * (code.scale > 0))
    average.error.copy_(errors.sqrt())
    reader.load_state_dict(average.state_dict())
    save_model(model, options.out / "checkpoint")
    print(json.dumps({"marks": summary(errors, code), "encoder": summary(others, code)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
