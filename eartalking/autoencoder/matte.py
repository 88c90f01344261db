"""Which pixels of a portrait show its person, where a network that knows photographs says so.

The surface encoder has seen nothing but renders: of photographs it leaves out hair, hats and collars, which then stand
still behind a head that moves. A segmentation network finds them; the surface encoder knows better where that one
hesitates, and which of several people is meant: what is far from the surface belongs to somebody else. What is added to
the surface moves as what is next to it.

Notation: B batch, H pixels of a portrait a side, S pixels of the surface's maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.surface import SurfaceFields, continued
from eartalking.modules.curves import smoothstep
from eartalking.modules.pixels import to_uint8
from eartalking.modules.res_block import upsample
from eartalking.perception.person_matte import person_matte
from eartalking.perception.turned_square import Picture, TurnedSquare

REACH = 0.08  # of the portrait's side: how far from the surface the network is still believed
INSIDE = 0.03  # likewise: so far inside the surface is the person, whatever the network says
NOTHING, ALL = 0.15, 0.85  # of the network's matte: what is nobody, and what is all person


def find_matte(portraits: Tensor, cover: Tensor) -> Tensor:
    """Portraits (B, 3, H, W) in [-1, 1] and the cover (B, 1, S, S) of their surfaces -> mattes (B, 1, H, W) in 0..1."""
    size = portraits.shape[-1]
    square = TurnedSquare(size / 2, size / 2, size)
    found = [
        torch.from_numpy(person_matte(Picture(image), square, size)) for image in to_uint8(portraits).cpu().numpy()
    ]
    matte = torch.stack(found)[:, None].to(portraits.device)
    sure = smoothstep((matte - NOTHING) / (ALL - NOTHING))
    cover_here = upsample(cover, size // cover.shape[-1])
    hesitates = (1.5 * (1 - (2 * matte - 1).abs())).clamp(0, 1)
    joined = sure + hesitates * (cover_here - sure).clamp_min(0)
    near, inside = (upsample(value, size // cover.shape[-1]) for value in _near_and_inside(cover))
    return torch.maximum(joined * near, cover_here * inside)


def _near_and_inside(cover: Tensor) -> tuple[Tensor, Tensor]:
    """Where is the surface, or what is near it, and what is well inside it: (B, 1, S, S) in 0..1 each."""
    there, size = (cover > 0.5).float(), cover.shape[-1]
    reach, depth = round(REACH * size), round(INSIDE * size)
    near, inside = _grown(there, reach), 1 - _grown(1 - there, depth)
    return tuple(F.avg_pool2d(value, 7, 1, 3, count_include_pad=False) for value in (near, inside))


def _grown(there: Tensor, reach: int) -> Tensor:
    """(B, 1, S, S) of 0 and 1, where 1 within `reach` pixels across and down, too; rows first, then columns."""
    rows = F.max_pool2d(there, (1, 2 * reach + 1), 1, (0, reach))
    return F.max_pool2d(rows, (2 * reach + 1, 1), 1, (reach, 0))


def with_matte(surface: SurfaceFields, matte: Tensor) -> SurfaceFields:
    """The surface of the pixels that mattes (B, 1, H, W) say."""
    cover = F.adaptive_avg_pool2d(matte, surface.cover.shape[-1])
    known = surface.cover.square()
    added = surface.cover < 0.5

    def carried_on(values: Tensor) -> Tensor:
        return torch.where(added, continued(values, known), values)

    return surface.at(carried_on)._replace(cover=cover)
