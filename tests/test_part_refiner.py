"""Part refiner: it starts as nothing, changes its cuts alone, follows what it was told, and finds its corners."""

import pytest
import torch

from eartalking.autoencoder.part_refiner import EYE, MOUTH, PartRefiner, corners, cut, cut_size, fade
from eartalking.config import TINY


def make(trained: bool) -> PartRefiner:
    torch.manual_seed(0)
    refiner = PartRefiner(TINY.autoencoder).eval()
    if trained:
        for net in (refiner.eye, refiner.mouth):
            torch.nn.init.normal_(net.conv_out.weight, std=0.5)
    return refiner


def inputs(count: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    image, portrait = torch.rand(2, count, 3, 256, 256, generator=generator)
    motion, own = torch.randn(2, count, 60, generator=generator)
    return image, portrait, motion, own, torch.tensor([[0.35, 0.4], [0.62, 0.4], [0.5, 0.7]]).expand(count, 3, 2)


def test_a_new_one_changes_nothing() -> None:
    image, *rest = inputs()
    torch.testing.assert_close(make(False)(image, *rest), image)


def test_only_eyes_and_mouth_change_and_the_edges_of_the_cuts_do_not() -> None:
    image, *rest = inputs(1)
    change = (make(True)(image, *rest) - image).abs().amax((0, 1))
    boxes = torch.zeros(256, 256, dtype=torch.bool)
    for part, (x, y) in zip((EYE, EYE, MOUTH), rest[-1][0].tolist(), strict=True):
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
        torch.testing.assert_close(
            refiner(*(value[index : index + 1] for value in batch))[0], whole[index], atol=1e-4, rtol=1e-4
        )


def test_the_input_is_left_alone() -> None:
    image, *rest = inputs(1)
    before = image.clone()
    make(True)(image, *rest)
    torch.testing.assert_close(image, before)


def test_a_mirrored_eye_is_drawn_by_the_same_network() -> None:
    refiner = make(True)
    refiner.side.data[1] = refiner.side.data[0]
    eye = torch.rand(1, 3, 40, 48)
    eyes, mouth = torch.stack([eye, eye], dim=1), torch.rand(1, 3, 64, 72)
    motion = torch.randn(1, 60)
    left, right = refiner.additions(motion, motion, (eyes, eyes), (mouth, mouth))[0][0]
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
