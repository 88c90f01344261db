"""Portrait reader: what a face does in a portrait, and where its eyes and mouth are, from the marks of its face.

The frame encoder reads pixels, and has seen nothing but rendered ones: of a photograph's open mouth it saw a third.
The marks come from networks that know real faces. A small network turns them into coordinates of the motion code; it
learns on rendered heads (`eartalking.training.portrait_reader`). Notation: B batch, K marks, L coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.config import AutoencoderConfig
from eartalking.perception.face_marks import NUM_MARKS, OPENING, eye_marks
from eartalking.perception.face_mesh import LEFT_EYE_OUTER, NUM_POINTS, RIGHT_EYE_OUTER
from eartalking.perception.mesh_readings import EYE_CORNERS

COMPONENTS = 96  # of all faces' marks, the largest principal ones
WIDTH = 256
DROPOUT = 0.2  # while it learns: a few thousand heads are few for so many marks
# Pairs of marks whose distances say what lips, lids and brows do: inner lips (five pairs), outer lips, the mouth's
# corners, its corners and the eyes' outer ones, lids, brows and lids, nose and upper lip, chin and lower lip.
PAIRS = (
    (13, 14), (82, 87), (312, 317), (80, 88), (310, 318), (0, 17), (61, 291), (61, 33), (291, 263),
    (159, 145), (386, 374), (105, 159), (334, 386), (107, 55), (336, 285), (2, 0), (152, 17), (61, 2), (291, 2),
)  # fmt: skip
LIDS = ((3, 13), (4, 12), (5, 11))  # of an eye's outline, lower and upper
NUM_MEASURES = len(PAIRS) + 2 * (len(LIDS) + 2)
PLACE = 7  # middle, size, and the directions in which the face looks


class Reading(NamedTuple):
    """coordinates (B, L) of the motion code; landmarks (B, 3, 2) in fractions of the crop: the eye on the picture's
    left, the other eye, the mouth."""

    coordinates: Tensor
    landmarks: Tensor


class PortraitReader(nn.Module):
    """Marks (B, K, 3) -> Reading. `trust` (L,) in 0..1: how much each coordinate counts beside what the frame encoder
    reads; 0 in a new reader. `error` (L,): how far off it usually is. Both are measured at the end of training."""

    mean: Tensor
    components: Tensor
    scale: Tensor
    middle: Tensor
    spread: Tensor
    trust: Tensor
    error: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3 * NUM_MARKS))
        self.register_buffer("components", torch.zeros(3 * NUM_MARKS, COMPONENTS))
        self.register_buffer("scale", torch.ones(COMPONENTS))
        self.register_buffer("middle", torch.zeros(NUM_MEASURES + PLACE))
        self.register_buffer("spread", torch.ones(NUM_MEASURES + PLACE))
        self.register_buffer("trust", torch.zeros(config.motion_size))
        self.register_buffer("error", torch.ones(config.motion_size))
        self.layers = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(COMPONENTS + NUM_MEASURES + PLACE, WIDTH), nn.GELU(), nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(DROPOUT),
        )  # fmt: skip
        self.to_coordinates = nn.Linear(WIDTH, config.motion_size)
        self.to_landmarks = nn.Linear(WIDTH, 6)

    def forward(self, marks: Tensor) -> Reading:
        shape, place = normalised(marks)
        whitened = (shape - self.mean) @ self.components / self.scale
        known = torch.cat([measures(marks), place], dim=1)
        hidden = self.layers(torch.cat([whitened, (known - self.middle) / self.spread], dim=1))
        middle, size = place[:, None, :2], place[:, None, 2:3]
        return Reading(self.to_coordinates(hidden), middle + size * self.to_landmarks(hidden).unflatten(1, (3, 2)))

    def combined(self, marks: Tensor, coordinates: Tensor, landmarks: Tensor) -> Reading:
        """What the frame encoder read, coordinates (B, L) and landmarks (B, 3, 2), corrected where there are marks."""
        seen = (marks.abs().amax((1, 2)) > 0) & bool(self.trust.any())
        found = self(marks)
        share = seen[:, None] * self.trust
        return Reading(
            torch.lerp(coordinates, found.coordinates, share),
            torch.where(seen[:, None, None], found.landmarks, landmarks),
        )

    @torch.no_grad()
    def measure(self, marks: Tensor) -> None:
        """Take mean, components and spreads from many faces' marks (M, K, 3); at least two."""
        shape, place = normalised(marks)
        self.mean.copy_(shape.mean(0))
        few = min(COMPONENTS, len(marks))
        _, _, components = torch.pca_lowrank(shape - self.mean, q=few, center=False, niter=4)
        self.components[:, :few] = components
        self.scale[:few] = ((shape - self.mean) @ components).std(0).clamp_min(1e-4)
        known = torch.cat([measures(marks), place], dim=1)
        self.middle.copy_(known.mean(0))
        self.spread.copy_(known.std(0).clamp_min(1e-4))


def normalised(marks: Tensor) -> tuple[Tensor, Tensor]:
    """Marks (B, K, 3) -> their shape (B, 3 K), around their middle and of unit size, and their place (B, PLACE)."""
    mesh = marks[:, :NUM_POINTS]
    middle = mesh.mean(1, keepdim=True)
    size = (mesh - middle).square().sum(2).mean(1).sqrt()[:, None, None].clamp_min(1e-6)
    shape = (marks - middle) / size
    # The depth of an eye has another origin than the mesh's.
    eyes = shape[:, NUM_POINTS:].clone()
    eyes[..., 2] = 0
    shape = torch.cat([shape[:, :NUM_POINTS], eyes], dim=1)
    across = F.normalize(mesh[:, LEFT_EYE_OUTER] - mesh[:, RIGHT_EYE_OUTER] + 1e-9, dim=1)
    place = torch.cat([middle[:, 0, :2], size[:, 0], across, (mesh[:, 1] - middle[:, 0])[:, 2:] / size[:, 0]], dim=1)
    return shape.flatten(1), place


def measures(marks: Tensor) -> Tensor:
    """Distances and ratios (B, NUM_MEASURES) in units of the distance of the eyes."""
    mesh = marks[:, :NUM_POINTS]
    unit = (mesh[:, LEFT_EYE_OUTER] - mesh[:, RIGHT_EYE_OUTER]).norm(dim=1).clamp_min(1e-6)[:, None]
    start, end = (mesh[:, [pair[side] for pair in PAIRS]] for side in (0, 1))
    found = [(start - end).norm(dim=2) / unit]
    for eye in (0, 1):
        points = marks[:, eye_marks(eye), :2]
        across = points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]]
        width = across.norm(dim=1, keepdim=True).clamp_min(1e-6)
        lower, upper = (points[:, [pair[side] for pair in LIDS]] for side in (0, 1))
        aside = points[:, OPENING] - (points[:, EYE_CORNERS[0]] + points[:, EYE_CORNERS[1]]) / 2
        along = (aside * across).sum(1, keepdim=True) / width.square()
        below = (across[:, :1] * aside[:, 1:] - across[:, 1:] * aside[:, :1]) / width.square()
        found += [(lower - upper).norm(dim=2) / width, along, below]
    return torch.cat(found, dim=1)
