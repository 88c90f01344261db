"""The portrait's surface: where each of its pixels lies on the head, and so where it goes when the head moves.

Motion is known exactly (the latents are a code of face units, pose and gaze), and a head is a solid thing: what has to
be learnt of a portrait is only *which point of which head* each pixel shows. `SurfaceEncoder` reads that once per
stream: a point in head space, how much of the head's rotation it takes, and how the face units move it (a few
components per pixel). Everything after that is geometry. `SurfaceEncoder.displace` moves the points, `splat` turns
their movement round into a warp, with what is in front hiding what is behind. The decoder starts from this warp and
corrects it.

Head space is SynthTalk's (`eartalking.motion.head_space`). Notation: B batch, S map pixels a side, K components, L
columns of a motion vector. Positions in a picture are in [-1, 1], x right and y down.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.autoencoder.mark_maps import NUM_MARK_MAPS, NUM_MESH_MAPS, mark_maps, mesh_maps
from eartalking.config import AutoencoderConfig
from eartalking.modules.around import sums_around
from eartalking.modules.constant import constant
from eartalking.modules.res_block import ResBlock, for_convolution, norm_groups, upsample
from eartalking.modules.warp import identity_grid
from eartalking.motion.face_units import NUM_FACE_UNITS
from eartalking.motion.head_space import FACE_PLANE, rotation
from eartalking.motion.vector import (
    BLINK_COLUMNS,
    GAZE,
    HEAD_POSE,
    LID_COLUMNS,
    LID_FOLLOW_DEGREES,
    MOTION_SCALES,
    TRANSLATION,
    units_of,
)
from eartalking.perception.face_mesh import NUM_POINTS

# The face units, and the eyeballs' two angles in radians, which move their surface nearly linearly.
NUM_MOVERS = NUM_FACE_UNITS + 2
BASE_CHANNELS = 4
MARKS_STEM = 2  # pixels of the marks' maps in a side of the encoder's finest cells
BEYOND = 1 / 32  # of the picture: how far the warp goes on beyond the person's edge
MOST_STRETCHED = 2.5  # a surface may be stretched so many times over without holes
BARELY_SHOWN = 0.01  # of a pixel: less of a person is not moved
NEARER = 25.0  # how fast what is in front wins over what is behind, per head height of depth
# Of an average camera: x and y of its axis, scale at the face's plane, and what the scale gains per head height towards
# it.
CAMERA, CAMERA_SPREAD = (0.0, 0.48, 1.44, 0.3), (0.05, 0.05, 0.15, 0.1)
POINT, POINT_SPREAD = (0.0, 0.35, 0.2), 0.3


def movers(motion: Tensor) -> Tensor:
    """Motion vectors (B, L) -> what moves the surface (B, NUM_MOVERS): face units, with the lids following the gaze,
    and gaze.
    """
    units = units_of(motion)
    gaze = motion[:, GAZE] / MOTION_SCALES["gaze"]
    columns, axes, signs, blinks = _lid_columns(motion.device)
    follow = (signs * (gaze / LID_FOLLOW_DEGREES)[:, axes]).clamp(0, 1)
    moved = units.clone()
    moved[:, columns] = follow * (1 - units[:, blinks].clamp(0, 1))
    return torch.cat([moved, torch.deg2rad(gaze)], dim=1)


@constant
def _lid_columns(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every unit by which a lid follows the gaze: its column, the gaze's axis and sign, the column of its blink."""
    rows = [
        (column, axis, sign, blink)
        for blink, units in zip(BLINK_COLUMNS, LID_COLUMNS, strict=True)
        for column, (axis, sign) in units.items()
    ]
    columns, axes, signs, blinks = (torch.tensor(values, device=device) for values in zip(*rows, strict=True))
    return columns, axes, signs, blinks


class SurfaceFields(NamedTuple):
    """A portrait's surface. point (B, 3, S, S) at rest, in head space; weight (B, 1, S, S) in 0..1, the share of the
    head's pose that a point takes over; cover (B, 1, S, S) in 0..1, whether a pixel shows the person at all; components
    (B, K, S, S); camera (B, 4) as `CAMERA`; behind (B, 1, S, S), by how many head heights a point gives way to others
    where they meet."""

    point: Tensor
    weight: Tensor
    cover: Tensor
    components: Tensor
    camera: Tensor
    behind: Tensor

    def at(self, look: Callable[[Tensor], Tensor]) -> SurfaceFields:
        """The same at other places: `look` takes maps (B, C, S, S) to what they hold there."""
        maps = {name: look(value) for name, value in self._asdict().items() if name != "camera"}
        return self._replace(**maps)


