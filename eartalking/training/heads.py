"""Heads of a model that there is: `python -m eartalking.training.heads --checkpoint DIR --speech DIR --out RUN`.

Measures anew how heads sway (`training.head_sway`), and lets what the departure head draws of them rest where people's
do (`training.departure.rest`). `training.departure` does both to a head that it trains; here nothing else changes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from eartalking.checkpoint import load_model, save_model
from eartalking.training.departure import rest
from eartalking.training.head_sway import ROUNDS, SWAYING, fit_sway, likeness, sway_alone
from eartalking.training.motion_spans import Portraits, make_spans, speak


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.heads", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="model with a departure head")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus (eartalking.synth.speech)")
    parser.add_argument("--portraits", type=Path, required=True, help="folder of stills, whose portraits speak")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a span")
    parser.add_argument("--spans", type=int, default=160, help="spans of motion for the sway")
    parser.add_argument("--streams", type=int, default=48, help="spans that the model streams, for the rest")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    model = load_model(args.checkpoint).requires_grad_(False)
    head, code = model.departure_head, model.autoencoder.code
    if head is None or model.config.departure is None:
        parser.error(f"--checkpoint {args.checkpoint}: that checkpoint has no departure head")
    try:
        portraits = Portraits.of_stills(model, args.portraits)
        true = speak(code, args.speech, args.seconds, args.spans, args.seed).coordinates
        spans = make_spans(model, args.speech, portraits, args.seconds, args.streams, args.seed + 1)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    fit_sway(head.sway, true, head.neutral)
    spread, speed = likeness(sway_alone(head.sway, head.neutral.expand(len(true), -1), true.shape[1], ROUNDS), true)
    for name, column in zip(("yaw", "roll"), SWAYING, strict=True):
        print(json.dumps({name: {"spread": float(spread[column]), "speed": float(speed[column])}}), flush=True)
    print(json.dumps({"beside_people": rest(head, spans, model.config.departure.num_steps)}), flush=True)
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
