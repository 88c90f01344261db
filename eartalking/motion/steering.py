"""What controls do to a frame's latents after the network has emitted them.

Three steps of arithmetic, each possible because the motion code is linear and known:

- `impose`: head pose, gaze and blink *are* columns of the motion vector, so they are set to what was asked.
- `articulate`: the mouth is stretched to the spread that people's mouths have.
- `expression`: what brow, smile and emotion add to a speaking face is added.

Notation: B batch, N latent tokens, C channels, L columns of a motion vector, U face units, G scalar control tracks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.controls import BROW, MOUTH_SCALE, SCALAR_TRACKS, SMILE, ControlBatch
from eartalking.modules.constant import constant
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX, expression_units
from eartalking.motion.vector import BLINK_COLUMNS, EXACT_CONTROLS, GAZE, MOTION_SCALES, units_of


@constant
def exact_columns(motion_size: int, device: torch.device) -> Tensor:
    """(G, L): control values @ this = the columns of the motion vector that they stand for."""
    columns = torch.zeros(len(SCALAR_TRACKS), motion_size, device=device)
    for track, scales in EXACT_CONTROLS.items():
        for column, scale in scales.items():
            columns[SCALAR_TRACKS.index(track), column] = scale
    return columns


def impose(latents: Tensor, controls: ControlBatch, code: MotionCode) -> Tensor:
    """Latents (B, N, C) with the given controls over (B, 1) that are columns of the motion vector set to what was
    asked.

    A head that shall turn by 12 degrees is at 12 degrees in this very frame; the network has seen the same controls and
    makes everything else of the frame agree with them.
    """
    columns = exact_columns(len(code.scale), latents.device)
    given = controls.given[:, 0, :-1].to(latents)  # (B, G)
    asked = code.motion_to_coordinates(controls.values[:, 0] @ columns)  # (B, L)
    chosen = given @ (columns > 0).to(latents) > 0
    change = torch.where(chosen, asked - code.latents_to_coordinates(latents), 0.0)
    return latents + code.change_to_latents(change)


def decided_by_expressions(controls: ControlBatch, motion_size: int) -> Tensor:
    """(B, L) bool: the columns that are not drawn under controls (B,): those of brows, cheeks and mouth corners where
    an expression is given, and those of gaze and lids where an emotion is.

    What is asked for decides them: a frown that the model drew would make a smile unreadable, and eyes that wander or
    are half shut, a surprise.
    """
    brows_and_corners = torch.zeros(motion_size, dtype=torch.bool, device=controls.given.device)
    brows_and_corners[UNIT_INDEX["mouthLeft"] : UNIT_INDEX["mouthDimpleRight"] + 1] = True
    brows_and_corners[UNIT_INDEX["browDownLeft"] : UNIT_INDEX["noseSneerRight"] + 1] = True
    eyes = torch.zeros_like(brows_and_corners)
    eyes[GAZE] = eyes[list(BLINK_COLUMNS)] = True
    expression_given = controls.given[..., (BROW, SMILE, -1)].any(-1, keepdim=True)
    return (expression_given & brows_and_corners) | (controls.given[..., -1:] & eyes)


def within_range(coordinates: Tensor, code: MotionCode) -> Tensor:
    """Coordinates (..., L) with all face units in 0..1."""
    motion = code.coordinates_to_motion(coordinates)
    units = motion[..., :NUM_FACE_UNITS].clamp(0, MOTION_SCALES["face_units"])
    return code.motion_to_coordinates(torch.cat([units, motion[..., NUM_FACE_UNITS:]], dim=-1))


def articulate(latents: Tensor, controls: ControlBatch, code: MotionCode, factors: Tensor) -> Tensor:
    """Latents (..., N, C) with a mouth that opens, rounds and shuts as far as people's do, under controls (...).

    Not knowing when exactly a lip moves, a regression moves it less: the correlation is right, the spread is not. Each
    unit that follows the voice is stretched to the spread that it has in the truth (global variance, Toda and Tokuda
    2007), by factors (2, U), with mouth_scale released and given, that `training.teacher_forcing` measures.
    """
    units = units_of(code.latents_to_motion(latents))
    chosen = factors[controls.given[..., MOUTH_SCALE].long()]  # (..., U)
    return latents + units_to_latents((units * chosen).clamp(0, 1) - units.clamp(0, 1), code)


def expression(motion: Tensor, controls: ControlBatch, code: MotionCode) -> Tensor:
    """What the given brow, smile and emotion add to the latents (..., N, C) of faces that move like motion vectors
    (..., L); one zero where none is given.

    The network emits the face without it, and is told of it by the control tokens to make everything else agree.
    """
    if not controls.given[..., (BROW, SMILE, -1)].any():
        return torch.zeros((), device=motion.device)
    with torch.autocast(motion.device.type, enabled=False):  # training subtracts what streaming adds: to the last bit
        given = controls.given.to(motion)
        units = units_of(motion)
        brow, smile = (controls.values[..., track] * given[..., track] for track in (BROW, SMILE))
        added = expression_units(
            units,
            units[..., BLINK_COLUMNS].mean(-1),
            brow,
            smile,
            controls.emotion,
            controls.intensity * given[..., -1],
        )
        return units_to_latents(added, code)


def units_to_latents(change: Tensor, code: MotionCode) -> Tensor:
    """What a change of face units (..., U) changes in the latents (..., N, C)."""
    change = change * MOTION_SCALES["face_units"] * code.scale[:NUM_FACE_UNITS]
    return code.change_to_latents(F.pad(change, (0, len(code.scale) - NUM_FACE_UNITS)))
