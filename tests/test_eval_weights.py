"""Canonical weights: the manifest, where they are looked for, what is refused, and that nothing is fetched unasked."""

from __future__ import annotations

import ast
import hashlib
import json
import socket
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from networks_on_disk import save_random_inception

from eval.cache import file_hash
from eval.networks.canonical_weights import WeightsMissing, WeightsStore, read_weights_manifest
from eval.networks.syncnet_v2 import SyncNetV2
from eval.protocol import Protocol
from eval.suite import NAMES, Suite, pick_device


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "net.pt").write_bytes(b"weights")
    (folder / "bad.pt").write_bytes(b"not it")
    return folder


@pytest.fixture
def address(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server of this machine offers the files of `mirror`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=mirror)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def manifest(tmp_path: Path, sha256: str, *mirrors: str) -> Path:
    path = tmp_path / "manifest.json"
    entry = {"file": "net.pt", "sha256": sha256, "licence": "MIT", "mirrors": list(mirrors)}
    path.write_text(json.dumps({"net": entry}))
    return path


GOOD = hashlib.sha256(b"weights").hexdigest()


def test_the_manifest_names_every_canonical_network() -> None:
    entries = read_weights_manifest()
    assert set(entries) == {"inception", "i3d", "syncnet", "arcface", "scrfd", "alexnet"}
    for entry in entries.values():
        assert len(entry.sha256) == 64 and entry.licence and entry.mirrors
        assert all(url.startswith("https://") for url in entry.mirrors)
    for name, start in (("inception", "6726825d"), ("alexnet", "7be5be79")):  # as the files' names say
        assert entries[name].sha256.startswith(start) and start in entries[name].file


