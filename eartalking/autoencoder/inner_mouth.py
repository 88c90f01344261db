"""What is seen between lips that open: teeth, tongue and the dark behind them, drawn by what is known of mouths.

A portrait with shut lips shows nothing of it, and networks that had to invent it drew the mean of all mouths, a
grey-blue blur. But lips move with the surface, so where they part is known to a fraction of a pixel; upper teeth stand
still in the skull, a little below where the upper lip rests; the tongue lies on the jaw. Teeth are as bright as the
whites of the eyes. What a portrait with parted lips shows between them stays its own and goes with the skull, wherever
the lips go; only what its lower lip uncovers is drawn, and when they meet, the line between them.

Notation: B batch, P pairs of lip points, S pixels a side of a frame, h w of the cut around a mouth, L columns of a
motion vector. Places are in [-1, 1], images too; colours below are in 0..1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.lips import (
    LOWER_INNER,
    LOWER_OUTER,
    UPPER_INNER,
    LipPlaces,
    Lips,
    lip_places,
)
from eartalking.autoencoder.mark_maps import eye_openings
from eartalking.autoencoder.part_refiner import corners, cut_size
from eartalking.autoencoder.surface import SurfaceEncoder
from eartalking.modules.curves import piecewise_linear, smoothstep
from eartalking.modules.warp import pixel_centres

CUT = (0.34375, 0.3125)  # width and height of what is drawn on, in fractions of the frame: a mouth that is wide open
STEPS = 4  # of a warp's inversion at the lips
CORNERS = (78, 308)  # the mesh's points of the mouth's corners, the person's right one first
SPAN = 30.0  # mm between the outermost pairs of lip points, of people's 50 from corner to corner
SOFT = 1.2 / 256  # of the frame: the edge of a lip
SAMPLES = 64  # of a lip's edge
ROUND = 2.5  # mm within which the corners of a lip's edge are rounded
# Of the upper incisors, in mm: what shows below a resting lip, how much less at the sides, and where the row ends.
SHOW, RISE, REACH = 3.0, 2.4, 21.0
ARCH = 26.0  # mm, the radius of the row
CROWNS = (8.5, 15.0, 22.5, 29.5)  # where crowns end, along the row, from its middle
SHADE = 3.5  # mm below the upper lip that lie in its shadow
ENAMEL, TONGUE, DARK = (1.0, 0.965, 0.90), (0.62, 0.30, 0.29), (0.17, 0.055, 0.05)
LEAST, MOST = 0.30, 0.90  # brightness of teeth, whatever the light
BRIGHTER, WARMTH = 1.2, 0.3  # than skin, at least; and how much of the skin's colour they take on
FLAT = 0.03  # in [-1, 1]: points that are less spread say nothing of how a motion changes between them
BESIDE = 5.0  # edges of a lip (6 pixels of 256): how far from an opening nothing but the portrait's own lips is shown
# The line where lips meet: how wide, in edges of a lip, and by how much it is darker than they are: red, green, blue.
LINE, SEAM = 0.75, (0.26, 0.40, 0.43)
BARELY = 0.006  # lips that are no further apart do not part: three quarters of a pixel of 256


class InnerMouth(NamedTuple):
    """What is kept of portraits' mouths.

    upper, lower (B, 2, P) and ends (B, 2, 2): the edges of the lips and the corners between them, of shut lips where
    they meet; red (B, 2, P): the middle of the lower lip's red; parted (B,): whether they are not shut;
    own (B, 2, 2 P): where the portrait's own motion puts the surface of the lips; bright (B, 3): colour of the teeth.
    """

    upper: Tensor
    lower: Tensor
    ends: Tensor
    red: Tensor
    parted: Tensor
    own: Tensor
    bright: Tensor

    @classmethod
    def of(cls, surface: SurfaceEncoder, lips: Lips, portraits: Tensor, marks: Tensor, own: Tensor) -> InnerMouth:
        """Of portraits (B, 3, S, S) with marks (B, K, 3) and motion vectors `own` (B, L)."""
        places = (2 * marks[..., :2] - 1).transpose(1, 2)  # (B, 2, K)
        upper, lower = places[:, :, UPPER_INNER], places[:, :, LOWER_INNER]
        meeting = (upper + lower) / 2
        parted = lips.parted
        upper, lower = (torch.where(parted[:, None, None], lip, meeting) for lip in (upper, lower))
        at = lip_places(surface, lips.red, own[None])[0]
        red = (places[:, :, LOWER_INNER] + places[:, :, LOWER_OUTER]) / 2
        return cls(upper, lower, places[:, :, CORNERS], red, parted, at, _light(portraits, marks))

    def drawn(
        self, images: Tensor, warped: Tensor, portraits: Tensor, lips: Lips, places: LipPlaces, warp: Tensor
    ) -> Tensor:
        """Frames (B, 3, S, S) whose lips are at `places`, with what shows between them. `warp` (B, 2, h, w) has brought
        them there, and made `warped` (B, 3, S, S) of `portraits` (B, 3, S, S)."""
        # The surface is as coarse as a lip is high, and a jaw that falls draws the upper lip down with it a little. It
        # does not, so where that lip ends is asked of the surface with the portrait's own jaw.
        moved = LipPlaces(*(torch.stack(places) - self.own))
        over, at_rest = (at[:, :, : at.shape[2] // 2] for at in (moved.own_jaw, moved.shut))
        under = moved.now[:, :, moved.now.shape[2] // 2 :]
        # Of parted lips: the edges of what the portrait shows between them, which belongs to the skull.
        roof, floor = moved.own_face.chunk(2, dim=2)
        under = _brought(self.red, under, warp)
        upper, lower = self.upper + over, self.lower + under
        ends = self.ends + torch.stack([(over + under)[:, :, end] / 2 for end in (0, -1)], dim=2)
        resting, roof, floor = self.upper + at_rest, self.upper + roof, self.lower + floor
        right = resting[:, :, -1] - resting[:, :, 0]
        span = right.norm(dim=1, keepdim=True).clamp_min(1e-3)
        right = right / span
        down = torch.stack([-right[:, 1], right[:, 0]], dim=1)
        gap = ((lower - upper) * down[..., None]).sum(1, keepdim=True)  # (B, 1, P)
        meeting = self.parted * (1 - lips.seen(places)[:, 0, 0, 0])
        if not ((gap > BARELY).any() or meeting.any()):
            return images
        lower = upper + (lower - upper) * (1 - BARELY / gap.clamp_min(BARELY))
        size = images.shape[-1]
        shape = cut_size(CUT, size)
        middle = (torch.cat([upper, lower], dim=2).mean(2) + 1) / 2
        out = images.clone()
        for index, (top, left) in enumerate(corners(middle, shape, size)):
            pick = slice(index, index + 1)
            axes = _Axes(right[pick], down[pick], resting[pick].mean(2), span[pick] / SPAN)
            first, last = ends[pick][:, :, :1], ends[pick][:, :, 1:]
            edges = torch.cat([upper[pick], lower[pick], roof[pick], floor[pick]])  # (4, 2, P)
            across, down_to = axes.local(torch.cat([first.expand(4, -1, -1), edges, last.expand(4, -1, -1)], dim=2))
            pixels = _Pixels.of(axes, across, down_to, (top, left), shape, size)
            place = (index, slice(None), slice(top, top + shape[0]), slice(left, left + shape[1]))
            # What is painted where lips part knows no edge of theirs, and would show as a grey one.
            region = torch.lerp(images[place], warped[place], pixels.beside()[None])
            darker = images.new_tensor(SEAM)[:, None, None] * meeting[index] * pixels.seam()
            region = (region + 1) * (1 - darker) - 1
            shown = pixels.shown()
            if self.parted[index]:
                back = _Back.of(torch.cat([self.upper, self.lower], dim=2)[pick], moved.own_face[pick])
                there = back.places(axes.places(pixels.x, torch.maximum(pixels.y, pixels.first_row())))
                own = F.grid_sample(portraits[pick], there, "bicubic", "border", False)[0]
                region = torch.lerp(region, own, shown[None])
                shown = shown * pixels.uncovered()
            teeth = bool(lips.white[index]) or not self.parted[index]
            colour = _colours(pixels, self.bright[index], teeth)
            out[place] = torch.lerp(region, 2 * colour - 1, shown[None])
        return out


class _Axes(NamedTuple):
    """A head's own axes at its mouth: unit vectors to the right and down (1, 2), the origin (1, 2), in [-1, 1], and how
    much of [-1, 1] is a mm (1, 1)."""

    right: Tensor
    down: Tensor
    origin: Tensor
    mm: Tensor

    def local(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Places (M, 2, N) -> mm to the right and down (M, N)."""
        offset = (places - self.origin[..., None]) / self.mm[..., None]
        return (offset * self.right[..., None]).sum(1), (offset * self.down[..., None]).sum(1)

    def grid(self, top: int, left: int, shape: tuple[int, int], size: int) -> tuple[Tensor, Tensor, float]:
        """Of the pixels of a cut: mm to the right and down (h, w), and how many mm an edge takes."""
        places = (pixel_centres(*shape, self.origin.device) + self.origin.new_tensor([left, top])) * (2 / size) - 1
        right, down = self.local(places.flatten(0, 1).T[None])
        return right.view(shape), down.view(shape), float(2 * SOFT / self.mm.detach())

    def places(self, right: Tensor, down: Tensor) -> Tensor:
        """The way back from `local`: mm (h, w) -> places (h, w, 2)."""
        return self.origin + self.mm * (right[..., None] * self.right + down[..., None] * self.down)


