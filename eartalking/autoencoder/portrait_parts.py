"""Eyes and mouth of a portrait, cut out once per stream, with what is known of how they look when they move.

An eyeball turns about its middle, so the direction of a gaze says where an iris goes: the eye is given once more, moved
that far. A lid that shuts is skin: the eye is given once more with its opening filled from the skin around it. What is
known so need not be invented by a network that has seen rendered eyes alone; it only says where which of them shows.

Notation: B batch, H W pixels of a portrait, h w of a cut, L coordinates or columns of a motion, K marks, C numbers of
the mouth's code. Images are in [-1, 1], places in fractions of the frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.mark_maps import inside
from eartalking.autoencoder.surface import background_plate
from eartalking.modules.warp import identity_grid
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES
from eartalking.perception.face_marks import OPENING, eye_marks

# Width and height of the cuts in fractions of the frame: 48 x 40 and 72 x 64 pixels of 256.
EYE, MOUTH = (0.1875, 0.15625), (0.28125, 0.25)
EYEBALL = 0.264  # its radius over the distance of the eyes, of the head model
LASHES = 2  # pixels around an opening that are not skin either


class Parts(NamedTuple):
    """A portrait's eyes (B, 2, 3, h, w), the second one mirrored, the same with shut lids, roughly, its mouth (B, 3, h,
    w), where they are (B, 3, 2), its coordinates (B, L) and the code of its mouth's inside (B, C)."""

    eyes: Tensor
    lidded: Tensor
    mouth: Tensor
    landmarks: Tensor
    coordinates: Tensor
    code: Tensor


def cut_size(part: tuple[float, float], image_size: int) -> tuple[int, int]:
    """Height and width of a part's cut in pixels, multiples of four."""
    width, height = (4 * max(2, round(side * image_size / 4)) for side in part)
    return height, width


def corners(landmarks: Tensor, size: tuple[int, int], image_size: int) -> list[tuple[int, int]]:
    """Top and left pixel of the cut around each of the points (B, 2); cuts stay inside the frame."""
    points = (landmarks.detach() * image_size).nan_to_num(0.0).tolist()
    return [
        tuple(
            min(max(round(middle - side / 2), 0), image_size - side) for middle, side in zip((y, x), size, strict=True)
        )
        for x, y in points
    ]


def cut(images: Tensor, places: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w)."""
    height, width = size
    return torch.stack(
        [image[:, top : top + height, left : left + width] for image, (top, left) in zip(images, places, strict=True)]
    )


def cut_eyes(images: Tensor, landmarks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) and landmarks (B, 3, 2) -> eyes (B, 2, C, h, w), the second one mirrored."""
    one, other = (cut(images, corners(landmarks[:, eye], size, images.shape[-1]), size) for eye in (0, 1))
    return torch.stack([one, other.flip(-1)], dim=1)


def without_eyes(portraits: Tensor, marks: Tensor) -> Tensor:
    """Portraits (B, 3, H, W) whose eyes' openings, by their marks (B, K, 3), are filled from the skin around them;
    as they are where no face was certain."""
    size = portraits.shape[-1]
    places = (identity_grid(size, marks.device).view(-1, 2) + 1) / 2
    openings = [inside(marks[:, eye_marks(eye)][:, :OPENING, :2], places) for eye in (0, 1)]
    opening = torch.maximum(*openings).view(-1, 1, size, size)
    return background_plate(portraits, F.max_pool2d(opening, 2 * LASHES + 1, 1, LASHES))


def eye_turn(motion: Tensor, own: Tensor, landmarks: Tensor) -> Tensor:
    """How far irises go, right and down (B, 2), from a portrait with motion vectors `own` (B, L) and landmarks (B, 3,
    2) to frames with `motion` (B, L), on a face that stands as the portrait's does."""
    radius = EYEBALL * (landmarks[:, 0] - landmarks[:, 1]).norm(dim=1, keepdim=True)
    now, before = (torch.sin(torch.deg2rad(vectors[:, GAZE] / MOTION_SCALES["gaze"])) for vectors in (motion, own))
    right, up = (radius * (now - before)).unbind(1)
    roll = torch.deg2rad(own[:, HEAD_POSE.stop - 1] / MOTION_SCALES["head_pose"])
    # Up is away from the chin; a head that is tilted clockwise, as seen, has its crown on the right.
    return torch.stack([right * roll.cos() + up * roll.sin(), right * roll.sin() - up * roll.cos()], dim=1)


def turned(eyes: Tensor, turn: Tensor, image_size: int) -> Tensor:
    """Cuts of eyes (B, 2, 3, h, w), the second one mirrored, moved by `turn` (B, 2)."""
    height, width = eyes.shape[-2:]
    both = torch.stack([turn, turn * turn.new_tensor([-1.0, 1.0])], dim=1).flatten(0, 1)  # (2 B, 2)
    move = -2 * image_size * both / turn.new_tensor([width, height])
    affine = torch.eye(2, device=turn.device, dtype=turn.dtype).expand(len(move), 2, 2)
    grid = F.affine_grid(torch.cat([affine, move[..., None]], dim=2), [len(move), 3, height, width], False)
    flat = eyes.flatten(0, 1).float()
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=False).view_as(eyes)
