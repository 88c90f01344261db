"""The light on a portrait: a ball in a known light, the normals of a known surface, and a fit with a known answer."""

import math

import pytest
import torch

from eartalking.autoencoder.shading import (
    DARK,
    FITS,
    HARMONICS,
    MOST,
    Shading,
    ShadingEncoder,
    brightness,
    coarser,
    facing,
    fits,
    harmonics,
)
from eartalking.autoencoder.surface import SurfaceEncoder, SurfaceFields
from eartalking.config import TINY
from eartalking.modules.warp import identity_grid
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES, NUM_MOTION_LABELS
from eartalking.training.shading import Lit, fit_light, left_over

SIZE, RADIUS = 64, 0.8


def motion(yaw: float = 0.0, pitch: float = 0.0) -> torch.Tensor:
    vector = torch.zeros(1, NUM_MOTION_LABELS)
    vector[0, HEAD_POSE] = torch.tensor([yaw, pitch, 0.0]) * MOTION_SCALES["head_pose"]
    return vector


@pytest.fixture(scope="module")
def surface() -> SurfaceEncoder:
    return SurfaceEncoder(TINY.autoencoder)


def ball(flat: bool = False) -> SurfaceFields:
    """A ball that fills the picture, or a board, seen from ahead; y is up."""
    grid = identity_grid(SIZE)[0].permute(2, 0, 1)
    inside = (grid.square().sum(0) < RADIUS**2).float()[None, None]
    depth = torch.zeros(1, SIZE, SIZE) if flat else (RADIUS**2 - grid.square().sum(0)).clamp_min(0.01).sqrt()[None]
    point = torch.cat([grid[:1], -grid[1:], depth])[None]
    one = torch.ones(1, 1, SIZE, SIZE)
    none = torch.zeros(1, TINY.autoencoder.surface_components, SIZE, SIZE)
    return SurfaceFields(point, one, one if flat else inside, none, torch.zeros(1, 4), torch.zeros_like(one))


def test_a_board_faces_where_it_is_turned(surface: SurfaceEncoder) -> None:
    board = coarser(ball(flat=True))
    for asked, expected in (
        (motion(), (0.0, 0.0, 1.0)),
        (motion(yaw=20), (math.sin(math.radians(20)), 0.0, math.cos(math.radians(20)))),
        (motion(pitch=20), (0.0, math.sin(math.radians(20)), math.cos(math.radians(20)))),
    ):
        middle = facing(surface, board, asked)[0, :, 2:-2, 2:-2]
        torch.testing.assert_close(middle, torch.tensor(expected)[:, None, None].expand_as(middle), atol=1e-4, rtol=0)


def test_harmonics_are_orthogonal_over_all_directions() -> None:
    directions = torch.nn.functional.normalize(torch.randn(1, 3, 400, 400, generator=torch.Generator().manual_seed(0)))
    terms = harmonics(directions)[0].flatten(1)
    products = terms @ terms.T / terms.shape[1]
    off = products - torch.diag(products.diagonal())
    assert terms.shape[0] == HARMONICS and off.abs().max() < 0.02 and terms.mean(1).abs().max() < 0.02


def lit_ball(surface: SurfaceEncoder, side: float, size: int = 2 * SIZE) -> tuple[torch.Tensor, SurfaceFields]:
    """A grey ball that is brighter the more it faces the viewer's right, by `side` in logarithms, and its surface."""
    fields = ball()
    bright = 0.4 * (side * facing(surface, fields, motion())[:, :1]).exp() * fields.cover
    picture = torch.nn.functional.interpolate(2 * bright - 1, size=size).expand(-1, 3, -1, -1)
    return picture.contiguous(), fields


def test_the_light_of_a_ball_is_found_in_its_picture(surface: SurfaceEncoder) -> None:
    picture, fields = lit_ball(surface, side=0.6)
    coarse = coarser(fields)
    found = fits(picture, coarse.cover, harmonics(facing(surface, coarse, motion())))
    assert found.shape == (1, FITS * HARMONICS)
    directions = torch.nn.functional.normalize(torch.tensor([[-0.5, 0, 1], [0, 0, 1], [0.5, 0, 1], [0, 0.5, 1]]), dim=1)
    terms = harmonics(directions.T[None, :, :, None])[0, :, :, 0]
    for fitted in found[0].split(HARMONICS):
        bright = fitted @ terms - fitted @ terms[:, 1:2]
        torch.testing.assert_close(bright, 0.6 * directions[:, 0], atol=0.06, rtol=0)


def shading_of(surface: SurfaceEncoder, side: float) -> tuple[Shading, torch.Tensor]:
    picture, fields = lit_ball(surface, side)
    encoder = ShadingEncoder()
    encoder.light[HARMONICS:] = torch.eye(HARMONICS)  # all that was fitted to the face is light
    return encoder(surface, picture, fields, motion()), picture


def test_what_turns_away_from_the_light_darkens(surface: SurfaceEncoder) -> None:
    shading, picture = shading_of(surface, side=0.6)
    person = torch.cat([picture, torch.rand(1, 2, *picture.shape[2:])], dim=1)
    away, into = (shading.drawn(surface, person, motion(yaw=yaw)) for yaw in (-20, 20))
    middle = (slice(None), slice(3), slice(56, 72), slice(56, 72))
    before, darker, lighter = (brightness(image[middle]).mean() for image in (person, away, into))
    expected = 0.6 * math.sin(math.radians(20))
    assert float(darker - before) == pytest.approx(-expected, abs=0.07)
    assert float(lighter - before) == pytest.approx(expected, abs=0.07)
    torch.testing.assert_close(away[:, 3:], person[:, 3:], msg="mattes stay")
    background = picture[:, :, :4]
    torch.testing.assert_close(away[:, :3, :4], background, msg="so does what is not the person")


def test_nothing_is_drawn_where_nothing_turns_or_no_light_is_known(surface: SurfaceEncoder) -> None:
    shading, picture = shading_of(surface, side=0.6)
    assert shading.drawn(surface, picture, motion()) is picture
    unknown = ShadingEncoder()(surface, picture, ball(), motion())
    assert unknown.drawn(surface, picture, motion(yaw=20)) is picture


def test_light_at_most_doubles(surface: SurfaceEncoder) -> None:
    shading, picture = shading_of(surface, side=0.6)
    blinding = shading._replace(light=40 * shading.light)
    drawn = blinding.drawn(surface, picture, motion(yaw=15))
    change = ((drawn + 1) / 2 + DARK) / ((picture + 1) / 2 + DARK)
    assert math.exp(-MOST) - 1e-3 < change.min() and change.max() < math.exp(MOST) + 1e-3


def test_the_map_from_fits_to_light_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 4, generator=generator), torch.randn(4, generator=generator)
    fitted = torch.randn(200, 6, generator=generator)
    light = fitted @ weight + bias
    change = torch.randn(200, 4, 10, generator=generator)
    normal = change @ change.transpose(1, 2)
    right = (normal @ light[..., None])[..., 0]
    stills = Lit(fitted, normal, right, (light * right).sum(1))
    found = fit_light(stills, ridge=1e-9)
    torch.testing.assert_close(found, (weight, bias), atol=1e-3, rtol=1e-3)
    assert left_over(stills, *found) == pytest.approx(0, abs=1e-4)
    assert left_over(stills, torch.zeros_like(weight), torch.zeros_like(bias)) == 1
