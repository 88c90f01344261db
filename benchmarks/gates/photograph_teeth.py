"""Upper teeth belong to the skull: where the warp takes them, on rendered smiles whose every pixel is known.

A portrait that shows its upper teeth opens its mouth, closes it a little, and turns. Of the pixels on which the true
frame shows upper teeth that the portrait shows, too, it is measured how far from the true place the decoder fetches
them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.gates.photograph_material import FIRST_IDENTITY, at_rest, composed, performance_of
from benchmarks.gates.streams import Context
from benchmarks.gates.table import GateRow, judge, unavailable
from eartalking.autoencoder.frame_autoencoder import FrameAutoencoder
from eartalking.autoencoder.reference import Reference
from eartalking.modules.pixels import to_float
from eartalking.modules.res_block import upsample
from eartalking.modules.warp import identity_grid
from eartalking.motion.face_units import unit_vector
from eartalking.motion.vector import HEAD_POSE, MOTION_SCALES
from eartalking.synth.identity import GROUPS, Identity, sample_identity
from eartalking.synth.render import Renderer

NAME = "photographs_teeth_px"
PEOPLE = 8
FEWEST_PIXELS = 20  # of teeth in a frame
DRAWN = 0.02  # of the third colour: what is drawn anew has one
SMILE = {"jawOpen": 0.1, "mouthUpperUp": 0.45, "mouthLowerDown": 0.3}
# What the mouth does, and how far the head turns, degrees.
STATES: tuple[tuple[dict[str, float], float], ...] = (
    ({"jawOpen": 0.4, "mouthUpperUp": 0.45, "mouthLowerDown": 0.3}, 0.0),
    ({"jawOpen": 0.7, "mouthUpperUp": 0.3, "mouthLowerDown": 0.3}, 0.0),
    ({"jawOpen": 0.05, "mouthUpperUp": 0.35, "mouthLowerDown": 0.2}, 0.0),
    ({"jawOpen": 0.3, "mouthUpperUp": 0.45, "mouthLowerDown": 0.3}, 10.0),
    ({"jawOpen": 0.3, "mouthUpperUp": 0.45, "mouthLowerDown": 0.3}, -10.0),
)


def measure_teeth(context: Context) -> GateRow:
    """Mean over people of the mean error in pixels of 256; people whose lips hide their teeth are left out. Asked only
    where heads can be rendered (`Renders`)."""
    size = context.model.config.autoencoder.image_size
    renderer = Renderer(size=size, map_size=size)
    errors: dict[int, float] = {}
    seed = FIRST_IDENTITY
    while len(errors) < PEOPLE and seed < FIRST_IDENTITY + 4 * PEOPLE:
        person = sample_identity(seed, "test", renderer.bundle)
        if person.look.random_texture == 0:
            found = _of_person(context, renderer, person)
            if found is not None:
                errors[seed] = round(found, 2)
        seed += 1
    renderer.release()
    if not errors:
        return unavailable(NAME, "no rendered smile shows upper teeth")
    return judge(NAME, float(np.mean(list(errors.values()))), len(errors), "people", by_person=list(errors.values()))


@torch.inference_mode()
def _of_person(context: Context, renderer: Renderer, person: Identity) -> float | None:
    """Mean error of one person in pixels; None where no frame shows enough teeth."""
    autoencoder = context.model.autoencoder
    renderer.set_identity(person)
    smile = composed(unit_vector(SMILE)[None], smile=np.array([0.6]))
    rest = dataclasses.replace(at_rest(1), face_units=smile)
    motion = np.zeros((len(STATES), context.model.config.autoencoder.motion_size))
    for row, (mouth, yaw) in zip(motion, STATES, strict=True):
        row[: smile.shape[1]] = composed(unit_vector(mouth)[None], smile=np.array([0.6]))[0]
        row[: smile.shape[1]] *= MOTION_SCALES["face_units"]
        row[HEAD_POSE.start] = yaw * MOTION_SCALES["head_pose"]
    states = performance_of(motion)
    portrait = to_float(torch.from_numpy(renderer.set_reference(rest)))[None]
    true, visible = renderer.correspondence(states)  # (T, S, S, 2), (T, S, S)
    teeth = _upper_teeth(renderer.surface(states), person) & (visible > 0)
    reference = autoencoder.reference(portrait)
    errors = []
    for index, vector in enumerate(torch.from_numpy(motion).float()):
        if teeth[index].sum() < FEWEST_PIXELS:
            continue
        place = _fetched(autoencoder, reference, vector[None], true.shape[1])
        off = (place - true[index])[teeth[index]] * true.shape[1] / 2
        errors.append(float(np.linalg.norm(off, axis=1).mean()))
    return float(np.mean(errors)) if errors else None


def _fetched(autoencoder: FrameAutoencoder, reference: Reference, motion: torch.Tensor, side: int) -> np.ndarray:
    """Where each pixel of a frame comes from, (S, S, 2): the frame of a portrait whose colours are its places. What is
    drawn anew comes from nowhere; it counts as being where the warp would fetch it."""
    warp = autoencoder.geometry(autoencoder.code.motion_to_latents(motion), reference).warp
    places = F.pad(identity_grid(side), (0, 1)).permute(0, 3, 1, 2)  # the third colour is 0
    warped = places + F.pad(upsample(warp, side // warp.shape[-1]), (0, 0, 0, 0, 0, 1))
    frame = warped
    if reference.lips is not None and reference.mouth is not None:
        lips = reference.lips.places(autoencoder.surface, motion, reference.motion)
        frame = reference.mouth.drawn(warped, warped, places, reference.lips, lips, warp)
    frame = torch.where(frame[:, 2:].abs() < DRAWN, frame, warped)
    return frame[0, :2].permute(1, 2, 0).numpy()


def _upper_teeth(surface: np.ndarray, person: Identity) -> np.ndarray:
    """Where a surface (T, 2 S, 2 S, 4) shows upper teeth alone: (T, S, S) bool."""
    triangle = surface[..., 3].astype(int)
    group = np.append(0, person.group[person.triangles[:, 0]])[triangle]
    frames, side = group.shape[0], group.shape[1] // 2
    return (group == GROUPS["teeth_upper"]).reshape(frames, side, 2, side, 2).all((2, 4))
