"""Phones to mouth shapes: target face units for each ARPABET phone, and how they run together.

A target is what the mouth would reach in a long, clear utterance of the phone. `speech_mouth` blends the
targets over time with one dominance bell per phone, so that a mouth starts to round before the rounded
vowel; lip closures (P B M) and the lip-teeth contact (F V) are imposed afterwards, because a blend of
neighbours alone would leave them half open.
"""

from collections.abc import Sequence

import numpy as np

from eartalking.config import FPS, SAMPLES_PER_FRAME
from eartalking.motion.face_units import CLOSED_PRESS, NUM_FACE_UNITS, UNIT_INDEX, unit_indices, unit_vector

PHONES: tuple[str, ...] = (
    "SIL",
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY",
    "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
PHONE_INDEX: dict[str, int] = {phone: index for index, phone in enumerate(PHONES)}

VOWELS = frozenset(["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"])
BILABIALS = frozenset(["P", "B", "M"])
LABIODENTALS = frozenset(["F", "V"])

_CLOSED = {"mouthPress": CLOSED_PRESS, "mouthRollLower": 0.12, "mouthRollUpper": 0.12}
_LIP_TEETH = {"jawOpen": 0.04, "mouthRollLower": 0.60, "mouthUpperUp": 0.22, "mouthShrugLower": 0.15}
_ALVEOLAR = {"jawOpen": 0.10, "mouthStretch": 0.12, "mouthLowerDown": 0.20, "mouthUpperUp": 0.08}
_SIBILANT = {"jawOpen": 0.03, "mouthStretch": 0.28, "mouthLowerDown": 0.32, "mouthUpperUp": 0.14}
_POSTALVEOLAR = {"jawOpen": 0.07, "mouthFunnel": 0.60, "mouthPucker": 0.15, "mouthUpperUp": 0.12,
                 "mouthLowerDown": 0.18}  # fmt: skip
_VELAR = {"jawOpen": 0.16, "mouthStretch": 0.08, "mouthLowerDown": 0.16, "mouthUpperUp": 0.06}
_DENTAL = {
    "jawOpen": 0.12,
    "mouthStretch": 0.12,
    "mouthLowerDown": 0.22,
    "mouthUpperUp": 0.12,
    "tongueOut": 0.14,
}
_AA = {"jawOpen": 0.66, "mouthLowerDown": 0.26, "mouthUpperUp": 0.12}
_AE = {"jawOpen": 0.54, "mouthStretch": 0.30, "mouthLowerDown": 0.34, "mouthUpperUp": 0.20}
_AH = {"jawOpen": 0.40, "mouthLowerDown": 0.22, "mouthUpperUp": 0.10}
_AO = {"jawOpen": 0.50, "mouthFunnel": 0.42, "mouthPucker": 0.18}
_EH = {"jawOpen": 0.38, "mouthStretch": 0.24, "mouthLowerDown": 0.30, "mouthUpperUp": 0.16}
_ER = {"jawOpen": 0.22, "mouthFunnel": 0.36, "mouthPucker": 0.18, "mouthLowerDown": 0.12}
_IH = {"jawOpen": 0.24, "mouthStretch": 0.26, "mouthLowerDown": 0.26, "mouthUpperUp": 0.14}
_IY = {
    "jawOpen": 0.13,
    "mouthStretch": 0.38,
    "mouthSmile": 0.22,
    "mouthLowerDown": 0.28,
    "mouthUpperUp": 0.16,
}
_OW = {"jawOpen": 0.34, "mouthFunnel": 0.40, "mouthPucker": 0.42}
_UH = {"jawOpen": 0.24, "mouthFunnel": 0.34, "mouthPucker": 0.28}
_UW = {"jawOpen": 0.14, "mouthFunnel": 0.30, "mouthPucker": 0.75}

# A diphthong is two targets, reached one after the other.
_TARGETS: dict[str, tuple[dict[str, float], ...]] = {
    "SIL": ({},),
    "AA": (_AA,), "AE": (_AE,), "AH": (_AH,), "AO": (_AO,), "AW": (_AA, _UH), "AY": (_AA, _IH),
    "EH": (_EH,), "ER": (_ER,), "EY": (_EH, _IY), "IH": (_IH,), "IY": (_IY,), "OW": (_AO, _OW),
    "OY": (_OW, _IH), "UH": (_UH,), "UW": (_UW,),
    "P": (_CLOSED,), "B": (_CLOSED,), "M": (_CLOSED,), "F": (_LIP_TEETH,), "V": (_LIP_TEETH,),
    "T": (_ALVEOLAR,), "D": (_ALVEOLAR,), "N": (_ALVEOLAR,),
    "L": ({"jawOpen": 0.20, "mouthLowerDown": 0.22, "mouthUpperUp": 0.08, "tongueOut": 0.03},),
    "S": (_SIBILANT,), "Z": (_SIBILANT,), "SH": (_POSTALVEOLAR,), "ZH": (_POSTALVEOLAR,),
    "CH": (_POSTALVEOLAR,), "JH": (_POSTALVEOLAR,), "TH": (_DENTAL,), "DH": (_DENTAL,),
    "K": (_VELAR,), "G": (_VELAR,), "NG": (_VELAR,), "HH": ({"jawOpen": 0.22, "mouthLowerDown": 0.12},),
    "R": ({"jawOpen": 0.12, "mouthFunnel": 0.46, "mouthPucker": 0.26},),
    "W": ({"jawOpen": 0.07, "mouthFunnel": 0.22, "mouthPucker": 0.85},),
    "Y": ({"jawOpen": 0.12, "mouthStretch": 0.32, "mouthSmile": 0.14, "mouthLowerDown": 0.22},),
}  # fmt: skip


def viseme_targets(phone: str) -> list[np.ndarray]:
    """The target faces of a phone in order, each (52,) float32; diphthongs have two.

    Raises:
        KeyError: not one of `PHONES`.
    """
    return [unit_vector(target) for target in _TARGETS[phone]]


# Seconds over which a phone's dominance falls to 1/e before and after it. The longer rise is anticipation;
# rounding (the second pair) is prepared earlier and held longer than the opening of the jaw.
_RISE, _FALL = 0.055, 0.045
_ROUNDING_RISE, _ROUNDING_FALL = 0.095, 0.060
_ROUNDING_UNITS = [UNIT_INDEX["mouthFunnel"], UNIT_INDEX["mouthPucker"]]
_OPENING_UNITS = [i for name in ("jawOpen", "mouthLowerDown", "mouthUpperUp") for i in unit_indices(name)]

_CONTACT_HOLD = 0.021  # a little over half a frame: even the shortest closure is then seen in one frame
_CONTACT_RAMP = 0.055


def frame_times(num_frames: int) -> np.ndarray:
    """The centres of the frames, seconds: (T,)."""
    return (np.arange(num_frames) + 0.5) / FPS


def frame_loudness(waveform: np.ndarray, num_frames: int) -> np.ndarray:
    """Loudness around each frame relative to the utterance's own speech level, 1 is usual: (T,)."""
    power = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float32)
    count = min(len(waveform), len(power))
    power[:count] = waveform[:count] ** 2
    power = power.reshape(num_frames, SAMPLES_PER_FRAME).mean(1)
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 1.2) ** 2)
    envelope = np.sqrt(np.convolve(power, kernel / kernel.sum(), "same")) if num_frames >= 7 else np.sqrt(power)
    voiced = envelope[envelope > 0.1 * envelope.max()] if envelope.any() else envelope
    return envelope / max(float(np.median(voiced)) if len(voiced) else 0.0, 1e-4)


