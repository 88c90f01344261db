"""The canonical networks and formulas against the packages that define them, at real shapes with random weights.

Those packages are `requirements-parity.txt`; a test is skipped where its package is not installed.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics_door  # noqa: F401  (before anything imports torchvision)
from torch import Tensor, nn

from eval.metrics.distribution import i3d_features
from eval.metrics.frechet import frechet_distance
from eval.metrics.sync import offset_curve, sync_scores
from eval.networks.inception import FidInception, inception_features
from eval.networks.lpips_alex import LpipsAlex
from eval.networks.syncnet_v2 import SyncNetV2, mfcc


def package_file(package: str, name: str) -> Path:
    """One file of an installed package, whose `__init__` asks for more than the file needs."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed (requirements-parity.txt)")
    return Path(spec.origin).parent / name


def randomise(network: nn.Module) -> None:
    """Weights under which every layer passes something on, batch statistics included."""
    generator = torch.Generator().manual_seed(5)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith("num_batches_tracked"):
            continue
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
            else:
                value.copy_(
                    0.1 * torch.randn(value.shape, generator=generator) + name.endswith(("bn.weight", "bn1.weight"))
                )


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


# ---- Inception --------------------------------------------------------------


def test_inception_is_the_one_of_pytorch_fid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = pytest.importorskip("pytorch_fid.inception")
    network = FidInception()
    randomise(network)
    weights = network.state_dict() | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: weights)  # the file cannot be had here
    reference = theirs.InceptionV3([3]).eval()
    torch.save(weights, tmp_path / "inception.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 200, 180, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = reference(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)[0].flatten(1).numpy()
    found = inception_features(FidInception.load(tmp_path / "inception.pth"), frames)
    assert found.shape == (2, 2048) and wanted.std() > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


# ---- SyncNet ----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.345])
def test_mfcc_is_the_one_of_python_speech_features(seconds: float) -> None:
    reference = pytest.importorskip("python_speech_features")
    samples = (np.random.default_rng(0).normal(size=round(16000 * seconds)) * 4000).astype(np.int16)
    if seconds > 1:
        samples[4000:9000] = 0  # digital silence, where logarithms need their floor
    np.testing.assert_allclose(mfcc(samples / 32767), reference.mfcc(samples, 16000), rtol=1e-6, atol=1e-8)


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


def test_lpips_is_the_one_of_lpips() -> None:
    package = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = package.LPIPS(
            net="alex", pnet_rand=True, verbose=False
        ).eval()  # a random trunk, the published linear weights
    trunk = {}
    for index, place in enumerate((0, 3, 6, 8, 10), start=1):
        conv = getattr(reference.net, f"slice{index}")._modules[str(place)]
        trunk |= {f"features.{place}.weight": conv.weight, f"features.{place}.bias": conv.bias}
    network = LpipsAlex()
    network.set_weights(trunk, reference.state_dict())
    rng = np.random.default_rng(0)
    frames, truth = (rng.integers(0, 256, (2, 128, 96, 3), dtype=np.uint8) for _ in range(2))
    with torch.inference_mode():
        wanted = (
            reference(*(torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (frames, truth)))
            .flatten()
            .numpy()
        )
    found = network.distances(frames, truth)
    assert found.min() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_array_equal(network.distances(frames, frames), 0)
