"""Frame encoder: what a face does in a frame, read from the frame and from the portrait of the same person.

Both are looked at by the same trunks (perception.face_parts), so a stream looks at its portrait once; a small head
compares the two. Notation: B batch, H W pixels, F features of a look, L coordinates of the motion code. Images are in
[-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from eartalking.config import AutoencoderConfig
from eartalking.perception.face_parts import (
    LANDMARKS,
    PART_FEATURES,
    WHOLE_FEATURES,
    FaceTrunks,
    cut_parts,
    cut_whole,
    everywhere,
    from_whole,
    placed,
)


class Look(NamedTuple):
    """What was seen of faces: features (B, F), and landmarks (B, 3, 2) in fractions of the frame, right and down: the
    eye on the picture's left, the other eye, the mouth."""

    features: Tensor
    landmarks: Tensor


class FrameEncoder(FaceTrunks):
    """(frame, portrait) -> coordinates of the motion code (B, L). `error` (L,) is how far off they usually are,
    measured at the end of training on people that it has not seen."""

    error: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config.encoder_widths)
        self.register_buffer("error", torch.ones(config.motion_size))
        features = WHOLE_FEATURES + 5 * PART_FEATURES + 2 * len(LANDMARKS)
        self.compare = nn.Sequential(
            nn.Linear(2 * features, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, config.motion_size)
        )

    def forward(self, frame: Tensor, portrait: Tensor) -> Tensor:
        """Frames and portraits (B, 3, H, W) -> coordinates (B, L)."""
        return self.read(self.look(frame), self.look(portrait))

    def look(self, images: Tensor) -> Look:
        """Images (B, 3, H, W) -> what their faces show."""
        images = (images + 1) / 2
        whole, landmarks = self.locate(cut_whole(images))
        landmarks = from_whole(landmarks, everywhere(images))
        return self.look_closer(whole, landmarks, *cut_parts(images, landmarks))

    def look_closer(self, whole: Tensor, landmarks: Tensor, eyes: Tensor, irises: Tensor, mouth: Tensor) -> Look:
        """`locate`'s features, landmarks in fractions of the frame and what `cut_parts` cut there -> the whole look."""
        return Look(torch.cat([whole, *self.look_at_parts(eyes, irises, mouth), placed(landmarks)], dim=1), landmarks)

    def read(self, frame: Look, portrait: Look) -> Tensor:
        """Coordinates (B, L) of frames, given their portraits."""
        return self.compare(torch.cat([frame.features, portrait.features], dim=1))
