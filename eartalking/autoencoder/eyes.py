"""A portrait's eyes, drawn where they look and as far shut as they are, in the portrait itself, before it is moved.

What an eye does is known: an eyeball turns about its middle, so the gaze says how far the iris goes; a lid is skin that
comes down over it, with lashes at its edge. The marks say where the portrait's own opening is. So nothing here is
learnt, and photographs' eyes look and blink as renders' do, at any size. (A network that had learnt to draw eyes on
renders moved irises of photographs a third of the way, and shut lids half.) Only what is asked for beyond the
portrait's own state is drawn: an eye that does as in the portrait is the portrait's, to the pixel.

Notation: B batch, 2 eyes (the person's right one first), S pixels a side of the portrait, h w of a cut, L columns of a
motion vector, K marks. Images are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.mark_maps import eye_openings
from eartalking.autoencoder.part_refiner import EYE, corners, cut, cut_size
from eartalking.autoencoder.surface import SurfaceFields, background_plate, continued
from eartalking.modules.constant import constant
from eartalking.modules.curves import piecewise_linear, smoothstep
from eartalking.modules.warp import identity_grid, pixel_centres
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import GAZE, HEAD_POSE, MOTION_SCALES, with_columns
from eartalking.perception.face_marks import OPENING, eye_marks

EYEBALL = 0.264  # its radius over the distance of the eyes, of the head model
# What moves lids, of the person's right eye and of the left one.
LID_UNITS = [
    UNIT_INDEX[unit + side]
    for unit in ("eyeBlink", "eyeWide", "eyeSquint", "browDown", "cheekSquint")
    for side in ("Right", "Left")
]
EYE_COLUMNS = [*LID_UNITS[:6], *range(GAZE.start, GAZE.stop)]  # brows and cheeks move the face around them, too
UPPER, LOWER = (0, 15, 14, 13, 12, 11, 10, 9, 8), (0, 1, 2, 3, 4, 5, 6, 7, 8)  # of an opening's outline
# Of an opening's height in its middle, about as on the head model: how far the upper lid comes down with an eye that
# looks down, and goes up with one that looks up, per degree (1/69 and 1/173 there), and goes up when the eye is wide
# (0.41 there; by the iris network, eyes drawn so are wider than true ones); how far the lower lid comes up in a
# narrowed eye. There it comes up with the gaze as well; drawn so, eyes that look up are read as looking less far.
DOWN, UP, WIDE, SQUINT = 1 / 80, 1 / 173, 0.33, 0.36
BROW_DOWN, CHEEK_UP = 0.17, 0.15  # how far a lowered brow takes the upper lid down, and a raised cheek the lower one up
# Of an opening's height: from where on a lid moves as far as in the middle, which most of it does.
BOW = 0.5
CARRIED = 1.5  # times an opening's height: how far around it skin goes along with a lid
STILL = 1  # pixels of the surface around an opening that no face unit moves
LIFTED = 0.06  # of an opening's height: an open lid that has moved so far is redrawn
HIDDEN = 0.5  # of the other eye's width: one that is narrower lies behind the nose
# Of the frame: how far around an opening skin is drawn without lashes, how far these reach, and how wide the edge of a
# lid is that shuts it. Beyond, the portrait's own crease stays, and a lid does not look like a patch.
AROUND, LASHES, EDGE = 6 / 256, 3 / 256, 2.5 / 256
WIDEST, NARROWEST = 0.6, 0.7  # of an opening's height: how far lids go beyond their places, and towards each other
LASH_WIDTH = 1.6 / 256  # of the frame, in the middle of a shut eye
# Of an opening's height: lashes are as wide from where it is so high on; they end where it ends. Of its width, and of
# how dark it is, the line keeps these shares at its ends.
FULL, ENDING, THIN, FAINT = 0.6, 0.1, 0.5, 0.3
# Of an opening's height: how far a shut eye's upper lashes hang over the lower lid. Without it the face mesh, which
# knows real eyes, reads shut eyes as open by a third, where true renders' are read as open by a fifth.
HANGING = 0.25
RINGS = 8  # of an iris, from its middle to its edge
# An iris's radius, of what the iris network says: usually, and what is looked for (from, to, how many); how far from
# the usual one is likely; half as wide as the rings that are compared; and how much lighter, of 2, white is at least.
IRIS, IRIS_SCALES, LIKELY, RING, CLEAR = 1.15, (1.0, 1.8, 17), 0.7, 0.12, 0.05
IRIS_EDGE = 0.4 / 256  # of the frame: how far the edge of an iris reaches, which goes with it
WHITER = 0.8  # how far what an iris has left is like the lightest parts of the eye's white
ALIKE, GREYER = 0.7, 0.35  # how far like those of the eye whose are lighter, and without colour: skin mixes into them
# How dark an upper lid's shadow is on an eye, and how far it reaches, of an opening's height.
SHADE, SHADED = 0.25, 0.25
# Of an opening's height, by how much a lid is down: up to here it is the portrait's own, and slides down with its
# lashes; from there on it is drawn, for so far no skin stretches.
SLIDES, SHUTTING = 0.35, 0.6
TURNING = 0.5 / 256  # of the frame: an iris that has moved so far is redrawn


def with_still_lids(fields: SurfaceFields, marks: Tensor) -> SurfaceFields:
    """The surface of portraits with marks (B, K, 3) where no face unit moves its eyes and the edges of its lids: these
    are drawn. As coarse as it is, a brow that goes up took the lid along, and a smile the eye."""
    size = fields.cover.shape[-1]
    opening = eye_openings(marks, size)
    still = F.avg_pool2d(F.max_pool2d(opening, 2 * STILL + 1, 1, STILL), 3, 1, 1)
    return fields._replace(components=fields.components * (1 - still))


class Eyes(NamedTuple):
    """What is kept of portraits' eyes.

    place (B, 2, 2): left and top pixel of each cut; white (B, 2, 3, h, w): the eyeball without its iris, and iris (B,
    2, 4, h, w), with where it and its edge are, in 0..1, both behind the lids, too; skin (B, 2, 3, h, w): the cut
    without the eye; lash (B, 2, 3, 1, 1): the colour of its lashes; height, upper, lower (B, 2, h, w): of each pixel,
    and of the two lids above and below it, along `up` (B, 2, 2), which is across the line between the eye's corners, in
    pixels; zone and lid (B, 2, 1, h, w) in 0..1: where an eye is drawn at all, and where it is by a lid that shuts it;
    middles (B, 2, 2) of the openings, in fractions of the frame; marks (B, K, 3); known (B, 1): whether there are any.
    """

    place: Tensor
    white: Tensor
    iris: Tensor
    skin: Tensor
    lash: Tensor
    height: Tensor
    upper: Tensor
    lower: Tensor
    up: Tensor
    zone: Tensor
    lid: Tensor
    middles: Tensor
    marks: Tensor
    known: Tensor

    @classmethod
    def of(cls, portraits: Tensor, marks: Tensor) -> Eyes:
        """portraits (B, 3, S, S), marks (B, K, 3) in fractions of these."""
        size = portraits.shape[-1]
        outlines = torch.stack([marks[:, eye_marks(eye)][:, :OPENING, :2] for eye in (0, 1)], dim=1)  # (B, 2, 16, 2)
        opening = eye_openings(marks, size)
        reach = round(AROUND * size)
        around = F.max_pool2d(opening, 2 * reach + 1, 1, reach)
        seen = F.avg_pool2d(opening, 3, 1, 1) ** 4 * opening  # the edge of an opening is half lash
        white, iris, disc = _eyeballs(portraits, seen, marks)
        whole = torch.cat([white, iris, background_plate(portraits, around), portraits], dim=1)
        shape = cut_size(EYE, size)
        middles = outlines.mean(2)
        cuts, places, lines = [], [], []
        for eye in (0, 1):
            corner = corners(middles[:, eye], shape, size)
            cuts.append(cut(torch.cat([whole, disc, opening, around], dim=1), corner, shape))
            places.append(corner)
            lines.append(_lids(outlines[:, eye] * size, corner, shape))
        white, iris, skin, own, disc, inner, outer = torch.stack(cuts, dim=1).split([3, 3, 3, 3, 1, 1, 1], dim=2)
        height, upper, lower, up = (torch.stack(parts, dim=1) for parts in zip(*lines, strict=True))
        zone = F.avg_pool2d(F.max_pool2d(outer.flatten(0, 1), 3, 1, 1), 3, 1, 1).view_as(outer)
        width = (outlines[:, :, 8] - outlines[:, :, 0]).norm(dim=2)
        zone = zone * (width > HIDDEN * width.amax(1, keepdim=True))[:, :, None, None, None]
        known = marks.abs().amax((1, 2))[:, None] > 0
        place = torch.tensor([[[left, top] for top, left in at] for at in places], device=portraits.device)
        lashes, edge = (max(1, round(part * size)) for part in (LASHES, EDGE))
        lid = F.max_pool2d(inner.flatten(0, 1), 2 * lashes + 1, 1, lashes)
        lash = _extreme(own, lid.view_as(inner) - inner, lightest=False)
        lid = F.avg_pool2d(F.pad(lid, [edge] * 4, mode="replicate"), 2 * edge + 1, 1).view_as(inner)
        # What is seen of an eye's white is mostly its shaded edges, and irises leave its middle.
        white = torch.lerp(white, _white(own, ((inner > 0.8) & (disc == 0)).to(own.dtype)), WHITER)
        iris = torch.cat([iris, _grown(disc, round(IRIS_EDGE * size))], dim=2)
        place = place.transpose(0, 1)
        return cls(place, white, iris, skin, lash, height, upper, lower, up, zone, lid, middles, marks, known)

    def drawn(self, portraits: Tensor, motion: Tensor, own: Tensor) -> Tensor:
        """Portraits (B, C, S, S), the first three channels their colours, with eyes as in `motion` (B, L) where theirs
        are as in `own` (B, L)."""
        size = portraits.shape[-1]
        open_, lift, rise = (value[..., None, None] for value in self._lids_of(motion, own))  # (B, 2, 1, 1)
        turn = eye_turn(motion, own, self.middles)
        wider = open_ * (1 + lift) - 1
        closing = smoothstep((-wider - SLIDES) / (SHUTTING - SLIDES))[:, :, None]  # (B, 2, 1, 1, 1)
        moving = smoothstep(torch.maximum(wider.abs(), rise.abs()) / LIFTED)[:, :, None]
        turning = smoothstep(turn.norm(dim=1) / TURNING)[:, None, None, None, None]
        if not (moving.any() or turning.any()):
            return portraits
        apart = self.upper - self.lower
        tall = apart.amax((2, 3), keepdim=True).clamp_min(1e-6)
        bow = tall * smoothstep(apart / (BOW * tall))
        upper = self.lower + open_ * (apart + bow * lift).clamp_min(0)  # shut, it meets the lower one, which stays
        lower = torch.minimum(self.lower + bow * rise, upper)
        above = (self.height - lower + 0.5).clamp(0, 1)[:, :, None]  # below it lies the lower lid, with its lashes
        shown = (upper - self.height + 0.5).clamp(0, 1)[:, :, None] * above * (upper - lower).clamp(0, 1)[:, :, None]
        lid = closing * above * self.lid
        hang = HANGING * tall * closing[:, :, 0]
        wide = LASH_WIDTH * size * torch.lerp(smoothstep(apart / (FULL * tall)), torch.ones_like(apart), THIN)
        faint = torch.lerp(smoothstep(apart / (ENDING * tall)), torch.ones_like(apart), FAINT)
        edge = (faint * torch.exp(-(((self.height - upper + hang) / wide) ** 2)))[:, :, None] * closing
        shade = 1 - SHADE * torch.exp(-(upper - self.height).clamp_min(0) / (SHADED * tall))[:, :, None]
        active = self.zone * torch.maximum(moving, turning)
        slides = smoothstep((1 + wider) / (1 - SHUTTING))
        eyes, before = self._carried(portraits, upper, lower, CARRIED * tall, slides).split([3, 1], dim=2)
        iris, disc = _moved(self.iris, turn * size).split([3, 1], dim=2)
        # Nothing of an eye is drawn anew but what its iris has left: its white keeps its own shades, veins and edges.
        # A pixel of which an iris had a part was its edge.
        white = torch.lerp(eyes, (self.white + 1) * shade - 1, (2 * before).clamp(0, 1))
        ball = torch.lerp(white, (iris + 1) * shade - 1, disc)
        drawn = torch.lerp(eyes, self.skin, lid)
        drawn = torch.lerp(drawn, ball, shown)
        drawn = torch.lerp(drawn, self.lash.expand_as(drawn), edge)
        drawn = torch.lerp(eyes, drawn, active)
        out = portraits.clone()
        for index, eye, rows, columns in self._places():
            out[index, :3, rows, columns] = drawn[index, eye]
        return out

    def _places(self) -> Iterator[tuple[int, int, slice, slice]]:
        """Where the cuts lie: the portrait's number, the eye's, rows and columns."""
        height, width = self.skin.shape[-2:]
        for index, eyes in enumerate(self.place.tolist()):
            for eye, (left, top) in enumerate(eyes):
                yield index, eye, slice(top, top + height), slice(left, left + width)

    def _carried(self, portraits: Tensor, upper: Tensor, lower: Tensor, reach: Tensor, slides: Tensor) -> Tensor:
        """The cuts of portraits (B, C, S, S) with the skin around the eyes, and lashes and creases with it, carried
        along by lids that go to `upper` and `lower` (B, 2, h, w), less and less up to `reach` (B, 2, 1, 1) away:
        (B, 2, 4, h, w), the last where their irises were. `slides` (B, 2, 1, 1) in 0..1: how far one that comes down
        takes its skin along."""
        eyes = torch.stack([portraits[index, :3, rows, columns] for index, _, rows, columns in self._places()])
        eyes = torch.cat([eyes.view_as(self.skin), self.iris[:, :, 3:]], dim=2)
        over, under = (smoothstep(1 - away / reach) for away in (self.height - upper, lower - self.height))
        lift, rise = upper - self.upper, lower - self.lower
        lift = torch.where(lift < 0, slides * lift, lift)
        move = torch.where(2 * self.height > upper + lower, lift * over, rise * under)  # (B, 2, h, w)
        if not move.any():
            return eyes
        height, width = move.shape[-2:]
        steps = move.flatten(0, 1)[..., None] * self.up.flatten(0, 1)[:, None, None]
        grid = 2 * (pixel_centres(height, width, steps.device) - steps) / steps.new_tensor([width, height]) - 1
        return F.grid_sample(eyes.flatten(0, 1), grid, "bicubic", "border", False).view_as(eyes)

    def held(self, motion: Tensor, own: Tensor) -> Tensor:
        """Motion vectors (B, L) with the lids and the gaze of `own` (B, L), where eyes are drawn here: what a warp is
        left to do."""
        return torch.where(self.known, with_columns(motion, own, EYE_COLUMNS), motion)

    def _lids_of(self, motion: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far the eyes are open, of how far they are in the portrait, 0 shut to 1 + WIDEST; by how much the upper
        and the lower lids are further up where they are, of the opening's height: (B, 2) each."""
        now, before = (
            vectors.index_select(1, _lid_units(motion.device)).unflatten(1, (-1, 2)) / MOTION_SCALES["face_units"]
            for vectors in (motion, own)
        )
        open_ = ((1 - now[:, 0]) / (1 - before[:, 0]).clamp_min(0.1)).clamp(0, 1 + WIDEST)
        up = (motion - own)[:, GAZE.stop - 1 : GAZE.stop] / MOTION_SCALES["gaze"]
        wide, squint, brow, cheek = (now - before)[:, 1:].unbind(1)
        lift = UP * up.clamp_min(0) + DOWN * up.clamp_max(0) + WIDE * wide - BROW_DOWN * brow
        rise = SQUINT * squint + CHEEK_UP * cheek
        return open_, lift.clamp(-NARROWEST, WIDEST), rise.clamp(-WIDEST, NARROWEST)


