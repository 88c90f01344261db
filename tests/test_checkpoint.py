"""Checkpoints: round trip, strictness, and clear errors."""

import json

import pytest
import torch

from eartalking.checkpoint import load_model, save_model
from eartalking.config import TINY
from eartalking.errors import InputError
from eartalking.model import TalkingHeadModel


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(TalkingHeadModel(TINY), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_round_trip(folder) -> None:
    torch.manual_seed(0)
    saved, loaded = TalkingHeadModel(TINY).state_dict(), load_model(folder).state_dict()
    assert saved.keys() == loaded.keys()
    for name, value in saved.items():
        torch.testing.assert_close(loaded[name], value, atol=1e-3, rtol=1e-3)
        assert loaded[name].dtype == value.dtype


def test_loaded_is_ready_for_inference(folder) -> None:
    model = load_model(folder)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def edit(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("change", "cause"), [({"detph": 2}, "detph"), ({"depth": "two"}, "depth"), ({"depth": 3}, "issing|state_dict")]
)
def test_what_does_not_fit_is_an_error(folder, change: dict, cause: str) -> None:
    edit(folder, **change)
    with pytest.raises(InputError, match=cause):
        load_model(folder)


def test_broken_files(folder) -> None:
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a usable checkpoint"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a usable checkpoint"):
        load_model(folder)


def test_missing(tmp_path) -> None:
    with pytest.raises(InputError, match="no checkpoint here"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="no checkpoint here"):
        load_model("no-such-name")
