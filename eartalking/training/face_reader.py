"""Train the FaceReader: `python -m eartalking.training.face_reader --data FILE [FILE ...] --val FILE [FILE ...] --out
RUN`.

FILEs are written by `eartalking.training.face_reader_data`: those to learn from with --patches, those of `--val`
without and of other identities. Frames are mirrored, shrunk, compressed, recoloured and cut in a wrong place, so that
the reader also works on what a model draws. RUN is a folder that resumes (eartalking.training.loop); `--weights` is
where the reader goes, with its accuracy on the held-out identities, which is also the last line printed.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from eartalking.controls import EMOTIONS
from eartalking.errors import run_program
from eartalking.perception.face_parts import (
    EYE_SIZE,
    IRIS_SIZE,
    MOUTH_SIZE,
    WHOLE_SIZE,
    cut,
    from_whole,
    part_places,
    whole_place,
)
from eartalking.perception.face_reader import GAZE, READINGS, SCALES, WEIGHTS_FOLDER, FaceReader, FaceReaderNet
from eartalking.training.augmentation import Damage, misplaced, somewhere
from eartalking.training.encoder import mirrored_landmarks
from eartalking.training.face_reader_data import stored_places
from eartalking.training.loop import Losses, RunOptions, train

MIRRORED = tuple(READINGS.index(name) for name in ("yaw", "roll", "gaze_yaw"))
BLINK, MOUTH = READINGS.index("blink"), READINGS.index("mouth_open")
CLEAR_INTENSITY = 0.8  # from here on an emotion must be recognisable
Rows = dict[str, Tensor]


class ReaderData:
    """The rows of several files, read from disk when they are drawn."""

    def __init__(self, paths: list[Path]) -> None:
        """Raises FileNotFoundError: no such file."""
        self._files = [load_file(path) for path in paths]
        self._places = [(file, row) for file, rows in enumerate(self._files) for row in range(len(rows["values"]))]

    def __len__(self) -> int:
        return len(self._places)

    def take(self, indices: list[int]) -> Rows:
        """The rows as one batch, pictures still uint8."""
        chosen = [self._places[index] for index in indices]
        return {name: torch.stack([self._files[file][name][row] for file, row in chosen]) for name in self._files[0]}


def mirror(batch: Rows) -> Rows:
    """Half of the rows as in a mirror. The patch of one eye is the mirror image of the other's already."""
    batch = {name: value.clone() for name, value in batch.items()}
    rows = torch.rand(len(batch["values"])) < 0.5
    for name in ("whole", "mouth"):
        batch[name][rows] = batch[name][rows].flip(-1)
    batch["eyes"][rows] = batch["eyes"][rows].flip(1)
    batch["values"][rows.nonzero(), torch.tensor(MIRRORED)] *= -1
    batch["landmarks"][rows] = mirrored_landmarks(batch["landmarks"][rows])
    return batch


def reading_losses(net: FaceReaderNet, batch: Rows) -> Losses:
    """Half of the rows are cut where the net found eyes and mouth, the other half near where they are."""
    batch = mirror(batch)
    values, truth = batch["values"], batch["landmarks"]
    count, damage = len(values), Damage.draw(len(values))
    stored_whole, stored_eyes, stored_mouth = stored_places(truth)
    where = somewhere(count)
    whole = cut(_floats(batch["whole"]), torch.linalg.solve(stored_whole, whole_place(where)), WHOLE_SIZE)
    features, found = net.locate(damage.apply(whole))
    found = from_whole(found.float(), where)
    cuts = misplaced(found, truth)
    new_eyes, new_irises, new_mouth = part_places(cuts)
    pairs = [_floats(batch["eyes"][:, side]) for side in range(2)]
    eyes, irises = (
        torch.stack(
            [
                cut(pair, torch.linalg.solve(old, new), size)
                for pair, old, new in zip(pairs, stored_eyes, places, strict=True)
            ],
            1,
        )
        for places, size in ((new_eyes, EYE_SIZE), (new_irises, IRIS_SIZE))
    )
    mouth = cut(_floats(batch["mouth"]), torch.linalg.solve(stored_mouth, new_mouth), MOUTH_SIZE)
    readings, emotion = net.read(features, cuts, *(damage.apply(part) for part in (eyes, irises, mouth)))
    error = F.smooth_l1_loss(readings.float(), values, beta=0.3, reduction="none")
    is_open = (values[:, BLINK] * SCALES["blink"] < 0.5).float()
    weights = torch.ones(len(READINGS))
    weights[GAZE] = 4.0
    error = error * weights
    error[:, GAZE] = error[:, GAZE] * is_open[:, None]
    naming = F.cross_entropy(emotion.float(), batch["emotion"], reduction="none", label_smoothing=0.02)
    losses = {
        "gaze": error[:, GAZE].mean(),
        "pose": error[:, :3].mean(),
        "emotion": (naming * batch["weight"]).sum() / batch["weight"].sum().clamp_min(1e-6),
        "landmarks": F.smooth_l1_loss(found, truth, beta=0.01) / 0.02,
    }
    return losses | {"loss": error.mean() + 0.5 * losses["emotion"] + losses["landmarks"]}


