"""Every metric by name. A network is loaded only for the metrics asked for; where it cannot be, the metric has the
reason instead of a value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch

from eartalking.errors import InputError, os_cause
from eartalking.perception.identity import FaceIdentity
from eval.metrics.control import Reader, reader_metrics
from eval.metrics.distribution import embedded_distances, fid, fvd
from eval.metrics.head_motion import head_motion_metrics
from eval.metrics.identity import IdentityMetric, identity_metrics
from eval.metrics.mesh import MeshFaces, mesh_metrics
from eval.metrics.metric import Metric
from eval.metrics.paired import PairedMetric, pixel_metrics
from eval.metrics.stability import Flicker, SharpnessGap, drift_metrics
from eval.metrics.sync import CanonicalSync, sync_metrics
from eval.networks.arcface import ArcFace
from eval.networks.canonical_weights import WeightsMissing, WeightsStore
from eval.networks.inception import load_inception
from eval.networks.lite import NAME as LITE0_NAME
from eval.networks.lite import Lite0
from eval.networks.lpips_alex import LpipsAlex
from eval.networks.syncnet import load_embedded
from eval.networks.syncnet_v2 import SyncNetV2
from eval.protocol import Protocol

Network = TypeVar("Network")
LONG_WINDOW = 128  # frames of FVD128
EMBEDDED_SYNC = "_synthtalk"


# The four networks below are kept, because loading takes seconds and a comparison builds a suite per method.
@lru_cache(maxsize=1)
def load_lite0(device: str) -> Lite0:
    """The embedded features' network. Raises ImportError."""
    return Lite0().to(device)


@lru_cache(maxsize=1)
def load_reader() -> Reader:
    """The face reader. Raises InputError."""
    return Reader()


@lru_cache(maxsize=1)
def load_mesh() -> MeshFaces:
    """The face mesh. Raises InputError."""
    return MeshFaces()


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
        groups = (getattr(self, f"_{group}")() for group in dict.fromkeys(wanted.values()))
        built = {metric.name: metric for group in groups for metric in group}
        return [built[name] for name in wanted]

    def _fid(self) -> list[Metric]:
        network, missing = self._canonical(lambda path: load_inception(path("inception")))
        return [fid(network, self._version("inception"), **self._common(missing))]

    def _fvd(self) -> list[Metric]:
        # The file is TorchScript, which only torch.jit reads; its hash was checked before.
        detector, missing = self._canonical(lambda path: torch.jit.load(path("i3d"), map_location="cpu").eval())
        windows = (("fvd", self.protocol.window), ("fvd128", LONG_WINDOW))
        common = self._common(missing)
        return [fvd(detector, self._version("i3d"), frames, name, **common) for name, frames in windows]

    def _sync(self) -> list[Metric]:
        network, missing = self._canonical(lambda path: SyncNetV2.load(path("syncnet")))
        net = None if network is None else CanonicalSync(network, self._version("syncnet"))
        return sync_metrics(net, "", CanonicalSync.name, "canonical", **self._common(missing))

    def _csim(self) -> list[Metric]:
        face, missing = self._canonical(lambda path: ArcFace(path("scrfd"), path("arcface")))
        describe, key = (None if face is None else face.descriptor), f"arcface:1:{self._version('arcface')}"
        common = {"describe": describe, "key": key, **self._common(missing)}
        return [IdentityMetric("csim", "ArcFace w600k_r50 (buffalo_l)", "canonical", True, **common)]

    def _lpips(self) -> list[Metric]:
        network, missing = self._canonical(lambda path: LpipsAlex(path("alexnet")))
        common = {"compare": None if network is None else network.distances, **self._common(missing)}
        return [PairedMetric("lpips", "LPIPS v0.1 AlexNet", "canonical", False, key="lpips:2", **common)]

    def _lite0(self) -> list[Metric]:
        network, missing = self._embedded(lambda: load_lite0(self.device))
        distances = embedded_distances(network, LITE0_NAME, self.protocol.window, **self._common(missing))
        common = {"compare": None if network is None else network.distances, **self._common(missing)}
        pairs = PairedMetric("perceptual_lite0", LITE0_NAME, "embedded", False, key="lite0-distance:1", **common)
        return [*distances, pairs]

    def _embedded_sync(self) -> list[Metric]:
        net, missing = self._embedded(load_embedded)
        network = "syncnet_synthtalk" if net is None else f"{net.name} {net.version}"
        return sync_metrics(net, EMBEDDED_SYNC, network, "embedded", **self._common(missing))

    def _dlib(self) -> list[Metric]:
        describe, missing = self._dlib_face
        return identity_metrics(describe, **self._common(missing))

    def _drift(self) -> list[Metric]:
        return drift_metrics(*self._dlib_face, protocol=self.protocol)

    def _pixels(self) -> list[Metric]:
        steady = Flicker("flicker", "-", "none", True, self.protocol)
        sharp = SharpnessGap("sharpness_gap", "-", "none", False, self.protocol)
        return [*pixel_metrics(protocol=self.protocol), steady, sharp]

    def _reader(self) -> list[Metric]:
        reader, missing = self._embedded(load_reader)
        return reader_metrics(reader, missing, protocol=self.protocol)

    def _head_motion(self) -> list[Metric]:
        reader, missing = self._embedded(load_reader)
        return head_motion_metrics(reader, missing, protocol=self.protocol)

    def _mesh(self) -> list[Metric]:
        mesh, missing = self._embedded(load_mesh)
        return mesh_metrics(mesh, missing, protocol=self.protocol)

    def _common(self, missing: str) -> dict[str, Any]:
        return {"missing": missing, "protocol": self.protocol}

    @cached_property
    def _dlib_face(self) -> tuple[Any, str]:
        face, missing = self._embedded(load_face)
        return (None if face is None else face.descriptor), missing

    def _canonical(self, load: Callable[[Callable[[str], Any]], Network]) -> tuple[Network | None, str]:
        """A network, or None and why there is none. `load` gets a function from a weight's name to its file."""
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
    "fid": "fid", "fvd": "fvd", "fvd128": "fvd", "sync_c": "sync", "sync_d": "sync", "av_offset": "sync",
    "csim": "csim", "lpips": "lpips", "fid_lite0": "lite0", "fvd_lite0": "lite0",
    "sync_c_synthtalk": "embedded_sync", "sync_d_synthtalk": "embedded_sync", "av_offset_synthtalk": "embedded_sync",
    "csim_dlib": "dlib", "identity_dlib": "dlib", "perceptual_lite0": "lite0",
    "ssim": "pixels", "psnr": "pixels", "flicker": "pixels", "sharpness_gap": "pixels",
    "drift_identity": "drift", "drift_sharpness": "drift", "drift_colour": "drift",
    "mouth_corr_mesh": "mesh", "mouth_offset_mesh": "mesh", "mouth_spread_gap_mesh": "mesh",
    "silence_motion_mesh": "mesh", "pose_err_mesh": "mesh", "gaze_err_mesh": "mesh", "blink_f1_mesh": "mesh",
    "silence_motion": "reader", "pose_err": "reader", "gaze_err": "reader", "blink_f1": "reader",
    "emotion_acc": "reader", "control_latency_frames": "reader",
    "head_spread_gap": "head_motion", "head_speed_gap": "head_motion", "head_shake_gap": "head_motion",
    "blink_rate_gap": "head_motion", "beat_alignment": "head_motion",
}  # fmt: skip


def pick_device(name: str) -> str:
    """`auto` is the GPU where there is one. Raises ValueError: asked for a GPU that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device here; use --device cpu")
    return name
