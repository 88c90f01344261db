"""A portrait's own mouth: how far its lips are open, and what lies behind them.

The frame encoder has seen rendered faces alone. Of the open mouths and the teeth of photographs it says too little, and
lips that were read too near to each other could not meet: the stream moves them by the difference. The marks of a face
come from networks that know real ones. So where the reading and the marks clearly disagree, the units that open a mouth
are moved until the lips, by the portrait's own surface, stand just as far apart as the marks do when they are opened by
these units from a shut mouth (Gauss-Newton steps, the reading as a prior). The others stay as they were read: to meet
the gap, they would be bent beyond what any face does.

Notation: B batch, K marks, P pairs of lip points, L coordinates of the motion code. Places are in [-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.mark_maps import between_lips, mark_maps
from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields, background_plate
from eartalking.modules.res_block import upsample
from eartalking.motion.code import MotionCode
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.motion.vector import MOTION_SCALES, with_columns
from eartalking.perception.face_mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER

# The mesh's points of the lips between the corners, from the person's right to the left.
UPPER_INNER, UPPER_OUTER = (80, 81, 82, 13, 312, 311, 310), (40, 39, 37, 0, 267, 269, 270)
LOWER_INNER, LOWER_OUTER = (88, 178, 87, 14, 317, 402, 318), (91, 181, 84, 17, 314, 405, 321)
MOUTH = slice(UNIT_INDEX["jawForward"], UNIT_INDEX["mouthUpperUpRight"] + 1)
OPENING = [
    UNIT_INDEX[name]
    for name in ("jawOpen", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight")
]
# Units that move the jaw and the lower lip.
LOWER_UNITS = [
    index
    for name, index in UNIT_INDEX.items()
    if name.startswith(("jaw", "mouthLowerDown", "mouthRollLower", "mouthShrugLower"))
]
SHUT_GAP = 0.004  # of the distance of the outer eye corners: how far apart lips that are shut may be seen
EXACT = 0.002  # how exactly a gap shall be met, in units of [-1, 1]: a quarter of a pixel of 256
BEHIND = 0.15  # head heights: enough that no tooth is mixed into a lip
SHADED = (0.06, 0.13, 0.12)  # by how much what lips cover is darker when they meet: red, green, blue
UNSEEN, SEEN = 0.15, 0.55  # of the portrait's opening: up to where nothing shows between its lips, and from where all
# In [-1, 1], 0.8 and 4.5 pixels of 256: lips that are nearer to each other count as shut, lips that are farther apart
# as open; between the two, it counts how far what lies between them is from their colour, and how much less red it is:
# teeth are lighter than the dark of a mouth, and may be as light as lips.
LEAST_APART, WIDE_APART, UNLIKE, WHITER = 0.006, 0.035, 0.12, 1.08
# By how much lips stand apart otherwise than was read, in [-1, 1] (0.6 and 1.5 pixels of 256): up to here that is the
# error of the marks, and the reading holds; from there on it is the reading's, and the marks hold.
AGREE, DISAGREE = 0.005, 0.012
STEPS = 3
NUDGE = 0.05  # of a coordinate: the step by which slopes are measured


def with_teeth(fields: SurfaceFields, between: Tensor) -> SurfaceFields:
    """The surface where what shows between parted lips (`Lips.between`) belongs to the skull, and lies behind them.

    The surface encoder has seen few open mouths, and takes teeth for the lips around them; so they were drawn together
    when the lips closed, instead of being covered.
    """
    return fields._replace(components=fields.components * (1 - between), behind=BEHIND * between)


class LipPlaces(NamedTuple):
    """Where the surface of the lips is, (B, 2, 2 P) each, upper ones first: in a frame; were its mouth shut; did its
    jaw and lower lip as in the portrait; and did its whole face, so that only the head moved."""

    now: Tensor
    shut: Tensor
    own_jaw: Tensor
    own_face: Tensor


class Lips(NamedTuple):
    """The lips of portraits: the surface at the middle of their red, upper ones first, (B, C, 1, 2 P) each; how far
    they are apart (B,), in [-1, 1]; where something shows between them (B, 1, S, S), of 0 and 1; and the portraits
    (B, 3, H, W) where that has the lips' colour."""

    red: SurfaceFields
    apart: Tensor
    between: Tensor
    white: Tensor
    covered: Tensor

    @classmethod
    def of(cls, fields: SurfaceFields, marks: Tensor, portraits: Tensor) -> Lips:
        apart = _gaps(marks).norm(dim=1).mean(1)
        between = between_lips(marks, fields.cover.shape[-1])
        inner, outer = _colours(portraits, marks, between)
        white = _whiteness(inner) > WHITER * _whiteness(outer)
        unlike = (inner - outer).abs().mean(1) > UNLIKE / 2
        parted = (apart > WIDE_APART) | ((apart > LEAST_APART) & (unlike | white))
        between = between * parted[:, None, None, None]
        return cls(_at_lips(fields, marks), apart, between, white, _covered(portraits, between))

    def in_picture(self, portraits: Tensor) -> Lips:
        """The same for the portraits at another size (B, 3, H, W)."""
        return self._replace(covered=_covered(portraits, self.between))

    def places(self, surface: SurfaceEncoder, motion: Tensor, own: Tensor) -> LipPlaces:
        """Under motion vectors (B, L) of frames, and of the portraits."""
        own_jaw, own_face = (with_columns(motion, own, units) for units in (LOWER_UNITS, range(NUM_FACE_UNITS)))
        return LipPlaces(*lip_places(surface, self.red, torch.stack([motion, shut(motion), own_jaw, own_face])))

    def closing_over(self, portraits: Tensor, places: LipPlaces) -> Tensor:
        """What the portraits (B, C, H, W) show when their lips come together: less and less of what lies between them.

        A warp has no edges: between two lips that meet it would still show a narrow strip of teeth.
        """
        if not self.between.any():
            return portraits
        colours = torch.lerp(self.covered, portraits[:, :3], self.seen(places))
        return torch.cat([colours, portraits[:, 3:]], dim=1)

    @property
    def parted(self) -> Tensor:
        """Whether something shows between the portraits' lips: (B,)."""
        return self.between.flatten(1).any(1)

    def seen(self, places: LipPlaces) -> Tensor:
        """How much of what lies between the lips of portraits is seen when these are at `places`, in 0..1: (B, 1, 1,
        1)."""
        now, from_shut = (torch.sub(*at.chunk(2, dim=2)) for at in (places.now, places.shut))
        share = (now - from_shut).norm(dim=1).mean(1) / self.apart.clamp_min(1e-6)
        return ((share - UNSEEN) / (SEEN - UNSEEN)).clamp(0, 1)[:, None, None, None]


