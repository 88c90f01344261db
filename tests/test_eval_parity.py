"""The canonical networks and formulas against other packages' versions of them, at real shapes with random weights.

Packages that only these tests need are in `requirements-parity.txt`; a test is skipped where its own is missing.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks_on_disk import randomise, save_random_inception
from scipy.linalg import eigvals
from torch import Tensor, nn

from eartalking.modules.torchvision_operators import declare_torchvision_operators
from eval.metrics.distribution import i3d_features
from eval.metrics.frechet import frechet_distance
from eval.metrics.sync import offset_curve, sync_scores
from eval.networks.inception import inception_features, load_inception
from eval.networks.lpips_alex import LpipsAlex
from eval.networks.syncnet_v2 import SyncNetV2

declare_torchvision_operators()  # most of these packages import torchvision


def package_file(package: str, name: str) -> Path:
    """One file of an installed package, whose `__init__` asks for more than the file needs."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed (requirements-parity.txt)")
    return Path(spec.origin).parent / name


# ---- the Fréchet distance ----------------------------------------------------


def features(count: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) / width**0.5 + shift).astype(np.float32)


@pytest.mark.parametrize("counts", [(300, 250), (40, 300), (40, 30)], ids=["n > d", "one n < d", "n < d"])
@pytest.mark.parametrize("package", ["torch_fidelity", "pytorch_fid", "cleanfid"])
def test_frechet_distance_agrees_with(package: str, counts: tuple[int, int]) -> None:
    a, b = features(counts[0], 64, 1), features(counts[1], 64, 2, 0.1)
    ours = frechet_distance(a, b)
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a.astype(np.float64), b.astype(np.float64))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if package == "torch_fidelity":
            metric = pytest.importorskip("torch_fidelity.metric_fid")
            stats = [metric.fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (a, b)]
            theirs = metric.fid_statistics_to_metric(*stats, False)[metric.KEY_METRIC_FID]
        elif package == "pytorch_fid":
            theirs = pytest.importorskip("pytorch_fid.fid_score").calculate_frechet_distance(*moments[0], *moments[1])
        else:
            theirs = pytest.importorskip("cleanfid.fid").frechet_distance(*moments[0], *moments[1])
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("counts", [(300, 250), (40, 300), (40, 30)], ids=["n > d", "one n < d", "n < d"])
def test_frechet_distance_is_its_formula_by_scipy(counts: tuple[int, int]) -> None:
    """The trace of the root of S1 S2 is the sum of the roots of its eigenvalues."""
    a, b = (x.astype(np.float64) for x in (features(counts[0], 64, 1), features(counts[1], 64, 2, 0.1)))
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    roots = np.sqrt(np.maximum(eigvals(covariances[0] @ covariances[1]).real, 0))
    spread = sum(np.trace(covariance) for covariance in covariances) - 2 * roots.sum()
    assert frechet_distance(a, b) == pytest.approx(np.square(a.mean(0) - b.mean(0)).sum() + spread, rel=1e-5)


# ---- Inception --------------------------------------------------------------


def test_inception_is_the_one_of_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytorch-fid's network, loaded from a file by us, against another package's from the same file."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "inception.pth"
    save_random_inception(path, monkeypatch)
    reference = theirs.FeatureExtractorInceptionV3("inception", ["2048"], str(path)).eval()
    network = load_inception(path)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 299, 299), dtype=np.uint8))
    with torch.inference_mode():
        wanted = reference(images)[0].numpy()
        # It scales by (x - 128) / 128, and resizes in another way: so at the network's own size, and in its scale.
        found = network(images.float() / 256)[0].flatten(1).numpy()
    assert found.shape == (2, 2048) and wanted.std() > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_fid_features_are_of_images_in_0_to_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_random_inception(tmp_path / "inception.pth", monkeypatch)
    network = load_inception(tmp_path / "inception.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 200, 180, 3), dtype=np.uint8)
    with torch.inference_mode():
        # Bilinear to 299 without antialiasing, then 2x - 1: pytorch-fid's preprocessing, written out.
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        x = 2 * nn.functional.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False) - 1
        for block in network.blocks:
            x = block(x)
    found = inception_features(network, frames)
    assert found.shape == (2, 2048) and found.dtype == np.float32
    np.testing.assert_allclose(found, x.flatten(1).numpy(), rtol=1e-5, atol=1e-6)


