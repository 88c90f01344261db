"""A portrait's own lids: how far its eyes are shut, by its marks, and what a stream makes of it.

The frame encoder has seen rendered faces alone, and reads the shut eyes of photographs as open ones. Where the marks,
which come from networks that know real faces, say clearly more, they count.

What lies behind a lid is not in the picture. Eyes that a portrait shows shut, or narrow, are therefore opened no
further: what was drawn in their place were dark holes. Blinks shut them the rest of the way.

Notation: B batch, K marks, L columns of a motion vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eartalking.motion.vector import BLINK_COLUMNS, MOTION_SCALES
from eartalking.perception.face_marks import OPENING, eye_marks
from eartalking.perception.mesh_readings import EYE_CORNERS, LOWER_LID, UPPER_LID

# Opening of open and of shut eyes, medians of rendered heads (`training.mesh_calibration`): distance of the lids over
# the width of the eye, as `perception.mesh_readings.eye_opening` measures it.
OPEN, SHUT = 0.33, 0.087
# By how much more shut the marks must see an eye than it was read: up to here the reading holds, from there the marks.
AGREE, DISAGREE = 0.35, 0.5
# How far shut a portrait's eyes count as open altogether, and from where on they are held where they are.
AWAKE, NARROW = 0.25, 0.5


def closure(marks: Tensor) -> Tensor:
    """How far the eyes are shut, 0 to 1, mean of both: (B, K, 3) -> (B,)."""
    openings = []
    for eye in (0, 1):
        outline = marks[:, eye_marks(eye), :2][:, :OPENING]
        start, end = (outline[:, corner] for corner in EYE_CORNERS)
        lids = outline[:, UPPER_LID] - outline[:, LOWER_LID]
        openings.append(lids.norm(dim=2).mean(1) / (end - start).norm(dim=1).clamp_min(1e-6))
    return ((OPEN - torch.stack(openings).mean(0)) / (OPEN - SHUT)).clamp(0, 1)


def fit_lids(marks: Tensor, motion: Tensor) -> Tensor:
    """Motion vectors (B, L) that were read of frames with these marks (B, K, 3), with eyes as far shut as the marks say
    where they say clearly more; the same tensor where they nowhere do."""
    read, seen = _blink(motion), closure(marks)
    share = ((seen - read - AGREE) / (DISAGREE - AGREE)).clamp(0, 1) * (marks.abs().amax((1, 2)) > 0)
    if not share.any():
        return motion
    further = (share * (seen - read))[:, None] * MOTION_SCALES["face_units"]
    return _with_lids(motion, motion[:, list(BLINK_COLUMNS)] + further)


def narrowness(motion: Tensor) -> Tensor:
    """How far the lids of portraits with these motion vectors (B, L) are held: 0 of open eyes, else as far as they are
    shut: (B,)."""
    shut = _blink(motion).clamp(0, 1)
    return shut * ((shut - AWAKE) / (NARROW - AWAKE)).clamp(0, 1)


def held(motion: Tensor, narrow: Tensor) -> Tensor:
    """Motion vectors (B, L) whose eyes open no further than `narrow` (B,) lets them; shut is shut."""
    scale, lids = MOTION_SCALES["face_units"], motion[:, list(BLINK_COLUMNS)]
    return _with_lids(motion, torch.lerp(lids.clamp(0, scale), torch.full_like(lids, scale), narrow[:, None]))


def released(motion: Tensor, narrow: Tensor) -> Tensor:
    """The inverse of `held`: a portrait's own motion (B, L) as that of a face whose eyes could open."""
    scale, lids = MOTION_SCALES["face_units"], motion[:, list(BLINK_COLUMNS)]
    free = 1 - narrow[:, None]
    return _with_lids(motion, (lids - narrow[:, None] * scale).clamp_min(0) / free.clamp_min(1e-6))


def _blink(motion: Tensor) -> Tensor:
    return motion[:, list(BLINK_COLUMNS)].mean(1) / MOTION_SCALES["face_units"]


def _with_lids(motion: Tensor, lids: Tensor) -> Tensor:
    motion = motion.clone()
    motion[:, list(BLINK_COLUMNS)] = lids
    return motion
