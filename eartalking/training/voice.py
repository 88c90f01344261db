"""Stage 9, what a voice says of a mouth by itself: `python -m eartalking.training.voice --checkpoint DIR --speech DIR
--val DIR --data DIR --out RUN`.

The model streams long spans of speech by itself, with portraits that it sees, and what the means of its mouths leave
over of the true ones is regressed on the frames' audio tokens and on a hidden layer of them (ridge regression):
`TalkingHeadModel.voice_to_latents`. A model that has no hidden layer yet learns one on the first spans, for the same
end. Backbone and audio encoder stay as they are, so a departure head that was trained for them still knows them.

What is added enters the history, and the backbone goes on from there: added whole, a quarter of the jaw's spread became
five quarters, and the next round overshot back. So each round adds a share of what it found, and the next one listens
to the model as it is then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from eartalking.checkpoint import load_model, save_model
from eartalking.model import TalkingHeadModel
from eartalking.modules.voice_to_latents import VoiceToLatents
from eartalking.motion.code import MotionCode
from eartalking.motion.vector import units_of
from eartalking.synth.head import SHUT_GAP, load_bundle
from eartalking.training.data import LatentClips
from eartalking.training.departure import groups
from eartalking.training.motion_spans import BATCH, Portraits, SpokenSpans, encode_audio, speak, stream_means
from eartalking.training.ridge import ridge_regression
from eartalking.training.rollout import JAW, correlation, evaluation_batch, falls_short, measure_articulation

RIDGE = 1e-3  # of the audio channels' mean variance
SHARE = 0.3  # of what a round found is added
# Frames with shut lips count as often, and the middles of b, m and p. Least squares goes half-way where it is in doubt,
# but lips half-way shut are open. On held-out voices, with all shut frames counted four times and without a hidden
# layer, 0.89 of the closures were shut and 0.047 of the frames with open lips; so, 0.92 and 0.044.
SHUT_COUNT, CLOSURE_COUNT = 2.0, 12.0
STEPS, FRAMES_A_STEP, LEARNING_RATE = 300, 1024, 2e-3  # of the hidden layer


def mouth_columns(size: int) -> Tensor:
    """Which coordinates (L,) bool are the mouth's: jaw, lips, corners and tongue."""
    part = groups(size)
    return part["mouth"] | part["corners"]


@torch.inference_mode()
def own_means(model: TalkingHeadModel, spans: SpokenSpans) -> tuple[Tensor, Tensor]:
    """Audio tokens (S, T, A * D) of the spans, and the coordinates (S, T, L) of the model's free-running means."""
    tokens, means = [], []
    for first in tqdm(range(0, len(spans.waveforms), BATCH), desc="streams", unit="batch"):
        here = slice(first, first + BATCH)
        audio = encode_audio(model, spans.waveforms[here])[:, : spans.coordinates.shape[1]]
        streams = stream_means(model, audio, spans.portraits[here], spans.looks_of(here))
        latents = torch.stack([mean for mean, _ in streams], dim=1)
        tokens.append(audio.flatten(-2))
        means.append(model.autoencoder.code.latents_to_coordinates(latents))
    return torch.cat(tokens), torch.cat(means)


def shut_lips(code: MotionCode, coordinates: Tensor) -> Tensor:
    """Which of the frames with these coordinates (..., L) have shut lips."""
    units = units_of(code.coordinates_to_motion(coordinates))
    return torch.from_numpy(load_bundle().lip_gap(units.numpy()) < SHUT_GAP)


def rest_of_mouths(means: Tensor, spans: SpokenSpans, code: MotionCode) -> tuple[Tensor, Tensor]:
    """What `own_means` leave over of true mouths (M, G), and how often each of the M frames counts (M,)."""
    rest = (spans.coordinates - means)[..., mouth_columns(means.shape[-1])]
    counts = torch.where(shut_lips(code, spans.coordinates), SHUT_COUNT, 1.0)
    counts = torch.where(spans.closures, CLOSURE_COUNT, counts)
    return rest.flatten(0, 1), counts.flatten()


