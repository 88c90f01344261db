"""Gates of controls by their tokens alone (the paper's FCIC): what the network itself makes of what is asked.

A stream sets six of the controls exactly, whatever the network says, and adds expressions afterwards. Here nothing is
set: every track is stepped through its range alone, and the mean that the emission head says of every frame is read by
the motion code, which has no error. Of brow, smile and emotion it is measured how far the emitted face goes towards
what `motion.steering.expression` adds in a stream. The network that ships has learnt to leave that out and goes
nowhere; one trained with `training.teacher_forcing --learn-expressions` emits it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.gates.control import asked_levels
from benchmarks.gates.motion import portraits
from benchmarks.gates.streams import Context
from benchmarks.gates.table import GATES, GAZE_TRACKS, POSE_TRACKS, GateRow, Unavailable, judge, unavailable
from eartalking import TalkingHeadModel
from eartalking.config import FPS
from eartalking.controls import SCALAR_TRACKS, ControlBatch
from eartalking.motion.steering import exact_columns, expression

VOICES = 8
EXPRESSIONS = ("smile", "brow", "emotion")


def measure_tokens(context: Context) -> list[GateRow]:
    """All gates of the group; the floor is the same voices with the track released."""
    suite = context.suite
    seconds = suite.control_steps * suite.control_hold / FPS
    try:
        voices = [context.material.voice(seconds, skip=5 * index) for index in range(VOICES)]
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in GATES["tokens"]]
    with torch.inference_mode():
        audio = torch.cat([context.model.audio_encoder(torch.from_numpy(voice)[None]) for voice in voices])
    count = audio.shape[1]
    rows = []

    def steps(track: str, number: int) -> np.ndarray:  # (V, T)
        rng = np.random.default_rng([context.seed, number])
        levels = [np.repeat(asked_levels(track, suite.control_steps, rng), suite.control_hold) for _ in range(VOICES)]
        return np.array(levels)[:, :count]

    for number, track in enumerate((*POSE_TRACKS, *GAZE_TRACKS, "blink")):
        asked = steps(track, number).astype(np.float32)
        followed, free = (
            obeyed(context.model, audio[:, : asked.shape[1]], track, asked, given) for given in (True, False)
        )
        if track == "blink":
            right, floor = (float(((said > 0.5) == (asked > 0.5)).mean()) for said in (followed, free))
            rows.append(judge("tokens_blink_followed", right, asked.size, "frames", floor))
        else:
            away, floor = (float(np.abs(said - asked).mean()) for said in (followed, free))
            slope = float(np.polyfit(asked.ravel(), followed.ravel(), 1)[0])
            rows.append(judge(f"tokens_{track}_deg", away, asked.size, "frames", floor, slope=round(slope, 3)))
    for number, track in enumerate(EXPRESSIONS):
        asked = steps(track, 100 + number)
        each = shown_of(context.model, audio[:, : asked.shape[1]], track, asked)
        at_once = round(share_of(*(one[:, :: suite.control_hold] for one in each)), 3)
        rows.append(judge(f"tokens_{track}", share_of(*each), asked.size, "frames", 0.0, in_the_first_frame=at_once))
    return rows


def obeyed(model: TalkingHeadModel, audio: Tensor, track: str, asked: np.ndarray, given: bool) -> np.ndarray:
    """What streams (V,) over audio tokens (V, T, A, D) emit of a track that is asked to be `asked` (V, T), in its
    units: (V, T)."""
    columns = exact_columns(len(model.autoencoder.code.scale), audio.device)[SCALAR_TRACKS.index(track)]  # (L,)
    controls = asking(track, asked) if given else ControlBatch.released(*asked.shape)
    return (means(model, audio, controls) @ columns / columns.square().sum()).numpy()


def shown_of(model: TalkingHeadModel, audio: Tensor, track: str, asked: np.ndarray) -> tuple[Tensor, Tensor]:
    """How emitted faces differ from released ones where an expression is asked to be `asked` (V, T), and what a stream
    would add to the released ones: coordinates (V, T, L) each."""
    code, controls = model.autoencoder.code, asking(track, asked)
    released = means(model, audio, ControlBatch.released(*asked.shape))
    there = code.motion_to_coordinates(released)
    streamed = code.motion_to_latents(released) + expression(released, controls, code)
    return (
        code.motion_to_coordinates(means(model, audio, controls)) - there,
        code.latents_to_coordinates(streamed) - there,
    )


def share_of(change: Tensor, added: Tensor) -> float:
    """Which share of the way to what would be added a change goes; both of the same shape."""
    return float((change * added).sum() / added.square().sum())


def asking(track: str, asked: np.ndarray) -> ControlBatch:
    """Controls over `asked` (V, T) of which one track is given: a scalar one's values, or the emotions' indices."""
    controls = ControlBatch.released(*asked.shape)
    if track == "emotion":
        controls.emotion.copy_(torch.from_numpy(asked))
        controls.intensity.fill_(1)
        controls.given[..., -1] = True
    else:
        controls.values[..., SCALAR_TRACKS.index(track)] = torch.from_numpy(asked).float()
        controls.given[..., SCALAR_TRACKS.index(track)] = True
    return controls


@torch.inference_mode()
def means(model: TalkingHeadModel, audio: Tensor, controls: ControlBatch) -> Tensor:
    """The motion vectors (V, T, L) that streams over audio tokens (V, T, A, D) emit under controls (V, T), on average.
    Nothing is set: the mean goes back into the history as it is."""
    code, size, voices = model.autoencoder.code, model.config.autoencoder, len(audio)
    look = torch.zeros(voices, size.num_latent_tokens, size.reference_widths[-1])
    state = model.prefill(code.motion_to_latents(torch.from_numpy(portraits(voices))), look)
    frames = [model.step_mean(audio[:, index], controls.frame(index), state) for index in range(audio.shape[1])]
    return code.latents_to_motion(torch.stack(frames, dim=1))
