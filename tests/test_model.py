"""The model: streaming equals training, causality, controls as tokens, and independent states."""

import dataclasses

import pytest
import torch
from tiny_model import tiny_model

from eartalking.config import TINY
from eartalking.controls import EMOTIONS, SCALAR_TRACKS, ControlBatch
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import FACE_UNITS, UNIT_INDEX
from eartalking.motion.steering import articulate, expression, impose
from eartalking.motion.vector import BLINK_COLUMNS, HEAD_POSE, MOTION_SCALES, NUM_MOTION_LABELS, TRANSLATION

N, C, D = TINY.autoencoder.num_latent_tokens, TINY.autoencoder.latent_channels, TINY.dim
REFERENCE_DIM = TINY.autoencoder.reference_widths[-1]


@pytest.fixture(scope="module")
def model() -> TalkingHeadModel:
    return tiny_model()


def inputs(batch: int, length: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    controls = ControlBatch(
        normal(batch, length, 9),
        torch.randint(8, (batch, length), generator=generator),
        torch.rand(batch, length, generator=generator),
        torch.rand(batch, length, 10, generator=generator) < 0.5,
    )
    return {
        "audio": normal(batch, length, TINY.audio.tokens_per_frame, D),
        "controls": controls,
        "previous": normal(batch, length, N, C),
        "noise_level": torch.zeros(batch, length),
        "reference_latents": normal(batch, N, C),
        "reference_features": normal(batch, N, REFERENCE_DIM),
    }


def row(controls: ControlBatch, index: int) -> ControlBatch:
    return controls.map(lambda value: value[:, index : index + 1])


@pytest.mark.parametrize("sink_size", [1, 0])
def test_step_equals_forward_beyond_the_window(sink_size: int) -> None:
    model = tiny_model(dataclasses.replace(TINY, sink_size=sink_size))
    length = TINY.window_size * 2 + 3
    given = inputs(2, length)
    noise = torch.randn(length, 2, N, C)
    state = model.prefill(given["reference_latents"], given["reference_features"])
    streamed, remembered = [], [given["reference_latents"]]
    for t in range(length):
        streamed.append(model.step(given["audio"][:, t], row(given["controls"], t), noise[t], state))
        remembered.append(state.previous)
    history = torch.stack(remembered[:-1], dim=1)
    for t in range(1, length):  # an expression that is released stays in the history of the frame that releases it
        left = row(given["controls"], t - 1).released_by(row(given["controls"], t)).map(lambda value: value[:, 0])
        history[:, t] += expression(
            model.autoencoder.code.latents_to_motion(history[:, t]), left, model.autoencoder.code
        )
    level = TINY.history_level
    cond, sink = model(**{**given, "previous": (1 - level) * history, "noise_level": torch.full((2, length), level)})
    offline = [
        impose(
            model.from_tokens(
                model.emission_head.sample(
                    cond[:, t],
                    sink,
                    num_steps=TINY.num_steps,
                    temperature=TINY.temperature,
                    noise=model.to_tokens(noise[t]),
                )
            )
            + model.heard(given["audio"][:, t]),
            row(given["controls"], t),
            model.autoencoder.code,
        )
        for t in range(length)
    ]
    torch.testing.assert_close(torch.stack(remembered[1:]), torch.stack(offline), atol=2e-4, rtol=1e-3)
    emitted = torch.stack(remembered[1:], dim=1)
    expected = emitted + expression(
        model.autoencoder.code.latents_to_motion(emitted), given["controls"], model.autoencoder.code
    )
    torch.testing.assert_close(torch.stack(streamed, dim=1), expected, atol=2e-4, rtol=1e-3)


def test_forward_is_causal(model: TalkingHeadModel) -> None:
    given = inputs(1, 8)
    before, _ = model(**given)
    changed = inputs(1, 8, seed=1)
    for name in ("audio", "previous"):
        given[name] = torch.cat([given[name][:, :5], changed[name][:, 5:]], dim=1)
    after, _ = model(**given)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5] - after[:, 5]).abs().max() > 1e-4


@pytest.mark.parametrize("track", range(10))
def test_each_control_acts_in_its_own_frame(model: TalkingHeadModel, track: int) -> None:
    given = inputs(1, 4)
    released = ControlBatch.released(1, 4)
    base, _ = model(**{**given, "controls": released})
    asked = ControlBatch.released(1, 4)
    asked.given[0, 2, track] = True
    changed, _ = model(**{**given, "controls": asked})
    torch.testing.assert_close(base[:, :2], changed[:, :2])
    assert (base[:, 2] - changed[:, 2]).abs().max() > 1e-4


def test_a_released_value_does_not_matter(model: TalkingHeadModel) -> None:
    given = inputs(1, 3)
    released = ControlBatch.released(1, 3)
    base, _ = model(**{**given, "controls": released})
    released.values += 5
    released.emotion += 3
    again, _ = model(**{**given, "controls": released})
    torch.testing.assert_close(base, again)


def test_clone_and_restore_go_on_like_the_original(model: TalkingHeadModel) -> None:
    given = inputs(1, 16)
    state = model.prefill(given["reference_latents"], given["reference_features"])

    def run(state, frames: range) -> torch.Tensor:
        noise = torch.Generator().manual_seed(frames.start)
        return torch.stack(
            [
                model.step(
                    given["audio"][:, t], row(given["controls"], t), torch.randn(1, N, C, generator=noise), state
                )
                for t in frames
            ]
        )

    run(state, range(12))
    twin = state.clone()
    saved = state.to_tensors()
    restored = model.prefill(*(torch.zeros_like(given[name]) for name in ("reference_latents", "reference_features")))
    restored.load_tensors(saved)
    expected = run(state, range(12, 16))
    torch.testing.assert_close(run(twin, range(12, 16)), expected, atol=0, rtol=0)
    torch.testing.assert_close(run(restored, range(12, 16)), expected, atol=0, rtol=0)