def test_a_local_folder_comes_first_and_a_wrong_file_is_refused(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WeightsStore(mirror, manifest=manifest(tmp_path, GOOD))
    assert store.path("net") == mirror / "net.pt"
    monkeypatch.setenv("EARTALKING_WEIGHTS", str(mirror))
    assert WeightsStore(manifest=manifest(tmp_path, GOOD)).path("net") == mirror / "net.pt"
    (mirror / "net.pt").write_bytes(b"other weights")
    with pytest.raises(WeightsMissing, match="net.pt is another file of that name"):
        store.path("net")


def test_fetching_takes_the_next_mirror_and_keeps_nothing_wrong(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"{address}/nowhere.pt", f"{address}/bad.pt", f"{address}/net.pt"]
    folder = tmp_path / "folder"
    path = manifest(tmp_path, GOOD, *urls)
    with pytest.raises(WeightsMissing, match="not here"):
        WeightsStore(folder, manifest=path).path("net")
    monkeypatch.setenv("EARTALKING_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match="not here"):
        WeightsStore(folder, fetch=True, manifest=path).path("net")
    monkeypatch.delenv("EARTALKING_OFFLINE")
    assert not folder.exists()
    assert WeightsStore(folder, fetch=True, manifest=path).path("net").read_bytes() == b"weights"
    assert [file.name for file in folder.iterdir()] == ["net.pt"]
    wrong = manifest(tmp_path, GOOD, *urls[:2])
    with pytest.raises(WeightsMissing, match="cannot be fetched .*404.*SHA256"):
        WeightsStore(tmp_path / "other", fetch=True, manifest=wrong).path("net")
    assert list((tmp_path / "other").iterdir()) == []


def test_an_address_without_a_server_is_a_reason(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, but nothing listens
        closed.bind(("127.0.0.1", 0))
        path = manifest(tmp_path, GOOD, f"http://127.0.0.1:{closed.getsockname()[1]}/net.pt")
        with pytest.raises(WeightsMissing, match="cannot be fetched"):
            WeightsStore(tmp_path / "folder", fetch=True, manifest=path).path("net")


def test_a_broken_manifest_names_its_fault(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"net": {"file": "a", "mirrors": []}}')
    with pytest.raises(ValueError, match="sha256|licence"):
        read_weights_manifest(path)


def test_without_weights_canonical_metrics_exist_and_say_why(tmp_path: Path) -> None:
    suite = Suite(Protocol(), WeightsStore(tmp_path))
    for metric in suite.metrics(["fid", "fvd", "fvd128", "sync_c", "sync_d", "av_offset", "csim", "lpips"]):
        assert metric.tier == "canonical" and "weights" in metric.missing and str(tmp_path) not in metric.missing
    assert [metric.name for metric in suite.metrics(["psnr", "ssim"])] == ["ssim", "psnr"]
    with pytest.raises(ValueError, match="unknown metrics beauty"):
        suite.metrics(["beauty"])


def test_embedded_numbers_never_stand_under_canonical_names(tmp_path: Path) -> None:
    tiers = {metric.name: metric.tier for metric in Suite(Protocol(), WeightsStore(tmp_path)).metrics()}
    assert list(tiers) == list(NAMES)
    assert {name for name, tier in tiers.items() if tier == "canonical"} == {
        "fid", "fvd", "fvd128", "sync_c", "sync_d", "av_offset", "csim", "lpips",
    }  # fmt: skip


def test_every_embedded_metric_has_what_it_needs(tmp_path: Path) -> None:
    """After README's first command, without fetching anything."""
    metrics = Suite(Protocol(), WeightsStore(tmp_path)).metrics()
    assert {metric.name: metric.missing for metric in metrics if metric.tier != "canonical" and metric.missing} == {}


class Detector(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(
        self, video: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        features = video.mean((2, 3, 4)) * self.scale
        return features if rescale and resize and return_features else features * 0


def test_torchscript_weights_load_and_a_damaged_file_is_a_reason(tmp_path: Path) -> None:
    torch.jit.script(Detector()).save(tmp_path / "i3d_torchscript.pt")
    digest = hashlib.sha256((tmp_path / "i3d_torchscript.pt").read_bytes()).hexdigest()
    entries = {"i3d": {"file": "i3d_torchscript.pt", "sha256": digest, "licence": "-", "mirrors": []}}
    (tmp_path / "m.json").write_text(json.dumps(entries))
    metric = Suite(Protocol(), WeightsStore(tmp_path, manifest=tmp_path / "m.json")).metrics(["fvd"])[0]
    assert metric.missing == ""
    frames = torch.zeros(16, 8, 8, 3, dtype=torch.uint8).numpy() + 7

    class Footage:
        num_frames = 33

        def batches(self, size: int) -> list:
            return [frames, frames, frames[:1]]

    found = metric.extract(Footage())
    assert found["features"].tolist() == [[7, 7, 7]] * 2 and int(found["frames"]) == 32
    (tmp_path / "i3d_torchscript.pt").write_bytes(b"not a network")
    entries["i3d"]["sha256"] = hashlib.sha256(b"not a network").hexdigest()
    (tmp_path / "m.json").write_text(json.dumps(entries))
    broken = Suite(Protocol(), WeightsStore(tmp_path, manifest=tmp_path / "m.json")).metrics(["fvd"])[0]
    assert "cannot be loaded" in broken.missing


def test_eval_imports_with_the_plain_requirements() -> None:
    """What is imported at the top is there after the first command of the README; the rest is imported when needed."""
    plain = {
        "torch", "numpy", "scipy", "PIL", "tqdm", "psutil", "safetensors", "accelerate", "pooch",
        "python_speech_features", "eartalking", "eval",
    }  # fmt: skip
    files = list((Path(__file__).parent.parent / "eval").rglob("*.py"))
    assert len(files) > 25
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
            else:
                tops = {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
            assert tops <= plain | set(sys.stdlib_module_names), f"{path.name} imports {sorted(tops - plain)}"


def test_canonical_networks_load_from_files_of_the_published_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_random_inception(tmp_path / "inception", monkeypatch)  # first: it makes torchvision importable
    from torchvision.models import alexnet

    for name, network in {"syncnet": SyncNetV2(), "alexnet": alexnet(weights=None)}.items():
        # The published files are older than torch's zip format.
        torch.save(network.state_dict(), tmp_path / name, _use_new_zipfile_serialization=False)
    files = ("inception", "syncnet", "alexnet")
    common = {"licence": "-", "mirrors": []}
    entries = {name: {"file": name, "sha256": file_hash(tmp_path / name), **common} for name in files}
    (tmp_path / "m.json").write_text(json.dumps(entries))
    suite = Suite(Protocol(), WeightsStore(tmp_path, manifest=tmp_path / "m.json"))
    for metric in suite.metrics(["fid", "sync_c", "lpips"]):
        assert metric.missing == "", metric.missing


def test_devices() -> None:
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA"):
            pick_device("cuda")