def _colours(portraits: Tensor, marks: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    """Mean colours (B, 3), in 0..1, of portraits (B, 3, H, W) where `between` (B, 1, S, S) is 1, and of the lips."""
    lips = mark_maps(marks, between.shape[-1])[:, :2].amax(1, keepdim=True)
    pictures = (F.adaptive_avg_pool2d(portraits, between.shape[-1]) + 1) / 2
    inner, outer = (
        (pictures * where).sum((2, 3)) / where.sum((2, 3)).clamp_min(1) for where in (between, lips * (1 - between))
    )
    return inner, outer


def _whiteness(colours: Tensor) -> Tensor:
    """Of colours (B, 3) in 0..1: how much green and blue there is, of the red; the light's strength does not count."""
    return colours[:, 1:].mean(1) / colours[:, 0].clamp_min(0.02)


def _covered(portraits: Tensor, between: Tensor) -> Tensor:
    """Portraits (B, 3, H, W) with the lips' colour where `between` (B, 1, S, S) is 1."""
    scale = portraits.shape[-1] // between.shape[-1]
    dark = F.avg_pool2d(upsample(between, scale), 2 * scale + 1, 1, scale)
    return (background_plate(portraits, between) + 1) * (1 - dark * dark.new_tensor(SHADED).view(3, 1, 1)) - 1


def shut(motion: Tensor) -> Tensor:
    """Motion vectors (B, L) with no unit of the mouth."""
    motion = motion.clone()
    motion[:, MOUTH] = 0
    return motion


def fit_lips(
    surface: SurfaceEncoder, red: SurfaceFields, marks: Tensor, code: MotionCode, read: Tensor, error: Tensor
) -> Tensor:
    """What was read (B, L) of frames with these marks (B, K, 3), with mouths as far open as the marks say where these
    disagree. `red`: the portraits' surface at the lips, as in `Lips`; `error` (L,): how far off `read` usually is.
    """
    gaps = _gaps(marks)
    from_shut = _apart(surface, red, shut(code.coordinates_to_motion(read)))

    def residual(coordinates: Tensor) -> Tensor:  # (B, 2, P)
        return _apart(surface, red, code.coordinates_to_motion(coordinates)) - from_shut - gaps

    off = residual(read).norm(dim=1).mean(1, keepdim=True)  # (B, 1)
    share = ((off - AGREE) / (DISAGREE - AGREE)).clamp(0, 1) * (marks.abs().amax((1, 2)) > 0)[:, None]
    if not share.any():
        return read
    certainty = torch.diag(1 / error[OPENING].clamp_min(0.05).square())
    steps = torch.eye(len(error), device=read.device)[OPENING]  # a unit of each coordinate
    found = read.clone()
    for _ in range(STEPS):
        there = residual(found).flatten(1)  # (B, 2 P)
        slopes = torch.stack([(residual(found + NUDGE * step).flatten(1) - there) / NUDGE for step in steps], dim=2)
        normal = slopes.transpose(1, 2) @ slopes / EXACT**2 + certainty
        slope = (slopes.transpose(1, 2) @ there[..., None])[..., 0] / EXACT**2
        slope = slope + (found - read)[:, OPENING] @ certainty
        found[:, OPENING] -= torch.linalg.solve(normal, slope)
        motion = code.coordinates_to_motion(found)
        motion[:, OPENING] = motion[:, OPENING].clamp(0, MOTION_SCALES["face_units"])
        found = code.motion_to_coordinates(motion)
    return torch.lerp(read, found, share)


def _gaps(marks: Tensor) -> Tensor:
    """How far below the upper lip's points the lower lip's are (B, 2, P), less what shut lips seem to be apart."""
    gaps = marks[:, LOWER_INNER, :2] - marks[:, UPPER_INNER, :2]
    unit = (marks[:, LEFT_EYE_OUTER] - marks[:, RIGHT_EYE_OUTER]).norm(dim=1)[:, None, None]
    length = gaps.norm(dim=2, keepdim=True).clamp_min(1e-6)
    return 2 * (gaps * (1 - SHUT_GAP * unit / length).clamp_min(0)).transpose(1, 2)


def _at_lips(fields: SurfaceFields, marks: Tensor) -> SurfaceFields:
    """The surface at the middle of the lips' red, upper lip first: (B, C, 1, 2 P)."""
    upper = (marks[:, UPPER_INNER, :2] + marks[:, UPPER_OUTER, :2]) / 2
    lower = (marks[:, LOWER_INNER, :2] + marks[:, LOWER_OUTER, :2]) / 2
    places = 2 * torch.cat([upper, lower], dim=1)[:, None] - 1
    return fields.at(lambda values: F.grid_sample(values, places, align_corners=False))


def lip_places(surface: SurfaceEncoder, lips: SurfaceFields, states: Tensor) -> Tensor:
    """Where the lips' points are under M motion vectors each (M, B, L), upper ones first: (M, B, 2, 2 P)."""
    motion = states.flatten(0, 1)
    wider = SurfaceFields(*(value.repeat(len(states), *[1] * (value.dim() - 1)) for value in lips))
    return surface.place(wider, surface.moved(wider, motion), motion)[0].unflatten(0, states.shape[:2])


def _apart(surface: SurfaceEncoder, lips: SurfaceFields, motion: Tensor) -> Tensor:
    """How far below the upper lip's points the lower lip's are under motion vectors (B, L): (B, 2, P)."""
    upper, lower = lip_places(surface, lips, motion[None])[0].chunk(2, dim=2)
    return lower - upper
