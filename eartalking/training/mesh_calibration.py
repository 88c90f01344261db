"""Calibrate head pose and gaze of `perception.mesh_readings` on rendered heads, and measure its readings on others.

    python -m eartalking.training.mesh_calibration

Takes about ten minutes on one core and writes `weights/perception/mesh_calibration.safetensors`. The neutral mesh is
the mean of all meshes turned back by their true poses, each point weighted by how little it moves; what the fit of that
mesh then says about yaw, pitch and roll is corrected by a gain and an offset, the gaze is a linear function of where
the irises are and of the pose. Heads with random textures are left out: they are no faces to the network.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from eartalking.errors import run_program
from eartalking.motion.face_units import unit_indices
from eartalking.motion.head_space import rotation
from eartalking.perception.face_mesh import CERTAIN, FaceMesh, read_meshes, settle
from eartalking.perception.graph_network import WEIGHTS_FOLDER
from eartalking.perception.iris import EyePoints, read_eyes
from eartalking.perception.mesh_readings import (
    CALIBRATION,
    MeshReader,
    best_turn,
    gaze_features,
    in_head_axes,
    turn_angles,
)
from eartalking.perception.turned_square import Picture, TurnedSquare
from eartalking.synth.head import load_bundle
from eartalking.synth.identity import sample_identity
from eartalking.synth.landmarks import project_landmarks
from eartalking.synth.performance import Performance, neutral_portrait, random_stills
from eartalking.synth.render import Renderer

FIRST_IDENTITY = 3_000_000  # far from those of other trainings
STILLS = 8  # per identity, the last one a portrait at rest
SIZE = 320  # pixels of a still
SHUT = 0.3  # a blink beyond which a gaze is not read


@dataclass(frozen=True)
class Sample:
    """What was read from one still, and the truth: pose (3,) and gaze (2,) in degrees, blink and mouth."""

    mesh: FaceMesh
    eyes: tuple[EyePoints, EyePoints]
    identity: int
    pose: np.ndarray
    gaze: np.ndarray
    blink: float
    mouth_open: float


def read_stills(split: str, identities: int) -> list[Sample]:
    """Samples of rendered heads; those without a certain mesh are left out."""
    bundle, renderer = load_bundle(), Renderer(size=SIZE)
    samples: list[Sample] = []
    people = (sample_identity(FIRST_IDENTITY + number, split, bundle) for number in range(10 * identities))
    natural = (person for person in people if person.look.random_texture == 0)
    for number in tqdm(range(identities), unit="head"):
        person, random = next(natural), np.random.default_rng([7, number])
        renderer.set_identity(person)
        stills = Performance.concat([random_stills(STILLS - 1, random), neutral_portrait(random)])
        frames, opening = renderer.render(stills), renderer.mouth_open(stills)
        marks = project_landmarks(person, bundle, stills.head_pose, stills.translation, stills.face_units) * SIZE
        blinks = stills.face_units[:, unit_indices("eyeBlink")].mean(1)
        for index, frame in enumerate(frames):
            picture, middle = Picture(frame), marks[index, :2].mean(0)
            down = marks[index, 2] - middle
            x, y = (middle + 0.45 * down).tolist()
            square = TurnedSquare(x, y, 4.2 * float(np.hypot(*down)), float(stills.head_pose[index, 2]))
            mesh = settle(picture, read_meshes(picture, [square])[0])
            if mesh.certainty >= CERTAIN:
                truth = (stills.head_pose[index], stills.gaze[index], float(blinks[index]), float(opening[index]))
                samples.append(Sample(mesh, read_eyes(picture, [mesh])[0], number, *truth))
    renderer.release()
    return samples


def calibrate(samples: list[Sample]) -> dict[str, np.ndarray]:
    """The tensors that `MeshReader` takes."""
    neutral, weight = _neutral([sample.mesh for sample in samples], np.stack([sample.pose for sample in samples]))
    poses = np.stack([sample.pose for sample in samples])
    angles = np.stack([turn_angles(best_turn(neutral, in_head_axes(s.mesh.points), weight)) for s in samples])
    people = np.array([sample.identity for sample in samples])
    # The gain within a person: faces differ in how they are read at rest, and that must not flatten movements.
    moved, read = _without_person(poses, people), _without_person(angles, people)
    gain = (moved * read).sum(0) / (moved**2).sum(0)
    pose = np.stack([gain, angles.mean(0) - gain * poses.mean(0)], axis=1)
    reader = MeshReader({"neutral": neutral, "weight": weight, "pose": pose, "gaze": np.zeros((5, 2))})
    open_eyes = [sample for sample in samples if sample.blink < SHUT]
    features = np.stack([gaze_features(s.eyes, reader.head_pose(s.mesh)[:2]) for s in open_eyes])
    gaze = np.linalg.lstsq(features, np.stack([sample.gaze for sample in open_eyes]), rcond=None)[0]
    return {"neutral": neutral, "weight": weight, "pose": pose, "gaze": gaze}


def measure(reader: MeshReader, samples: list[Sample]) -> dict[str, float]:
    """Mean absolute errors in degrees, with and without each person's own offset; lips and lids against the truth."""
    states = [reader.read(sample.mesh, sample.eyes) for sample in samples]
    people, blinks = np.array([s.identity for s in samples]), np.array([s.blink for s in samples])
    mouths, gaps = np.array([s.mouth_open for s in samples]), np.array([state.lip_gap for state in states])
    openings = np.array([state.eye_opening for state in states])
    result: dict[str, float] = {}
    for names, truth in (
        (("yaw", "pitch", "roll"), np.stack([sample.pose for sample in samples])),
        (("gaze_yaw", "gaze_pitch"), np.stack([sample.gaze for sample in samples])),
    ):
        kept = blinks < SHUT if "gaze_yaw" in names else np.ones(len(samples), bool)
        errors = np.array([[getattr(state, name) for name in names] for state in states])[kept] - truth[kept]
        movement = np.abs(_without_person(errors, people[kept])).mean(0)
        for index, name in enumerate(names):
            result[name] = float(np.abs(errors[:, index]).mean())
            result[f"{name}_movement"] = float(movement[index])
    result["lip_gap_correlation"] = float(np.corrcoef(gaps, mouths)[0, 1])
    result["lip_gap_closed_p50"] = float(np.median(gaps[mouths < 1e-3]))
    result["lip_gap_closed_p90"] = float(np.percentile(gaps[mouths < 1e-3], 90))
    result["eye_opening_correlation"] = float(np.corrcoef(openings, blinks)[0, 1])
    result["eye_opening_open_p50"] = float(np.median(openings[blinks < 0.05]))
    result["eye_opening_shut_p50"] = float(np.median(openings[blinks > 0.9]))
    result["eye_opening_shut_p90"] = float(np.percentile(openings[blinks > 0.9], 90))
    return {name: round(value, 4) for name, value in result.items()}


