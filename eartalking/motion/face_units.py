"""The 52 ARKit face units: names, order, look-up, and how speech and expression mix into one face.

Names and order are those of Apple's blend-shape locations; left and right are the *person's* sides.
Every unit is an activation in 0..1, and a face is an array of shape (..., 52) in this order.
"""

import numpy as np
import torch
from torch import Tensor

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")

FACE_UNITS: tuple[str, ...] = (
    *(f"eye{action}Left" for action in _EYE),
    *(f"eye{action}Right" for action in _EYE),
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip

NUM_FACE_UNITS = len(FACE_UNITS)

UNIT_INDEX: dict[str, int] = {name: index for index, name in enumerate(FACE_UNITS)}


def unit_indices(name: str) -> list[int]:
    """Columns of a unit; a name without its side stands for both (`"mouthSmile"` gives left and right).

    Raises:
        KeyError: no unit is called that.
    """
    if name in UNIT_INDEX:
        return [UNIT_INDEX[name]]
    try:
        return [UNIT_INDEX[f"{name}Left"], UNIT_INDEX[f"{name}Right"]]
    except KeyError:
        raise KeyError(f"unknown face unit {name!r}") from None


def unit_vector(activations: dict[str, float]) -> np.ndarray:
    """A face (52,) float32 from `{unit: activation}`; unsided names set both sides, the rest is 0."""
    face = np.zeros(NUM_FACE_UNITS, np.float32)
    for name, activation in activations.items():
        face[unit_indices(name)] = activation
    return face


CLOSED_PRESS = 0.35  # activation of mouthPress at a full lip closure

# At intensity 1, in the order of the control table's emotions. Blinks have their own control, so no emotion
# uses eyeBlink; surprise and fear open the mouth only a little, because silence must look closed.
EMOTION_UNITS: dict[str, np.ndarray] = {
    "neutral": unit_vector({}),
    "happy": unit_vector({"mouthSmile": 0.70, "cheekSquint": 0.60, "eyeSquint": 0.35, "mouthDimple": 0.20,
                          "mouthUpperUp": 0.10, "browOuterUp": 0.10}),
    "sad": unit_vector({"browInnerUp": 0.80, "mouthFrown": 0.60, "mouthShrugLower": 0.35, "browDown": 0.15,
                        "eyeSquint": 0.20}),
    "angry": unit_vector({"browDown": 0.95, "noseSneer": 0.45, "eyeSquint": 0.35, "eyeWide": 0.25,
                          "mouthPress": 0.20, "mouthFrown": 0.20, "jawForward": 0.25}),
    "surprised": unit_vector({"browInnerUp": 0.85, "browOuterUp": 0.90, "eyeWide": 0.80, "jawOpen": 0.14,
                              "mouthFunnel": 0.15}),
    "fear": unit_vector({"browInnerUp": 0.90, "browDown": 0.35, "eyeWide": 0.75, "mouthStretch": 0.60,
                         "mouthLowerDown": 0.15, "jawOpen": 0.06}),
    "disgusted": unit_vector({"noseSneer": 0.95, "mouthUpperUp": 0.35, "browDown": 0.45, "eyeSquint": 0.40,
                              "mouthFrown": 0.35, "mouthShrugLower": 0.30, "cheekSquint": 0.30}),
    "contempt": unit_vector({"mouthSmileLeft": 0.55, "mouthDimpleLeft": 0.75, "cheekSquintLeft": 0.30,
                             "eyeSquint": 0.25, "mouthPressRight": 0.25, "browOuterUpRight": 0.35}),
}  # fmt: skip
_EMOTION_TABLE = torch.from_numpy(np.stack(list(EMOTION_UNITS.values())))


def _mask(*names: str) -> np.ndarray:
    return unit_vector(dict.fromkeys(names, 1.0))


# Rows: a raised brow, a lowered one, a smile, a frown; what each adds, and what it cancels of everything else's.
_ADDED = torch.from_numpy(np.stack([
    unit_vector({"browInnerUp": 0.9, "browOuterUp": 1.0}), unit_vector({"browDown": 1.0}),
    unit_vector({"mouthSmile": 0.85, "cheekSquint": 0.55}), unit_vector({"mouthFrown": 0.85}),
]))  # fmt: skip
_CANCELLED = 0.8 * torch.from_numpy(np.stack([
    _mask("browDown"), _mask("browInnerUp", "browOuterUp"), _mask("mouthFrown"), _mask("mouthSmile"),
]))  # fmt: skip
# Rows: lips shut on purpose, rounded lips, an open mouth, a blink; what each takes away of an expression.
_OVERRULED = torch.from_numpy(
    np.stack(
        [
            _mask("jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthFunnel"),
            0.6 * _mask("mouthSmile", "mouthStretch", "mouthDimple"),
            _mask("mouthPress"),
            0.8 * _mask("eyeSquint", "eyeWide"),
        ]
    )
)
_PRESSES_LIPS = unit_indices("mouthPress")
_ROUNDS_LIPS = [UNIT_INDEX["mouthFunnel"], UNIT_INDEX["mouthPucker"]]
_BLINK = unit_vector({"eyeBlink": 1.0})


def expression_units(
    face: Tensor, blink: Tensor, brow: Tensor, smile: Tensor, emotion: Tensor, intensity: Tensor
) -> Tensor:
    """What expressions add to a face that speaks.

    Speech keeps its say over the lips: an expression neither opens a deliberate closure, nor presses an open mouth
    shut, nor spreads rounded lips fully. A raised brow cancels a lowered one; the same holds for the corners of the
    mouth.

    Args:
        face: (..., 52) what the face does without them.
        blink: (...) 0..1. brow, smile: (...) -1..1; 0 adds nothing.
        emotion: (...) integer index into `EMOTION_UNITS`. intensity: (...) 0..1.

    Returns:
        (..., 52), to be added to `face`.
    """
    ways = torch.stack([brow, -brow, smile, -smile], dim=-1).clamp_min(0)
    added = _EMOTION_TABLE.to(face)[emotion] * intensity[..., None] + ways @ _ADDED.to(face)
    closure = (face[..., _PRESSES_LIPS].mean(-1) / CLOSED_PRESS).clamp(0, 1)
    rounding = face[..., _ROUNDS_LIPS].sum(-1).clamp(0, 1)
    opening = (3 * face[..., UNIT_INDEX["jawOpen"]]).clamp(0, 1)
    said = torch.stack([closure, rounding, opening, blink], dim=-1)
    return added * (1 - ways @ _CANCELLED.to(face)) * (1 - said @ _OVERRULED.to(face))


def compose_face_units(
    mouth_units: np.ndarray,
    blink: np.ndarray,
    brow: np.ndarray,
    smile: np.ndarray,
    mouth_scale: np.ndarray,
    emotion: np.ndarray,
    intensity: np.ndarray,
) -> np.ndarray:
    """The face that results from speech and the expression controls.

    Args:
        mouth_units: (..., 52) speech alone at natural strength.
        mouth_scale: (...) 0..2. The others as in `expression_units`.

    Returns:
        (..., 52) float32 in 0..1.
    """
    speech = np.asarray(mouth_units, np.float32) * np.asarray(mouth_scale, np.float32)[..., None]

    def tensor(track: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(track, np.float32))

    expression = expression_units(
        tensor(speech), tensor(blink), tensor(brow), tensor(smile), torch.as_tensor(emotion).long(), tensor(intensity)
    ).numpy()
    return np.clip(speech + expression + np.asarray(blink, np.float32)[..., None] * _BLINK, 0.0, 1.0)
