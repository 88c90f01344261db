"""How the light on a portrait changes when what it falls on turns or bends.

A warp carries the portrait's light along: a head that turns away from a window stays bright. But the surface says which
way each place faces, before and after, and the portrait how bright places are that face this way or that. Light from
far away that falls on dull skin is a smooth function of the direction that a place faces, nine numbers per colour
(Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment maps", 2001; the logarithm here, and
alike in all colours, which loses a fortieth of what it explains). They are fitted to the portrait's own pixels; as
skin, hair and clothes are bright or dark by themselves, too, the fit exaggerates, and what of it is light was learnt,
linearly, from rendered heads. Only the difference from the portrait is drawn: a face that does as in the portrait is
the portrait's, to the pixel.

Notation: B batch, S map pixels a side of the surface, G of the light's grid, L columns of a motion vector. Images are
in [-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields
from eartalking.modules.res_block import upsample
from eartalking.modules.vectors import lengths
from eartalking.modules.warp import identity_grid

COARSER = 2  # pixels of the surface in a side of the light's cells
HARMONICS = 8  # of the directions, without the constant one
FITS = 2  # to the whole person, and to the middle of the crop, where the face is
# Of the crop, in [-1, 1]: where a face is, and how far it reaches.
FACE, FACE_REACH = (0.0, -0.06), (0.28, 0.34)
ROUNDS, UNLIKE = 3, 0.15  # of the fits; places so far from a round's fit, in logarithms, count half in the next one
RIDGE = 1e-2
STEEPEST = 3.0  # of what is fitted
MOST = 0.7  # of the change, in logarithms: light doubles, or halves, and no more
DARK = 0.03  # of full brightness: what black reflects
LEAST = 1e-3  # of the change: less is none


class Shading(NamedTuple):
    """What is kept of portraits' light: the surface on the light's grid; its harmonics where it faces in the portrait
    (B, HARMONICS, G, G); and the light, coefficients of these (B, HARMONICS)."""

    fields: SurfaceFields
    own: Tensor
    light: Tensor

    def drawn(self, surface: SurfaceEncoder, portraits: Tensor, motion: Tensor) -> Tensor:
        """Portraits (B, C, H, W), the first three channels their colours, in the light that falls on them under motion
        vectors (B, L); nothing has moved yet."""
        change = harmonics(facing(surface, self.fields, motion)) - self.own
        brighter = (self.light[:, None] @ change.flatten(2)).view_as(self.fields.cover) * self.fields.cover
        if brighter.abs().amax() < LEAST:
            return portraits
        brighter = F.avg_pool2d(brighter, 3, 1, 1).clamp(-MOST, MOST)
        gain = upsample(brighter.exp(), portraits.shape[-1] // brighter.shape[-1])
        black = -1 - 2 * DARK
        lit = torch.lerp(portraits.new_tensor(black), portraits[:, :3], gain)
        return torch.cat([lit, portraits[:, 3:]], dim=1)


class ShadingEncoder(nn.Module):
    """Portraits and their surface -> Shading. `light` (FITS * HARMONICS, HARMONICS) and `average` (HARMONICS,): the
    light of a portrait by what was fitted to it (`training.shading`); zero, and nothing is drawn, before they were
    measured."""

    light: Tensor
    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("light", torch.zeros(FITS * HARMONICS, HARMONICS))
        self.register_buffer("average", torch.zeros(HARMONICS))

    def forward(self, surface: SurfaceEncoder, portraits: Tensor, fields: SurfaceFields, motion: Tensor) -> Shading:
        """Portraits (B, 3, H, W) that do as motion vectors (B, L) say, with their surface."""
        with torch.autocast(motion.device.type, enabled=False):  # nothing is solved in eight bits
            coarse = coarser(fields)
            own = harmonics(facing(surface, coarse, motion))
            fitted = fits(portraits.float(), coarse.cover, own)
            return Shading(coarse, own, fitted @ self.light + self.average)


def coarser(fields: SurfaceFields) -> SurfaceFields:
    """The surface on the light's grid: means of what shows the person."""
    cover = F.avg_pool2d(fields.cover, COARSER)
    weighed = fields.at(lambda maps: F.avg_pool2d(maps * fields.cover, COARSER) / cover.clamp_min(1e-3))
    return weighed._replace(cover=cover)


def facing(surface: SurfaceEncoder, fields: SurfaceFields, motion: Tensor) -> Tensor:
    """Which way the surface faces under motion vectors (B, L): unit vectors (B, 3, G, G) in the camera's axes."""
    size = fields.cover.shape[-2:]
    points = surface.posed(fields, surface.moved(fields, motion), motion).unflatten(2, size)
    points = F.pad(points, (1, 1, 1, 1), mode="replicate")
    across = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    down = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    normals = torch.linalg.cross(down, across, dim=1)
    return normals / lengths(normals).clamp_min(1e-9)


def harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of first and second degree, without their factors, of unit vectors (B, 3, G, G):
    (B, HARMONICS, G, G)."""
    x, y, z = directions.unbind(1)
    return torch.stack([x, y, z, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], dim=1)


def brightness(pictures: Tensor) -> Tensor:
    """Logarithms of how bright pictures (B, 3, ...) in [-1, 1] are: (B, ...)."""
    return ((pictures + 1) / 2 + DARK).log().mean(1)


def fits(portraits: Tensor, cover: Tensor, own: Tensor) -> Tensor:
    """How the brightness of portraits (B, 3, H, W) goes with the harmonics `own` (B, HARMONICS, G, G) of where they
    face, over what shows the person (B, 1, G, G), and over the face: (B, FITS * HARMONICS)."""
    size = cover.shape[-1]
    seen = brightness(F.adaptive_avg_pool2d(portraits, size)).flatten(1)
    away = (identity_grid(size, cover.device) - cover.new_tensor(FACE)) / cover.new_tensor(FACE_REACH)
    face = torch.exp(-away.square().sum(-1))  # (1, G, G)
    terms = torch.cat([torch.ones_like(cover), own], dim=1).flatten(2)  # (B, 1 + HARMONICS, M)
    ridge = RIDGE * torch.eye(len(terms[0]), device=cover.device)
    ridge[0, 0] = 1e-6  # of a face of which nothing is seen, too, there is an answer
    found = []
    for where in (cover[:, 0], cover[:, 0] * face):
        shares = where.flatten(1) / where.flatten(1).sum(1, keepdim=True).clamp_min(1e-3)
        counts = shares
        for _ in range(ROUNDS):
            normal = torch.einsum("bkm,blm,bm->bkl", terms, terms, counts) + ridge
            fitted = torch.linalg.solve(normal, torch.einsum("bkm,bm->bk", terms, seen * counts))
            beside = torch.einsum("bk,bkm->bm", fitted, terms) - seen
            counts = shares / (1 + (beside / UNLIKE).square())
        found.append(fitted[:, 1:].clamp(-STEEPEST, STEEPEST))
    return torch.cat(found, dim=1)