def _neutral(meshes: list[FaceMesh], poses: np.ndarray, rounds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Mean mesh of unit size turned to the front, and each point's weight, 1 for the steadiest."""
    turns = rotation(torch.from_numpy(poses.astype(np.float64))).numpy()
    turned = np.stack([in_head_axes(mesh.points) @ turn for mesh, turn in zip(meshes, turns, strict=True)])
    weight = np.ones(turned.shape[1])
    for _ in range(rounds):
        places = turned - (weight @ turned)[:, None] / weight.sum()
        places /= np.sqrt((places**2).sum(2) @ weight / weight.sum())[:, None, None]
        neutral = places.mean(0)
        spread = ((places - neutral) ** 2).sum(2).mean(0)
        weight = 1 / (spread + 0.2 * np.median(spread))
    return neutral, weight / weight.max()


def _without_person(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Values (N, K) less the mean of each person's own."""
    means = {person: values[people == person].mean(0) for person in np.unique(people)}
    return values - np.stack([means[person] for person in people])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, default=120, help="heads of the training split")
    parser.add_argument("--held-out", type=int, default=40, help="heads of the test split, to measure on")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER)
    arguments = parser.parse_args()
    calibration = calibrate(read_stills("train", arguments.identities))
    accuracy = measure(MeshReader(calibration), read_stills("test", arguments.held_out))
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in calibration.items()}
    save_file(tensors, arguments.out / CALIBRATION, {"accuracy": json.dumps(accuracy)})
    print(json.dumps(accuracy))


if __name__ == "__main__":
    run_program(main)
