"""Checkpoints: a folder with `config.json` (strict), weights in safetensors, and `MODEL_CARD.md`.

Weights are stored in float16 to keep the shipped folder small, and loaded as float32. They lie in one file, or in
shards with an index as huggingface_hub writes them: Hugging Face refuses files over 10 MB in plain git.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eartalking.config import from_json, to_json
from eartalking.errors import InputError
from eartalking.model import TalkingHeadModel

DEFAULT_CHECKPOINT = "default"
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
CONFIG_NAME, CARD_NAME = "config.json", "MODEL_CARD.md"
WEIGHTS_NAME, INDEX_NAME = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 9_500_000


def load_model(
    checkpoint: str | os.PathLike[str] = DEFAULT_CHECKPOINT, device: str | torch.device = "cpu"
) -> TalkingHeadModel:
    """Load a checkpoint, in eval mode: a shipped name ("default"), a folder, or a hub id ("owner/name").

    Raises:
        InputError: it cannot be found, its config has an unknown or a missing key, or its weights do not fit the
    config.
    """
    folder = resolve(checkpoint)
    try:
        model = TalkingHeadModel(from_json((folder / CONFIG_NAME).read_text(encoding="utf-8")))
        weights = _patch_names_of_2026_11(_read_weights(folder))
        weights = _patch_surface_without_marks(weights, model)
        weights = _patch_voice_unheard(weights, model)
        weights = _patch_heads_without_sway(weights, model)
        weights = _patch_portraits_without_light(weights, model)
        model.load_state_dict(_as_float32(weights))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:300]  # a state dict's complaint comes in many lines
        raise InputError(folder, f"not a usable checkpoint: {cause}") from error
    return model.eval().requires_grad_(False).to(device)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, in the order of their names; empty where there are none.

    Raises:
        OSError, ValueError, KeyError: the index cannot be read.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    if (folder / INDEX_NAME).is_file():
        index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
        return sorted({folder / Path(name).name for name in index["weight_map"].values()})
    return []


def _read_weights(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        weights |= load_file(path, device="cpu")
    return weights


def _as_float32(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _patch_names_of_2026_11(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights written before 2026-11-26 call the emission head `flow_head`, whichever it is, and keep the latents'
    statistics beside the motion code instead of in it."""
    renamed = {"flow_head.": "emission_head.", "autoencoder.latent_": "autoencoder.code.latent_"}
    patched = {}
    for name, value in weights.items():
        old = next((old for old in renamed if name.startswith(old)), None)
        patched[name if old is None else renamed[old] + name.removeprefix(old)] = value
    return patched


def _patch_surface_without_marks(weights: dict[str, Tensor], model: TalkingHeadModel) -> dict[str, Tensor]:
    """Surface encoders trained before 2026-11-28 were not shown the marks of a face, and those before 2026-11-29 not
    what its mesh says: they go on without."""
    own = model.autoencoder.surface.state_dict()
    absent = {name: torch.zeros_like(own[name]) for name in ("marks_in.weight", "mesh_in.weight", "mark_points")}
    return {f"autoencoder.surface.{name}": value for name, value in absent.items()} | weights


def _patch_voice_unheard(weights: dict[str, Tensor], model: TalkingHeadModel) -> dict[str, Tensor]:
    """Models trained before 2026-11-30 had only the backbone between a voice and its frame, and their departure heads
    drew around a mean that was not stretched: they go on so."""
    own = model.voice_to_latents.state_dict()
    silent = {f"voice_to_latents.{name}": torch.zeros_like(value) for name, value in own.items()}
    if "voice_to_latents.weight" in weights:  # before 2026-12-01 a voice was heard by a line alone
        return silent | weights
    plain = {} if model.departure_head is None else {"articulation": torch.ones_like(model.articulation)}
    return weights | silent | plain


def _patch_heads_without_sway(weights: dict[str, Tensor], model: TalkingHeadModel) -> dict[str, Tensor]:
    """Departure heads trained before 2026-12 drew yaw and roll by their network: they go on so."""
    if model.departure_head is None:
        return weights
    still = {name: torch.zeros_like(value) for name, value in model.departure_head.sway.state_dict().items()}
    return {f"departure_head.sway.{name}": value for name, value in still.items()} | weights


def _patch_portraits_without_light(weights: dict[str, Tensor], model: TalkingHeadModel) -> dict[str, Tensor]:
    """Autoencoders made before 2026-12 did not know of light: theirs goes along with what it fell on."""
    none = {name: torch.zeros_like(value) for name, value in model.autoencoder.shading.state_dict().items()}
    return {f"autoencoder.shading.{name}": value for name, value in none.items()} | weights


def save_model(model: TalkingHeadModel, folder: str | os.PathLike[str]) -> None:
    """Write `config.json` and the weights, in shards where they are large; a checkpoint that was there before is
    replaced only when all of the new one is written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu().clone()
        for name, value in model.state_dict().items()
    }
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        save_torch_state_dict(weights, partial, max_shard_size=SHARD_BYTES, metadata={"format": "pt"})
        (Path(partial) / CONFIG_NAME).write_text(to_json(model.config), encoding="utf-8")
        old = {*folder.glob("model*.safetensors"), folder / INDEX_NAME}
        new = sorted(Path(partial).iterdir(), key=lambda path: path.name == INDEX_NAME)  # the index last
        for path in old - {folder / path.name for path in new}:
            path.unlink(missing_ok=True)
        for path in new:
            os.replace(path, folder / path.name)


def resolve(checkpoint: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint; only a hub id that is no folder here goes to the network.

    Raises:
        InputError: there is no such checkpoint.
    """
    shipped = WEIGHTS_FOLDER / str(checkpoint)
    for folder in (Path(checkpoint), shipped):
        has_weights = (folder / WEIGHTS_NAME).is_file() or (folder / INDEX_NAME).is_file()
        if (folder / CONFIG_NAME).is_file() and has_weights:
            return folder
    name = str(checkpoint)
    if name.count("/") == 1 and not Path(checkpoint).exists() and not name.startswith((".", "/")):
        return _download(name)
    weights = sorted([*WEIGHTS_FOLDER.glob(f"*/{WEIGHTS_NAME}"), *WEIGHTS_FOLDER.glob(f"*/{INDEX_NAME}")])
    names = ", ".join(path.parent.name for path in weights) or "none"
    raise InputError(
        checkpoint, f"no checkpoint here ({CONFIG_NAME} and {WEIGHTS_NAME} or its shards); shipped: {names}"
    )


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # here, so that nothing of the network loads for a local folder

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["model*.safetensors", "*.json", CARD_NAME]))
    except Exception as error:  # the hub's client raises many kinds; each means the same to the user
        raise InputError(hub_id, f"could not be fetched from the hub: {str(error).splitlines()[0]}") from error
