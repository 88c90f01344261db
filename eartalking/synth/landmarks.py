"""Where the eyes and the mouth of a rendered head are in its picture: the renderer's own projection, for three
points.
"""

from __future__ import annotations

import numpy as np
import torch

from eartalking.motion.head_space import rotation
from eartalking.synth.head import HeadBundle
from eartalking.synth.identity import Identity


def project_landmarks(
    identity: Identity, bundle: HeadBundle, head_pose: np.ndarray, translation: np.ndarray, face_units: np.ndarray
) -> np.ndarray:
    """Where the eyeballs' centres and the middle of the lips are in the picture, in fractions of its side, right and
    down: (T, 3, 2) float32, first the eye on the picture's left; from poses (T, 3), (T, 3) and face units (T, 52)."""
    lips = np.concatenate([bundle.lip_upper, bundle.lip_lower])
    rest = np.stack([identity.rest[np.flatnonzero(bundle.render_vertex == vertex)[0]] for vertex in lips])
    mouth = (rest + np.tensordot(face_units, bundle.deltas[:, lips], axes=1)).mean(1)  # (T, 3)
    left, right = (np.broadcast_to(centre, mouth.shape) for centre in identity.eye_centres)
    points = np.stack([right, left, mouth], axis=1)  # the person's right eye is on the picture's left
    turn = rotation(torch.from_numpy(np.asarray(head_pose, np.float64))).numpy()
    posed = bundle.pivot + np.einsum("tij,tpj->tpi", turn, points - bundle.pivot) + translation[:, None]
    depth = identity.camera[2] - posed[..., 2]
    across, up = ((posed[..., axis] - identity.camera[axis]) * identity.focal / depth for axis in (0, 1))
    return np.stack([(across + 1) / 2, (1 - up) / 2], axis=-1).astype(np.float32)
