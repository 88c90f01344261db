"""Stage 1, the motion code: `python -m eartalking.training.code --stills DIR --out DIR`.

Measures the spread of every motion label over the training stills, fixes the code that all later stages share, and
writes a
new checkpoint with it: nothing else in it is trained yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from eartalking.checkpoint import save_model
from eartalking.config import PRESETS
from eartalking.errors import run_program
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import HEAD_POSE, NUM_MOTION_LABELS
from eartalking.training.data import StillPairs

# What a viewer looks at first gets more of the code than one label's share.
EMPHASIS = {"jawOpen": 2.0, "mouthClose": 1.5, "eyeBlinkLeft": 1.5, "eyeBlinkRight": 1.5}
POSE_EMPHASIS = 1.5


def emphasis() -> torch.Tensor:
    """(NUM_MOTION_LABELS,)"""
    weights = torch.ones(NUM_MOTION_LABELS)
    for unit, weight in EMPHASIS.items():
        weights[UNIT_INDEX[unit]] = weight
    weights[HEAD_POSE] = POSE_EMPHASIS
    return weights


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.code", description=__doc__.split("\n")[0])
    parser.add_argument("--stills", type=Path, required=True, help="folder of `stills` clips, training split")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    model = TalkingHeadModel(PRESETS[args.preset])
    code = model.autoencoder.code
    code.measure(torch.cat(StillPairs(args.stills).motion), emphasis())
    save_model(model, args.out)
    print(f"{int((code.scale > 0).sum())} of {len(code.scale)} coordinates move")
    return 0


if __name__ == "__main__":
    run_program(main)
