"""Registration against warps that are known."""

import pytest
import torch
import torch.nn.functional as F

from eartalking.modules.registration import register
from eartalking.modules.warp import identity_grid, warp_image


@pytest.fixture
def picture() -> torch.Tensor:
    """(2, 3, 64, 64), smooth and different everywhere."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 12, 12, generator=generator) * 2 - 1
    return F.interpolate(coarse, size=64, mode="bicubic", align_corners=False).clamp(-1, 1)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.5, 0.0), (-2.0, 3.0), (5.0, -4.0)])
def test_a_shift_is_found(picture: torch.Tensor, shift: tuple[float, float]):
    warp = torch.tensor(shift).view(1, 2, 1, 1) * 2 / 64  # pixels to normalised coordinates
    moved = warp_image(picture, warp.expand(2, 2, 64, 64))
    found = register(picture, moved, (8, 4, 2), (3, 5, 5))
    assert found.shape == (2, 2, 32, 32)
    inner = found[..., 6:-6, 6:-6] * 64 / 2
    assert (inner.mean((2, 3)) - torch.tensor(shift)).abs().max() < 0.3


def test_a_smooth_warp_is_found(picture: torch.Tensor):
    grid = identity_grid(64).permute(0, 3, 1, 2)
    warp = 0.05 * torch.sin(3 * grid.flip(1))
    moved = warp_image(picture, warp.expand(2, -1, -1, -1))
    found = register(picture, moved, (8, 4, 2), (3, 5, 5))
    error = (found - F.avg_pool2d(warp, 2))[..., 4:-4, 4:-4].abs().mean()
    assert error < 0.25 * warp.abs().mean()


def test_nothing_moves_where_nothing_is_to_be_seen():
    flat = torch.zeros(1, 3, 64, 64)
    assert register(flat, flat, (4, 2), (5, 5)).abs().max() == 0
    assert register(flat, flat + 0.5, (4, 2), (5, 5)).abs().max() < 1e-3
