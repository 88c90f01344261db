"""Teeth stand where people have them: the upper ones show below their lip, the lower ones hardly above theirs."""

import numpy as np
import pytest

from eartalking.motion.face_units import unit_vector
from eartalking.synth.head import HeadBundle, load_bundle
from eartalking.synth.teeth import CROWNS, ROWS, Teeth, paint_row, places, sample_teeth, set_teeth

MM = 0.01 / 2.3  # head heights


@pytest.fixture(scope="module")
def bundle() -> HeadBundle:
    return load_bundle()


def teeth_of(seed: int) -> Teeth:
    return sample_teeth(np.random.default_rng(seed))


def incisors(shape: np.ndarray, bundle: HeadBundle, name: str) -> np.ndarray:
    """The points (n, 3) of a row's front."""
    chosen = bundle.vertices_of(name)
    return shape[chosen[(np.abs(bundle.mean[chosen, 0]) < 0.05) & (bundle.mean[chosen, 2] > 0.48)]]


def test_of_parted_lips_the_upper_teeth_show(bundle: HeadBundle) -> None:
    middle = np.abs(bundle.mean[bundle.lip_upper, 0]) < 0.02
    parted = np.tensordot(unit_vector({"jawOpen": 0.3}), bundle.deltas, axes=1)
    upper, lower = [], []
    for seed in range(200):
        shape = set_teeth(teeth_of(seed), bundle.mean, bundle) + parted
        lips = (shape[bundle.lip_upper][middle, 1].mean(), shape[bundle.lip_lower][middle, 1].mean())
        upper.append((lips[0] - incisors(shape, bundle, "teeth_upper")[:, 1].min()) / MM)
        lower.append((incisors(shape, bundle, "teeth_lower")[:, 1].max() - lips[1]) / MM)
    assert 1 < np.mean(upper) < 4 and np.mean(np.array(upper) > 0) > 0.9
    assert np.mean(lower) < 1


def test_the_upper_row_stands_before_the_lower_one_and_behind_the_lips(bundle: HeadBundle) -> None:
    for seed in range(20):
        shape = set_teeth(teeth_of(seed), bundle.mean, bundle)
        upper, lower = (incisors(shape, bundle, name)[:, 2].max() for name in ROWS)
        assert lower < upper < shape[bundle.lip_upper, 2].max() - 5 * MM


def test_nothing_but_teeth_and_tongue_moves(bundle: HeadBundle) -> None:
    moved = np.abs(set_teeth(teeth_of(0), bundle.mean, bundle) - bundle.mean).max(1) > 0
    assert set(np.flatnonzero(moved)) == set(bundle.vertices_of(*ROWS, "tongue"))


def test_every_vertex_of_a_row_has_its_place_in_the_picture(bundle: HeadBundle) -> None:
    for name, place in places(bundle).items():
        assert len(place) == np.isin(bundle.render_vertex, bundle.vertices_of(name)).sum()
        assert 0 <= place.min() < 0.1 and 0.9 < place.max() <= 1
        np.testing.assert_allclose(place[:, 0].mean(), 0.5, atol=0.01)


@pytest.mark.parametrize("name", ROWS)
def test_crowns_are_lighter_than_the_gaps_between_them(name: str) -> None:
    enamel, gum = np.full(3, 0.9), np.array([0.7, 0.3, 0.3])
    picture = paint_row(teeth_of(1), name, 300, 28, enamel, gum)
    assert picture.shape == (28, 300, 3) and 0 <= picture.min() and picture.max() <= 1
    edge = picture[2, :, 1]
    gaps = np.flatnonzero((edge[1:-1] < edge[:-2]) & (edge[1:-1] <= edge[2:])) + 1
    assert abs(len(gaps) - (2 * len(CROWNS[name]) - 1)) <= 1
    np.testing.assert_allclose(picture[-1], np.broadcast_to(gum, (300, 3)), atol=0.02, err_msg="roots are gum")
