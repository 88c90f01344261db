"""Checkpoints: a folder with `config.json` (strict), `model.safetensors` and `MODEL_CARD.md`.

Weights are stored in float16 to keep the shipped folder small, and loaded as float32.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from eartalking.config import ModelConfig, from_dict, to_dict
from eartalking.errors import InputError
from eartalking.model import TalkingHeadModel

DEFAULT_CHECKPOINT = "default"
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "MODEL_CARD.md"


def load_model(
    checkpoint: str | os.PathLike[str] = DEFAULT_CHECKPOINT, device: str | torch.device = "cpu"
) -> TalkingHeadModel:
    """Load a checkpoint, in eval mode: a shipped name ("default"), a folder, or a hub id ("owner/name").

    Raises:
        InputError: it cannot be found, its config has an unknown key, or its weights do not fit the config.
    """
    folder = resolve(checkpoint)
    try:
        model = TalkingHeadModel(read_config(folder / CONFIG_NAME))
        weights = load_file(folder / WEIGHTS_NAME, device="cpu")
        model.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:300]  # a state dict's complaint comes in many lines
        raise InputError(folder, f"not a usable checkpoint: {cause}") from error
    return model.eval().requires_grad_(False).to(device)


def read_config(path: Path) -> ModelConfig:
    """The sizes in a `config.json`; OSError or ValueError where it is none."""
    return from_dict(ModelConfig, json.loads(path.read_text(encoding="utf-8")))


def save_model(model: TalkingHeadModel, folder: str | os.PathLike[str]) -> None:
    """Write `config.json` and `model.safetensors`; the weights appear whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu().clone()
        for name, value in model.state_dict().items()
    }
    partial = folder / f"{WEIGHTS_NAME}.partial"
    save_file(weights, partial)
    (folder / CONFIG_NAME).write_text(json.dumps(to_dict(model.config), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / WEIGHTS_NAME)


def resolve(checkpoint: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint; only a hub id that is no folder here goes to the network."""
    shipped = WEIGHTS_FOLDER / str(checkpoint)
    for folder in (Path(checkpoint), shipped):
        if (folder / CONFIG_NAME).is_file() and (folder / WEIGHTS_NAME).is_file():
            return folder
    name = str(checkpoint)
    if name.count("/") == 1 and not Path(checkpoint).exists() and not name.startswith((".", "/")):
        return _download(name)
    names = sorted(path.parent.name for path in WEIGHTS_FOLDER.glob(f"*/{CONFIG_NAME}"))
    raise InputError(
        checkpoint, f"no checkpoint here ({CONFIG_NAME} and {WEIGHTS_NAME}); shipped: {', '.join(names) or 'none'}"
    )


def _download(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(hub_id, "looks like a hub id, and huggingface_hub is not installed") from error
    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME]))
    except Exception as error:  # the hub's client raises many kinds; each means the same to the user
        raise InputError(hub_id, f"could not be fetched from the hub: {str(error).splitlines()[0]}") from error
