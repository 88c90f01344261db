"""Gates of controls by their tokens alone (the paper's FCIC): what the network itself makes of what is asked.

A stream sets six of the controls exactly, whatever the network says, and adds expressions afterwards. Here nothing is
set: every track is stepped through its range alone, and the mean that the emission head says of every frame is read by
the motion code, which has no error. Brow, smile and emotion are taken out of what the network learns to emit, so their
tokens cannot be measured.
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
from eartalking.motion.steering import exact_columns

VOICES = 8
LEARNT_AWAY = "taken out of what the network learns to emit, and added afterwards"


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
    for number, track in enumerate((*POSE_TRACKS, *GAZE_TRACKS, "blink")):
        rng = np.random.default_rng([context.seed, number])
        levels = [np.repeat(asked_levels(track, suite.control_steps, rng), suite.control_hold) for _ in range(VOICES)]
        asked = np.array(levels, np.float32)[:, :count]
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
    return [*rows, *(unavailable(f"tokens_{track}", LEARNT_AWAY) for track in ("smile", "brow", "emotion"))]


@torch.inference_mode()
def obeyed(model: TalkingHeadModel, audio: Tensor, track: str, asked: np.ndarray, given: bool) -> np.ndarray:
    """What streams (V,) over audio tokens (V, T, A, D) emit of a track that is asked to be `asked` (V, T), in its
    units: (V, T). Nothing is set: the mean goes back into the history as it is."""
    code, size = model.autoencoder.code, model.config.autoencoder
    voices, number = len(audio), SCALAR_TRACKS.index(track)
    look = torch.zeros(voices, size.num_latent_tokens, size.reference_widths[-1])
    state = model.prefill(code.motion_to_latents(torch.from_numpy(portraits(voices))), look)
    columns = exact_columns(len(code.scale), audio.device)[number]  # (L,): what a unit of the track is in the vector
    said = np.empty_like(asked)
    for index in range(asked.shape[1]):
        controls = ControlBatch.released(voices, 1)
        controls.values[:, 0, number] = torch.from_numpy(asked[:, index])
        controls.given[:, 0, number] = given
        motion = code.latents_to_motion(model.step_mean(audio[:, index], controls, state))
        said[:, index] = (motion @ columns / columns.square().sum()).numpy()
    return said
