"""Configs: round trip, and strictness."""

import json

import pytest

from eartalking.config import PRESETS, AutoencoderConfig, ModelConfig, from_dict, to_dict


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_round_trip_through_json(name: str) -> None:
    config = PRESETS[name]
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widow_size": 3}, "widow_size"),
        ({"window_size": "10"}, "window_size"),
        ({"autoencoder": {"stemm": 4}}, "stemm"),
        ({"autoencoder": 3}, "AutoencoderConfig"),
        ({"dim": True}, "dim"),
        ({"sink_size": 2}, "sink_size"),
        ({"history_level": 1.5}, "history_level"),
        ({"temperature": -0.1}, "temperature"),
        ({"autoencoder": {"latent_channels": 2}}, "motion_size"),
        ({"dim": 30, "num_heads": 4}, "multiple"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(ModelConfig, change)


def test_grid_follows_from_the_levels() -> None:
    assert AutoencoderConfig().latent_grid == 4
    assert AutoencoderConfig().num_latent_tokens == 16
