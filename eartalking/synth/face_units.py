"""The 52 ARKit face units: names, order, look-up, and how speech and expression mix into one face.

Names and order are those of Apple's blend-shape locations; left and right are the *person's* sides.
Every unit is an activation in 0..1, and a face is an array of shape (..., 52) in this order.
"""

import numpy as np

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


CLOSED_PRESS = 0.35  # activation of mouthPress at a full lip closure: `lip_closure` reads it back


def lip_closure(mouth_units: np.ndarray) -> np.ndarray:
    """How far the lips are shut on purpose, 0..1, read from the pressing of the lips: (..., 52) -> (...)."""
    return np.clip(mouth_units[..., unit_indices("mouthPress")].mean(-1) / CLOSED_PRESS, 0.0, 1.0)


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
_EMOTION_TABLE = np.stack(list(EMOTION_UNITS.values()))

_BROW_UP = unit_vector({"browInnerUp": 0.9, "browOuterUp": 1.0})
_BROW_DOWN = unit_vector({"browDown": 1.0})
_SMILE = unit_vector({"mouthSmile": 0.85, "cheekSquint": 0.55})
_FROWN = unit_vector({"mouthFrown": 0.85})
_BLINK = unit_vector({"eyeBlink": 1.0})

_PARTS_LIPS = [
    i for name in ("jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthFunnel") for i in unit_indices(name)
]
_WIDENS_LIPS = [i for name in ("mouthSmile", "mouthStretch", "mouthDimple") for i in unit_indices(name)]
_PRESSES_LIPS = unit_indices("mouthPress")
_ROUNDS_LIPS = [UNIT_INDEX["mouthFunnel"], UNIT_INDEX["mouthPucker"]]
_LIDS = [i for name in ("eyeSquint", "eyeWide") for i in unit_indices(name)]


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

    Speech keeps its say over the lips: an expression neither opens a deliberate closure, nor presses an
    open mouth shut, nor spreads rounded lips fully.

    Args:
        mouth_units: (..., 52) speech alone at natural strength.
        blink: (...) 0..1. brow, smile: (...) -1..1. mouth_scale: (...) 0..2.
        emotion: (...) integer index into `EMOTION_UNITS`. intensity: (...) 0..1.

    Returns:
        (..., 52) float32 in 0..1.
    """
    speech = mouth_units * np.asarray(mouth_scale)[..., None]
    brow, smile, blink = (np.asarray(control)[..., None] for control in (brow, smile, blink))
    expression = _EMOTION_TABLE[emotion] * np.asarray(intensity)[..., None]
    expression = expression + np.maximum(brow, 0) * _BROW_UP + np.maximum(-brow, 0) * _BROW_DOWN
    expression = expression + np.maximum(smile, 0) * _SMILE + np.maximum(-smile, 0) * _FROWN
    # A raised brow cancels a lowered one; the same holds for the corners of the mouth.
    raised, lowered = np.maximum(brow, 0), np.maximum(-brow, 0)
    expression[..., unit_indices("browDown")] *= 1 - 0.8 * raised
    expression[..., [UNIT_INDEX["browInnerUp"], *unit_indices("browOuterUp")]] *= 1 - 0.8 * lowered
    expression[..., unit_indices("mouthFrown")] *= 1 - 0.8 * np.maximum(smile, 0)
    expression[..., unit_indices("mouthSmile")] *= 1 - 0.8 * np.maximum(-smile, 0)

    closure = lip_closure(speech)[..., None]
    rounding = np.clip(speech[..., _ROUNDS_LIPS].sum(-1, keepdims=True), 0, 1)
    opening = np.clip(3 * speech[..., UNIT_INDEX["jawOpen"], None], 0, 1)
    expression[..., _PARTS_LIPS] *= 1 - closure
    expression[..., _WIDENS_LIPS] *= 1 - 0.6 * rounding
    expression[..., _PRESSES_LIPS] *= 1 - opening
    expression[..., _LIDS] *= 1 - 0.8 * blink
    return np.clip(speech + expression + blink * _BLINK, 0.0, 1.0).astype(np.float32)
