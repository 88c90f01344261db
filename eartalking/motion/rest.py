"""The face of a portrait as one that rests: what the model is told of who speaks.

It has learnt from portraits of people who sit still. Of a face that a camera caught with its mouth wide open it is told
no more than what such portraits show, or the mouth would hang open while it speaks; the picture itself, and the head's
own pose, the stream takes as they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eartalking.modules.constant import constant
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import NUM_FACE_UNITS, unit_vector
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES

# The most that a face at rest shows of each face unit; `synth.performance.neutral_portrait` draws up to here. What is
# not listed: nothing.
MOST = {
    "mouthSmile": 0.7, "cheekSquint": 0.45, "mouthFrown": 0.1, "mouthPress": 0.35, "mouthShrugLower": 0.1,
    "jawOpen": 0.1, "mouthUpperUp": 0.35, "mouthLowerDown": 0.25, "eyeBlink": 0.12, "browInnerUp": 0.25,
    "browOuterUp": 0.25, "browDown": 0.25,
}  # fmt: skip
MOST_TURNED = (15.0, 8.0, 7.0)  # yaw, pitch, roll, degrees


@constant
def _limits(device: torch.device) -> tuple[Tensor, Tensor]:
    """Face units (52,) and degrees (3,) in the scale of motion vectors."""
    units = torch.from_numpy(unit_vector(MOST) * np.float32(MOTION_SCALES["face_units"]))
    return units.to(device), torch.tensor(MOST_TURNED, device=device) * MOTION_SCALES["head_pose"]


def at_rest(latents: Tensor, code: MotionCode) -> Tensor:
    """Latents (B, N, C) of portraits -> the nearest ones (B, N, C) of faces at rest; those at rest stay as they are."""
    coordinates = code.latents_to_coordinates(latents)
    motion = code.coordinates_to_motion(coordinates)
    units, turned = _limits(latents.device)
    rest = motion.clone()
    rest[:, :NUM_FACE_UNITS] = motion[:, :NUM_FACE_UNITS].clamp(min=torch.zeros_like(units), max=units)
    rest[:, HEAD_POSE] = motion[:, HEAD_POSE].clamp(-turned, turned)
    return latents + code.change_to_latents(code.motion_to_coordinates(rest) - coordinates)
