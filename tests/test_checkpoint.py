"""Checkpoints: round trip, strictness, and clear errors."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from eartalking import checkpoint
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


def test_models_from_before_voices_were_heard_directly_go_on_as_they_were(folder) -> None:
    path = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if not name.startswith("voice_to_latents")}
    save_file(weights, path)
    model = load_model(folder)
    assert not model.voice_to_latents.weight.any() and not model.voice_to_latents.bias.any()


def test_models_whose_voice_was_heard_by_a_line_alone_hear_it_so(folder) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["voice_to_latents.weight"] = torch.randn_like(weights["voice_to_latents.weight"])
    save_file({name: value for name, value in weights.items() if "bend" not in name}, path)
    layer = load_model(folder).voice_to_latents
    tokens = torch.randn(3, layer.in_features)
    torch.testing.assert_close(layer(tokens), tokens @ layer.weight.T + layer.bias)
    assert layer.weight.any()


def test_missing(tmp_path) -> None:
    with pytest.raises(InputError, match="no checkpoint here"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="no checkpoint here"):
        load_model("no-such-name")


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 40_000)


def test_large_weights_are_written_in_shards(tmp_path, small_shards) -> None:
    torch.manual_seed(0)
    model = TalkingHeadModel(TINY)
    save_model(model, tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and checkpoint.weight_files(tmp_path) == shards
    assert not (tmp_path / "model.safetensors").exists()
    for name, value in load_model(tmp_path).state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_one_file_replaces_shards_and_nothing_is_left(folder, small_shards, monkeypatch) -> None:
    save_model(load_model(folder), folder)
    assert len(checkpoint.weight_files(folder)) > 2
    monkeypatch.undo()
    save_model(load_model(folder), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_shard_that_is_missing_is_an_error(tmp_path, small_shards) -> None:
    save_model(TalkingHeadModel(TINY), tmp_path)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(InputError, match="model-00002"):
        load_model(tmp_path)


def test_an_index_cannot_point_out_of_its_folder(folder, tmp_path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"null_audio": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="elsewhere"):
        load_model(folder)


def test_weights_of_before_the_renaming_are_read(folder) -> None:
    model = load_model(folder)
    model.autoencoder.code.latent_mean.fill_(0.25)
    save_model(model, folder)
    renamed = {"emission_head.": "flow_head.", "autoencoder.code.latent_": "autoencoder.latent_"}
    weights = load_file(folder / "model.safetensors")
    for new, old in renamed.items():
        weights = {name.replace(new, old): value for name, value in weights.items()}
    assert any(name.startswith("flow_head.") for name in weights) and "autoencoder.latent_mean" in weights
    save_file(weights, folder / "model.safetensors")
    for name, value in load_model(folder).state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])


def test_the_shipped_checkpoint_fits_where_it_goes() -> None:
    files = list((checkpoint.WEIGHTS_FOLDER / "default").iterdir())
    assert sum(path.stat().st_size for path in files) <= 32e6 and max(path.stat().st_size for path in files) <= 10e6
