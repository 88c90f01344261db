"""Every metric there is, built once: networks are loaded where they can be had, and where not the metric says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch

from eartalking.errors import InputError, os_cause
from eartalking.perception.identity import FaceIdentity
from eval.metrics import control, distribution, paired, stability
from eval.metrics.identity import IdentityMetric, identity_metrics
from eval.metrics.metric import Metric
from eval.metrics.sync import CanonicalSync, SyncMetric, sync_metrics
from eval.networks.arcface import ArcFace
from eval.networks.canonical_weights import WeightsMissing, WeightsStore
from eval.networks.inception import FidInception
from eval.networks.lite import NAME as LITE0_NAME
from eval.networks.lite import Lite0
from eval.networks.lpips_alex import LpipsAlex
from eval.networks.syncnet import load_embedded
from eval.networks.syncnet_v2 import SyncNetV2
from eval.protocol import Protocol

Network = TypeVar("Network")
LONG_WINDOW = 128  # frames of FVD128
EMBEDDED_SYNC = "_synthtalk"


# Loading takes seconds, and a comparison asks for them again for every method.
@lru_cache(maxsize=1)
def load_lite0(device: str) -> Lite0:
    """The embedded features' network. Raises ImportError."""
    return Lite0().to(device)


@lru_cache(maxsize=1)
def load_reader() -> control.Reader:
    """The face reader. Raises InputError."""
    return control.Reader()


@lru_cache(maxsize=1)
def load_face() -> FaceIdentity:
    """dlib's detector and face ResNet. Raises ImportError, FileNotFoundError."""
    return FaceIdentity()


