"""Audio: causal to the sample, streamed equals offline, the state is a value."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor, nn

from eartalking import StreamSession, load_model
from eartalking.audio import (
    HOP,
    MEL_FLOOR,
    AudioEncoder,
    AudioState,
    Wav2Vec2AudioEncoder,
    build_encoder,
    log_mel,
    mel_filterbank,
    pad_to_frames,
)
from eartalking.checkpoint import save_model
from eartalking.config import SAMPLES_PER_FRAME, TINY, AudioConfig
from eartalking.modules.conv import CausalConv1d

Encoder = AudioEncoder | Wav2Vec2AudioEncoder
WAV2VEC2 = AudioConfig(encoder="wav2vec2", dim=24, wav2vec2_layers=1, wav2vec2_past=3)


@pytest.fixture(params=["conv", "wav2vec2"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(1)
    if request.param == "conv":
        return AudioEncoder(dim=24, out_dim=10).eval()
    pytest.importorskip("transformers")
    return build_encoder(dataclasses.replace(WAV2VEC2, wav2vec2_past=5), 10).eval()


def speechlike(samples: int, batch: int = 1) -> Tensor:
    return 0.1 * torch.randn(batch, samples) * torch.sin(torch.arange(samples) / 1500).abs()


def stream(encoder: Encoder, waveform: Tensor, state: AudioState) -> tuple[list[Tensor], AudioState]:
    """Whole frames of waveform (B, n * 640), and what came out."""
    outputs = []
    with torch.no_grad():
        for samples in waveform.split(SAMPLES_PER_FRAME, dim=1):
            tokens, state = encoder.step(samples, state)
            outputs += [] if tokens is None else [tokens]
    return outputs, state


@pytest.mark.parametrize("samples", [1, 640, 6400, 6401, 9000])
def test_streamed_equals_offline(encoder: Encoder, samples: int) -> None:
    waveform = speechlike(samples, batch=2)
    with torch.no_grad():
        offline = encoder(waveform)
    assert offline.shape == (2, math.ceil(samples / 640), 2, 10)
    padded = pad_to_frames(waveform, encoder.lookahead)
    outputs, _ = stream(encoder, padded, encoder.init_state(2))
    torch.testing.assert_close(torch.stack(outputs, dim=1), offline, atol=1e-4, rtol=1e-4)


def test_looks_ahead_two_frames_and_no_sample_more(encoder: Encoder) -> None:
    waveform = speechlike(640 * 12)
    frame = 5
    horizon = (frame + encoder.lookahead + 1) * 640
    later, last = waveform.clone(), waveform.clone()
    later[:, horizon:] = torch.randn(1, later.shape[1] - horizon)
    last[:, horizon - 80 : horizon] += 0.5  # the newest samples allowed do count
    with torch.no_grad():
        tokens = encoder(waveform)[:, : frame + 1]
        torch.testing.assert_close(encoder(later)[:, : frame + 1], tokens, atol=1e-5, rtol=1e-5)
        changed = encoder(last)[:, : frame + 1]
    torch.testing.assert_close(changed[:, :frame], tokens[:, :frame], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed[:, frame], tokens[:, frame], atol=1e-5)


def test_first_token_after_the_lookahead(encoder: Encoder) -> None:
    state = encoder.init_state(1)
    counts = []
    for _ in range(5):
        outputs, state = stream(encoder, speechlike(640), state)
        counts.append(len(outputs))
    assert counts == [0, 0, 1, 1, 1]
    assert int(state.frames_seen) == 5


def test_resumed_equals_uninterrupted_and_states_are_values(encoder: Encoder) -> None:
    waveform = speechlike(640 * 14)
    _, state = stream(encoder, waveform[:, : 640 * 6], encoder.init_state(1))
    saved = state.to_tensors("audio.")
    expected, _ = stream(encoder, waveform[:, 640 * 6 :], state)
    restored = encoder.init_state(1).from_tensors(saved, "audio.")
    stream(encoder, speechlike(640 * 3), state)  # another session going on from here changes nothing
    for again in (state, state.clone(), restored):
        outputs, _ = stream(encoder, waveform[:, 640 * 6 :], again)
        assert torch.equal(torch.stack(outputs), torch.stack(expected))
    with pytest.raises((KeyError, ValueError)):
        encoder.init_state(2).from_tensors(saved, "audio.")


def test_step_takes_exactly_one_frame(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="640"):
        encoder.step(torch.zeros(1, 639), encoder.init_state(1))


def test_training_on_mels_equals_waveform() -> None:
    encoder = AudioEncoder(dim=24, out_dim=10).eval()
    waveform = speechlike(640 * 9)
    mel = log_mel(pad_to_frames(waveform, encoder.lookahead))
    assert mel.shape == (1, 4 * 11, 80)
    assert torch.equal(encoder.forward_mel(mel), encoder(waveform))
    assert encoder.hidden(mel).shape == (1, 9, 24)
    assert torch.equal(encoder.tokens(encoder.hidden(mel)), encoder(waveform))
    with pytest.raises(ValueError, match="hops"):
        encoder.hidden(mel[:, :-1])
    with pytest.raises(ValueError, match="hops"):
        encoder.hidden(mel[:, :8])


def test_every_weight_learns() -> None:
    encoder = AudioEncoder(dim=24, out_dim=10)
    encoder(speechlike(640 * 30)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_receptive_field_and_size() -> None:
    encoder = AudioEncoder(dim=192, out_dim=256).eval()
    assert 0.8e6 < sum(p.numel() for p in encoder.parameters()) < 1.2e6
    mel = torch.randn(1, 4 * 40, 80, requires_grad=True)
    encoder.hidden(mel)[0, -1].sum().backward()
    reach = (mel.grad[0].abs().sum(dim=-1) > 0).sum().item()  # hops of 10 ms
    assert 80 <= reach <= 130


def test_mel_hop_sees_exactly_its_window() -> None:
    waveform = torch.zeros(1, 3200, requires_grad=True)
    hop = 10
    mel = log_mel(waveform + 0.1 * torch.randn(1, 3200))
    assert mel.shape == (1, 20, 80)
    mel[0, hop].sum().backward()
    seen = waveform.grad[0].nonzero().flatten()
    # The Hann window starts with an exact zero, so its first sample has no influence.
    assert (seen.min(), seen.max()) == (160 * hop - 240 + 1, 160 * hop + 159)


@pytest.mark.parametrize("hertz", [200, 440, 1000, 3000, 6000])
def test_mel_of_a_tone_peaks_where_it_should(hertz: int) -> None:
    tone = 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(16_000) / 16_000)[None]
    bank = mel_filterbank(torch.device("cpu"))
    peak = log_mel(tone)[0, 50].argmax()
    centre = bank[:, peak].argmax() * 16_000 / 512
    assert abs(centre - hertz) <= max(40.0, 0.05 * hertz)


def test_mel_is_finite_on_silence_and_every_band_is_used() -> None:
    torch.testing.assert_close(log_mel(torch.zeros(1, 1000)), torch.full((1, 7, 80), math.log(MEL_FLOOR)))
    assert (mel_filterbank(torch.device("cpu")).sum(dim=0) > 0).all()


def test_mel_streams() -> None:
    waveform = speechlike(HOP * 20)
    parts = [log_mel(waveform[:, :1600]), log_mel(waveform[:, 1600:], waveform[:, 1360:1600])]
    torch.testing.assert_close(torch.cat(parts, dim=1), log_mel(waveform))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 1, 4), (4, 2, 1), (2, 2, 1), (1, 1, 1)])
def test_convolution_is_causal_and_streams(kernel: int, stride: int, dilation: int) -> None:
    conv = CausalConv1d(3, 5, kernel, stride, dilation)
    x = torch.randn(2, 3, 24)
    offline, _ = conv(x)
    assert offline.shape == (2, 5, 24 // stride)
    torch.testing.assert_close(offline, conv.conv(nn.functional.pad(x, (conv.context, 0))))
    changed = x.clone()
    changed[..., 12:] = 0
    assert torch.allclose(conv(changed)[0][..., : 12 // stride], offline[..., : 12 // stride], atol=1e-6)
    state, outputs = conv.init_state(2), []
    for chunk in x.split([2, 4, 8, 2, 8], dim=-1):
        y, state = conv(chunk, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=-1), offline)


def test_convolution_rejects_half_strides() -> None:
    with pytest.raises(ValueError, match="multiple"):
        CausalConv1d(1, 1, 4, stride=2)(torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="cover"):
        CausalConv1d(1, 1, 1, stride=2)


def test_normalisation_travels_with_the_weights() -> None:
    encoder = AudioEncoder(dim=8, out_dim=4)
    assert isinstance(encoder, nn.Module) and {"mel_mean", "mel_std"} <= set(encoder.state_dict())


def test_a_model_with_wav2vec2_is_saved_loaded_and_streams(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = tiny_model(dataclasses.replace(TINY, audio=WAV2VEC2))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.audio_encoder, Wav2Vec2AudioEncoder) and loaded.config == model.config
    face = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    waveform = speechlike(640 * 6)[0].numpy()
    whole, pieces = (StreamSession(loaded, face, crop="center") for _ in range(2))
    frames = [*whole.push(waveform), *whole.flush()]
    chunks = [frame for start in range(0, len(waveform), 900) for frame in pieces.push(waveform[start : start + 900])]
    chunks += pieces.flush()
    assert len(frames) == 6
    np.testing.assert_array_equal(np.stack([f.image for f in chunks]), np.stack([f.image for f in frames]))


def test_wav2vec2_starts_with_pretrained_weights_of_its_size_only(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source, mine, narrow = (
        build_encoder(config, 8) for config in (WAV2VEC2, WAV2VEC2, dataclasses.replace(WAV2VEC2, dim=48))
    )
    source.backbone.save_pretrained(tmp_path)
    waveform = speechlike(640 * 4)
    with torch.no_grad():
        assert not torch.allclose(mine.hidden(waveform), source.hidden(waveform))
        mine.load_pretrained(str(tmp_path))
        mine.eval(), source.eval()
        torch.testing.assert_close(mine.hidden(waveform), source.hidden(waveform))
    with pytest.raises(ValueError, match="width 24, 1 layers"):
        narrow.load_pretrained(str(tmp_path))


def test_wav2vec2_base_is_768_wide_with_12_layers() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        mine = build_encoder(AudioConfig(encoder="wav2vec2", dim=768), 8).backbone
        base = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config())
    shapes = [{name: value.shape for name, value in module.state_dict().items()} for module in (mine, base)]
    assert shapes[0] == shapes[1]


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder\\n  Input should be 'conv' or 'wav2vec2'"):
        AudioConfig(encoder="whisper")
