"""Configs: round trip, and strictness."""

import dataclasses
import json

import pytest

from eartalking.config import PRESETS, AutoencoderConfig, ModelConfig, from_json, to_json


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_round_trip_through_json(name: str) -> None:
    config = PRESETS[name]
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widow_size": 3}, "widow_size"),
        ({"window_size": "10"}, "window_size"),
        ({"window_size": 0}, "window_size"),
        ({"autoencoder": {"stemm": 4}}, "autoencoder.stemm"),
        ({"autoencoder": 3}, "autoencoder"),
        ({"dim": True}, "dim"),
        ({"sink_size": 2}, "sink_size"),
        ({"history_level": 1.5}, "history_level"),
        ({"temperature": -0.1}, "temperature"),
        ({"emission": "diffusion"}, "emission.*masked_ar"),
        ({"autoencoder": {"latent_channels": 2}}, "motion_size"),
        ({"dim": 30, "num_heads": 4}, "multiple"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change: dict, message: str) -> None:
    values = dataclasses.asdict(ModelConfig())
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message) as error:
        from_json(json.dumps(values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["emission", "audio", "autoencoder.stem"])
def test_what_is_missing_is_an_error_and_no_default(key: str) -> None:
    values = dataclasses.asdict(ModelConfig())
    *outer, last = key.split(".")
    del (values[outer[0]] if outer else values)[last]
    with pytest.raises(ValueError, match=f"{key}: missing"):
        from_json(json.dumps(values))


def test_grid_follows_from_the_levels() -> None:
    assert AutoencoderConfig().latent_grid == 4
    assert AutoencoderConfig().num_latent_tokens == 16
