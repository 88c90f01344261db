"""A convolutional network as a list of operations, read from one safetensors file and run by PyTorch.

The networks in `weights/perception` were published for another run-time. `convert_networks` writes each of them once
as a list of operations with its weights; this module runs that list. So nothing needs to be installed besides PyTorch,
several pictures go through in one batch, and they run on whatever device PyTorch runs on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from eartalking.errors import InputError

WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights" / "perception"
GRAPH_KEY = "graph"  # the metadata entry of the file that holds the operations as JSON


class GraphNetwork(nn.Module):
    """Images (B, H, W, 3) float -> the network's outputs in their order, each (B, ...) with channels last.

    `graph` has `input` and `outputs` (names of values), `size` (H, W), and `operations`: dictionaries with `kind` (a
    key of `OPERATIONS`), `inputs` (names of values), `output` (a name), and the options of that kind. `weights` holds
    the tensors that the options `weight` and `bias` name.
    """

    def __init__(self, graph: dict[str, Any], weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.graph = graph
        for name, weight in weights.items():
            layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
            self.register_buffer(name, weight.float().contiguous(memory_format=layout))
        self.last_use: dict[str, int] = {}
        for index, operation in enumerate(graph["operations"]):
            self.last_use.update(dict.fromkeys(operation["inputs"], index))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that it takes, in pixels."""
        height, width = self.graph["size"]
        return height, width

    @classmethod
    def load(cls, name: str, folder: str | os.PathLike[str] = WEIGHTS_FOLDER) -> GraphNetwork:
        """The network `name` of `folder`, ready to run. Raises InputError: there is none, or the file is damaged."""
        path = Path(folder) / f"{name}.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                graph = json.loads(file.metadata()[GRAPH_KEY])
                weights = {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(path, f"no network here ({str(error).splitlines()[0]})") from error
        return cls(graph, weights).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        values = {self.graph["input"]: images.permute(0, 3, 1, 2)}  # (B, 3, H, W), channels last in memory
        weights = dict(self.named_buffers())
        for index, operation in enumerate(self.graph["operations"]):
            inputs = [values[name] for name in operation["inputs"]]
            values[operation["output"]] = OPERATIONS[operation["kind"]](inputs, operation, weights)
            for name in operation["inputs"]:
                if self.last_use[name] == index and name not in self.graph["outputs"]:
                    values.pop(name, None)
        return [values[name] for name in self.graph["outputs"]]


Weights = dict[str, Tensor]
Operation = Callable[[list[Tensor], dict[str, Any], Weights], Tensor]


def _convolution(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    values, (left, right, top, bottom) = inputs[0], options["padding"]
    symmetric = left == right and top == bottom
    if not symmetric:
        values = F.pad(values, (left, right, top, bottom))
    weight, bias = weights[options["weight"]], weights[options["bias"]]
    padding = (top, left) if symmetric else (0, 0)
    groups = values.shape[1] // weight.shape[1]
    values = F.conv2d(values, weight, bias, stride=options["stride"], padding=padding, groups=groups)
    return values.relu_() if options["relu"] else values


def _transposed_convolution(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    weight, bias = weights[options["weight"]], weights[options["bias"]]
    return F.conv_transpose2d(inputs[0], weight, bias, stride=options["stride"])


def _add(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    total = inputs[0] + inputs[1]
    return total.relu_() if options["relu"] else total


def _resize(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    return F.interpolate(inputs[0], size=options["size"], mode="bilinear", align_corners=False)


def _depth_to_space(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    """Channels in the order (block row, block column, channel); PyTorch's own wants the channel first."""
    ordered = inputs[0].unflatten(1, (options["block"] ** 2, -1)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(ordered, options["block"])


def _flatten(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    return inputs[0].permute(0, 2, 3, 1).reshape(len(inputs[0]), *options["shape"])


def _second_look(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    """Points (B, N, 2 or more) -> affine maps (B, 2, 3) from the pixels of a cut, in which the points `around` lie in
    the middle and the points `level` level, to where the cut is among the points."""
    points = inputs[0][..., :2]
    left, right = (points[:, index] for index in options["level"])
    across = F.normalize(right - left, dim=1)
    axes = torch.stack([across, torch.stack([-across[:, 1], across[:, 0]], dim=1)], dim=2)  # (B, 2, 2), as columns
    seen = points[:, options["around"]] @ axes
    low, high = seen.amin(1), seen.amax(1)
    size, scale = (seen.new_tensor(options[name]) for name in ("size", "scale"))
    step = axes * ((high - low) * scale / size)[:, None]
    middle = axes @ ((low + high) / 2)[..., None]
    return torch.cat([step, middle - step @ (size / 2)[:, None]], dim=2)


def _cut_out(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    """Values (B, C, H, W) at the pixels of cuts, where maps (B, 2, 3) from these say; a pixel's centre is at +0.5."""
    values, maps = inputs
    width, height = options["size"]
    x, y = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).to(maps).view(-1, 3)
    places = (pixels @ maps.transpose(1, 2)).view(-1, height, width, 2)
    places = 2 * places / places.new_tensor([values.shape[3], values.shape[2]]) - 1
    return F.grid_sample(values, places, align_corners=False)


def _brought_back(inputs: list[Tensor], options: dict[str, Any], weights: Weights) -> Tensor:
    """Points (B, N, 2) of a cut -> where its map (B, 2, 3) says that they are."""
    points, maps = inputs
    return points @ maps[:, :, :2].transpose(1, 2) + maps[:, None, :, 2]


OPERATIONS: dict[str, Operation] = {
    "convolution": _convolution,
    "transposed_convolution": _transposed_convolution,
    "add": _add,
    "multiply": lambda inputs, options, weights: inputs[0] * inputs[1],
    "relu": lambda inputs, options, weights: F.relu(inputs[0]),
    "prelu": lambda inputs, options, weights: F.prelu(inputs[0], weights[options["weight"]]),
    "hard_swish": lambda inputs, options, weights: F.hardswish(inputs[0]),
    "sigmoid": lambda inputs, options, weights: inputs[0].sigmoid(),
    "max_pool": lambda inputs, options, weights: F.max_pool2d(inputs[0], options["window"], options["stride"]),
    "mean": lambda inputs, options, weights: inputs[0].mean(dim=(2, 3), keepdim=True),
    "pad_channels": lambda inputs, options, weights: F.pad(inputs[0], (0, 0, 0, 0, 0, options["channels"])),
    "resize": _resize,
    "depth_to_space": _depth_to_space,
    "scale": lambda inputs, options, weights: inputs[0] * inputs[0].new_tensor(options["by"]),
    "second_look": _second_look,
    "cut_out": _cut_out,
    "brought_back": _brought_back,
    "flatten": _flatten,  # (B, C, H, W) -> (B, *shape), channels last
    "concatenate": lambda inputs, options, weights: torch.cat(inputs, dim=1),  # of flattened values
}