class _Pixels(NamedTuple):
    """Of the pixels of one cut (h, w), in mm of a head's own axes: where they are, to the right and down; the edges of
    the two lips above and below them; the edges of what the portrait shows between its lips, where the skull has taken
    them; and, in 0..1, whether they lie between the mouth's corners. `mm`: how many of these the edge of a lip takes.
    """

    x: Tensor
    y: Tensor
    above: Tensor
    below: Tensor
    roof: Tensor
    floor: Tensor
    within: Tensor
    mm: float

    @classmethod
    def of(
        cls, axes: _Axes, across: Tensor, down: Tensor, corner: tuple[int, int], shape: tuple[int, int], size: int
    ) -> _Pixels:
        """Of the cut with this top left corner; the four edges lead through points (4, N), mm to the right and down."""
        x, y, mm = axes.grid(*corner, shape, size)
        # Of a face that is turned, a corner lies before the lips' last points: nothing is open beyond these.
        within = smoothstep((x - across[0].min()) / mm) * smoothstep((across[0].max() - x) / mm)
        above, below, roof, floor = _rounded(x, across, down)
        return cls(x, y, above, below, roof, floor, within, mm)

    def shown(self) -> Tensor:
        """How much of what is behind the lips is seen."""
        above, below = ((away / self.mm + 0.5).clamp(0, 1) for away in (self.y - self.above, self.below - self.y))
        return above * below * self._open() * self.within

    def beside(self) -> Tensor:
        """In 0..1: in an opening, and around it, where its lips are."""
        reach = BESIDE * self.mm
        near = smoothstep((self.y - self.above) / reach + 1) * smoothstep((self.below - self.y) / reach + 1)
        return near * self._open() * self.within

    def seam(self) -> Tensor:
        """In 0..1: on the line where lips meet, where they do."""
        away = (self.y - (self.above + self.below) / 2) / (LINE * self.mm)
        return torch.exp(-(away**2)) * (1 - self._open()) * self.within

    def first_row(self) -> Tensor:
        """The highest place of which the portrait's own pixels are shown: where the upper lip uncovers more than in the
        portrait, the edge of what that shows goes on."""
        lifted = (self.roof - self.above).clamp_min(0)
        return torch.minimum(self.roof + self.mm, self.above - self.mm / 2 + 2 * lifted)

    def uncovered(self) -> Tensor:
        """In 0..1: below what the portrait shows, where the lower lip has uncovered more."""
        return ((self.y - self.floor) / self.mm + 0.5).clamp(0, 1) * ((self.below - self.floor) / self.mm).clamp(0, 1)

    def _open(self) -> Tensor:
        return ((self.below - self.above) / self.mm).clamp(0, 1)