def frame_phones(phones: Sequence[tuple[str, float, float]], num_frames: int) -> np.ndarray:
    """Index into `PHONES` of the phone at each frame's centre, silence outside them: (T,) int32."""
    times, indices = frame_times(num_frames), np.zeros(num_frames, np.int32)
    for phone, start, end in phones:
        indices[(times >= start) & (times < end)] = PHONE_INDEX[phone]
    return indices


def speech_mouth(phones: Sequence[tuple[str, float, float]], waveform: np.ndarray, num_frames: int) -> np.ndarray:
    """The mouth of somebody who says these phones, at natural strength.

    Args:
        phones: (ARPABET, start seconds, end seconds) in order, silence as "SIL" or as a gap.
        waveform: (samples,) 16 kHz; only its loudness over time matters, not its gain.
        num_frames: frames at 25 fps.

    Returns:
        (num_frames, 52) float32 face units; 0 in silence.

    Raises:
        KeyError: an unknown phone.
    """
    times = frame_times(num_frames)
    segments = _segments(phones)
    mouth = np.zeros((num_frames, NUM_FACE_UNITS), np.float32)
    if not segments or not num_frames:
        return mouth
    targets = np.stack([target for target, _, _, _ in segments])
    spans = np.array([(start, end) for _, start, end, _ in segments])
    strength = np.array([weight for *_, weight in segments])
    early = np.maximum(spans[None, :, 0] - times[:, None], 0.0)  # (T, K) time until the phone
    late = np.maximum(times[:, None] - spans[None, :, 1], 0.0)  # (T, K) time since the phone
    mouth += _blend(np.exp(-((early / _RISE) ** 2) - (late / _FALL) ** 2) * strength, targets)
    rounding = _blend(
        np.exp(-((early / _ROUNDING_RISE) ** 2) - (late / _ROUNDING_FALL) ** 2) * strength,
        targets[:, _ROUNDING_UNITS],
    )
    mouth[:, _ROUNDING_UNITS] = rounding
    effort = np.clip(frame_loudness(waveform, num_frames), 0.0, 2.5) ** 0.4
    mouth[:, _OPENING_UNITS] *= np.clip(effort, 0.55, 1.35)[:, None]
    for group, shape in ((BILABIALS, _CLOSED), (LABIODENTALS, _LIP_TEETH)):
        contact = _contact([(start, end) for phone, start, end in phones if phone in group], times)[:, None]
        kept = mouth.copy()
        kept[:, _OPENING_UNITS] = 0.0  # a contact keeps the neighbours' rounding and spreading, not their opening
        mouth = (1 - contact) * mouth + contact * np.maximum(0.6 * kept, unit_vector(shape))
    return np.clip(mouth, 0.0, 1.0).astype(np.float32)


