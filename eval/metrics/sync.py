"""Sync-C, Sync-D and the audio-visual offset, from any pair of embeddings of mouths and sounds.

Definitions of syncnet_python: the distance of every video window to the sound at every shift within +-15 frames (zeros
beyond the ends), averaged over the windows: one number per shift. Sync-D is the least of them, Sync-C their median
minus the least, the offset 15 minus the index of the least. A sound that comes k frames early gives +k, a late one -k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import numpy as np

from eartalking.io.portrait import Box
from eartalking.perception.frontal_detector import find_frontal_face
from eval.clips import EvalClip, Footage
from eval.metrics.metric import FRAMES, Item, MeanMetric, Metric, Unmeasured, present
from eval.networks.syncnet_v2 import SHORTEST_TRACK, SyncNetV2, crop_track, s3fd_box

MAX_SHIFT = 15
LOOK_EVERY = 5  # frames between those in which the face is looked for
LEAST_SEEN = 0.5  # of the looks must find a face
_EPSILON = 1e-6  # torch's pairwise_distance adds it to every difference
HIGHER_IS_BETTER = {"sync_c": True, "sync_d": False, "av_offset": None}


def offset_curve(video: np.ndarray, audio: np.ndarray, max_shift: int = MAX_SHIFT) -> np.ndarray:
    """Mean distance per shift (2 max_shift + 1,) of two tracks of embeddings (W, D); entry i is for sound that comes
    i - max_shift frames late.

    Raises:
        ValueError: different shapes, no window, or numbers that are not finite.
    """
    if video.shape != audio.shape or video.ndim != 2 or not len(video):
        raise ValueError(f"two tracks of embeddings (W, D) are needed, got {video.shape} and {audio.shape}")
    video, audio = video.astype(np.float64), audio.astype(np.float64)
    if not (np.isfinite(video).all() and np.isfinite(audio).all()):
        raise ValueError("the embeddings contain numbers that are not finite")
    padded = np.pad(audio, ((max_shift, max_shift), (0, 0)))
    shifted = (padded[shift : shift + len(video)] for shift in range(2 * max_shift + 1))
    return np.array([np.linalg.norm(video - other + _EPSILON, axis=1).mean() for other in shifted])


def sync_scores(curve: np.ndarray) -> dict[str, float]:
    """`sync_c`, `sync_d` and `av_offset` of an offset curve."""
    best = int(curve.argmin())
    return {
        "sync_c": float(np.median(curve) - curve[best]),
        "sync_d": float(curve[best]),
        "av_offset": float(len(curve) // 2 - best),
    }


class SyncNetwork(Interface):
    """What sync metrics need of a network. `version` changes when its weights do."""

    name: str
    version: str

    def embed(self, frames: np.ndarray, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames (T, H, W, 3) uint8 as the protocol frames them, sound at 16 kHz -> video (W, D), audio (W, D), row w
        of both for the window that starts at frame w; ValueError where a clip is too short."""


class CanonicalSync:
    """syncnet_v2 on a face track."""

    name = "syncnet_v2 (dlib track)"

    def __init__(
        self, network: SyncNetV2, version: str, find: Callable[[np.ndarray], Box | None] = find_frontal_face
    ) -> None:
        self.network, self.version, self._find = network, version, find

    def embed(self, frames: np.ndarray, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.network.embed(crop_track(frames, self.track(frames)), waveform)

    def track(self, frames: np.ndarray) -> np.ndarray:
        """Face boxes (T, 4), linear between the frames looked at. Raises Unmeasured: too short, or hardly any face."""
        if len(frames) < SHORTEST_TRACK:
            raise Unmeasured(f"SyncNet needs a face track of {SHORTEST_TRACK} frames, the clip has {len(frames)}")
        looks = range(0, len(frames), LOOK_EVERY)
        found = {index: box for index in looks if (box := self._find(frames[index])) is not None}
        if len(found) < max(LEAST_SEEN * len(looks), 1):
            raise Unmeasured(f"a face is found in only {len(found)} of {len(looks)} frames")
        boxes = np.array([s3fd_box(box) for box in found.values()])
        return np.stack([np.interp(np.arange(len(frames)), list(found), boxes[:, edge]) for edge in range(4)], axis=1)


@dataclass
class SyncMetric(MeanMetric):
    """One of the three scores: per clip (one track each), then the mean over clips, of the offset the median."""

    score: str = "sync_c"
    net: SyncNetwork | None = None

    def measure(self, clip: EvalClip) -> Item:
        net, shift = present(self.net), self.protocol.max_shift

        def extract(footage: Footage) -> dict[str, np.ndarray]:
            video, audio = net.embed(footage.frames, footage.waveform)
            return {"curve": offset_curve(video, audio, shift), FRAMES: np.asarray(len(video))}

        return clip.pred.features(f"sync:1:{net.name}:{net.version}:{shift}", extract)

    def clip_value(self, item: Item) -> float:
        return sync_scores(item["curve"])[self.score]

    def clip_details(self, item: Item) -> dict[str, list[float]]:
        return {"curve": item["curve"].round(4).tolist()} if self.score == "sync_d" else {}


def sync_metrics(net: SyncNetwork | None, suffix: str, network: str, tier: str, **common: Any) -> list[Metric]:
    """The three scores of one network."""
    return [
        SyncMetric(score + suffix, network, tier, better, median=score == "av_offset", score=score, net=net, **common)
        for score, better in HIGHER_IS_BETTER.items()
    ]