# ---- SyncNet ----------------------------------------------------------------


def test_syncnet_is_the_one_of_syncnet_python() -> None:
    scope: dict[str, Any] = {}
    exec(package_file("syncnet_python", "SyncNetModel.py").read_text(), scope)
    reference = scope["S"]().eval()
    network = SyncNetV2().eval()
    randomise(network)
    reference.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(1)
    sound = 5 * torch.randn((2, 1, 13, 20), generator=generator)
    mouth = 255 * torch.rand((2, 3, 5, 224, 224), generator=generator)
    with torch.inference_mode():
        for ours, theirs in (
            (network.sound(sound), reference.forward_aud(sound)),
            (network.mouth(mouth), reference.forward_lip(mouth)),
        ):
            assert ours.shape == (2, 1024) and ours.std() > 0
            torch.testing.assert_close(ours, theirs)


def test_offsets_are_those_of_syncnet_python() -> None:
    text = package_file("syncnet_python", "SyncNetInstance.py").read_text()
    scope: dict[str, Any] = {"torch": torch}  # of a file that also reads videos, only the formula
    exec(text[text.index("def calc_pdist") : text.index("# ==================== MAIN DEF")], scope)
    generator = torch.Generator().manual_seed(2)
    audio = torch.randn((60, 32), generator=generator)
    video = torch.roll(audio, 4, 0) + 0.5 * torch.randn((60, 32), generator=generator)
    distances = torch.stack(scope["calc_pdist"](video, audio, vshift=15), 1).mean(1)
    ours = offset_curve(video.numpy(), audio.numpy())
    np.testing.assert_allclose(ours, distances.numpy(), rtol=1e-5)
    least, index = distances.min(0)
    scores = sync_scores(ours)
    assert scores["av_offset"] == 15 - int(index) == 4
    assert scores["sync_d"] == pytest.approx(float(least), rel=1e-5)
    assert scores["sync_c"] == pytest.approx(float(distances.median() - least), rel=1e-4)


# ---- I3D --------------------------------------------------------------------


class Detector(nn.Module):
    """StyleGAN-V's interface around the package's network: resizes and rescales by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, video: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert rescale and resize and return_features and video.shape[:3] == (1, 3, 16) and video.max() > 1
        frames = nn.functional.interpolate(
            video[0].transpose(0, 1), size=(224, 224), mode="bilinear", align_corners=False
        )
        return self.network((2 * frames / 255 - 1).transpose(0, 1)[None])


def test_i3d_gets_what_cd_fvd_gives_it() -> None:
    utils = pytest.importorskip("cdfvd.third_party.i3d.utils")
    network = utils.pytorch_i3d.InceptionI3d(400, in_channels=3).eval()
    randomise(network)
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = network(utils.preprocess_i3d(frames[None]))[0].numpy()
    found = i3d_features(Detector(network), frames)
    assert found.shape == (400,)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


# ---- LPIPS ------------------------------------------------------------------


def test_lpips_is_the_one_of_torchmetrics(tmp_path: Path) -> None:
    """The package lpips, its trunk loaded from a file by us, against torchmetrics' own copy of the metric."""
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    trunk = alexnet(weights=None)
    randomise(trunk)
    torch.save(trunk.state_dict(), tmp_path / "alexnet.pth")
    network = LpipsAlex(tmp_path / "alexnet.pth")
    reference = _LPIPS(net="alex", pnet_rand=True).eval()  # a random trunk, the published linear weights
    for name, value in reference.net.state_dict().items():
        value.copy_(trunk.state_dict()[f"features.{name.split('.', 1)[1]}"])
    rng = np.random.default_rng(0)
    frames, truth = (rng.integers(0, 256, (2, 128, 96, 3), dtype=np.uint8) for _ in range(2))
    with torch.inference_mode():
        images = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (frames, truth))
        wanted = reference(*images).flatten().numpy()
    found = network.distances(frames, truth)
    assert found.min() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_array_equal(network.distances(frames, frames), 0)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="no AlexNet: features.0.bias is missing"):
        LpipsAlex(tmp_path / "other.pth")