def _segments(phones: Sequence[tuple[str, float, float]]) -> list[tuple[np.ndarray, float, float, float]]:
    """(target, core start, core end, dominance) of every target; long silences dominate up to their edges."""
    segments = []
    for phone, start, end in phones:
        targets = viseme_targets(phone)
        step = (end - start) / len(targets)
        for i, target in enumerate(targets):
            first, length = start + i * step, step
            if phone == "SIL":
                # A short pause hardly closes the mouth; a long one does, but for anticipation at its edges.
                inset, weight = min(0.05, 0.3 * length), min(1.0, length / 0.25)
            else:
                inset, weight = 0.3 * length, 1.0 if phone in VOWELS else 0.7
            segments.append((target, first + inset, first + length - inset, weight))
    return segments


def _blend(weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Targets (K, U) averaged by weights (T, K); where hardly any phone is near, towards 0: (T, U)."""
    return weights @ targets / np.maximum(weights.sum(1, keepdims=True), 0.05)


def _contact(spans: list[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    """How complete the contact is at each time, 1 during the spans and a little around them: (T,)."""
    contact = np.zeros(len(times))
    for start, end in spans:
        distance = np.maximum(np.maximum(start - times, times - end), 0.0)
        ramp = np.clip(1 - (distance - _CONTACT_HOLD) / _CONTACT_RAMP, 0.0, 1.0)
        contact = np.maximum(contact, ramp * ramp * (3 - 2 * ramp))
    return contact
