"""Gates of the frame autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.gates.streams import Context, strip
from benchmarks.gates.table import GateRow, Unavailable, judge, unavailable
from benchmarks.gates.true_warps import TrueWarps, sits_for_it
from eartalking.modules.pixels import to_float
from eartalking.perception.face_detector import crop_face
from eartalking.perception.identity import summarise
from eval.metrics.boxes import face_fractions, follow, mouth_fractions, to_pixels
from eval.metrics.signals import box_mse, psnr, sharpness

STILLS = (
    "autoencoder_face_psnr_db",
    "autoencoder_mouth_psnr_db",
    "autoencoder_sharpness",
    "autoencoder_identity",
    "autoencoder_face_below_true_db",
    "autoencoder_mouth_below_true_db",
)
FLOOR_KEYS = ("face", "mouth", "sharpness", "identity")


@torch.inference_mode()
def reconstruct(context: Context, portrait: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) through the autoencoder on a portrait (H, W, 3), both uint8 at the model's size."""
    autoencoder = context.model.autoencoder
    reference = autoencoder.reference(to_float(torch.from_numpy(portrait))[None])
    latents = autoencoder.encode(to_float(torch.from_numpy(frames)), reference.expand(len(frames)))
    return np.concatenate([autoencoder.decode(one[None], reference).pixels().numpy() for one in latents])


def measure_autoencoder(context: Context) -> list[GateRow]:
    """Held-out stills from one portrait, and photographs through their own portrait."""
    return [*_stills(context), *_photographs(context)]


def _stills(context: Context) -> list[GateRow]:
    try:
        clips = context.material.stills()
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in STILLS]
    if any("correspondence" not in clip for clip in clips):
        return [unavailable(name, "the stills have no correspondence maps") for name in STILLS]
    ours: dict[str, list[float]] = {key: [] for key in FLOOR_KEYS}
    floor: dict[str, list[float]] = {key: [] for key in FLOOR_KEYS}
    true: dict[str, list[float]] = {key: [] for key in FLOOR_KEYS}
    sits: list[bool] = []
    rows: list[Any] = []
    missing_boxes = 0
    warps, without = _true_warps(context.material.size)
    for seed, clip in enumerate(tqdm(clips, unit="clip", desc="autoencoder", mininterval=2, leave=False)):
        portrait, truth = clip["reference"], clip["frames"][: context.suite.stills_per_clip]
        decoded = reconstruct(context, portrait, truth)
        exact = None if warps is None else warps.frames(seed, clip, decoded)
        face = _face(context, portrait)
        for index, (image, target) in enumerate(zip(decoded, truth, strict=True)):
            maps = clip["correspondence"][index], clip["visibility"][index]
            face_box, mouth_box = (follow(box, *maps, len(target)) for box in (face, mouth_fractions(face)))
            if face_box is None or mouth_box is None:
                missing_boxes += 1
                continue
            sits.append(sits_for_it(clip))
            for store, prediction in (
                (ours, image),
                (floor, portrait),
                (true, None if exact is None else exact[index]),
            ):
                if prediction is None:
                    continue
                store["face"].append(box_mse(prediction, target, face_box))
                store["mouth"].append(box_mse(prediction, target, mouth_box))
                store["sharpness"].append(sharpness(prediction, face_box) / max(sharpness(target, face_box), 1e-6))
        _distances(context, truth, decoded, portrait, ours, floor)
        if len(rows) < 6:
            rows.append([portrait, *(image for pair in zip(truth[:4], decoded[:4], strict=True) for image in pair)])
    if warps is not None:
        warps.release()
    context.pictures["autoencoder"] = strip(rows)
    count = len(ours["face"])
    extra: dict[str, Any] = {"frames_without_a_box": missing_boxes, "clips": len(clips)}
    if not count:
        return [unavailable(name, "no frame shows its face box") for name in STILLS]
    return [
        judge(STILLS[0], _decibels(ours["face"]), count, "frames", _decibels(floor["face"]), **extra),
        judge(STILLS[1], _decibels(ours["mouth"]), count, "frames", _decibels(floor["mouth"]), **extra),
        judge(STILLS[2], float(np.mean(ours["sharpness"])), count, "frames", float(np.mean(floor["sharpness"]))),
        _identity_row(STILLS[3], ours["identity"], floor["identity"]),
        _below_true(STILLS[4], ours["face"], true["face"], sits, without),
        _below_true(STILLS[5], ours["mouth"], true["mouth"], sits, without),
    ]