@constant
def _lid_units(device: torch.device) -> Tensor:
    return torch.tensor(LID_UNITS, device=device)


def eye_turn(motion: Tensor, own: Tensor, middles: Tensor) -> Tensor:
    """How far irises go, right and down (B, 2) in fractions of the frame, from a portrait with motion vectors `own`
    (B, L) and eyes at `middles` (B, 2, 2) to `motion` (B, L), on a head that stands as the portrait's does."""
    radius = EYEBALL * (middles[:, 0] - middles[:, 1]).norm(dim=1, keepdim=True)
    now, before = (torch.sin(torch.deg2rad(vectors[:, GAZE] / MOTION_SCALES["gaze"])) for vectors in (motion, own))
    right, up = (radius * (now - before)).unbind(1)
    roll = torch.deg2rad(own[:, HEAD_POSE.stop - 1] / MOTION_SCALES["head_pose"])
    # Up is away from the chin; a head that is tilted clockwise, as seen, has its crown on the right.
    return torch.stack([right * roll.cos() + up * roll.sin(), right * roll.sin() - up * roll.cos()], dim=1)


def _lids(outline: Tensor, corner: list[tuple[int, int]], shape: tuple[int, int]) -> tuple[Tensor, ...]:
    """Of an eye's outline (B, 16, 2) in pixels and the cut at `corner`: height of its pixels, of the upper and of the
    lower lid (B, h, w), along the last, the direction (B, 2) across the line between the eye's corners."""
    height, width = shape
    start = outline.new_tensor([[left, top] for top, left in corner])[:, None, None]
    pixels = pixel_centres(height, width, outline.device) + start  # (B, h, w, 2)
    begin, end = outline[:, 0], outline[:, 8]
    length = (end - begin).norm(dim=1, keepdim=True).clamp_min(1.0)
    along = (end - begin) / length  # the person's right eye and left eye both begin at an outer or inner corner
    along = torch.where(along[:, :1] < 0, -along, along)
    across = torch.stack([along[:, 1], -along[:, 0]], dim=1)  # up in the picture

    def local(points: Tensor) -> tuple[Tensor, Tensor]:
        offset = points - begin.view(-1, *[1] * (points.dim() - 2), 2)
        axes = (axis.view(-1, *[1] * (points.dim() - 2), 2) for axis in (along, across))
        t, s = ((offset * axis).sum(-1) for axis in axes)
        return t, s

    t, s = local(pixels)
    lids = []
    for chain in (UPPER, LOWER):
        knots, heights = local(outline[:, chain])
        lids.append(piecewise_linear(t.flatten(1), knots, heights).view_as(t))
    return s, torch.maximum(*lids), torch.minimum(*lids), across