class PersonPixels(NamedTuple):
    """What of portraits is moved: the surface at those M of their S² pixels that show a person, as maps (B, C, 1, M);
    `home` (B, 2, 1, M), where that is before it moves; `start` (1, 2, 1, M), where the pixels lie in the picture; and
    `covered` (B, 1, S/2, S/2), the cover of all pixels on the grid of `Base`."""

    fields: SurfaceFields
    home: Tensor
    start: Tensor
    covered: Tensor


class Base(NamedTuple):
    """What geometry alone says of a frame, (B, 1 or 2, h, w), half as fine as the surface: `warp` of the person as in
    `autoencoder.Decoded`, going on somewhat beyond the person's edge; `occupied` in 0..1, whether the person is there;
    `covered` in 0..1, whether the person was there in the portrait, so that the background is not known."""

    warp: Tensor
    occupied: Tensor
    covered: Tensor

    def at(self, size: int) -> Base:
        """The same on a coarser grid."""
        return self if self.warp.shape[-1] == size else Base(*(F.adaptive_avg_pool2d(value, size) for value in self))

    def channels(self) -> Tensor:
        """(B, BASE_CHANNELS, h, w), of about unit size."""
        return torch.cat([5 * self.warp, self.occupied, self.covered], dim=1)


class FineBase(NamedTuple):
    """The same on the surface's own grid, (B, 1 or 2, S, S): `warp`, zero where the person is not, `occupied`, and
    `reach`, 1 where the person is or may be: as far beyond the edge as the warp of `Base` goes on."""

    warp: Tensor
    occupied: Tensor
    reach: Tensor


