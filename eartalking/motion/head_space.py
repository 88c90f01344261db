"""Head space, in which SynthTalk renders heads and the portrait's surface is read: lengths in head heights, the chin's
height at y = 0, the crown at y = 1, x to the viewer's right, y up, z towards the camera."""

from __future__ import annotations

import torch
from torch import Tensor

FACE_PLANE = 0.3  # z of the face: the camera's scale is measured there


def rotation(degrees: Tensor) -> Tensor:
    """Yaw, pitch and roll (..., 3) in degrees -> rotation matrices (..., 3, 3): yaw to +x, pitch upwards, roll
    clockwise as seen, applied roll first."""
    (sy, sp, sr), (cy, cp, cr) = (f(torch.deg2rad(degrees)).unbind(-1) for f in (torch.sin, torch.cos))
    zero, one = torch.zeros_like(sy), torch.ones_like(sy)
    turns = (
        (cy, zero, sy, zero, one, zero, -sy, zero, cy),
        (one, zero, zero, zero, cp, sp, zero, -sp, cp),
        (cr, sr, zero, -sr, cr, zero, zero, zero, one),
    )
    about_y, about_x, about_z = (torch.stack(turn, dim=-1).unflatten(-1, (3, 3)) for turn in turns)
    return about_y @ about_x @ about_z
