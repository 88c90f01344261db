"""A batch of clips streamed from their first frames, and what is measured on that."""

from __future__ import annotations

import torch
from torch import Tensor

from eartalking.audio import AudioEncoder, log_mel, pad_to_frames
from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import MOUTH_SCALE, ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.motion.vector import MOTION_SCALES
from eartalking.training.data import LatentClips, Sequence
from eartalking.training.speakers import as_other_speakers

JAW = UNIT_INDEX["jawOpen"]
FOLLOWS, MOST_ARTICULATED = 0.4, 2.0  # correlation from which on a face unit is stretched, and how far at most


def audio_tokens(model: TalkingHeadModel, sequence: Sequence, speakers: torch.Generator | None = None) -> Tensor:
    """The window's audio tokens (B, T, A, D), encoded from the clip's start as a stream would.

    speakers: draws other vocal tracts to say it, which wav2vec 2.0, who has heard people, does without.
    """
    length, encoder = sequence.latents.shape[1], model.audio_encoder
    if speakers is None or not isinstance(encoder, AudioEncoder):
        tokens = encoder(sequence.waveform)
    else:
        mel = log_mel(pad_to_frames(sequence.waveform, encoder.lookahead))
        tokens = encoder.forward_mel(as_other_speakers(mel, speakers))
    index = sequence.start[:, None] + torch.arange(length, device=tokens.device)  # (B, T)
    return torch.take_along_dim(tokens, index[:, :, None, None], dim=1)


@torch.no_grad()
def rollout(model: TalkingHeadModel, sequence: Sequence, controls: ControlBatch, seed: int = 0) -> Tensor:
    """Free-running latents (B, T, N, C) from each clip's first frame, with the streaming step."""
    audio = audio_tokens(model, sequence)
    state = model.prefill(sequence.reference_latents, sequence.reference_features)
    generator = torch.Generator().manual_seed(seed)
    frames = []
    for index in range(audio.shape[1]):
        now = slice(index, index + 1)
        rows = ControlBatch(
            controls.values[:, now], controls.emotion[:, now], controls.intensity[:, now], controls.given[:, now]
        )
        noise = torch.randn(state.previous.shape, generator=generator).to(audio.device)
        frames.append(model.step(audio[:, index], rows, noise, state))
    return torch.stack(frames, dim=1)


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean over clips (rows) of the correlation over time; clips without movement in `b` do not count."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    moving = b.pow(2).mean(1) > 1e-4
    values = (a * b).sum(1) / (a.pow(2).sum(1) * b.pow(2).sum(1)).sqrt().clamp_min(1e-6)
    return float(values[moving].mean()) if moving.any() else 0.0


@torch.no_grad()
def measure_articulation(model: TalkingHeadModel, sequence: Sequence) -> Tensor:
    """The factors (2, U) of `TalkingHeadModel.articulate`, with mouth_scale released and given, in which the
    free-running model on these clips falls short of the true motion (`falls_short`)."""
    model.articulation.fill_(1)
    controls = ControlBatch.released(*sequence.latents.shape[:2], device=sequence.latents.device)
    controls.values = sequence.values
    factors = []
    for given in (False, True):
        controls.given[..., MOUTH_SCALE] = given
        spoken = model.autoencoder.code.latents_to_motion(rollout(model, sequence, controls))
        factors.append(falls_short(spoken, sequence.labels))
    return torch.stack(factors)


def falls_short(spoken: Tensor, true: Tensor) -> Tensor:
    """How much less face units (U,) of motion (B, T, L) move than those of the true one: true spread over theirs, for
    the units that move when they should; 1 for the others, whose movement would be noise."""
    spoken, true = (
        (motion - motion.mean(1, keepdim=True))[..., :NUM_FACE_UNITS].flatten(0, 1) for motion in (spoken, true)
    )
    spread, true_spread = spoken.std(0), true.std(0)
    follows = (spoken * true).mean(0) > FOLLOWS * spread * true_spread
    moves = true_spread > 0.02 * MOTION_SCALES["face_units"]
    factors = (true_spread / spread.clamp_min(1e-6)).clamp(1, MOST_ARTICULATED)
    return torch.where(follows & moves, factors, 1.0)


def evaluation_batch(clips: LatentClips, length: int, count: int = 24) -> Sequence:
    """The first `length` frames of the first `count` clips that are long enough."""
    chosen = [clip for clip in range(len(clips)) if clips.num_frames(clip) >= length][:count]
    if not chosen:
        raise ValueError(f"no clip of {length} frames to evaluate on")
    return Sequence.collate([clips.window(clip, 0, length, (length + 2) * SAMPLES_PER_FRAME) for clip in chosen])
