"""Learnt latents of frames: what they are relative to, and what a new decoder does."""

import pytest
import torch
import torch.nn.functional as F

from eartalking.autoencoder.frame_latents import FLOW_SIDE, FrameLatents, Kind, Start
from eartalking.training.latent_motion import FrameCode

SIZE, LATENTS, COORDINATES = 64, 12, 5


def images(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 10, 10, generator=generator) * 2 - 1
    return F.interpolate(coarse, size=SIZE, mode="bicubic", align_corners=False).clamp(-1, 1)


def start_of(kind: Kind, count: int) -> Start:
    portrait = images(count, 1)
    if kind == "pixels":
        return Start.still(portrait)
    codes = torch.randn(2, count, COORDINATES, generator=torch.Generator().manual_seed(2))
    return Start.moved(images(count, 3), portrait, torch.zeros(count, 2, 16, 16), *codes)


def latents_of(kind: Kind) -> FrameLatents:
    torch.manual_seed(0)
    return FrameLatents(kind, LATENTS, SIZE, COORDINATES).eval()


@pytest.mark.parametrize("kind", ["face_code", "learned", "pixels"])
def test_new_networks_change_nothing_but_by_components(kind: Kind):
    latents, start = latents_of(kind), start_of(kind, 2)
    if latents.size:
        latents.measure(torch.randn(40, 2, FLOW_SIDE, FLOW_SIDE))
    with torch.no_grad():
        drawn = latents.decode(torch.zeros(2, LATENTS) if latents.size else None, start)
    assert drawn.flow.abs().max() == 0
    kept = drawn.blend * start.image
    assert torch.allclose(drawn.image, kept, atol=1e-4) and drawn.blend.min() > 0.9


def test_a_face_code_has_no_latents():
    latents, start = latents_of("face_code"), start_of("face_code", 2)
    drawn, none = latents(start.image, start)
    assert none is None and drawn.image.shape == (2, 3, SIZE, SIZE)


@pytest.mark.parametrize("kind", ["learned", "pixels"])
def test_the_portraits_own_latents_are_zero(kind: Kind):
    latents, portrait = latents_of(kind), images(2, 1)
    latents.measure(torch.randn(40, 2, FLOW_SIDE, FLOW_SIDE))
    zeros = torch.zeros(2, COORDINATES)
    start = Start.still(portrait)
    if kind == "learned":
        start = Start.moved(portrait, portrait, torch.zeros(2, 2, 16, 16), zeros, zeros)
    with torch.no_grad():
        own = latents.encode(portrait, start)
    assert own is not None and own.abs().max() < 1e-4


def test_components_are_white_and_give_warps_back():
    latents = latents_of("pixels")
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(LATENTS, 2 * FLOW_SIDE**2, generator=generator)
    strengths = torch.randn(200, LATENTS, generator=generator)
    flows = 0.01 * (strengths @ patterns).unflatten(1, (2, FLOW_SIDE, FLOW_SIDE))
    latents.measure(flows)
    read = latents.encoder.components(flows)
    assert torch.allclose(read.square().mean(0), torch.ones(LATENTS), atol=0.05)
    assert torch.allclose(latents.decoder.flow(read), flows, atol=1e-3 * float(flows.abs().max()))


def test_a_moved_portrait_comes_nearer_by_its_latents():
    latents = latents_of("pixels")
    portrait = images(16, 1)
    frames = torch.stack([image.roll((index % 5 - 2, index % 3 - 1), (1, 2)) for index, image in enumerate(portrait)])
    start = Start.still(portrait)
    latents.measure(latents.registered(frames, start))
    with torch.no_grad():
        drawn, read = latents(frames, start)
    assert read is not None and read.shape == (16, LATENTS)
    inner = (..., slice(8, -8), slice(8, -8))
    # The blend of a new decoder darkens: compared are the starts, still and warped.
    warped = drawn.image / drawn.blend
    assert (warped - frames)[inner].abs().mean() < 0.6 * (portrait - frames)[inner].abs().mean()


def test_a_frames_numbers_come_back_from_tokens():
    numbers = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 5, 10) + 3
    numbers[:, 4] = 2.0  # never moves
    code = FrameCode(10, (4, 3))
    code.measure(numbers)
    tokens = code.to_tokens(numbers)
    assert tokens.shape == (50, 4, 3) and not tokens.flatten(1)[:, 10:].any() and not tokens.flatten(1)[:, 4].any()
    torch.testing.assert_close(tokens.flatten(1)[:, :4].std(0), torch.ones(4))
    torch.testing.assert_close(code.from_tokens(tokens), numbers, atol=1e-4, rtol=1e-4)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="13 numbers do not fit into 4 tokens of 3"):
        FrameCode(13, (4, 3))