def learn_bends(layer: VoiceToLatents, tokens: Tensor, rest: Tensor, counts: Tensor, seed: int) -> None:
    """The hidden layer of what a voice says, from audio tokens (M, F), the rest of mouths (M, G) and counts (M,)."""
    generator = torch.Generator().manual_seed(seed)
    middle, spread = tokens.mean(0), tokens.std(0).mean()
    bends = layer.bend_in.out_features
    bend_in, bend_out = nn.Linear(layer.in_features, bends), nn.Linear(bends, rest.shape[1])
    nn.init.zeros_(bend_out.weight)
    parameters = [*bend_in.parameters(), *bend_out.parameters()]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for _ in tqdm(range(STEPS), desc="hidden layer", unit="step", mininterval=5):
        row = torch.randint(len(tokens), (FRAMES_A_STEP,), generator=generator)
        found = bend_out(F.silu(bend_in((tokens[row] - middle) / spread)))
        loss = (counts[row, None] * (found - rest[row]).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        layer.bend_in.weight.copy_(bend_in.weight / spread)
        layer.bend_in.bias.copy_(bend_in.bias - bend_in.weight @ middle / spread)


def left_over(
    layer: VoiceToLatents, tokens: Tensor, rest: Tensor, counts: Tensor, ridge: float = RIDGE
) -> tuple[Tensor, Tensor]:
    """The rest of mouths (M, G) as audio tokens (M, F) and their bends say it: weight (G, F + H) and bias (G,)."""
    return ridge_regression(torch.cat([tokens, layer.bent(tokens)], dim=1), rest, ridge, counts)


@torch.no_grad()
def hear(model: TalkingHeadModel, weight: Tensor, bias: Tensor) -> None:
    """Add to what the model hears: audio tokens of a frame and their bends -> mouth coordinates, weight (G, F + H) and
    bias (G,)."""
    code, layer = model.autoencoder.code, model.voice_to_latents
    change = torch.zeros(len(weight[0]) + 1, len(code.mean))
    change[:, mouth_columns(len(code.mean))] = torch.cat([weight, bias[:, None]], dim=1).T
    latents = code.change_to_latents(change).flatten(1)
    layer.weight += latents[: layer.in_features].T
    layer.bend_out.weight += latents[layer.in_features : -1].T
    layer.bias += latents[-1]


def report(means: Tensor, spans: SpokenSpans, code: MotionCode) -> dict[str, float]:
    """How the means' mouths (S, T, L) agree with the true ones: `shut` is the share of truly shut frames that they
    shut, `shut_wrongly` of the others."""
    mouth = mouth_columns(means.shape[-1])
    true, rest = spans.coordinates[..., mouth], (spans.coordinates - means)[..., mouth]
    variance = (true - true.mean((0, 1))).square().mean()
    shut, true_shut = shut_lips(code, means), shut_lips(code, spans.coordinates)
    jaw, true_jaw = means[..., JAW], spans.coordinates[..., JAW]
    return {
        "mouth_explained": float(1 - rest.square().mean() / variance),
        "jaw_correlation": correlation(jaw, true_jaw),
        "jaw_spread": float(jaw.std(1).mean() / true_jaw.std(1).mean()),
        "shut": float(shut[true_shut].float().mean()),
        "shut_wrongly": float(shut[~true_shut].float().mean()),
        "closed": float(shut[spans.closures].float().mean()),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.voice", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="the model that shall hear")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus (eartalking.synth.speech)")
    parser.add_argument("--val", type=Path, required=True, help="held-out speech corpus")
    parser.add_argument("--data", type=Path, required=True, help="latents (training.encode), to measure articulation")
    Portraits.add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of a span")
    parser.add_argument("--spans", type=int, default=48, help="spans that each round listens to, new ones every time")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--eval-length", type=int, default=60, help="frames of the clips of `--data`")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    model = load_model(args.checkpoint).requires_grad_(False)
    code = model.autoencoder.code
    try:
        clips = evaluation_batch(LatentClips(args.data / "val.safetensors"), args.eval_length, count=96)
        people, others = (Portraits.of_stills(model, folder) for folder in (args.portraits, args.val_portraits))
        held_out = speak(code, args.val, args.seconds, 24, args.seed).seen(others, args.seed)

        def heard(number: int) -> SpokenSpans:
            seed = args.seed + number
            return speak(code, args.speech, args.seconds, args.spans, seed).seen(people, seed)

        for number in range(args.rounds):
            spans = heard(number)
            tokens, means = own_means(model, spans)
            print(json.dumps({"round": number, **report(means, spans, code)}), flush=True)
            layer, tokens = model.voice_to_latents, tokens.flatten(0, 1)
            rest, counts = rest_of_mouths(means, spans, code)
            if not layer.bend_out.weight.any():  # a model that was heard before keeps its hidden layer
                learn_bends(layer, tokens, rest, counts, args.seed)
            weight, bias = left_over(layer, tokens, rest, counts)
            hear(model, SHARE * weight, SHARE * bias)
        spans = heard(args.rounds)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(json.dumps({"held_out": report(own_means(model, held_out)[1], held_out, code)}), flush=True)
    articulation = measure_articulation(model, clips)
    # Of what is said without a mouth_scale the long spans know more than the clips' first seconds.
    spoken, true = (code.coordinates_to_motion(one) for one in (own_means(model, spans)[1], spans.coordinates))
    articulation[0] = falls_short(spoken, true)
    model.articulation.copy_(articulation)
    save_model(model, args.out / "checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
