"""Frame autoencoder: shapes, the warp's convention, and that the latents alone carry the frame."""
import torch

from eartalking.autoencoder import FrameAutoencoder, identity_grid, warp_image
from eartalking.config import TINY


def make() -> FrameAutoencoder:
    torch.manual_seed(0)
    return FrameAutoencoder(TINY.autoencoder).eval()


def test_shapes() -> None:
    autoencoder = make()
    frame, portrait = torch.rand(2, 2, 3, 64, 64).unbind(0)
    latents = autoencoder.encode(frame, portrait)
    assert latents.shape == (2, TINY.autoencoder.num_latent_tokens, TINY.autoencoder.latent_channels)
    decoded = autoencoder.decode(latents, autoencoder.reference(portrait))
    assert decoded.image.shape == decoded.warped.shape == decoded.painted.shape == (2, 3, 64, 64)
    assert decoded.blend.shape == (2, 1, 64, 64)
    assert [warp.shape[-1] for warp in decoded.warps] == [4, 8, 16]
    assert decoded.visibility.shape == (2, 1, 16, 16)


def test_a_new_decoder_starts_from_the_unwarped_portrait() -> None:
    autoencoder = make()
    portrait = torch.rand(1, 3, 64, 64) * 2 - 1
    decoded = autoencoder.decode(torch.randn(1, 16, 4), autoencoder.reference(portrait))
    torch.testing.assert_close(decoded.warped, portrait, atol=1e-5, rtol=0)


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
    plain = autoencoder.encode(frame, frame)
    reference = autoencoder.reference(frame)
    image = autoencoder.decode(plain, reference).image
    autoencoder.latent_mean.fill_(0.5)
    autoencoder.latent_std.fill_(2.0)
    normalised = autoencoder.encode(frame, frame)
    torch.testing.assert_close(normalised, (plain - 0.5) / 2)
    torch.testing.assert_close(autoencoder.decode(normalised, reference).image, image, atol=1e-5, rtol=1e-5)
