"""What a face does, read from its mesh and its irises: lips, lids, head pose and gaze.

Lips and lids are ratios of distances on the face, so that size and roll do not matter. Pose and gaze are calibrated
against rendered heads, whose labels are exact, by `eartalking.training.mesh_calibration`; its own errors on held-out
identities lie beside the numbers (`MeshReader.accuracy`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from eartalking.errors import InputError
from eartalking.perception.face_mesh import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, FaceMesh
from eartalking.perception.graph_network import WEIGHTS_FOLDER
from eartalking.perception.iris import EyePoints

INNER_LIPS = (13, 14)
MOUTH_CORNERS = (61, 291)
# Of an eye's outline: its corners, and what lies between them on the upper and the lower lid.
EYE_CORNERS, UPPER_LID, LOWER_LID = (0, 8), slice(11, 14), slice(3, 6)
# The network draws faces too flat or too deep: depth is multiplied by this before a head is turned.
DEPTH_SCALE = 0.8
CALIBRATION = "mesh_calibration.safetensors"


@dataclass(frozen=True)
class FaceState:
    """The state of one face in one picture.

    Attributes:
        yaw, pitch, roll: of the head, degrees, with the signs of the control table: to the viewer's right, up,
            clockwise as seen.
        gaze_yaw, gaze_pitch: of the eyes relative to the head, degrees, same signs; meaningless for shut eyes.
        lip_gap: distance of the inner lips over the distance of the outer eye corners, both in three dimensions;
            about 0.015 closed.
        mouth_width: distance of the mouth's corners, in the same unit.
        eye_opening: mean of both eyes; distance of the lids over the width of the eye as the iris network draws them,
            in the picture: about 0.32 open and 0.09 shut.
    """

    yaw: float
    pitch: float
    roll: float
    gaze_yaw: float
    gaze_pitch: float
    lip_gap: float
    mouth_width: float
    eye_opening: float


class MeshReader:
    """Reads the state of faces; `accuracy` is its mean absolute error per reading on held-out rendered heads."""

    def __init__(self, calibration: dict[str, np.ndarray], accuracy: dict[str, float] | None = None) -> None:
        """calibration: neutral (468, 3) mean mesh of faces at rest in head axes, weight (468,) of its points, pose
        (3, 2) gain and offset of yaw, pitch, roll, gaze (5, 2) map from `gaze_features` to yaw and pitch."""
        self.neutral, self.weight = calibration["neutral"], calibration["weight"]
        self.pose, self.gaze = calibration["pose"], calibration["gaze"]
        self.accuracy = accuracy or {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str] = WEIGHTS_FOLDER) -> MeshReader:
        """Raises InputError: no calibration there."""
        path = Path(folder) / CALIBRATION
        try:
            with safe_open(path, framework="np") as file:
                calibration = {key: file.get_tensor(key).astype(np.float64) for key in file.keys()}
                return cls(calibration, json.loads(file.metadata()["accuracy"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(path, f"no calibration here ({str(error).splitlines()[0]})") from error

    def read(self, mesh: FaceMesh, eyes: tuple[EyePoints, EyePoints]) -> FaceState:
        """The state of one face from its mesh and what `read_eyes` found."""
        yaw, pitch, roll = self.head_pose(mesh)
        gaze_yaw, gaze_pitch = gaze_features(eyes, (yaw, pitch)) @ self.gaze
        return FaceState(
            yaw=yaw,
            pitch=pitch,
            roll=roll,
            gaze_yaw=float(gaze_yaw),
            gaze_pitch=float(gaze_pitch),
            lip_gap=lip_gap(mesh),
            mouth_width=_distance(mesh, *MOUTH_CORNERS) / _distance(mesh, RIGHT_EYE_OUTER, LEFT_EYE_OUTER),
            eye_opening=float(np.mean([eye_opening(eye) for eye in eyes])),
        )

    def head_pose(self, mesh: FaceMesh) -> tuple[float, float, float]:
        """yaw, pitch, roll in degrees."""
        return self.pose_of(mesh.points)

    def pose_of(self, points: np.ndarray) -> tuple[float, float, float]:
        """The same from the mesh's points (468, 3) in any unit, as `FaceMesh` has them."""
        angles = turn_angles(best_turn(self.neutral, in_head_axes(points), self.weight))
        yaw, pitch, roll = (angles - self.pose[:, 1]) / self.pose[:, 0]
        return float(yaw), float(pitch), float(roll)


def lip_gap(mesh: FaceMesh) -> float:
    """Distance of the inner lips over the distance of the outer eye corners."""
    return _distance(mesh, *INNER_LIPS) / _distance(mesh, RIGHT_EYE_OUTER, LEFT_EYE_OUTER)


def eye_opening(eye: EyePoints) -> float:
    """Distance of the lids in the middle of the eye over the width of the eye, both in the picture.

    The iris network's outline is used, and not the lids of the mesh (159/145, 386/374), which show shut eyes 0.6 times
    as wide as open ones.
    """
    start, end = (eye.outline[corner, :2] for corner in EYE_CORNERS)
    lids = eye.outline[UPPER_LID, :2] - eye.outline[LOWER_LID, :2]
    return float(np.linalg.norm(lids, axis=1).mean() / max(np.linalg.norm(end - start), 1e-6))


def gaze_features(eyes: tuple[EyePoints, EyePoints], pose: tuple[float, float]) -> np.ndarray:
    """(5,): where the irises are, right and down from the middle of the eyes in eye widths, mean of both; the head's
    yaw and pitch in units of 30 degrees; 1."""
    places = []
    for eye in eyes:
        start, end = (eye.outline[corner] for corner in EYE_CORNERS)
        across = (end - start)[:2]
        across = (across if across[0] >= 0 else -across) / max(np.linalg.norm(across), 1e-6)
        offset = (eye.iris[0] - (start + end) / 2)[:2] / max(np.linalg.norm(end - start), 1e-6)
        places.append([offset @ across, offset @ np.array([-across[1], across[0]])])
    right, down = np.mean(places, axis=0)
    return np.array([right, down, pose[0] / 30, pose[1] / 30, 1.0])


def in_head_axes(points: np.ndarray) -> np.ndarray:
    """Mesh points (468, 3) with y up and z towards the camera, the depth corrected."""
    return points * np.array([1.0, -1.0, -DEPTH_SCALE])


def best_turn(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that takes points (N, 3) to others up to size and place, by weighted least squares (Kabsch)."""
    start, end = (points - weight @ points / weight.sum() for points in (start, end))
    left, _, right = np.linalg.svd((weight[:, None] * start).T @ end)
    mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return right.T @ mirror @ left.T


def turn_angles(turn: np.ndarray) -> np.ndarray:
    """yaw, pitch, roll (3,) in degrees of a rotation as `motion.head_space.rotation` makes it."""
    yaw, roll = np.arctan2(turn[0, 2], turn[2, 2]), np.arctan2(-turn[1, 0], turn[1, 1])
    return np.degrees([yaw, np.arcsin(np.clip(turn[1, 2], -1, 1)), roll])


def _distance(mesh: FaceMesh, start: int, end: int) -> float:
    return float(np.linalg.norm(mesh.points[start] - mesh.points[end]))
