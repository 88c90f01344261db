"""Part refiner: it starts as nothing, changes its cuts alone, follows what it was told, and finds its corners."""

import pytest
import torch

from eartalking.autoencoder.part_refiner import PartRefiner, fade
from eartalking.autoencoder.portrait_parts import EYE, MOUTH, Parts, corners, cut, cut_size
from eartalking.config import TINY


def make(trained: bool) -> PartRefiner:
    torch.manual_seed(0)
    refiner = PartRefiner(TINY.autoencoder).eval()
    if trained:
        for net in (refiner.eye, refiner.mouth):
            torch.nn.init.normal_(net.conv_out.weight, std=0.5)
    return refiner


def inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Parts]:
    """A frame, its motion, how far its eyes have turned, and the portrait's parts."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, 256, 256, generator=generator)
    eyes, lidded = torch.rand(2, count, 2, 3, 40, 48, generator=generator)
    mouth = torch.rand(count, 3, 64, 72, generator=generator)
    motion, own = torch.randn(2, count, 60, generator=generator)
    landmarks = torch.tensor([[0.35, 0.4], [0.62, 0.4], [0.5, 0.7]]).expand(count, 3, 2)
    code = torch.zeros(count, TINY.autoencoder.mouth_channels)
    return image, motion, torch.zeros(count, 2), Parts(eyes, lidded, mouth, landmarks, own, code)


def test_a_new_one_changes_nothing() -> None:
    image, *rest = inputs()
    torch.testing.assert_close(make(False)(image, *rest), image)


def test_only_eyes_and_mouth_change_and_the_edges_of_the_cuts_do_not() -> None:
    image, *rest = inputs(1)
    change = (make(True)(image, *rest) - image).abs().amax((0, 1))
    boxes = torch.zeros(256, 256, dtype=torch.bool)
    for part, (x, y) in zip((EYE, EYE, MOUTH), rest[-1].landmarks[0].tolist(), strict=True):
        height, width = cut_size(part, 256)
        ((top, left),) = corners(torch.tensor([[x, y]]), (height, width), 256)
        assert change[top : top + height, left : left + width].max() > 0.1
        assert change[top, left : left + width].max() < 0.1 * change.max(), "nothing shows the edge of a cut"
        boxes[top : top + height, left : left + width] = True
    assert not change[~boxes].any()


def test_a_batch_is_its_items_one_by_one() -> None:
    refiner, batch = make(True), inputs(3)
    whole = refiner(*batch)
    for index in range(3):
        *tensors, parts = batch
        one = [value[index : index + 1] for value in tensors]
        alone = refiner(*one, Parts(*(value[index : index + 1] for value in parts)))
        torch.testing.assert_close(alone[0], whole[index], atol=1e-4, rtol=1e-4)


def test_the_input_is_left_alone() -> None:
    image, *rest = inputs(1)
    before = image.clone()
    make(True)(image, *rest)
    torch.testing.assert_close(image, before)


def test_a_mirrored_eye_is_drawn_by_the_same_network() -> None:
    refiner = make(True)
    refiner.side.data[1] = refiner.side.data[0]
    _, motion, turn, parts = inputs(1)
    eye = torch.rand(1, 3, 40, 48)
    eyes = torch.stack([eye, eye], dim=1)
    parts = parts._replace(eyes=eyes, lidded=eyes)
    left, right = refiner.additions(motion, turn, eyes, parts.mouth, parts, 256)[0][0]
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("point", [(-3.0, 0.5), (0.0, 0.0), (1.0, 1.0), (0.5, 7.0), (float("nan"), 0.5)])
def test_cuts_stay_inside_whatever_was_found(point: tuple[float, float]) -> None:
    places = corners(torch.tensor([point]), (40, 48), 256)
    assert cut(torch.rand(1, 3, 256, 256), places, (40, 48)).shape == (1, 3, 40, 48)


def test_corners_are_around_the_point() -> None:
    assert corners(torch.tensor([[0.5, 0.25]]), (40, 48), 256) == [(64 - 20, 128 - 24)]


def test_the_fade_is_one_inside_and_falls_to_the_edge() -> None:
    window = fade((40, 48))
    assert window[10:30, 10:38].min() == 1 and window[0].max() < 0.1 and window[:, -1].max() < 0.1