def _decibels(errors: list[float]) -> float:
    """Per frame, then averaged: a few hard frames count as much as they do to the eye."""
    return float(np.mean([psnr(mse) for mse in errors]))


def _below_true(name: str, ours: list[float], true: list[float], sits: list[bool], without: str) -> GateRow:
    """How far below exact warps ours are; both, of portraits that people sit for and of others. `without`: why there
    are none."""
    if len(true) < len(ours):
        reason = without or "the stills are of another origin: their correspondences are not known"
        return unavailable(name, reason)
    told: dict[str, Any] = {"true_correspondences": round(_decibels(true), 2)}
    for kind, sat in (("sat_for", True), ("caught", False)):
        chosen = [index for index in range(len(ours)) if sits[index] == sat]
        if chosen:
            told[kind] = [round(_decibels([errors[index] for index in chosen]), 2) for errors in (ours, true)]
    return judge(name, _decibels(true) - _decibels(ours), len(ours), "frames", **told)


def _true_warps(size: int) -> tuple[TrueWarps | None, str]:
    """What warps stills exactly, or why nothing does."""
    try:
        return TrueWarps(size), ""
    except Unavailable as error:
        return None, str(error)


def _face(context: Context, portrait: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = context.face_box(portrait)
    return face_fractions((left, top, right, bottom), len(portrait))


def _distances(
    context: Context, truth: np.ndarray, decoded: np.ndarray, portrait: np.ndarray, ours: dict, floor: dict
) -> None:
    """Two frames per clip: the decoded frame's, and the portrait's, distance to the true frame's face."""
    try:
        for target, image in zip(truth[:2], decoded[:2], strict=True):
            if context.identity.find(target) is None:
                continue  # turned too far for the detector: nothing to compare with
            distances = context.distances(target, np.stack([image, portrait]))
            ours["identity"].append(distances[0])
            floor["identity"].append(distances[1])
    except Unavailable:
        pass  # the row says so


def _identity_row(name: str, ours: list[float], floor: list[float]) -> GateRow:
    if not ours:
        return unavailable(name, "no identity network, or no face found in the true frames")
    result, base = summarise(np.array(ours)), summarise(np.array(floor))
    value = float("nan") if result.distance is None else result.distance
    unless = "" if result.coverage >= 0.9 else f"a face was found in only {result.coverage:.0%} of the decoded frames"
    return judge(name, value, result.num_frames, "frames", base.distance, unless, coverage=round(result.coverage, 3))


def _photographs(context: Context) -> list[GateRow]:
    names = ("photo_face_psnr_db", "photo_sharpness", "photo_identity")
    size = context.model.config.autoencoder.image_size
    try:
        photographs = [crop_face(photo, size=size).image for photo in context.material.photographs()]
    except (Unavailable, ValueError) as error:
        return [unavailable(name, str(error)) for name in names]
    decibels, sharp, distances, rows = [], [], [], []
    for photo in photographs:
        image = reconstruct(context, photo, photo[None])[0]
        box = to_pixels(_face(context, photo), len(photo))
        decibels.append(psnr(box_mse(image, photo, box)))
        sharp.append(sharpness(image, box) / max(sharpness(photo, box), 1e-6))
        rows.append([photo, image])
        try:
            distances += list(context.distances(photo, image[None]))
        except Unavailable:
            distances.append(np.nan)
    context.pictures["autoencoder_photo"] = strip(rows)
    count = len(photographs)
    return [
        judge(names[0], float(np.mean(decibels)), count, "photos"),
        judge(names[1], float(np.mean(sharp)), count, "photos"),
        _identity_row(names[2], distances, []),
    ]