def test_exact_controls_are_in_force_in_their_own_frame(model: TalkingHeadModel) -> None:
    given = inputs(2, 3)
    asked = ControlBatch.released(2, 3)
    yaw, blink = SCALAR_TRACKS.index("yaw"), SCALAR_TRACKS.index("blink")
    asked.values[:, 1, yaw], asked.values[:, 1, blink] = 24.0, 0.5
    asked.given[:, 1, [yaw, blink]] = True

    def motion(controls: ControlBatch) -> list[torch.Tensor]:
        state = model.prefill(given["reference_latents"], given["reference_features"])
        noise = torch.zeros(2, N, C)
        return [
            model.autoencoder.code.latents_to_motion(model.step(given["audio"][:, t], row(controls, t), noise, state))
            for t in range(2)
        ]

    released, steered = motion(ControlBatch.released(2, 3)), motion(asked)
    torch.testing.assert_close(released[0], steered[0])
    torch.testing.assert_close(steered[1][:, HEAD_POSE.start], torch.full((2,), 24.0 * MOTION_SCALES["head_pose"]))
    torch.testing.assert_close(steered[1][:, BLINK_COLUMNS], torch.full((2, 2), 0.5 * MOTION_SCALES["face_units"]))
    assert (released[1][:, HEAD_POSE.start] - 2.0).abs().min() > 1e-3


def test_expressions_are_added_to_what_is_shown_and_not_to_what_is_remembered(model: TalkingHeadModel) -> None:
    given = inputs(1, 2)
    asked = ControlBatch.released(1, 2)
    asked.values[0, 1, SCALAR_TRACKS.index("smile")] = -0.5
    asked.values[0, 1, SCALAR_TRACKS.index("brow")] = 1.0  # not given
    asked.emotion[0, 1], asked.intensity[0, 1] = EMOTIONS.index("surprised"), 0.4
    asked.given[0, 1, [SCALAR_TRACKS.index("smile"), -1]] = True
    state = model.prefill(given["reference_latents"], given["reference_features"])
    for t in range(2):
        shown = model.step(given["audio"][:, t], row(asked, t), torch.zeros(1, N, C), state)
    added = (
        model.autoencoder.code.latents_to_motion(shown) - model.autoencoder.code.latents_to_motion(state.previous)
    ) / MOTION_SCALES["face_units"]
    assert not state.controls.given[0, SCALAR_TRACKS.index("brow")]
    frown, raised = UNIT_INDEX["mouthFrownLeft"], UNIT_INDEX["browOuterUpLeft"]
    torch.testing.assert_close(added[0, [frown, raised]], torch.tensor([0.85 * 0.5, 0.90 * 0.4]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(added[0, HEAD_POSE], torch.zeros(3), atol=1e-4, rtol=0)


def test_a_stretched_mouth_is_shown_and_not_remembered() -> None:
    model, given = tiny_model(), inputs(1, 1)
    jaw, lip = UNIT_INDEX["jawOpen"], UNIT_INDEX["mouthPucker"]
    model.articulation[0, jaw] = model.articulation[0, lip] = 1.5
    released, scaled = ControlBatch.released(1), ControlBatch.released(1)
    scaled.given[:, SCALAR_TRACKS.index("mouth_scale")] = True
    motion = torch.zeros(1, NUM_MOTION_LABELS)
    motion[0, jaw], motion[0, lip], motion[0, UNIT_INDEX["browInnerUp"]] = (
        MOTION_SCALES["face_units"] * u for u in (0.4, 0.9, 0.3)
    )
    latents = model.autoencoder.code.motion_to_latents(motion)
    shown = (
        model.autoencoder.code.latents_to_motion(
            articulate(latents, released, model.autoencoder.code, model.articulation)
        )
        / MOTION_SCALES["face_units"]
    )
    torch.testing.assert_close(
        shown[0, [jaw, lip, UNIT_INDEX["browInnerUp"]]], torch.tensor([0.6, 1.0, 0.3]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(shown[0, HEAD_POSE], torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(articulate(latents, scaled, model.autoencoder.code, model.articulation), latents)
    state = model.prefill(given["reference_latents"], given["reference_features"])
    step = model.step(given["audio"][:, 0], ControlBatch.released(1, 1), torch.zeros(1, N, C), state)
    torch.testing.assert_close(step, articulate(state.previous, released, model.autoencoder.code, model.articulation))


def test_the_portrait_is_heard_of_only_with_a_sink(model: TalkingHeadModel) -> None:
    given, other = inputs(1, 14), inputs(1, 14, seed=1)
    changed = given | {name: other[name] for name in ("reference_latents", "reference_features")}
    without = tiny_model(dataclasses.replace(TINY, sink_size=0))
    torch.testing.assert_close(without(**given)[0], without(**changed)[0])
    assert (model(**given)[0] - model(**changed)[0])[:, -1].abs().max() > 1e-3


def test_columns_are_where_the_face_units_say() -> None:
    assert BLINK_COLUMNS == (UNIT_INDEX["eyeBlinkLeft"], UNIT_INDEX["eyeBlinkRight"])
    assert len(FACE_UNITS) == HEAD_POSE.start and TRANSLATION.stop == NUM_MOTION_LABELS == TINY.autoencoder.motion_size
