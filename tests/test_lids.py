"""Lids of portraits: read by the marks where these disagree, and never opened beyond what the portrait shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eartalking import StreamSession, load_model
from eartalking.autoencoder.lids import OPEN, SHUT, closure, fit_lids, held, narrowness, released
from eartalking.motion.vector import BLINK_COLUMNS, MOTION_SCALES, NUM_MOTION_LABELS
from eartalking.perception.face_marks import NUM_MARKS, OPENING, eye_marks

SCALE, LIDS = MOTION_SCALES["face_units"], list(BLINK_COLUMNS)
PHOTOGRAPH = Path(__file__).parent.parent / "examples" / "photo.jpg"


def marks_of(opening: float) -> Tensor:
    """Marks of a face whose eyes are so far open, as a share of their width."""
    along = torch.linspace(0, 1, 9)[:8]
    corner_then_lid = torch.stack([along, torch.zeros(8)], dim=1)
    outline = torch.cat([corner_then_lid, corner_then_lid])
    outline[8] = torch.tensor([1.0, 0.0])  # the other corner; after it the upper lid, from the first corner on
    outline[9:, 1] = -opening
    marks = torch.zeros(1, NUM_MARKS, 3)
    for eye in (0, 1):
        marks[0, eye_marks(eye), :2][:OPENING] = 0.1 * outline + 0.2 + 0.3 * eye
    return marks


def motion_of(*blinks: float) -> Tensor:
    motion = torch.randn(len(blinks), NUM_MOTION_LABELS)
    motion[:, LIDS] = SCALE * torch.tensor(blinks)[:, None]
    return motion


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_marks_say_how_far_eyes_are_shut(share: float) -> None:
    assert closure(marks_of(OPEN + share * (SHUT - OPEN))).item() == pytest.approx(share, abs=1e-4)
    assert closure(marks_of(0.5)).item() == 0 and closure(marks_of(0.01)).item() == 1


def test_marks_count_where_they_say_clearly_more() -> None:
    shut, open_eyes, read_open, read_shut = marks_of(SHUT), marks_of(OPEN), motion_of(0.1), motion_of(0.95)
    assert torch.allclose(fit_lids(shut, read_open)[:, LIDS], torch.full((1, 2), SCALE))
    others = [column for column in range(NUM_MOTION_LABELS) if column not in LIDS]
    assert torch.equal(fit_lids(shut, read_open)[:, others], read_open[:, others])
    for marks, read in ((shut, read_shut), (open_eyes, read_open), (open_eyes, read_shut)):
        assert fit_lids(marks, read) is read  # what was read holds, and is the same to the bit
    assert fit_lids(torch.zeros(1, NUM_MARKS, 3), read_open) is read_open  # no face was certain


def test_lids_are_held_where_the_portrait_shows_them_and_released_again() -> None:
    assert narrowness(motion_of(0.0, 0.2, 0.25)).tolist() == [0, 0, 0]
    narrow = narrowness(motion_of(0.5, 0.9, 1.3))
    assert narrow.tolist() == pytest.approx([0.5, 0.9, 1.0])
    awake, shut = held(motion_of(0.0, 0.0, 0.0), narrow), held(motion_of(1.0, 1.0, 1.0), narrow)
    assert torch.allclose(awake[:, LIDS[0]], narrow * SCALE) and torch.allclose(
        shut[:, LIDS], torch.full((3, 2), SCALE)
    )
    for blink in (0.3, 0.4, 0.6, 0.9):
        own = motion_of(blink)
        assert torch.allclose(held(released(own, narrowness(own)), narrowness(own)), own, atol=1e-5)


def test_a_portrait_with_shut_eyes_starts_as_it_stands_and_does_not_open_them() -> None:
    """A frame of the shipped model's own with shut eyes is the portrait."""
    model = load_model()
    first = StreamSession(model, PHOTOGRAPH)
    first.set(blink=1.0, yaw=0.0, pitch=0.0, roll=0.0)
    silence = np.zeros(16000, np.float32)
    asleep = [frame.image for frame in first.push(silence)][-1]
    session = StreamSession(model, asleep, crop="center")
    code, reference = model.autoencoder.code, session._reference
    own = code.latents_to_motion(reference.latents)[0, LIDS].mean() / SCALE
    assert own > 0.6 and session.eyes_stay_shut and not first.eyes_stay_shut
    resting = model.autoencoder.possible(model.autoencoder.resting(reference), reference)
    assert torch.allclose(resting, reference.latents, atol=0.05)
    session.set(blink=0.0)
    frames = [frame.image for frame in session.push(silence)]
    eyes = (slice(70, 125), slice(70, 185))
    still = np.abs(frames[0][eyes].astype(int) - asleep[eyes]).mean()
    assert still < 6, still  # nothing opened
    awake = StreamSession(model, PHOTOGRAPH)
    assert model.autoencoder.possible(awake._reference.latents, awake._reference) is awake._reference.latents
    assert model.autoencoder.resting(awake._reference) is awake._reference.latents