class _Back(NamedTuple):
    """Where what belongs to the skull lies in the portrait, of places in a frame: their offset from `middle` (B, 2),
    moved by `offset` (B, 2) and, per unit of [-1, 1], by `slope` (B, 2, 2)."""

    middle: Tensor
    offset: Tensor
    slope: Tensor

    @classmethod
    def of(cls, places: Tensor, moved: Tensor) -> _Back:
        """The flat motion that fits best how far places (B, 2, N) of the portrait have come (B, 2, N)."""
        there = places + moved
        middle, offset = there.mean(2), -moved.mean(2)
        around, rest = there - middle[..., None], -moved - offset[..., None]
        # Lips are a narrow band: of how the motion changes across it they say little, and then it does not.
        spread = around @ around.transpose(1, 2) + around.shape[2] * FLAT**2 * torch.eye(2, device=places.device)
        return cls(middle, offset, rest @ around.transpose(1, 2) @ torch.linalg.inv(spread))

    def places(self, places: Tensor) -> Tensor:
        """Places (h, w, 2) of one frame -> places in its portrait (1, h, w, 2)."""
        return (places + self.offset + (places - self.middle) @ self.slope[0].T)[None]


def _brought(places: Tensor, moved: Tensor, warp: Tensor) -> Tensor:
    """How far places (B, 2, N) of a portrait have come by `warp` (B, 2, h, w), which says of each place where it comes
    from; by fixed-point steps from a guess (B, 2, N): the same shape."""
    for _ in range(STEPS):
        at = (places + moved).transpose(1, 2)[:, None]
        moved = -F.grid_sample(warp.float(), at, padding_mode="border", align_corners=False)[:, :, 0]
    return moved