class SurfaceEncoder(nn.Module):
    """Portrait (B, 3, H, W) and the marks of its face (B, K, 3) -> SurfaceFields, with the fixed bases that their
    components refer to as buffers.

    The marks come from networks that know real faces. Pixels alone say too little of where one lip ends and the other
    one, or a tooth, begins: of photographs of open mouths the encoder made one surface of all three. And each point of
    the mesh is the same place of every head (`mark_points`), whatever it looks like.
    """

    basis: Tensor
    pivot: Tensor
    mark_points: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.surface_widths
        self.stem, self.num_components = config.stem, config.surface_components
        self.register_buffer("basis", torch.zeros(self.num_components, NUM_MOVERS, 3))
        self.register_buffer("pivot", torch.zeros(3))  # of the neck, in head space
        self.register_buffer("mark_points", torch.zeros(NUM_POINTS, 3))  # of an average head, at rest, in head space
        self.conv_in = nn.Conv2d(3 * config.stem**2 + 2, widths[0], 3, padding=1)
        self.marks_in = nn.Conv2d(MARKS_STEM**2 * NUM_MARK_MAPS, widths[0], 3, padding=1, bias=False)
        self.mesh_in = nn.Conv2d(NUM_MESH_MAPS, widths[0], 3, padding=1, bias=False)
        nn.init.zeros_(self.marks_in.weight)
        nn.init.zeros_(self.mesh_in.weight)
        self.levels = nn.ModuleList(ResBlock(width, width) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.back = nn.ModuleList(ResBlock(width, width) for width in widths[:-1])
        self.norm_out = nn.GroupNorm(norm_groups(widths[0]), widths[0])
        self.conv_out = nn.Conv2d(widths[0], 4 * (5 + self.num_components), 3, padding=1)
        self.to_camera = nn.Sequential(nn.Linear(widths[-1], widths[-1]), nn.SiLU(), nn.Linear(widths[-1], 4))

    def forward(self, portrait: Tensor, marks: Tensor) -> SurfaceFields:
        x = F.pixel_unshuffle(portrait, self.stem)
        place = identity_grid(x.shape[-1], x.device).permute(0, 3, 1, 2).expand(len(x), -1, -1, -1)
        marked = F.pixel_unshuffle(mark_maps(marks.float(), MARKS_STEM * x.shape[-1]), MARKS_STEM)
        x = self.conv_in(for_convolution(torch.cat([x, place.to(x.dtype)], dim=1)))
        mesh = mesh_maps(marks.float(), self.mark_points, x.shape[-1])
        x = x + self.marks_in(for_convolution(marked.to(x.dtype))) + self.mesh_in(for_convolution(mesh.to(x.dtype)))
        skips = []
        for index, level in enumerate(self.levels):
            x = level(x)
            if index < len(self.downs):
                skips.append(x)
                x = self.downs[index](x)
        camera = self.to_camera(x.float().mean((2, 3)))
        for skip, up, block in zip(reversed(skips), reversed(self.ups), reversed(self.back), strict=True):
            x = block(skip + upsample(up(x)))
        out = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), 2).float()
        point, weight, cover, components = out.split([3, 1, 1, self.num_components], dim=1)
        return SurfaceFields(
            point.new_tensor(POINT).view(1, 3, 1, 1) + POINT_SPREAD * point,
            torch.sigmoid(weight + 2),
            torch.sigmoid(cover),
            components,
            camera.new_tensor(CAMERA) + camera.new_tensor(CAMERA_SPREAD) * camera.float(),
            torch.zeros_like(cover),
        )

    def project(self, fields: SurfaceFields, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Where the surface is under motion vectors (B, L): positions in the picture (B, 2, S, S) and z (B, 1, S,
        S).
        """
        with torch.autocast(motion.device.type, enabled=False):  # eight bits of a position are half a pixel
            return self._project(fields, motion)

    def _project(self, fields: SurfaceFields, motion: Tensor) -> tuple[Tensor, Tensor]:
        size = fields.point.shape[-2:]
        place, near = self.place(fields, self.moved(fields, motion), motion)
        return place.unflatten(2, size), near.unflatten(2, size)

    def moved(self, fields: SurfaceFields, motion: Tensor) -> Tensor:
        """The surface, as face units and gaze shape it, at rest: (B, 3, M), M = S²."""
        moves = (movers(motion) @ self.basis.permute(1, 2, 0).flatten(1)).unflatten(1, (3, -1))  # (B, 3, K)
        return fields.point.flatten(2) + moves @ fields.components.flatten(2)

    def posed(self, fields: SurfaceFields, rest: Tensor, motion: Tensor) -> Tensor:
        """Where points (B, 3, M) of a surface are in head space when the head is posed: (B, 3, M)."""
        pivot = self.pivot.view(1, 3, 1)
        offset = (motion[:, TRANSLATION] / MOTION_SCALES["translation"])[:, :, None]
        posed = pivot + rotation(motion[:, HEAD_POSE] / MOTION_SCALES["head_pose"]) @ (rest - pivot) + offset
        return rest + fields.weight.flatten(2) * (posed - rest)

    def place(self, fields: SurfaceFields, rest: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Where points (B, 3, M) of a surface are when the head is posed: in the picture (B, 2, M), and z (B, 1, M)."""
        posed = self.posed(fields, rest, motion)
        axis, scale, perspective = fields.camera.split([2, 1, 1], dim=1)
        near = 1 - perspective[:, :, None] * (posed[:, 2:] - FACE_PLANE)
        flat = (posed[:, :2] - axis[:, :, None]) * scale[:, :, None] / near.clamp_min(0.3)
        return flat * flat.new_tensor([1.0, -1.0]).view(1, 2, 1), posed[:, 2:]

    def home(self, fields: SurfaceFields, own_motion: Tensor) -> Tensor:
        """Where the surface is under the portrait's own motion (B, L), as it was read: (B, 2, S, S). Once per
        stream.
        """
        return self.project(fields, own_motion)[0]

    def pixels(self, fields: SurfaceFields, own_motion: Tensor) -> PersonPixels:
        """What of the portraits is moved; once per stream."""
        shown = (fields.cover.detach() > BARELY_SHOWN).any(0).flatten().nonzero()[:, 0]
        start = identity_grid(fields.cover.shape[-1], shown.device).permute(0, 3, 1, 2)

        def look(maps: Tensor) -> Tensor:
            return maps.flatten(2)[:, :, None, shown]

        person = fields.at(look)
        return PersonPixels(person, self.home(person, own_motion), look(start), F.avg_pool2d(fields.cover, 2))

    def displace(self, fields: SurfaceFields, motion: Tensor, home: Tensor) -> tuple[Tensor, Tensor]:
        """How far each of the portrait's pixels moves, (B, 2, S, S), and how near it is then, (B, 1, S, S); from the
        motion of the frame (B, L) and `home`. The portrait's own motion moves nothing, whatever was misread."""
        there, near = self.project(fields, motion)
        return there - home, near - fields.behind

    def bases(self, pixels: PersonPixels, motion: Tensor) -> tuple[Base, FineBase]:
        """The warp that follows from motion vectors (B, L), half as fine as the surface and as fine as it."""
        moved, near = self.displace(pixels.fields, motion, pixels.home)
        size = pixels.covered.shape[-1]
        warp, occupied = splat(pixels.start, moved, near, pixels.fields.cover, size, 4)
        # The edge itself is drawn by the portrait's own matte, which is moved along: so the movement goes on beyond it.
        there = (occupied > 0.5).float()
        sums, around = sums_around(torch.cat([warp, there], dim=1), max(1, round(BEYOND * size))).split([2, 1], dim=1)
        warp = torch.where(there > 0, warp, sums / around.clamp_min(1e-6))
        base = Base(warp, occupied, pixels.covered)
        warp, occupied = splat(pixels.start, moved, near, pixels.fields.cover, 2 * size, 1)
        reach = sums_around((occupied > 0.5).float(), max(1, round(BEYOND * 2 * size))) > 0
        return base, FineBase(warp, occupied, reach.float())


def splat(
    start: Tensor, moved: Tensor, near: Tensor, cover: Tensor, size: int, per_cell: float
) -> tuple[Tensor, Tensor]:
    """Turn movements round: (B, 2, ...) of the portrait's pixels at `start` (B, 2, ...), with their nearness and cover
    (B, 1, ...), into a warp (B, 2, size, size), zero where the person is not, and whether the person is there (B, 1,
    size, size) in 0..1. `per_cell`: how many pixels lie in a cell that is full.

    Each pixel gives its movement to the four cells around where it lands, in proportion to how near they are, how much
    of the person it shows and, exponentially, how near to the camera it is.
    """
    batch = len(moved)
    place = ((start + moved + 1) * (size / 2) - 0.5).flatten(2)  # (B, 2, M) in cells
    corner = place.floor()
    part = place - corner
    front = cover * torch.exp(NEARER * near.clamp(-1, 1))
    values = torch.cat([-moved * front, front, cover], dim=1).flatten(2)  # (B, 4, M)
    around = torch.stack([corner, corner + 1], dim=2).long()  # (B, 2, 2, M): the column and the row before, and after
    shares = torch.stack([1 - part, part], dim=2) * ((around >= 0) & (around < size))
    (columns, rows), (across, down) = around.clamp(0, size - 1).unbind(1), shares.unbind(1)
    cells = (rows[:, :, None] * size + columns[:, None]).view(batch, 1, -1)  # (B, 1, 4 M)
    given = values[:, :, None] * (down[:, :, None] * across[:, None]).view(batch, 1, 4, -1)  # (B, 4, 4, M)
    out = values.new_zeros(batch, 4, size * size).scatter_add_(2, cells.expand(-1, 4, -1), given.flatten(2))
    out = out.view(batch, 4, size, size)
    occupied = (out[:, 3:] * (MOST_STRETCHED / per_cell)).clamp(0, 1)
    warp = out[:, :2] / out[:, 2:3].clamp_min(1e-12)
    return torch.where(occupied > 0.5, warp, 0.0), occupied


def background_plate(portrait: Tensor, cover: Tensor) -> Tensor:
    """Portraits (B, 3, H, W) without the person: what `cover` (B, 1, S, S) hides is filled from around it, ever more
    coarsely the farther inside (push-pull), which is smooth and takes part in nothing but what a moving head
    uncovers."""
    hidden = F.max_pool2d(cover, 3, 1, 1)
    filled = continued(F.adaptive_avg_pool2d(portrait, cover.shape[-1]), (1 - hidden).square())
    scale = portrait.shape[-1] // cover.shape[-1]
    hidden, filled = (upsample(value, scale) for value in (hidden, filled))
    return portrait + hidden * (filled - portrait)


def continued(pictures: Tensor, known: Tensor) -> Tensor:
    """Pictures (B, C, S, S) as far as they are known (B, 1, S, S), in 0..1, the rest filled from around (push-pull)."""
    levels = [(pictures * known, known)]
    while levels[-1][1].shape[-1] > 1:
        levels.append(tuple(F.avg_pool2d(value, 2) for value in levels[-1]))
    filled = levels[-1][0] / levels[-1][1].clamp_min(1e-4)
    for colour, weight in reversed(levels[:-1]):
        coarser = upsample(filled)
        sure = weight.clamp(max=1) ** 0.5
        filled = sure * colour / weight.clamp_min(1e-4) + (1 - sure) * coarser
    return filled
