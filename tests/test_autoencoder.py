"""Frame autoencoder: shapes, the warp's convention, and that the latents alone carry the frame."""

import torch
from torch.nn import functional

from eartalking.autoencoder.decoder import JUMP
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.config import TINY
from eartalking.modules.pixels import shuffle, unshuffle
from eartalking.modules.res_block import for_convolution, single_map
from eartalking.modules.warp import identity_grid, warp_image


def make() -> FrameAutoencoder:
    torch.manual_seed(0)
    return FrameAutoencoder(TINY.autoencoder).eval()


def test_shapes() -> None:
    autoencoder = make()
    frame, portrait = torch.rand(2, 2, 3, 64, 64).unbind(0)
    latents = autoencoder.encode(frame, autoencoder.reference(portrait))
    assert latents.shape == (2, TINY.autoencoder.num_latent_tokens, TINY.autoencoder.latent_channels)
    decoded = autoencoder.decode(latents, autoencoder.reference(portrait))
    assert decoded.image.shape == decoded.warped.shape == decoded.painted.shape == (2, 3, 64, 64)
    assert decoded.blend.shape == (2, 1, 64, 64)
    assert [warp.shape[-1] for warp in decoded.warps] == [4, 8, 16]
    assert decoded.visibility.shape == (2, 1, 16, 16)


def test_a_new_decoder_starts_from_the_warp_of_the_surface() -> None:
    autoencoder = make()
    portrait = torch.rand(1, 3, 64, 64) * 2 - 1
    reference = autoencoder.reference(portrait)
    everywhere = reference.person.clone()
    everywhere[:, 3:] = 1  # nothing but the person
    still = autoencoder.decode(reference.latents, reference._replace(person=everywhere))
    torch.testing.assert_close(still.warped, portrait, atol=1e-5, rtol=0)  # the portrait's own motion moves nothing
    nobody = autoencoder.decode(reference.latents, reference._replace(person=0 * everywhere))
    torch.testing.assert_close(nobody.warped, reference.plate)
    latents = autoencoder.code.motion_to_latents(torch.randn(1, 60))
    motion = autoencoder.code.latents_to_motion(latents)
    coarse, base = autoencoder.surface.bases(reference.moved, motion)
    assert base.warp.abs().max() > 0.01
    geometry = autoencoder.geometry(latents, reference)
    beside = (geometry.warp - base.warp).norm(dim=1, keepdim=True)
    whole = functional.max_pool2d((base.occupied <= 0.5).float(), 3, 1, 1) == 0
    assert beside[whole].max() < JUMP and (beside[whole] == 0).float().mean() > 0.05, "the surface's own edges"
    smooth = functional.interpolate(coarse.warp, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(geometry.warp[(~whole).expand(-1, 2, -1, -1)], smooth[(~whole).expand(-1, 2, -1, -1)])
    torch.testing.assert_close(geometry.warps[-1], coarse.warp, atol=1e-5, rtol=0)


def test_the_code_is_invertible_and_gives_each_coordinate_its_spread() -> None:
    code = make().code
    motion = torch.randn(500, 60, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 5, 60) + 3
    motion[:, 7] = 1.25  # never moves
    emphasis = torch.ones(60)
    emphasis[3] = 2.0
    code.measure(motion, emphasis)
    latents = code.motion_to_latents(motion)
    assert latents.shape == (500, 16, 4)
    torch.testing.assert_close(code.latents_to_motion(latents), motion, atol=1e-4, rtol=1e-4)
    expected = emphasis.clone()
    expected[7] = 0.0
    torch.testing.assert_close(code.latents_to_coordinates(latents).std(0), expected, atol=1e-4, rtol=1e-4)
    # Orthonormal: an error in the latents is an error of the same size in the coordinates, never a larger one.
    noise = torch.randn_like(latents)
    assert code.latents_to_coordinates(noise).norm() <= noise.norm() * 1.0001


def test_motion_through_the_latents_and_back() -> None:
    autoencoder = make()
    autoencoder.code.latent_mean.fill_(0.5)
    autoencoder.code.latent_std.fill_(2.0)
    motion = torch.randn(2, 5, 60)
    latents = autoencoder.code.motion_to_latents(motion)
    assert latents.shape == (2, 5, 16, 4)
    torch.testing.assert_close(autoencoder.code.latents_to_motion(latents), motion, atol=1e-4, rtol=1e-4)


def test_warp_is_a_displacement_in_normalised_coordinates() -> None:
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(warp_image(image, torch.zeros(1, 2, 8, 8)), image)
    right = torch.zeros(1, 2, 8, 8)
    right[:, 0] = 2 / 8  # one pixel: each output pixel shows its right neighbour
    torch.testing.assert_close(warp_image(image, right)[..., :-1], image[..., 1:])
    assert identity_grid(4)[0, 0, 0].tolist() == [-0.75, -0.75]


def test_latent_statistics_normalise_and_cancel() -> None:
    autoencoder = make()
    frame = torch.rand(1, 3, 64, 64)
    reference = autoencoder.reference(frame)
    plain = autoencoder.encode(frame, reference)
    image = autoencoder.decode(plain, reference).image
    autoencoder.code.latent_mean.fill_(0.5)
    autoencoder.code.latent_std.fill_(2.0)
    normalised_reference = autoencoder.reference(frame)
    normalised = autoencoder.encode(frame, normalised_reference)
    torch.testing.assert_close(normalised, (plain - 0.5) / 2)
    again = autoencoder.decode(normalised, normalised_reference).image
    torch.testing.assert_close(again, image, atol=1e-5, rtol=1e-5)


def test_the_quicker_ways_of_the_decoder_are_what_pytorch_has() -> None:
    images, cells = torch.randn(2, 3, 16, 24), torch.randn(2, 32, 4, 6)
    assert torch.equal(unshuffle(images, 4), functional.pixel_unshuffle(images, 4))
    assert torch.equal(shuffle(cells, 4), functional.pixel_shuffle(cells, 4))
    convolution = torch.nn.Conv2d(32, 1, 3, padding=1)
    for batch in (cells, cells[:1]):
        ordered = for_convolution(batch)
        assert torch.equal(ordered, batch) and ordered.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(single_map(convolution, ordered), convolution(batch), atol=1e-5, rtol=0)
