"""The square that frames are drawn on, where it is not the model's own: larger, still at its edges, or with another
background.

The model moves a crop of `image_size` pixels. Its warp says where each place goes, at any size: so a larger cut of the
same portrait is moved by it and keeps its own detail, and only what is painted comes from the smaller frame.

Notation: B batch, S pixels a side of the canvas, H of the model's frame, h map pixels of the warp. Images are in
[-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eartalking.autoencoder.decoder import Decoded, Geometry, warped_over
from eartalking.autoencoder.eyes import Eyes
from eartalking.autoencoder.inner_mouth import InnerMouth
from eartalking.autoencoder.lips import LipPlaces, Lips
from eartalking.autoencoder.reference import Reference
from eartalking.autoencoder.shading import Shading
from eartalking.autoencoder.surface import SurfaceEncoder, background_plate
from eartalking.modules.res_block import upsample
from eartalking.perception.person_matte import along_edges

REDRAWN = 0.25  # by how much the part refiner changes a pixel until nothing of the portrait's own detail is left there
LEAST_OPAQUE = 0.05  # below it, what is left of the person's colour is noise


class Canvas(NamedTuple):
    """person (B, 3 + M, S, S), the portrait at the canvas's size with its mattes: the person's that moves and, where
    the background goes, the one that cuts out; plate (B, 3, S, S), the background without the person; the portrait's
    lips and eyes at this size, what lies between the lips, and the light; background (B, 3, S, S), what is shown in
    its place, if anything; moving (B, 1, h, h) in 0..1, the share of the movement that is kept, 0 at edges that
    shall stay."""

    person: Tensor
    plate: Tensor
    lips: Lips | None
    mouth: InnerMouth | None
    eyes: Eyes | None
    shading: Shading | None
    background: Tensor | None
    moving: Tensor | None

    @classmethod
    def of(
        cls,
        reference: Reference,
        portrait: Tensor,
        matte: Tensor | None = None,
        background: Tensor | None = None,
        moving: Tensor | None = None,
    ) -> Canvas:
        """`portrait` (B, 3, S, S) is what `reference` shows, S a multiple of its size. With the person's `matte`
        (B, 1, S, S) in 0..1 its background goes, and `background`, if there is one, takes its place.
        """
        cover = reference.surface.cover
        own = reference.person[:, 3:]
        if portrait.shape[-1] > own.shape[-1]:
            own = along_edges(own, (reference.image + 1) / 2, (portrait + 1) / 2)
        mattes = [own]
        if matte is not None:
            mattes.append(matte)
            # What the finer matte calls person is filled, too: its edge is to be seen against the new background.
            cover = torch.maximum(cover, F.adaptive_max_pool2d((matte > 0.02).float(), cover.shape[-1]))
        plate = background_plate(portrait, cover)
        lips = None if reference.lips is None else reference.lips.in_picture(portrait)
        eyes = None if reference.eyes is None else Eyes.of(portrait, reference.eyes.marks)
        person = torch.cat([portrait, *mattes], dim=1)
        return cls(person, plate, lips, reference.mouth, eyes, reference.shading, background, moving)

    def hold(self, geometry: Geometry) -> Geometry:
        """The geometry with movement fading towards the edges that stay."""
        if self.moving is None:
            return geometry
        return geometry._replace(warp=geometry.warp * self.moving)

    def draw(
        self,
        surface: SurfaceEncoder,
        geometry: Geometry,
        decoded: Decoded,
        refined: Tensor,
        motion: Tensor,
        own: Tensor,
        places: LipPlaces | None,
    ) -> Tensor:
        """The frame (B, 3, S, S); where no background takes the old one's place, with its opacity, in [-1, 1], too:
        (B, 4, S, S). `decoded` is by `geometry` under motion vectors (B, L), the portrait's are `own` (B, L); `refined`
        (B, 3, H, H) is its image once eyes and mouth were drawn again; `places` are those of its lips.
        """
        factor = self.plate.shape[-1] // refined.shape[-1]
        if factor == 1 and self.person.shape[1] == 4:
            return refined  # nothing is finer than the model's frame
        lips = None if self.lips is None or places is None else (self.lips, places)
        person = self.person if lips is None else lips[0].closing_over(self.person, lips[1])
        person = person if self.eyes is None else self.eyes.drawn(person, motion, own)
        person = person if self.shading is None else self.shading.drawn(surface, person, motion)
        warped, mattes = warped_over(geometry, person, self.plate)
        image = refined if factor == 1 else _with_detail(decoded, refined, warped, factor)
        if factor > 1 and lips is not None and self.mouth is not None:
            image = self.mouth.drawn(image, warped, self.person[:, :3], *lips, geometry.warp)
        if mattes.shape[1] == 1:
            return image
        # Of the old background as much is taken away as the person lets through, and so much of the new one added.
        opaque = mattes[:, 1:]
        if self.background is not None:
            return image + (1 - opaque) * (self.background - self.plate)
        colour = (image - (1 - opaque) * self.plate) / opaque.clamp_min(LEAST_OPAQUE)
        return torch.cat([colour.clamp(-1, 1), 2 * opaque - 1], dim=1)


def _with_detail(decoded: Decoded, refined: Tensor, warped: Tensor, factor: int) -> Tensor:
    """The refined frame, enlarged, with what `warped` (B, 3, S, S) shows beyond it; but not where eyes or mouth were
    redrawn: a shut lid has none of the open eye's lashes."""
    change = upsample(refined - decoded.image, factor)
    own = (1 - change.abs().amax(1, keepdim=True) / REDRAWN).clamp(0, 1)
    blend = upsample(decoded.blend, factor)
    sharp = torch.lerp(upsample(decoded.painted, factor), warped, blend)
    smooth = upsample(decoded.image, factor)
    return smooth + change + own * (sharp - smooth)