def _eyeballs(portraits: Tensor, seen: Tensor, marks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What eyeballs, `seen` (B, 1, S, S) in 0..1, are like behind their lids: their white (B, 3, S, S), their irises
    (B, 3, S, S), whose hidden parts are as those that are as far from the middle, and where these are (B, 1, S, S) in
    0..1."""
    size = portraits.shape[-1]
    points = 2 * torch.stack([marks[:, eye_marks(eye)][:, OPENING:, :2] for eye in (0, 1)], dim=1) - 1  # (B, 2, 5, 2)
    offset = identity_grid(size, portraits.device)[:, None] - points[:, :, 0, None, None]  # (B, 2, S, S, 2)
    far = offset.norm(dim=-1)
    radius = (points[:, :, 1:] - points[:, :, :1]).norm(dim=3).mean(2)[..., None, None].clamp_min(1e-6)
    radius = radius * _iris_scale(portraits, seen, far / radius)[:, None, None, None]
    discs = ((radius - far) * (size / 2) + 0.5).clamp(0, 1)  # (B, 2, S, S)
    own = _round(portraits, seen, far / radius)
    nearer = (far[:, 0] < far[:, 1])[:, None]
    disc = discs.amax(1, keepdim=True)
    beside = 1 - F.max_pool2d(disc, 3, 1, 1)  # the edge of an iris is half white
    white = continued(portraits, seen * beside)
    irises = torch.lerp(white, torch.where(nearer, own[:, 0], own[:, 1]), disc)
    return white, torch.lerp(irises, portraits, seen), disc


def _shown(seen: Tensor) -> Tensor:
    """The pixels (N,) of which anything is `seen` (B, 1, S, S): two in a hundred of a portrait's."""
    return torch.nonzero(seen.flatten(1).amax(0))[:, 0]


def _round(portraits: Tensor, seen: Tensor, far: Tensor) -> Tensor:
    """Irises (B, 2, 3, S, S) that are alike all around: at each distance `far` (B, 2, S, S) from their middle, in
    their radii, as the portraits (B, 3, S, S) are on average where they are `seen` (B, 1, S, S) there."""
    rings = torch.linspace(0, 1, RINGS, device=far.device)
    shown = _shown(seen)
    near = far.flatten(2)[:, :, shown]  # (B, 2, N)
    away = near[:, :, None] - rings[:, None]  # (B, 2, K, N)
    # Rings of which nothing is seen are like those beside them.
    weight = torch.exp(-((away * (RINGS - 1)) ** 2)) + 1e-3 * torch.exp(-((away * 3) ** 2))
    weight = weight * (seen.flatten(1)[:, None, shown] * (near < 1))[:, :, None]
    lit = portraits.flatten(2)[:, :, shown].transpose(1, 2)[:, None]
    colours = (weight @ lit) / weight.sum(3, keepdim=True).clamp_min(1e-6)
    at = (far.flatten(2) * (RINGS - 1)).clamp(0, RINGS - 1)  # (B, 2, S²)
    ring = at.long().clamp(max=RINGS - 2)
    low, high = (colours.gather(2, index[..., None].expand(-1, -1, -1, 3)) for index in (ring, ring + 1))
    return torch.lerp(low, high, (at - ring)[..., None]).transpose(2, 3).unflatten(3, far.shape[2:])


def _iris_scale(portraits: Tensor, seen: Tensor, far: Tensor) -> Tensor:
    """By how much irises are larger than the iris network says, (B,): where, from their middles outwards (B, 2, S, S)
    in its radii, what is `seen` (B, 1, S, S) of portraits (B, 3, S, S) becomes lighter most. The network knows real
    eyes; rendered and painted ones have larger irises, and their edges counted as white."""
    scales = torch.linspace(*IRIS_SCALES, device=far.device)
    shown = _shown(seen)
    seen, light = (values.flatten(1)[:, None, None, shown] for values in (seen, portraits.mean(1)))
    far = far.flatten(2)[:, :, None, shown]  # (B, 2, 1, N)

    def ring(where: Tensor) -> tuple[Tensor, Tensor]:  # (B, 2, K): how light it is, and of how many pixels that is
        weight = seen * torch.exp(-(((far - where[:, None]) / RING) ** 2))
        total = weight.sum(3)
        return (weight * light).sum(3) / total.clamp_min(1e-6), total

    (inside, _), (outside, known) = ring(scales - RING), ring(scales + RING)
    gain = ((outside - inside) * (known > 1)).mean(1) * torch.exp(-(((scales - IRIS) / LIKELY) ** 2))
    best, index = gain.max(1)
    return torch.where(best > CLEAR, scales[index], IRIS)


def _extreme(cuts: Tensor, where: Tensor, lightest: bool) -> Tensor:
    """The mean colour of the lightest or the darkest fifth of cuts (B, 2, 3, h, w) where (B, 2, 1, h, w) is 1: whites,
    or lashes: (B, 2, 3, 1, 1)."""
    away = 10 * (1 - where[:, :, 0])
    light = (cuts.mean(2) + (-away if lightest else away)).flatten(2)  # (B, 2, P)
    count = max(1, round(float(where.sum(dim=(2, 3, 4)).mean()) / 5))
    chosen = light.topk(min(count, light.shape[2]), largest=lightest).indices
    return cuts.flatten(3).gather(3, chosen[:, :, None].expand(-1, -1, 3, -1)).mean(3)[..., None, None]


def _white(cuts: Tensor, where: Tensor) -> Tensor:
    """The colour of the whites in cuts (B, 2, 3, h, w) that show them where (B, 2, 1, h, w) is 1: (B, 2, 3, 1, 1)."""
    light = _extreme(cuts, where, lightest=True)
    lighter = light.gather(1, light.mean(2, keepdim=True).argmax(1, keepdim=True).expand_as(light[:, :1]))
    light = torch.lerp(light, lighter, ALIKE)
    return torch.lerp(light, light.mean(2, keepdim=True), GREYER)


def _grown(discs: Tensor, reach: int) -> Tensor:
    """Where irises (B, 2, 1, h, w) are, in 0..1, and so many pixels beside them, less and less."""
    wide = F.max_pool2d(discs.flatten(0, 1), 2 * reach + 1, 1, reach)
    return F.avg_pool2d(F.pad(wide, [reach] * 4, mode="replicate"), 2 * reach + 1, 1).view_as(discs)


def _moved(images: Tensor, move: Tensor) -> Tensor:
    """Cuts (B, 2, C, h, w) moved by `move` (B, 2) pixels, right and down."""
    height, width = images.shape[-2:]
    back = (-2 * move / move.new_tensor([width, height])).repeat_interleave(2, 0)[..., None]
    affine = torch.cat([torch.eye(2, device=move.device, dtype=move.dtype).expand(len(back), 2, 2), back], dim=2)
    flat = images.flatten(0, 1)
    grid = F.affine_grid(affine, [len(flat), flat.shape[1], height, width], False)
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=False).view_as(images)
