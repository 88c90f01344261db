"""The motion vector: what a face does in one frame, as numbers of a spread of about one; latents are a code of it.

Columns: 52 face units in ARKit's order, head pose (yaw, pitch, roll), gaze (yaw, pitch), translation (x, y, z).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eartalking.modules.constant import constant

# Label -> its scale; the order is that of the columns.
MOTION_SCALES = {"face_units": 4.0, "head_pose": 1 / 12, "gaze": 1 / 10, "translation": 20.0}
NUM_MOTION_LABELS = 52 + 3 + 2 + 3  # AutoencoderConfig.motion_size of every model trained on SynthTalk
HEAD_POSE, GAZE, TRANSLATION = slice(52, 55), slice(55, 57), slice(57, 60)
# Face units eyeBlinkLeft and eyeBlinkRight.
BLINK_COLUMNS = (0, 7)
# The lids follow the gaze: of the left and of the right eye, the column of an eyeLook unit -> the gaze's axis (0 yaw, 1
# pitch) and sign that turn it on, fully at so many degrees. The labels leave these units at zero.
LID_FOLLOW_DEGREES = 28.0
LID_COLUMNS = (
    {1: (1, -1), 2: (0, -1), 3: (0, 1), 4: (1, 1)},  # down, in, out, up
    {8: (1, -1), 9: (0, 1), 10: (0, -1), 11: (1, 1)},
)

# Control tracks that *are* columns: nothing has to be learnt to obey them.
EXACT_CONTROLS: dict[str, dict[int, float]] = {
    "yaw": {HEAD_POSE.start: MOTION_SCALES["head_pose"]},
    "pitch": {HEAD_POSE.start + 1: MOTION_SCALES["head_pose"]},
    "roll": {HEAD_POSE.start + 2: MOTION_SCALES["head_pose"]},
    "gaze_yaw": {GAZE.start: MOTION_SCALES["gaze"]},
    "gaze_pitch": {GAZE.start + 1: MOTION_SCALES["gaze"]},
    "blink": {column: MOTION_SCALES["face_units"] for column in BLINK_COLUMNS},
}


def motion_vector(labels: dict[str, Tensor]) -> Tensor:
    """The motion of T frames as one scaled vector each: (T, NUM_MOTION_LABELS)."""
    columns = [labels[name].float().reshape(len(labels[name]), -1) * scale for name, scale in MOTION_SCALES.items()]
    return torch.cat(columns, dim=1)


def clip_motion(clip: dict[str, Tensor], prefix: str = "labels") -> Tensor:
    """`motion_vector` of the labels that a clip's tensors carry under a prefix."""
    return motion_vector({name: clip[f"{prefix}.{name}"] for name in MOTION_SCALES})


def units_of(motion: Tensor) -> Tensor:
    """Face units (..., 52) of motion vectors (..., L), 0..1 where nothing is exaggerated."""
    return motion[..., : HEAD_POSE.start] / MOTION_SCALES["face_units"]


def with_columns(motion: Tensor, other: Tensor, columns: Sequence[int]) -> Tensor:
    """Motion vectors (B, L) with some columns of others (B, L)."""
    return torch.where(_chosen(tuple(columns), motion.shape[1], motion.device), other, motion)


@constant
def _chosen(columns: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """Of so many columns, whether they are among these: (size,) bool."""
    chosen = torch.zeros(size, dtype=torch.bool, device=device)
    chosen[list(columns)] = True
    return chosen
