"""A face in parts: where its eyes and mouth are, and features of the whole face and of the parts.

A frame is looked at twice: at the whole face in half resolution, which gives the pose and where the eyes and the mouth
are; then at these, upright and at full resolution. A gaze of five degrees moves an iris by one pixel. Sizes are in
pixels of the pictures that are cut out; an image is best 256 pixels wide, and may have any size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANDMARKS = ("eye on the picture's left", "eye on the picture's right", "mouth")
WHOLE_SIZE, EYE_SIZE, IRIS_SIZE, MOUTH_SIZE = 96, 48, 40, 56
# The part of the frame that faces reach in every pose, as fractions of its side: centre across, centre down, side.
WHOLE = (0.5, 0.55, 0.75)
# Sides of the squares around an eye and its brow, the opening of an eye, and nose, mouth and chin, and how far these
# are moved up; in units of the face: the distance between the eyes and that from between them to the mouth, added.
EYE_SIDE, IRIS_SIDE, MOUTH_SIDE = 0.48, 0.32, 0.68
EYE_RAISED, MOUTH_RAISED = 0.08, 0.06
SMALLEST_FACE = 0.05  # of the frame's side: what is read where there is no face must still be finite
WHOLE_FEATURES, PART_FEATURES = 96, 64


class FaceTrunks(nn.Module):
    """The trunks that look at the whole face and at its parts; networks that read faces build on it."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 80)) -> None:
        super().__init__()
        self.widths = widths
        self.whole = Trunk(WHOLE_SIZE, 4, widths, WHOLE_FEATURES)
        self.eye = Trunk(EYE_SIZE, 4, widths[1:], PART_FEATURES)  # one for both: the right one is mirrored
        self.iris = Trunk(IRIS_SIZE, 2, widths[:2], PART_FEATURES)
        self.mouth = Trunk(MOUTH_SIZE, 4, widths[1:], PART_FEATURES)
        self.landmarks = nn.Linear(WHOLE_FEATURES, 2 * len(LANDMARKS))

    def locate(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures of the whole face (B, 3, 96, 96) -> features (B, 96) and landmarks (B, 3, 2) in -1..1 of the
        picture.
        """
        features = self.whole(whole)
        return features, self.landmarks(features).view(-1, len(LANDMARKS), 2)

    def look_at_parts(self, eyes: Tensor, irises: Tensor, mouth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `cut_parts` cut -> features of the eyes (B, 128), of their openings (B, 128) and of the mouth (B,
        64).
        """
        eyes, irises = (
            net(pairs.flatten(0, 1)).view(len(mouth), -1) for net, pairs in ((self.eye, eyes), (self.iris, irises))
        )
        return eyes, irises, self.mouth(mouth)


def placed(landmarks: Tensor) -> Tensor:
    """Landmarks (B, 3, 2) in fractions of the frame, about their mean: (B, 6). Where in the frame a face is says
    nothing of it.
    """
    return 5 * (landmarks - landmarks.mean(1, keepdim=True)).flatten(1)


class Trunk(nn.Module):
    """Pictures (B, 3, S, S) of any brightness and contrast -> features (B, D)."""

    def __init__(self, size: int, stem: int, widths: tuple[int, ...], features: int) -> None:
        super().__init__()
        # Nothing is convolved at full resolution: squares of pixels become channels first.
        layers: list[nn.Module] = [nn.PixelUnshuffle(stem), *_conv(3 * stem**2, widths[0], 3, 1)]
        if len(widths) == 2 and stem == 4:
            layers.append(_Residual(widths[0]))
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [*_conv(before, after, 3, 2), _Residual(after)]
        side = size // stem
        for _ in widths[1:]:
            side = -(-side // 2)
        # Flattened, not pooled: pose and gaze are about where things are.
        self.layers = nn.Sequential(
            *layers, *_conv(widths[-1], 16, 1, 1), nn.Flatten(), nn.Linear(16 * side**2, features), nn.GELU()
        )

    def forward(self, pictures: Tensor) -> Tensor:
        pictures = pictures - pictures.mean(dim=(1, 2, 3), keepdim=True)
        spread = pictures.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return self.layers((pictures / (spread + 0.03)).contiguous(memory_format=torch.channels_last))


def _conv(before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_conv(channels, channels, 3, 1))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def everywhere(images: Tensor) -> Tensor:
    """WHOLE for each of the images: (B, 3)."""
    return images.new_tensor(WHOLE).expand(len(images), 3)


def cut_whole(images: Tensor) -> Tensor:
    """The face (B, 3, 96, 96) from images (B, 3, 256, 256), in half of their resolution."""
    return cut(F.avg_pool2d(images, 2), whole_place(everywhere(images)), WHOLE_SIZE)


def cut_parts(images: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both eyes with their brows (B, 2, 3, 48, 48), their openings (B, 2, 3, 40, 40), the second one mirrored in both,
    and the mouth (B, 3, 56, 56)."""
    eyes, irises, mouth = part_places(landmarks)
    return (
        torch.stack([cut(images, place, EYE_SIZE) for place in eyes], 1),
        torch.stack([cut(images, place, IRIS_SIZE) for place in irises], 1),
        cut(images, mouth, MOUTH_SIZE),
    )


def from_whole(landmarks: Tensor, where: Tensor) -> Tensor:
    """Landmarks (B, 3, 2) in -1..1 of the picture that `where` (B, 3), like WHOLE, describes -> fractions of the
    frame.
    """
    return where[:, None, :2] + 0.5 * where[:, None, 2:] * landmarks


def whole_place(where: Tensor) -> Tensor:
    """The square that `where` (B, 3) describes, as a place."""
    side, zero = where[:, 2], torch.zeros_like(where[:, 2])
    return _place(where[:, :2], torch.stack([side, zero], 1), torch.stack([zero, side], 1))


def part_places(landmarks: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Places (B, 3, 3) of the eyes with their brows and of their openings (first the eye on the picture's left, then
    the other one, mirrored), and of the mouth; upright along the line of the eyes."""
    left, right, mouth = landmarks.unbind(1)
    line = right - left
    along = F.normalize(line, dim=1, eps=1e-6)
    down = torch.stack([-along[:, 1], along[:, 0]], dim=1)
    face = (line.norm(dim=1) + (mouth - (left + right) / 2).norm(dim=1)).clamp_min(SMALLEST_FACE)[:, None]
    along, down = along * face, down * face
    sides = ((left, along), (right, -along))
    eyes = [_place(eye - EYE_RAISED * down, EYE_SIDE * across, EYE_SIDE * down) for eye, across in sides]
    irises = [_place(eye, IRIS_SIDE * across, IRIS_SIDE * down) for eye, across in sides]
    return eyes, irises, _place(mouth - MOUTH_RAISED * down, MOUTH_SIDE * along, MOUTH_SIDE * down)


def _place(centre: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """A parallelogram with this centre and these sides (B, 2), in fractions of the frame, as the matrix (B, 3, 3) from
    -1..1 of the picture that is cut there to -1..1 of the frame."""
    matrix = torch.stack([across, down, 2 * centre - 1], dim=2)
    return torch.cat([matrix, matrix.new_tensor([0.0, 0.0, 1.0]).expand(len(matrix), 1, 3)], dim=1)


def cut(images: Tensor, place: Tensor, size: int) -> Tensor:
    """What is at these places (B, 3, 3) of images (B, 3, H, W), as pictures (B, 3, size, size)."""
    grid = F.affine_grid(place[:, :2], [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
