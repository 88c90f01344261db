"""Gates of next-frame prediction: does the model know better than to show the last frame again?

Teacher-forced: before every frame the stream's state is set to the true frames before it. What is judged is the mean of
what the model would show next, over its draws: the conditional mean, which a single draw has about twice the squared
error of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.gates.streams import Context
from benchmarks.gates.table import GateRow, Unavailable, judge, unavailable
from eartalking import TalkingHeadModel
from eartalking.controls import ControlBatch, control_values
from eartalking.model import StreamState
from eartalking.modules.pixels import to_float
from eartalking.motion.steering import articulate
from eartalking.motion.vector import clip_motion
from eval.metrics.signals import box_mse

DRAWS = 16
FITTED_AT_ONCE = 8  # frames that are encoded together
PIXEL_EVERY = 5  # frames between those whose pixels are compared
NAMES = ("next_frame_exact", "next_frame_latent", "next_frame_pixel")


class Foretold(NamedTuple):
    """Of T frames: the mean of the draws (T, N, C); the first draw; what the emission head says before anything departs
    from it."""

    mean: Tensor
    draw: Tensor
    emitted: Tensor


@torch.inference_mode()
def foretell(
    model: TalkingHeadModel,
    audio: Tensor,
    controls: list[ControlBatch],
    truth: Tensor,
    portrait: tuple[Tensor, Tensor],
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Foretold:
    """Each frame after the true ones before it: audio tokens (T, A, D), controls (1, 1) of each frame, latents
    (T, N, C), and the portrait's latents (1, N, C) and features."""
    state = model.prefill(*(value.expand(draws, -1, -1) for value in portrait))
    before, frames = portrait[0], []
    for index in range(min(len(truth), len(audio))):
        _as_shown(model, state, before)
        noise = torch.randn(draws, *truth.shape[1:], generator=generator)
        asked = controls[index].map(lambda value: value.expand(draws, *value.shape[1:]))
        shown = model.step(audio[None, index].expand(draws, -1, -1), asked, noise, state)
        frames.append(torch.stack([shown.mean(0), shown[0], state.previous[0]]))
        before = truth[index : index + 1]
    return Foretold(*torch.stack(frames, dim=1))


def _as_shown(model: TalkingHeadModel, state: StreamState, latents: Tensor) -> None:
    """Let the stream believe that it has shown latents (1, N, C) last."""
    own, head = state.departure, model.departure_head
    if own is not None and head is not None and state.frame_index:
        code = model.autoencoder.code
        shown = code.latents_to_coordinates(latents).expand_as(own.departure)
        mean = articulate(state.previous, state.controls, code, model.articulation)
        own.departure = shown - head.centre(code.latents_to_coordinates(mean), own.home)
        own.recent = torch.cat([shown[:, None], own.recent[:, 1:]], dim=1)
    state.previous = latents.expand_as(state.previous)


def measure_next_frame(context: Context) -> list[GateRow]:
    """Each frame's error over that of showing the one before it again, controls released, so that only the voice can
    help.

    `exact` is between the codes of the clips' labels; `latent` between what is read from their pixels; for `pixel`
    predictions and copies of the latter are decoded. Beside them: a single draw; the emission head alone, which is what
    earlier versions of this gate judged; and with all controls given.
    """
    try:
        clips = context.material.clips()
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in NAMES]
    totals: dict[str, float] = {}
    frames = pixels = 0
    for clip in tqdm(clips, unit="clip", desc="next frame", mininterval=2, leave=False):
        counts = _foretell_clip(context, clip, totals)
        frames, pixels = frames + counts[0], pixels + counts[1]
    rows = []
    for name, count in zip(NAMES, (frames, frames, pixels), strict=True):
        kind = name.removeprefix("next_frame_")
        ratios: dict[str, Any] = {
            key.removeprefix(f"{kind}_"): round(value / totals[f"{kind}_copy"], 4)
            for key, value in totals.items()
            if key.startswith(f"{kind}_")
        }
        rows.append(judge(name, ratios.pop("mean"), count, "frames", ratios.pop("copy"), **ratios))
    return rows


@torch.inference_mode()
def _foretell_clip(context: Context, clip: dict[str, np.ndarray], totals: dict[str, float]) -> tuple[int, int]:
    model, autoencoder = context.model, context.model.autoencoder
    images = to_float(torch.from_numpy(clip["frames"]))
    reference = autoencoder.reference(to_float(torch.from_numpy(clip["reference"]))[None])
    read = torch.cat([autoencoder.encode(some, reference.expand(len(some))) for some in images.split(FITTED_AT_ONCE)])
    labels = clip_motion({name: torch.from_numpy(value) for name, value in clip.items()})
    exact = autoencoder.code.motion_to_latents(labels)
    audio = model.audio_encoder(torch.from_numpy(clip["waveform"])[None])[0]
    portrait = reference.latents, reference.look
    count = min(len(read), len(audio))
    released, given = [ControlBatch.released(1, 1)] * count, _true_controls(clip)
    generator = torch.Generator().manual_seed(context.seed)

    def add(name: str, value: float) -> None:
        totals[name] = totals.get(name, 0.0) + value

    for kind, truth in (("exact", exact[:count]), ("latent", read[:count])):
        foretold = foretell(model, audio, released, truth, portrait, generator)
        informed = foretell(model, audio, given, truth, portrait, generator).mean
        copies = torch.cat([reference.latents, truth[:-1]])
        guesses = {**foretold._asdict(), "given": informed, "copy": copies}
        for name, guess in guesses.items():
            add(f"{kind}_{name}", float((guess - truth).square().mean((1, 2)).sum()))
    chosen = range(PIXEL_EVERY, count, PIXEL_EVERY)
    for index in chosen:
        for name, latents in (("mean", foretold.mean), ("copy", copies)):
            image = autoencoder.decode(latents[index : index + 1], reference).pixels()[0].numpy()
            add(f"pixel_{name}", box_mse(image, clip["frames"][index]))
    return count, len(chosen)


def _true_controls(clip: dict[str, np.ndarray]) -> list[ControlBatch]:
    """All of a clip's own control values, one batch per frame."""
    prefix = "labels."
    labels = {name[len(prefix) :]: torch.from_numpy(value) for name, value in clip.items() if name.startswith(prefix)}
    values, intensity = control_values(labels), labels["emotion_intensity"].float()
    given = torch.ones(1, 1, values.shape[1] + 1, dtype=torch.bool)
    return [
        ControlBatch(
            values[None, i : i + 1], labels["emotion"][None, i : i + 1].long(), intensity[None, i : i + 1], given
        )
        for i in range(len(values))
    ]
