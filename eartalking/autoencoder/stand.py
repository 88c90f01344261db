"""How a portrait's head stands, by its marks.

The frame encoder has seen rendered faces alone, and reads the turned heads of photographs as nearly straight: -8
degrees of yaw where there are -29, -8 where there are -42. Asked to look ahead, such a head went on looking aside. The
mesh's points, which come from a network that knows real faces, say it better; on rendered heads, too, of yaw (1.7
degrees beside the truth, the reading 2.9), as well of roll (1.1), and worse of pitch (5.7 and 3.6), where they count
only if they differ by much.

Notation: B batch, K marks, L columns of a motion vector.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_mesh import NUM_POINTS
from eartalking.perception.mesh_readings import MeshReader

# By how many degrees of yaw, pitch and roll the marks must differ from the reading: up to here it holds, from there on
# they do.
AGREE, DISAGREE = (2.0, 11.0, 2.0), (4.0, 16.0, 4.0)
# How far the marks are then gone along with: their error of pitch, which is each face's own, is as large as people's
# spread, so what is likely lies half-way.
TRUST = (1.0, 0.5, 1.0)
# Degrees that the marks may turn a portrait to at most: a head moves around its portrait's pose, and within its range.
FARTHEST = (24.0, 15.0, 15.0)


def fit_stand(marks: Tensor, motion: Tensor, portraits: bool) -> Tensor:
    """Motion vectors (B, L), read from frames with these marks (B, K, 3), with heads that stand as the marks say where
    these clearly differ (of pitch half-way); of `portraits` not beyond FARTHEST. Without marks (zero) as they are."""
    known = marks.abs().amax((1, 2)) > 0
    if not known.any():
        return motion
    poses = [_reader().pose_of(each[:NUM_POINTS].double().cpu().numpy()) for each in marks]
    seen, agree, disagree, trust, farthest = (
        motion.new_tensor(value) for value in (poses, AGREE, DISAGREE, TRUST, FARTHEST)
    )
    read = motion[:, HEAD_POSE] / MOTION_SCALES["head_pose"]
    share = (((seen - read).abs() - agree) / (disagree - agree)).clamp(0, 1) * known[:, None]
    fitted = torch.lerp(read, seen, trust * share)
    if portraits:
        fitted = torch.where(share > 0, torch.minimum(torch.maximum(fitted, -farthest), farthest), read)
    motion = motion.clone()
    motion[:, HEAD_POSE] = fitted * MOTION_SCALES["head_pose"]
    return motion


@cache
def _reader() -> MeshReader:
    return MeshReader.load()
