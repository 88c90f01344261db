"""What of a photograph is its person: the segmentation network's matte and the surface's cover, joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eartalking.autoencoder import matte as module
from eartalking.autoencoder.matte import find_matte, with_matte
from eartalking.autoencoder.surface import SurfaceFields
from eartalking.checkpoint import load_model
from eartalking.io.portrait import load_portrait
from eartalking.modules.pixels import to_float
from eartalking.perception.face_detector import crop_face
from eartalking.perception.person_matte import along_edges

SIZE, MAP = 256, 128
PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "photo.jpg"


def disc(size: int, radius: float) -> torch.Tensor:
    """1 inside a disc around the middle: (1, 1, size, size); radius in shares of the side."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    return (axis[:, None].square() + axis.square() < radius**2).float()[None, None]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the segmentation network says, set by the test."""
    said: list[np.ndarray] = []
    monkeypatch.setattr(module, "person_matte", lambda picture, square, size: said[0])
    return said


def test_what_the_network_finds_near_the_surface_is_person_and_what_is_far_is_not(network: list[np.ndarray]) -> None:
    network.append(np.ones((SIZE, SIZE), np.float32))  # a crowd
    found = find_matte(torch.zeros(1, 3, SIZE, SIZE), disc(MAP, 0.2))
    assert (found[disc(SIZE, 0.22) > 0] > 0.9).all(), "hair around the surface"
    assert (found[disc(SIZE, 0.42) == 0] == 0).all(), "somebody else"


def test_well_inside_the_surface_is_person_whatever_the_network_says(network: list[np.ndarray]) -> None:
    network.append(np.zeros((SIZE, SIZE), np.float32))
    found = find_matte(torch.zeros(1, 3, SIZE, SIZE), disc(MAP, 0.3))
    assert (found[disc(SIZE, 0.15) > 0] > 0.9).all() and (found[disc(SIZE, 0.36) == 0] < 0.05).all()


def test_where_the_network_hesitates_the_surface_decides(network: list[np.ndarray]) -> None:
    network.append(np.full((SIZE, SIZE), 0.4, np.float32))
    found = find_matte(torch.zeros(1, 3, SIZE, SIZE), disc(MAP, 0.3))
    assert (found[disc(SIZE, 0.27) > 0] > 0.9).all() and (found[disc(SIZE, 0.33) == 0] < 0.35).all()


def test_what_is_added_moves_as_what_is_next_to_it() -> None:
    cover = disc(MAP, 0.2)
    point = torch.where(cover > 0, 0.3, -9.0).expand(-1, 3, -1, -1)  # nobody has taught it what to say of a background
    fields = SurfaceFields(point, cover, cover, point[:, :2], torch.zeros(1, 4), torch.zeros_like(cover))
    joined = with_matte(fields, disc(SIZE, 0.3))
    torch.testing.assert_close(joined.cover, F.avg_pool2d(disc(SIZE, 0.3), 2))
    there = (disc(MAP, 0.28) > 0).expand(-1, 3, -1, -1)
    torch.testing.assert_close(joined.point[there], torch.full_like(joined.point[there], 0.3), atol=1e-3, rtol=0)
    assert (joined.weight[disc(MAP, 0.28) > 0] > 0.99).all()


def test_a_finer_matte_ends_where_the_finer_picture_does() -> None:
    fine = disc(2 * SIZE, 0.3).expand(-1, 3, -1, -1)
    coarse = F.avg_pool2d(fine, 2)
    found = along_edges(F.avg_pool2d(coarse[:, :1], 3, 1, 1), coarse, fine)
    assert (found - fine[:, :1]).abs().mean() < 0.01
    assert found.min() >= 0 and found.max() <= 1


def test_hair_of_a_photograph_belongs_to_its_person() -> None:
    autoencoder = load_model().autoencoder
    portrait = to_float(torch.from_numpy(crop_face(load_portrait(PHOTOGRAPH), 256).image)[None])
    with torch.inference_mode():
        reference = autoencoder.reference(portrait)
        assert reference.eyes is not None
        alone = autoencoder.surface(portrait, reference.eyes.marks).cover
    joined = reference.surface.cover
    assert ((joined > 0.5) & (alone < 0.5)).float().mean() > 0.01, "something was added"
    assert (joined - alone).abs().mean() < 0.1
