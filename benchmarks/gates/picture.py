"""Gates of the frame autoencoder and of next-frame prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.gates.streams import Context, strip
from benchmarks.gates.table import GateRow, Unavailable, judge, unavailable
from eartalking.controls import ControlBatch, control_values
from eartalking.modules.pixels import to_float
from eartalking.motion.vector import clip_motion
from eartalking.perception.face_detector import crop_face
from eartalking.perception.identity import summarise
from eval.metrics.boxes import face_fractions, follow, mouth_fractions, to_pixels
from eval.metrics.signals import box_mse, psnr, sharpness

FLOOR_KEYS = ("face", "mouth", "sharpness", "identity")
FITTED_AT_ONCE = 8  # frames that are encoded together
PIXEL_EVERY = 5  # frames between those whose pixels are compared in next-frame prediction


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
    names = ("autoencoder_face_psnr_db", "autoencoder_mouth_psnr_db", "autoencoder_sharpness", "autoencoder_identity")
    try:
        clips = context.material.stills()
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in names]
    ours: dict[str, list[float]] = {key: [] for key in FLOOR_KEYS}
    floor: dict[str, list[float]] = {key: [] for key in FLOOR_KEYS}
    rows: list[Any] = []
    missing_boxes = 0
    for clip in tqdm(clips, unit="clip", desc="autoencoder", mininterval=2, leave=False):
        portrait, truth = clip["reference"], clip["frames"][: context.suite.stills_per_clip]
        decoded = reconstruct(context, portrait, truth)
        face = _face(context, portrait)
        if "correspondence" not in clip:
            return [unavailable(name, "the stills have no correspondence maps") for name in names]
        for index, (image, target) in enumerate(zip(decoded, truth, strict=True)):
            maps = clip["correspondence"][index], clip["visibility"][index]
            face_box, mouth_box = (follow(box, *maps, len(target)) for box in (face, mouth_fractions(face)))
            if face_box is None or mouth_box is None:
                missing_boxes += 1
                continue
            for store, prediction in ((ours, image), (floor, portrait)):
                store["face"].append(box_mse(prediction, target, face_box))
                store["mouth"].append(box_mse(prediction, target, mouth_box))
                store["sharpness"].append(sharpness(prediction, face_box) / max(sharpness(target, face_box), 1e-6))
        _distances(context, truth, decoded, portrait, ours, floor)
        if len(rows) < 6:
            rows.append([portrait, *(image for pair in zip(truth[:4], decoded[:4], strict=True) for image in pair)])
    context.pictures["autoencoder"] = strip(rows)
    count = len(ours["face"])
    extra: dict[str, Any] = {"frames_without_a_box": missing_boxes, "clips": len(clips)}
    if not count:
        return [unavailable(name, "no frame shows its face box") for name in names]

    def decibels(store: dict[str, list[float]], key: str) -> float:
        # Per frame, then averaged: a few hard frames count as much as they do to the eye.
        return float(np.mean([psnr(mse) for mse in store[key]]))

    return [
        judge(names[0], decibels(ours, "face"), count, "frames", decibels(floor, "face"), **extra),
        judge(names[1], decibels(ours, "mouth"), count, "frames", decibels(floor, "mouth"), **extra),
        judge(names[2], float(np.mean(ours["sharpness"])), count, "frames", float(np.mean(floor["sharpness"]))),
        _identity_row(names[3], ours["identity"], floor["identity"]),
    ]


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


def measure_next_frame(context: Context) -> list[GateRow]:
    """Each frame predicted from the true one before it with the streaming step, against copying that one.

    The value is error / error of the copy. Frames are read from pixels, predictions and copies are decoded by the same
    decoder; controls are released, so only the voice can help. Beside it is told: with all controls given; and `exact`,
    the same between the codes of the clips' labels, which no reading has blurred.
    """
    names = ("next_frame_latent", "next_frame_pixel")
    try:
        clips = context.material.clips()
    except Unavailable as error:
        return [unavailable(name, str(error)) for name in names]
    totals = {
        key: 0.0 for key in ("latent", "latent_given", "latent_copy", "exact", "exact_copy", "pixel", "pixel_copy")
    }
    frames = pixels = 0
    for clip in tqdm(clips, unit="clip", desc="next frame", mininterval=2, leave=False):
        counts = _predict_clip(context, clip, totals)
        frames, pixels = frames + counts[0], pixels + counts[1]
    latent, pixel = totals["latent"] / totals["latent_copy"], totals["pixel"] / totals["pixel_copy"]
    ratios: dict[str, Any] = {
        name: round(totals[name] / totals[copy], 4)
        for name, copy in (("latent_given", "latent_copy"), ("exact", "exact_copy"))
    }
    extra = {key: round(value / (pixels if key.startswith("pixel") else frames), 6) for key, value in totals.items()}
    return [
        judge(names[0], latent, frames, "frames", 1.0, **ratios, errors=extra),
        judge(names[1], pixel, pixels, "frames", 1.0),
    ]


@torch.inference_mode()
def _predict_clip(context: Context, clip: dict[str, np.ndarray], totals: dict[str, float]) -> tuple[int, int]:
    model, autoencoder = context.model, context.model.autoencoder
    images = to_float(torch.from_numpy(clip["frames"]))
    reference = autoencoder.reference(to_float(torch.from_numpy(clip["reference"]))[None])
    encoded = [autoencoder.encode(some, reference.expand(len(some))) for some in images.split(FITTED_AT_ONCE)]
    truth = torch.cat(encoded)[:, None]  # (T, 1, N, C)
    audio = model.audio_encoder(torch.from_numpy(clip["waveform"])[None])[0]
    features = reference.pyramid[-1].flatten(2).transpose(1, 2)
    initial = reference.latents
    exact = autoencoder.code.motion_to_latents(
        clip_motion({name: torch.from_numpy(value) for name, value in clip.items()})
    )[:, None]  # (T, 1, N, C)
    released, given, labelled = (model.prefill(initial, features) for _ in range(3))
    released_controls, true_controls = ControlBatch.released(1, 1), _true_controls(clip)
    generator = torch.Generator().manual_seed(context.seed)
    pixels = 0
    for index in range(min(len(truth), len(audio))):
        before = truth[index - 1] if index else initial
        noise = torch.randn(before.shape, generator=generator)
        released.previous = given.previous = before
        exact_before = labelled.previous = exact[index - 1] if index else initial
        model.step(audio[None, index], released_controls, noise, released)
        guess = (
            released.previous
        )  # as foretold: what is shown is stretched to the spread that a stream of its own lacks
        informed = model.step(audio[None, index], true_controls[index], noise, given)
        for key, value in (("latent", guess), ("latent_given", informed), ("latent_copy", before)):
            totals[key] += float((value - truth[index]).square().mean())
        model.step(audio[None, index], released_controls, noise, labelled)
        for key, value in (("exact", labelled.previous), ("exact_copy", exact_before)):
            totals[key] += float((value - exact[index]).square().mean())
        if index % PIXEL_EVERY == 0 and index:
            pixels += 1
            for key, value in (("pixel", guess), ("pixel_copy", before)):
                image = autoencoder.decode(value, reference).pixels()[0].numpy()
                totals[key] += box_mse(image, clip["frames"][index])
    return index + 1, pixels


def _true_controls(clip: dict[str, np.ndarray]) -> list[ControlBatch]:
    """All of a clip's own control values, one batch per frame."""
    prefix = "labels."
    labels = {name[len(prefix) :]: torch.from_numpy(value) for name, value in clip.items() if name.startswith(prefix)}
    values, intensity = control_values(labels), labels["emotion_intensity"].float()
    given = torch.ones(1, 1, values.shape[1] + 1, dtype=torch.bool)
    return [
        ControlBatch(
            values[None, i : i + 1], labels["emotion"][None, i : i + 1].long(), intensity[None, i : i + 1], given
        )
        for i in range(len(values))
    ]
