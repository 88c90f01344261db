"""What a voice says of a mouth by itself: the regression has known answers, and the model then says it."""

from __future__ import annotations

import dataclasses

import torch
from tiny_model import DRAWN

from eartalking.config import SAMPLES_PER_FRAME
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, GAZE, HEAD_POSE, MOTION_SCALES
from eartalking.training.motion_spans import Portraits, SpokenSpans
from eartalking.training.ridge import ridge_regression
from eartalking.training.voice import (
    CLOSURE_COUNT,
    SHUT_COUNT,
    hear,
    learn_bends,
    left_over,
    mouth_columns,
    own_means,
    report,
    rest_of_mouths,
    shut_lips,
)

FRAMES = 60


def test_the_regression_without_a_ridge_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 3.0, 0.2, 1.0, 1.0]) + 2
    outputs = inputs @ torch.randn(5, 3, generator=generator) + torch.randn(200, 3, generator=generator)
    weight, bias = ridge_regression(inputs, outputs, 0.0)
    expected = torch.linalg.lstsq(torch.cat([inputs, torch.ones(200, 1)], dim=1).double(), outputs.double()).solution
    torch.testing.assert_close(torch.cat([weight, bias[:, None]], dim=1).T, expected.float(), atol=1e-4, rtol=1e-4)
    assert ridge_regression(inputs, outputs, 10.0)[0].norm() < 0.5 * weight.norm()
    counts = torch.randint(1, 4, (200,), generator=generator)
    repeated = ridge_regression(inputs.repeat_interleave(counts, 0), outputs.repeat_interleave(counts, 0), 0.0)
    for ours, theirs in zip(ridge_regression(inputs, outputs, 0.0, counts), repeated, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_lips_are_shut_at_rest_and_when_pressed_and_open_with_the_jaw() -> None:
    code = _silent_model().autoencoder.code
    motion = torch.zeros(3, 60)
    motion[1, UNIT_INDEX["jawOpen"]] = 0.3 * MOTION_SCALES["face_units"]
    motion[2, UNIT_INDEX["mouthPressLeft"]] = motion[2, UNIT_INDEX["mouthPressRight"]] = MOTION_SCALES["face_units"]
    assert shut_lips(code, code.motion_to_coordinates(motion)).tolist() == [True, False, True]


def test_mouths_are_jaw_lips_corners_and_tongue() -> None:
    mouth = mouth_columns(60)
    for name in ("jawOpen", "mouthFunnel", "mouthSmileLeft", "tongueOut"):
        assert mouth[UNIT_INDEX[name]], name
    others = [UNIT_INDEX["browInnerUp"], UNIT_INDEX["cheekPuff"], *BLINK_COLUMNS]
    assert not mouth[others].any() and not mouth[HEAD_POSE].any() and not mouth[GAZE].any()


def _silent_model() -> TalkingHeadModel:
    torch.manual_seed(0)
    return TalkingHeadModel(dataclasses.replace(DRAWN, departure=None)).eval().requires_grad_(False)


def _spans(model: TalkingHeadModel) -> SpokenSpans:
    """Voices whose jaws do what their loudness does."""
    generator = torch.Generator().manual_seed(1)
    loudness = torch.rand(4, FRAMES, generator=generator)
    noise = torch.randn(4, FRAMES, SAMPLES_PER_FRAME, generator=generator)
    waveforms = list((loudness[..., None] * noise * 0.3).flatten(1))
    code = model.autoencoder.code
    coordinates = torch.zeros(4, FRAMES, len(code.mean))
    coordinates[..., UNIT_INDEX["jawOpen"]] = loudness
    coordinates[..., UNIT_INDEX["browInnerUp"]] = loudness  # no mouth: not to be learnt
    portraits = code.coordinates_to_latents(torch.zeros(4, len(code.mean)))
    closures = coordinates[..., UNIT_INDEX["jawOpen"]] < 0.1
    return SpokenSpans(coordinates, waveforms, closures, portraits)


def test_portraits_are_seen() -> None:
    model = _silent_model()
    spans = _spans(model)
    size = model.config.autoencoder
    shape = (3, size.num_latent_tokens)
    people = Portraits(torch.randn(*shape, size.latent_channels), torch.randn(*shape, size.reference_widths[-1]))
    seen, alike = spans.seen(people, 0), spans.looking_like(people, 0)
    assert seen.looks is not None and len(seen.looks) == len(seen.portraits) == len(spans.waveforms)
    for portrait, look in zip(seen.portraits, seen.looks, strict=True):
        person = (people.latents == portrait).flatten(1).all(1).nonzero().item()
        assert torch.equal(people.looks[person], look), "of the same portrait"
    assert alike.looks is not None and torch.equal(alike.looks, seen.looks)
    assert torch.equal(alike.portraits, spans.portraits), "who sit as they did"
    unseen = dataclasses.replace(seen, looks=None)
    torch.nn.init.normal_(model.from_reference.weight)
    torch.nn.init.normal_(model.emission_head.to_mean.weight)
    assert not torch.equal(own_means(model, seen)[1], own_means(model, unseen)[1])


def test_what_the_voice_explains_is_heard_and_nothing_else_moves() -> None:
    model = _silent_model()
    spans = _spans(model)
    tokens, before = own_means(model, spans)
    code = model.autoencoder.code
    tokens, (rest, counts) = tokens.flatten(0, 1), rest_of_mouths(before, spans, code)
    assert counts.unique().tolist() == [1, SHUT_COUNT, CLOSURE_COUNT]
    hear(model, *left_over(model.voice_to_latents, tokens, rest, counts, ridge=1e-3))
    _, after = own_means(model, spans)
    old, new = (report(means, spans, code) for means in (before, after))
    assert new["mouth_explained"] > max(0.3, old["mouth_explained"] + 0.3) and new["jaw_correlation"] > 0.6
    silent = _silent_model()
    tokens = torch.randn(3, model.config.audio.tokens_per_frame, model.config.dim)
    zero = torch.zeros(len(code.mean))
    moved = code.latents_to_coordinates(code.coordinates_to_latents(zero) + model.heard(tokens) - silent.heard(tokens))
    assert moved[:, mouth_columns(len(zero))].abs().max() > 0.05
    assert moved[:, ~mouth_columns(len(zero))].abs().max() < 1e-4


def test_rounds_add_up() -> None:
    model = _silent_model()
    layer = model.voice_to_latents
    weight = torch.randn(int(mouth_columns(60).sum()), layer.in_features + layer.bend_in.out_features)
    hear(model, weight, torch.ones(28))
    once = [part.clone() for part in (layer.weight, layer.bend_out.weight, layer.bias)]
    hear(model, weight, torch.ones(28))
    for now, before in zip((layer.weight, layer.bend_out.weight, layer.bias), once, strict=True):
        torch.testing.assert_close(now, 2 * before)


def test_a_hidden_layer_learns_what_a_line_cannot_say() -> None:
    """A mouth that is as far open as a token is away from 0."""
    model = _silent_model()
    layer = model.voice_to_latents
    tokens = torch.randn(4000, layer.in_features, generator=torch.Generator().manual_seed(0)) + 1
    rest = (tokens[:, :1] - 1).abs().expand(-1, 28) - 0.8
    counts = torch.ones(len(tokens))

    def error() -> float:
        weight, bias = left_over(layer, tokens, rest, counts)
        found = torch.cat([tokens, layer.bent(tokens)], dim=1) @ weight.T + bias
        return float((found - rest).square().mean())

    torch.nn.init.zeros_(layer.bend_in.weight)
    line = error()
    learn_bends(layer, tokens, rest, counts, seed=0)
    assert error() < 0.3 * line
    assert not layer.bend_out.weight.any(), "nothing is said before it is heard"
