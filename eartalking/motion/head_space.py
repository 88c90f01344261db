"""Head space, in which SynthTalk renders heads and the portrait's surface is read: lengths in head heights, the chin's
height at y = 0, the crown at y = 1, x to the viewer's right, y up, z towards the camera."""

from __future__ import annotations

import torch
from torch import Tensor

from eartalking.modules.constant import constant

FACE_PLANE = 0.3  # z of the face: the camera's scale is measured there


def rotation(degrees: Tensor) -> Tensor:
    """Yaw, pitch and roll (..., 3) in degrees -> rotation matrices (..., 3, 3): yaw to +x, pitch upwards, roll
    clockwise as seen, applied roll first."""
    angles = torch.deg2rad(degrees)[..., None, None]
    along, across, back = _axes(degrees.dtype, degrees.device)
    about_y, about_x, about_z = (along + angles.sin() * across - angles.cos() * back).unbind(-3)
    return about_y @ about_x @ about_z


@constant
def _axes(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of Rodrigues' formula, for the axes of yaw, pitch and roll: what stays, what the sine turns by, and what the
    cosine takes back: (3, 3, 3, 3)."""
    across = torch.zeros(3, 3, 3, dtype=dtype, device=device)
    for axis, (row, column) in enumerate(((0, 2), (1, 2), (0, 1))):
        across[axis, row, column], across[axis, column, row] = 1, -1
    back = across @ across
    return torch.stack([torch.eye(3, dtype=dtype, device=device) + back, across, back])
