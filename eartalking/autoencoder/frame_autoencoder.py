"""Frame autoencoder relative to a portrait: one frame <-> a small grid of motion latents.

Latents are a fixed linear code of motion (`MotionCode`): what the face does, in coordinates of unit spread, spread over
the grid. The encoder reads the frame's code from pixels. The decoder has the portrait's feature pyramid and the
portrait's own code (both computed once per stream), corrects the warp that follows from the portrait's surface
(`eartalking.autoencoder.surface`), and blends the warped portrait with what it paints itself. Texture and identity
therefore come from the portrait.

Nothing is convolved at full resolution: a pixel-unshuffle stem goes in, a pixel-shuffle comes out.

Notation: B batch, H W pixels, h w grid of a level, C latent channels, N = latent_grid² tokens. Images are in [-1, 1].
A warp is a displacement in normalised coordinates: position (x, y) in [-1, 1] of the output is sampled from the
portrait at (x, y) + warp (`grid_sample`, align_corners=False).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eartalking.autoencoder.canvas import Canvas
from eartalking.autoencoder.decoder import Decoded, FrameDecoder, Geometry
from eartalking.autoencoder.eyes import Eyes, with_still_lids
from eartalking.autoencoder.inner_mouth import InnerMouth
from eartalking.autoencoder.lids import fit_lids, held, narrowness, released
from eartalking.autoencoder.lips import LipPlaces, Lips, fit_lips, with_teeth
from eartalking.autoencoder.matte import find_matte, with_matte
from eartalking.autoencoder.motion_fit import fit_motion
from eartalking.autoencoder.part_refiner import PartRefiner
from eartalking.autoencoder.reference import Reference, ReferenceEncoder
from eartalking.autoencoder.shading import ShadingEncoder
from eartalking.autoencoder.stand import fit_stand
from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields, background_plate
from eartalking.config import AutoencoderConfig
from eartalking.modules.res_block import upsample
from eartalking.motion.code import MotionCode
from eartalking.perception.face_marks import NUM_MARKS, read_marks
from eartalking.perception.frame_encoder import FrameEncoder


class FrameAutoencoder(nn.Module):
    """Encoder, reference encoder and decoder, with the code and the latents' statistics as buffers of the checkpoint.

    `encode` returns and `decode` takes *normalised* latents as tokens (B, N, C): zero mean and unit variance per token
    and channel over the training set, once `latent_mean` and `latent_std` have been measured.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.code = MotionCode(config)
        self.encoder = FrameEncoder(config)
        self.reference_encoder = ReferenceEncoder(config)
        self.surface = SurfaceEncoder(config)
        self.shading = ShadingEncoder()
        self.decoder = FrameDecoder(config)
        self.refiner = PartRefiner(config)

    @torch.no_grad()
    def encode(self, frame: Tensor, reference: Reference) -> Tensor:
        """Frames (B, 3, H, W) of people whose portraits are given -> normalised latents (B, N, C): read, then fitted to
        the pixels.
        """
        read = self.encoder(frame, reference.image).float()
        if reference.lips is not None:
            read = self._by_marks(read, reference.lips, read_marks(frame), portraits=False)
        fitted = fit_motion(
            self.surface,
            reference.surface,
            reference.home,
            self.code.coordinates_to_motion,
            frame,
            reference.image,
            read,
            self.encoder.error,
        )
        return self.code.coordinates_to_latents(fitted)

    def reference(self, portrait: Tensor, marks: Tensor | None = None, known: Tensor | None = None) -> Reference:
        """Portrait (B, 3, H, W) -> what decoding needs of it, once per stream. `marks`, where they have been read;
        `known`, its own latents (B, N, C) where they need not be read."""
        look = self.encoder.look(portrait)
        read, landmarks = self.encoder.read(look, look).float(), look.landmarks.float()
        marks = read_marks(portrait) if marks is None else marks
        surface = self.surface(portrait, marks)
        lips = Lips.of(surface, marks, portrait) if marks.any() else None
        matte = None if lips is None else find_matte(portrait, surface.cover)
        own = read if lips is None else self._by_marks(read, lips, marks, portraits=True)
        own = own if known is None else self.code.latents_to_coordinates(known)
        still = with_still_lids(surface, marks)
        reference = self._reference(portrait, own, landmarks, still, lips, matte)
        if lips is None:
            return reference
        mouth = InnerMouth.of(self.surface, lips, portrait, marks, reference.motion)
        shading = self.shading(self.surface, portrait, surface, reference.motion)
        return reference._replace(mouth=mouth, eyes=Eyes.of(portrait, marks), shading=shading)

    def reference_of(
        self, portrait: Tensor, latents: Tensor, landmarks: Tensor, marks: Tensor | None = None
    ) -> Reference:
        """The same for portraits whose latents, landmarks and, if their lips shall count, marks are known; their eyes
        and mouths are left to the networks, which learn on such references."""
        marks = portrait.new_zeros(len(portrait), NUM_MARKS, 3) if marks is None else marks
        surface, own = self.surface(portrait, marks), self.code.latents_to_coordinates(latents)
        lips = Lips.of(surface, marks, portrait) if marks.any() else None
        return self._reference(portrait, own, landmarks, surface, lips)

    def _by_marks(self, read: Tensor, lips: Lips, marks: Tensor, portraits: bool) -> Tensor:
        """What was read (B, L) of frames, or of `portraits`, with pose, lips and lids as their marks (B, K, 3) say."""
        stands = fit_stand(marks, self.code.coordinates_to_motion(read), portraits)
        standing = self.code.motion_to_coordinates(stands)
        read = fit_lips(self.surface, lips.red, marks, self.code, standing, self.encoder.error)
        motion = self.code.coordinates_to_motion(read)
        fitted = fit_lids(marks, motion)
        return read if fitted is motion else self.code.motion_to_coordinates(fitted)

    def possible(self, latents: Tensor, reference: Reference) -> Tensor:
        """What the portrait can show of latents (B, N, C): eyes that it shows shut do not open."""
        if not reference.narrow.any():
            return latents
        return self.code.motion_to_latents(held(self.code.latents_to_motion(latents), reference.narrow))

    def resting(self, reference: Reference) -> Tensor:
        """The latents (B, N, C) of which the portrait itself is what it can show."""
        if not reference.narrow.any():
            return reference.latents
        return self.code.motion_to_latents(released(reference.motion, reference.narrow))

    def _reference(
        self,
        portrait: Tensor,
        own: Tensor,
        landmarks: Tensor,
        surface: SurfaceFields,
        lips: Lips | None,
        matte: Tensor | None = None,
    ) -> Reference:
        """What is made of portraits (B, 3, H, W) once they are read; without `matte` (B, 1, H, W) the surface says what
        is person."""
        if matte is None:
            matte = upsample(surface.cover, portrait.shape[-1] // surface.cover.shape[-1])
        else:
            surface = with_matte(surface, matte)
        if lips is not None:
            surface = with_teeth(surface, lips.between)
        plate = background_plate(portrait, surface.cover)
        latents = self.code.coordinates_to_latents(own)
        motion = self.code.latents_to_motion(latents)
        return Reference(
            portrait,
            self.reference_encoder(portrait),
            surface,
            self.surface.home(surface, motion),
            self.surface.pixels(surface, motion),
            torch.cat([portrait, matte], dim=1),
            plate,
            latents,
            motion,
            landmarks,
            narrowness(motion),
            lips,
        )

    def decode(self, latents: Tensor, reference: Reference) -> Decoded:
        """Normalised latents (B, N, C) on portraits -> Decoded, eyes and mouth refined."""
        return self.draw(self.geometry(latents, reference), latents, reference)

    def draw(self, geometry: Geometry, latents: Tensor, reference: Reference, canvas: Canvas | None = None) -> Decoded:
        """The part of `decode` that makes the pixels; with a canvas, its image is the canvas's."""
        geometry = geometry if canvas is None else canvas.hold(geometry)
        motion, own = self.code.latents_to_motion(latents), reference.motion
        lips = self._lip_places(motion, reference)
        decoded = self._painted(geometry, motion, lips, reference)
        image = self._with_parts(decoded.image, latents, reference)
        if reference.lips is not None and reference.mouth is not None and lips is not None:
            image = reference.mouth.drawn(image, decoded.warped, reference.image, reference.lips, lips, geometry.warp)
        if canvas is not None:
            image = canvas.draw(self.surface, geometry, decoded, image, motion, own, lips)
        return decoded._replace(image=image)

    def _with_parts(self, image: Tensor, latents: Tensor, reference: Reference) -> Tensor:
        """Frames (B, 3, H, W) with eyes and mouth refined, where no marks say how they look."""
        if reference.eyes is not None and reference.eyes.known.all():
            return image
        motion, own = self.code.latents_to_coordinates(latents), self.code.latents_to_coordinates(reference.latents)
        refined = self.refiner(image, reference.image, motion, own, reference.landmarks)
        return refined if reference.eyes is None else torch.where(reference.eyes.known[..., None, None], image, refined)

    def paint(self, geometry: Geometry, latents: Tensor, reference: Reference) -> Decoded:
        """The same before eyes and mouth are refined."""
        motion = self.code.latents_to_motion(latents)
        return self._painted(geometry, motion, self._lip_places(motion, reference), reference)

    def _lip_places(self, motion: Tensor, reference: Reference) -> LipPlaces | None:
        """Under motion vectors (B, L); none of portraits without marks."""
        return None if reference.lips is None else reference.lips.places(self.surface, motion, reference.motion)

    def _painted(self, geometry: Geometry, motion: Tensor, lips: LipPlaces | None, reference: Reference) -> Decoded:
        person = reference.person
        if reference.lips is not None and lips is not None:
            person = reference.lips.closing_over(person, lips)
        if reference.eyes is not None:
            person = reference.eyes.drawn(person, motion, reference.motion)
        if reference.shading is not None:
            person = reference.shading.drawn(self.surface, person, motion)
        return self.decoder.paint(geometry, reference._replace(person=person))

    def geometry(self, latents: Tensor, reference: Reference) -> Geometry:
        """The part of `decode` that makes no pixels yet. Eyes that are drawn in the portrait are only carried along."""
        motion, own = self.code.latents_to_motion(latents), reference.motion
        if reference.eyes is not None:
            motion = reference.eyes.held(motion, own)
        base, finer = self.surface.bases(reference.moved, motion)
        motion, own = self.code.motion_to_coordinates(motion), self.code.motion_to_coordinates(own)
        return self.decoder.geometry(motion, own, reference.pyramid, base, finer)
