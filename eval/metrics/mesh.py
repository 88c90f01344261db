"""Metrics by the face mesh and the iris network, which have seen real faces and nothing of ours.

The same questions as those of `control` and `head_motion`, asked of another reader, and what the lips do beside the
truth's. A lip opening is what the mesh reads above what it reads of shut lips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eartalking.perception.face_follower import FaceFollower
from eartalking.perception.graph_network import WEIGHTS_FOLDER
from eartalking.perception.mesh_readings import CALIBRATION, FaceState, MeshReader
from eval.cache import file_hash
from eval.clips import EvalClip, Footage
from eval.metrics.control import GAZE_TRACKS, POSE_TRACKS, fidelity_metrics
from eval.metrics.head_motion import MotionGap, spread
from eval.metrics.metric import Item, MeanMetric, Metric, NotAsked, Unmeasured, present
from eval.metrics.signals import best_lag, lag_correlations
from eval.metrics.sync import LEAST_SEEN

SUFFIX = "_mesh"
NETWORKS = ("face_mesh", "iris", "face_detector_near", "face_detector_far")
SHUT_LIPS = 0.0172  # lip gap of shut lips, median over rendered heads (`mesh_calibration`, lip_gap_closed_p50)
SHUT_EYE = 0.26  # opening of a shut eye over that of the same eye open (the same, eye_opening)
OPEN_EYE = 0.2  # least opening of an open eye; below it a clip in which the eyes never open has no scale
STILL_LIPS = 0.004  # spread of the opening below which lips do not move: the mesh's own noise is half of it


@dataclass(frozen=True)
class MeshReading:
    """What was read from T frames, every field (T,) float64: degrees with the signs of the control table; `blink` 0
    open to 1 shut; `mouth_open` in distances of the outer eye corners, 0 for shut lips."""

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    gaze_yaw: np.ndarray
    gaze_pitch: np.ndarray
    blink: np.ndarray
    mouth_open: np.ndarray

    def __getitem__(self, index: slice | np.ndarray) -> MeshReading:
        return MeshReading(**{name: value[index] for name, value in vars(self).items()})

    @staticmethod
    def of(states: list[FaceState | None]) -> MeshReading:
        """Frames in which no face is certain are filled in linearly from those around them.

        Raises:
            Unmeasured: hardly any face.
        """
        seen = np.array([state is not None for state in states], bool)
        if seen.sum() < max(LEAST_SEEN * len(states), 1):
            raise Unmeasured(f"a face is found in only {int(seen.sum())} of {len(states)} frames")

        def track(name: str) -> np.ndarray:
            values = [getattr(state, name) for state in states if state is not None]
            return np.interp(np.arange(len(states)), np.flatnonzero(seen), values)

        eyes = track("eye_opening")
        wide = max(float(np.percentile(eyes, 90)), OPEN_EYE)
        blink = ((wide - eyes) / (wide * (1 - SHUT_EYE))).clip(0, 1)
        degrees = {name: track(name) for name in (*POSE_TRACKS, *GAZE_TRACKS)}
        return MeshReading(**degrees, blink=blink, mouth_open=(track("lip_gap") - SHUT_LIPS).clip(0))


class MeshFaces:
    """The mesh's readings of videos, and their version. Raises InputError: its networks are not there."""

    smallest_opening = 0.01

    def __init__(self) -> None:
        self._reader = MeshReader.load()
        files = [WEIGHTS_FOLDER / CALIBRATION, *(WEIGHTS_FOLDER / f"{name}.safetensors" for name in NETWORKS)]
        self.version = "-".join(file_hash(path)[:4] for path in files)

    def network(self, *readings: str) -> str:
        """The networks' name with their own error in these readings, where that is known."""
        known = self._reader.accuracy
        errors = ", ".join(f"{name} {known[name]:.3g}" for name in readings if name in known)
        return f"face mesh {self.version}" + (f" (own: {errors})" if errors else "")

    def read(self, footage: Footage) -> MeshReading:
        """All frames of a video, from the cache where they have been read before. Raises Unmeasured: hardly any
        face.
        """

        def extract(found: Footage) -> dict[str, np.ndarray]:
            follower = FaceFollower(self._reader)
            states = [look and look[1] for batch in found.batches() for look in map(follower.look, batch)]
            try:
                return vars(MeshReading.of(states))
            except Unmeasured as error:  # kept as well: looking for a face that is not there takes longest
                return {"reason": np.array(str(error))}

        tracks = footage.features(f"mesh:1:{self.version}", extract)
        if "reason" in tracks:
            raise Unmeasured(str(tracks["reason"]))
        return MeshReading(**tracks)


@dataclass
class MouthMatch(MeanMetric):
    """How the lips' opening over time goes with the true clip's: `score` is `correlation`, or `offset`, the frames by
    which the lips come later than the truth's where the two go together best. Lips that stand still have 0 and no
    offset."""

    score: str = "correlation"
    reader: MeshFaces | None = None

    def measure(self, clip: EvalClip) -> Item:
        reader = present(self.reader)
        made, true = (reader.read(footage).mouth_open for footage in (clip.pred, clip.ref))
        if true.std() < STILL_LIPS:
            raise NotAsked("the true lips hardly move")
        if made.std() >= STILL_LIPS:
            curve = lag_correlations(made, true, self.protocol.max_shift)
        elif self.score == "offset":
            raise Unmeasured("the lips hardly move")
        else:
            curve = dict.fromkeys(range(-self.protocol.max_shift, self.protocol.max_shift + 1), 0.0)
        return {"curve": np.nan_to_num(np.array([curve[lag] for lag in sorted(curve)]))}

    def clip_value(self, item: Item) -> float:
        most = len(item["curve"]) // 2
        curve = {lag: float(value) for lag, value in zip(range(-most, most + 1), item["curve"], strict=True)}
        return curve[0] if self.score == "correlation" else float(best_lag(curve))

    def clip_details(self, item: Item) -> dict[str, Any]:
        return {"curve": item["curve"].round(4).tolist()} if self.score == "correlation" else {}


def mesh_metrics(reader: MeshFaces | None, missing: str, **common: Any) -> list[Metric]:
    """All metrics that the mesh gives; `missing`: why there is none."""
    kind = "face mesh"
    name = kind if reader is None else reader.network("lip_gap_correlation")
    common = {"reader": reader, "missing": missing, **common}
    return [
        MouthMatch(f"mouth_corr{SUFFIX}", name, "embedded", True, **common),
        MouthMatch(f"mouth_offset{SUFFIX}", name, "embedded", None, median=True, score="offset", **common),
        MotionGap(f"mouth_spread_gap{SUFFIX}", name, "embedded", False, size=spread, signal=_opening, **common),
        *fidelity_metrics(kind=kind, suffix=SUFFIX, **common),
    ]


def _opening(reading: MeshReading) -> np.ndarray:
    """(T, 1)."""
    return reading.mouth_open[:, None]
