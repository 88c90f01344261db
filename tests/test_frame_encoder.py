"""Frame encoder: one look per picture, landmarks that follow the face, any size of picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eartalking.config import AutoencoderConfig
from eartalking.perception.face_reader import FaceReader
from eartalking.perception.frame_encoder import FrameEncoder
from eartalking.training.encoder import mirrored_landmarks, start_from

PORTRAIT = Path(__file__).parent.parent / "examples" / "portrait.png"


def make() -> FrameEncoder:
    torch.manual_seed(0)
    return FrameEncoder(AutoencoderConfig()).eval()


@pytest.mark.parametrize("size", [64, 256, 320])
def test_shapes(size: int) -> None:
    encoder = make()
    frame, portrait = torch.rand(2, 2, 3, size, size) * 2 - 1
    assert encoder(frame, portrait).shape == (2, 60)
    assert encoder.look(frame).landmarks.shape == (2, 3, 2)


def test_comparing_looks_is_reading_pictures() -> None:
    encoder = make()
    frame, portrait = torch.rand(2, 2, 3, 256, 256) * 2 - 1
    torch.testing.assert_close(encoder.read(encoder.look(frame), encoder.look(portrait)), encoder(frame, portrait))
    assert (encoder(frame, portrait) != encoder(frame, frame)).any(), "the portrait counts"


def test_starts_from_a_face_readers_trunks_and_then_finds_the_face() -> None:
    encoder, reader = make(), FaceReader.load().net
    start_from(encoder, reader)
    photo = Image.open(PORTRAIT).convert("RGB").resize((256, 256))
    image = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None].float() / 255
    found = encoder.look(image * 2 - 1).landmarks
    torch.testing.assert_close(found, reader(image)[2], atol=1e-4, rtol=0)
    left, right, mouth = found[0]
    assert left[0] < right[0] and mouth[1] > left[1]
    with pytest.raises(ValueError, match="widths"):
        start_from(FrameEncoder(AutoencoderConfig(encoder_widths=(8, 16, 16))), reader)


def test_a_mirror_swaps_the_eyes() -> None:
    landmarks = torch.rand(4, 3, 2)
    seen = mirrored_landmarks(landmarks)
    torch.testing.assert_close(seen[:, 0, 0], 1 - landmarks[:, 1, 0])
    torch.testing.assert_close(seen[:, 2, 1], landmarks[:, 2, 1])
    torch.testing.assert_close(mirrored_landmarks(seen), landmarks)