def _rounded(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Edges of lips through points (M, N), with round corners, at x (h, w) mm: (M, h, w); constant beyond the ends."""
    low, high = knots.amin(1, keepdim=True), knots.amax(1, keepdim=True)
    # On a regular grid first: to look a pixel up there is much cheaper than to find it between the points.
    line = torch.lerp(low, high, torch.linspace(0, 1, SAMPLES, device=x.device))  # (M, SAMPLES)
    around = torch.cat([line - ROUND, line, line + ROUND], dim=1)
    before, here, after = piecewise_linear(around, knots, values).chunk(3, dim=1)
    heights = (before + 2 * here + after) / 4
    at = ((x.flatten() - low) * ((SAMPLES - 1) / (high - low).clamp_min(1e-3))).clamp(0, SAMPLES - 1)
    left = at.long().clamp(max=SAMPLES - 2)
    return torch.lerp(heights.gather(1, left), heights.gather(1, left + 1), at - left).view(-1, *x.shape)


def _colours(pixels: _Pixels, bright: Tensor, with_teeth: bool) -> Tensor:
    """What pixels show inside a mouth whose teeth have the colour `bright` (3,): (3, h, w) in 0..1."""
    x, y, above, below, mm = pixels.x, pixels.y, pixels.above, pixels.below, pixels.mm
    gap, light = (below - above).max(), bright.mean()

    def colour(name: tuple[float, float, float]) -> Tensor:
        return light * bright.new_tensor(name)[:, None, None]

    deep = smoothstep((y - above) / gap.clamp_min(1.0))
    out = colour(DARK) * (0.55 + 0.7 * deep)
    # A tongue is round and hollow along its middle, and lit from the front: the farther back, the darker.
    away = (x / 16).square() + ((y - below - 1) / (0.7 * gap).clamp_min(1.0)).square()
    tongue = smoothstep((gap - 4) / 5) * smoothstep(2.2 * (1.1 - away))
    hollow = 1 - 0.12 * torch.exp(-((x / 3) ** 2)) * smoothstep((1 - away) / 0.8)
    out = torch.lerp(out, colour(TONGUE) * (0.30 + 0.75 * deep.square()) * hollow, tongue[None])
    if not with_teeth:
        return out
    edge = SHOW - RISE * (x / REACH).square()
    row = ((edge - y) / mm + 0.5).clamp(0, 1) * smoothstep((REACH - x.abs()) / 4)
    shade = (1 - 0.5 * (x / REACH).square()) * (0.82 + 0.18 * smoothstep((y - above) / SHADE))
    width = max(0.4, 0.5 * mm)
    places = x.new_tensor([ARCH * math.sin(min(crown / ARCH, 1.5)) for crown in (0.0, *CROWNS)])[:, None, None]
    between = torch.exp(-(((x.abs() - places) / width) ** 2))
    shade = shade * (1 - 0.2 * (0.4 / width) * between).prod(0)
    return torch.lerp(out, bright[:, None, None] * shade, row[None]).clamp(0, 1)


def _light(portraits: Tensor, marks: Tensor) -> Tensor:
    """What colour teeth have in portraits (B, 3, S, S): as bright as the whites of the eyes, and where these are not
    seen, somewhat brighter than the lips and the skin beside them: (B, 3)."""
    colours = (portraits + 1) / 2
    eyes = eye_openings(marks, portraits.shape[-1])[:, 0]
    found = []
    for picture, opening, points in zip(colours, eyes, marks, strict=True):
        size = picture.shape[-1]
        left, top, right, bottom = _around(points[:, :2] * size, size)
        skin = picture[:, top:bottom, left:right].flatten(1).quantile(0.7, dim=1)
        white = picture[:, opening > 0]
        if white.shape[1] >= 12:
            chosen = white[:, white.mean(0) >= white.mean(0).quantile(0.85)].mean(1)
        else:
            chosen = skin
        level = torch.maximum(chosen.mean(), BRIGHTER * skin.mean()).clamp(LEAST, MOST)
        # Half of the light's own colour, and what a mouth reflects of its lips and gums: beside warm skin, neutral
        # teeth look grey.
        cast, warmth = ((one / one.mean().clamp_min(0.05)).clamp(0.7, 1.4) for one in (chosen, skin))
        cast = cast.sqrt() * warmth**WARMTH
        found.append(level * cast * picture.new_tensor(ENAMEL))
    return torch.stack(found).clamp(0, 1)


def _around(points: Tensor, size: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the lower face (K, 2): from below the eyes to the mouth."""
    left, right = points[[50, 280], 0].sort().values.tolist()
    top, bottom = points[[50, 17], 1].sort().values.tolist()
    left, top = (min(max(int(edge), 0), size - 2) for edge in (left, top))
    return left, top, min(max(int(right), left + 1), size), min(max(int(bottom), top + 1), size)