def _floats(pictures: Tensor) -> Tensor:
    return pictures.float().div_(255)


@torch.inference_mode()
def measure(net: FaceReaderNet, data: ReaderData) -> dict[str, float]:
    """Mean absolute error per reading (gaze: where the eyes are open) and of the landmarks (pixels of 256), emotions
    recognised where they are clear, how often the blink is on the right side of one half, and the mouth's
    correlation."""
    net.eval()
    parts = []
    for start in range(0, len(data), 32):
        batch = data.take(list(range(start, min(start + 32, len(data)))))
        readings, emotion, found = net(batch.pop("images").float() / 255)
        parts.append({**batch, "read": readings, "named": emotion.argmax(1), "found": found})
    rows = {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}
    scales = torch.tensor(list(SCALES.values()))
    error, truth = (rows["read"] - rows["values"]).abs() * scales, rows["values"] * scales
    is_open = truth[:, BLINK] < 0.5
    accuracy = {
        name: float(error[is_open if name.startswith("gaze") else slice(None), i].mean())
        for i, name in enumerate(READINGS)
    }
    clear = (rows["calm"] > 0) & ((rows["emotion"] == 0) | (rows["intensity"] >= CLEAR_INTENSITY))
    right = (rows["named"] == rows["emotion"])[clear].float()
    accuracy["emotion_recognised"] = float(right.mean()) if len(right) else math.nan
    accuracy["blink_side"] = float(((rows["read"][:, BLINK] * SCALES["blink"] > 0.5) == ~is_open).float().mean())
    accuracy["mouth_correlation"] = float(torch.corrcoef(torch.stack([rows["read"][:, MOUTH], truth[:, MOUTH]]))[0, 1])
    accuracy["landmarks_px"] = float((rows["found"] - rows["landmarks"]).norm(dim=2).mean()) * 256
    return {name: round(value, 4) for name, value in accuracy.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eartalking.training.face_reader", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="files of eartalking.training.face_reader_data, training split",
    )
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="such files of held-out identities")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder for the trained reader")
    parser.add_argument("--init", type=Path, help="folder of a trained reader to go on from")
    parser.add_argument("--threads", type=int, default=1)
    RunOptions.add_arguments(parser, steps=4000, batch_size=64, learning_rate=2e-3)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    options = RunOptions.from_arguments(args)
    data, held_out = ReaderData(args.data), ReaderData(args.val)
    accelerator = Accelerator(cpu=True, mixed_precision=options.mixed_precision)
    start = FaceReader.load(args.init).net.train().requires_grad_(True) if args.init else FaceReaderNet()
    net = train(
        start.to(memory_format=torch.channels_last),
        lambda: data.take(torch.randint(len(data), (options.batch_size,)).tolist()),
        lambda module, batch, progress: reading_losses(module, batch),
        lambda module, step: measure(module, held_out),
        options,
        accelerator,
    )
    accuracy = measure(net, held_out)
    about = {
        "steps": options.steps,
        "batch_size": options.batch_size,
        "training_images": len(data),
        "held_out_images": len(held_out),
        "emotions": list(EMOTIONS),
    }
    if args.init:
        before = json.loads((args.init / "config.json").read_text(encoding="utf-8"))
        about["went_on_from"] = {
            name: before.get(name) for name in ("steps", "batch_size", "training_images", "went_on_from")
        }
    FaceReader(net, accuracy).save(args.weights, **about)
    print(json.dumps({"training_images": len(data), "held_out_images": len(held_out), **accuracy}))
    return 0


if __name__ == "__main__":
    run_program(main)