@dataclass
class Suite:
    """The metrics of a protocol. `store` finds the canonical weights; `device` runs the canonical networks."""

    protocol: Protocol
    store: WeightsStore
    device: str = "cpu"

    def metrics(self, names: list[str] | None = None) -> list[Metric]:
        """The named metrics in the order of the tables, all without names. Only what they need is loaded.

        Raises:
            ValueError: an unknown name.
        """
        if names is not None and (unknown := sorted(set(names) - set(NAMES))):
            raise ValueError(f"unknown metrics {', '.join(unknown)}; known: {', '.join(NAMES)}")
        wanted = {name: group for name, group in NAMES.items() if names is None or name in names}
        built = {
            metric.name: metric for group in dict.fromkeys(wanted.values()) for metric in getattr(self, f"_{group}")()
        }
        return [built[name] for name in wanted]

    def _fid(self) -> list[Metric]:
        network, missing = self._canonical(lambda path: FidInception.load(path("inception")))
        return [distribution.fid(network, self._version("inception"), missing=missing, protocol=self.protocol)]

    def _fvd(self) -> list[Metric]:
        # The file is TorchScript, which only torch.jit reads; its hash was checked before.
        detector, missing = self._canonical(lambda path: torch.jit.load(path("i3d"), map_location="cpu").eval())
        windows = (("fvd", self.protocol.window), ("fvd128", LONG_WINDOW))
        common = {"missing": missing, "protocol": self.protocol}
        return [distribution.fvd(detector, self._version("i3d"), frames, name, **common) for name, frames in windows]

    def _sync(self) -> list[SyncMetric]:
        network, missing = self._canonical(lambda path: SyncNetV2.load(path("syncnet")))
        net = None if network is None else CanonicalSync(network, self._version("syncnet"))
        return sync_metrics(net, "", CanonicalSync.name, "canonical", missing=missing, protocol=self.protocol)

    def _csim(self) -> list[Metric]:
        face, missing = self._canonical(lambda path: ArcFace(path("scrfd"), path("arcface")))
        describe = None if face is None else face.descriptor
        key = f"arcface:1:{self._version('arcface')}"
        network = "ArcFace w600k_r50 (buffalo_l)"
        return [IdentityMetric("csim", network, "canonical", True, self.protocol, missing, key=key, describe=describe)]

    def _lpips(self) -> list[Metric]:
        network, missing = self._canonical(lambda path: LpipsAlex.load(path("alexnet"), path("lpips_alex")))
        compare = None if network is None else network.distances
        name = "LPIPS v0.1 AlexNet"
        return [
            paired.PairedMetric(
                "lpips", name, "canonical", False, self.protocol, missing, key="lpips:1", compare=compare
            )
        ]

    def _lite0(self) -> list[Metric]:
        network, missing = self._embedded(lambda: load_lite0(self.device))
        compare = None if network is None else network.distances
        common: dict[str, Any] = {"missing": missing, "protocol": self.protocol}
        distance = paired.PairedMetric(
            "perceptual_lite0", LITE0_NAME, "embedded", False, key="lite0-distance:1", compare=compare, **common
        )
        return [*distribution.embedded(network, LITE0_NAME, self.protocol.window, **common), distance]

    def _embedded_sync(self) -> list[SyncMetric]:
        net, missing = self._embedded(load_embedded)
        network = "syncnet_synthtalk" if net is None else f"{net.name} {net.version}"
        return sync_metrics(net, EMBEDDED_SYNC, network, "embedded", missing=missing, protocol=self.protocol)

    def _dlib(self) -> list[Metric]:
        describe, missing = self._dlib_face
        return identity_metrics(describe, missing=missing, protocol=self.protocol)

    def _drift(self) -> list[Metric]:
        return stability.drift_metrics(*self._dlib_face, protocol=self.protocol)

    def _pixels(self) -> list[Metric]:
        return [
            *paired.pixel_metrics(protocol=self.protocol),
            stability.Flicker("flicker", "-", "none", True, self.protocol),
        ]

    def _reader(self) -> list[Metric]:
        reader, missing = self._embedded(load_reader)
        return control.reader_metrics(reader, missing, protocol=self.protocol)

    @cached_property
    def _dlib_face(self) -> tuple[Any, str]:
        face, missing = self._embedded(load_face)
        return (None if face is None else face.descriptor), missing

    def _canonical(self, load: Callable[[Callable[[str], Any]], Network]) -> tuple[Network | None, str]:
        """A network, or why there is none. `load` is given a function from a weight's name to its file."""
        try:
            network = load(self.store.path)
        except WeightsMissing as error:
            return None, str(error)
        except ImportError as error:
            return None, f"the package {error.name or error} is not installed"
        except (RuntimeError, OSError, ValueError) as error:
            return None, f"the weights cannot be loaded: {os_cause(error)}"
        return (network.to(self.device) if isinstance(network, torch.nn.Module) else network), ""

    def _embedded(self, load: Callable[[], Network]) -> tuple[Network | None, str]:
        try:
            return load(), ""
        except ImportError as error:
            return None, f"the package {error.name or error} is not installed"
        except (FileNotFoundError, InputError) as error:
            return None, str(error)

    def _version(self, name: str) -> str:
        return self.store.entries[name].sha256[:12]


# Every metric in the order of the tables, and the group that builds it.
NAMES = {
    "fid": "fid", "fvd": "fvd", "fvd128": "fvd", "sync_c": "sync", "sync_d": "sync", "av_offset": "sync", "csim": "csim", "lpips": "lpips",
    "fid_lite0": "lite0", "fvd_lite0": "lite0",
    **dict.fromkeys(("sync_c_synthtalk", "sync_d_synthtalk", "av_offset_synthtalk"), "embedded_sync"),
    "csim_dlib": "dlib", "identity_dlib": "dlib", "perceptual_lite0": "lite0",
    **dict.fromkeys(("ssim", "psnr", "flicker"), "pixels"),
    **dict.fromkeys(("drift_identity", "drift_sharpness", "drift_colour"), "drift"),
    **dict.fromkeys(("silence_motion", "pose_err", "gaze_err", "blink_f1", "emotion_acc", "control_latency_frames"), "reader"),
}  # fmt: skip


def pick_device(name: str) -> str:
    """`auto` is the GPU where there is one. Raises ValueError: asked for a GPU that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device here; use --device cpu")
    return name
