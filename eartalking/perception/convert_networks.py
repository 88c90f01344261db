"""Write `weights/perception/*.safetensors` from the networks in a mediapipe wheel, and check them against LiteRT.

    pip download --no-deps mediapipe==0.10.21
    pip install ai-edge-litert
    python -m eartalking.perception.convert_networks mediapipe-0.10.21-*.whl

Needed only to make the weights anew. Each network is read from its .tflite file, its operations are renamed to those
of `graph_network`, constants are unpacked (half precision, sparse), and the result must equal the run of the original.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from eartalking.perception.graph_network import GRAPH_KEY, WEIGHTS_FOLDER, GraphNetwork

NETWORKS = {
    "face_detection_full_range_sparse": "face_detector_far",
    "face_detection_short_range": "face_detector_near",
    "face_landmark": "face_mesh",
    "iris_landmark": "iris",
    "selfie_segmentation": "person_matte",
}
EXAMPLES = [Path(__file__).parents[2] / "examples" / name for name in ("photo.jpg", "portrait.png")]
TOLERANCE = 1e-4  # largest difference to the original run, in units of the output's largest value


class TfliteGraph:
    """One .tflite file: its operations by name, its constants as float32 arrays, and its original run."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.interpreter import Interpreter

        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
        self.graph = self.model.subgraphs[0]
        self.kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self.types = {
            schema.TensorType.FLOAT16: np.float16,
            schema.TensorType.FLOAT32: np.float32,
            schema.TensorType.INT32: np.int32,
        }
        self.unpacked = {  # output -> input of the operations that unpack a constant
            int(operator.outputs[0]): int(operator.inputs[0])
            for operator in self.graph.operators
            if self.kind(operator) in ("DEQUANTIZE", "DENSIFY")
        }
        self.interpreter = Interpreter(model_content=model, num_threads=1)
        self.interpreter.allocate_tensors()

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Outputs for an image (1, H, W, 3) float32."""
        self.interpreter.set_tensor(self.graph.inputs[0], image)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(index).copy() for index in self.graph.outputs]

    def kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        return (
            code.customCode.decode()
            if code.customCode
            else self.kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        )

    def shape(self, tensor: int) -> list[int]:
        return [int(side) for side in self.graph.tensors[tensor].shape]

    def constant(self, tensor: int) -> np.ndarray:
        """Values of a constant; half precision and sparse ones as full float32."""
        if tensor in self.unpacked:
            return self.constant(self.unpacked[tensor]).astype(np.float32)
        about, shape = self.graph.tensors[tensor], self.shape(tensor)
        values = np.frombuffer(bytes(self.model.buffers[about.buffer].data), self.types[about.type])
        if about.sparsity is None:
            return values.reshape(shape)
        # Compressed rows: only the last axis is sparse in these files.
        assert [axis.format for axis in about.sparsity.dimMetadata] == [0, 0, 0, 1] and about.sparsity.blockMap is None
        starts = np.asarray(about.sparsity.dimMetadata[3].arraySegments.values, np.int64)
        columns = np.asarray(about.sparsity.dimMetadata[3].arrayIndices.values, np.int64)
        dense = np.zeros((len(starts) - 1, shape[3]), values.dtype)
        dense[np.repeat(np.arange(len(dense)), np.diff(starts)), columns] = values[: len(columns)]
        return dense.reshape(shape)


class Conversion:
    """Operations and weights in the form of `GraphNetwork`, gathered from a `TfliteGraph`."""

    def __init__(self, source: TfliteGraph) -> None:
        self.source = source
        self.weights: dict[str, torch.Tensor] = {}
        self.padded: dict[int, tuple[int, list[int]]] = {}  # output of a spatial PAD -> what it pads, and by how much
        self.operations: list[dict[str, Any]] = []
        for operator in source.graph.operators:
            operation = CONVERSIONS[source.kind(operator)](self, operator)
            if operation is not None:
                inputs = operation.pop("inputs", [int(operator.inputs[0])])
                output = f"v{operator.outputs[0]}"
                self.operations.append({"inputs": [f"v{i}" for i in inputs], "output": output, **operation})

    def graph(self) -> dict[str, Any]:
        graph = self.source.graph
        outputs = [f"v{index}" for index in graph.outputs]
        size = self.source.shape(graph.inputs[0])[1:3]
        return {"input": f"v{graph.inputs[0]}", "outputs": outputs, "size": size, "operations": self.operations}

    def weight(self, tensor: int, order: tuple[int, ...] | None = None) -> str:
        """Store a constant and give its name; in half precision where that loses nothing."""
        values = torch.tensor(self.source.constant(tensor))
        values = values.permute(order) if order else values.flatten()
        half = values.half()
        self.weights[f"w{tensor}"] = (half if torch.equal(half.float(), values) else values).contiguous()
        return f"w{tensor}"


def _no_operation(conversion: Conversion, operator: Any) -> None:
    """DEQUANTIZE and DENSIFY of constants: the constant is stored unpacked."""


def _pad(conversion: Conversion, operator: Any) -> dict[str, Any] | None:
    _, vertical, horizontal, channels = conversion.source.constant(operator.inputs[1]).tolist()
    if channels == [0, 0]:
        conversion.padded[operator.outputs[0]] = (int(operator.inputs[0]), [*horizontal, *vertical])
        return None
    assert [*vertical, *horizontal] == [0] * 4 and channels[0] == 0
    return {"kind": "pad_channels", "channels": channels[1]}


def _convolution(conversion: Conversion, operator: Any, *, depthwise: bool = False) -> dict[str, Any]:
    source, options = conversion.source, operator.builtinOptions
    values, weight, bias = (int(index) for index in operator.inputs)
    stride, kernel = [options.strideH, options.strideW], source.shape(weight)[1:3]
    assert options.dilationHFactor == options.dilationWFactor == 1
    values, padding = conversion.padded.get(values, (values, _same_padding(source.shape(values), kernel, stride)))
    if int(operator.inputs[0]) not in conversion.padded and options.padding == 1:  # VALID
        padding = [0] * 4
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    return {
        "kind": "convolution", "inputs": [values], "weight": conversion.weight(weight, order),
        "bias": conversion.weight(bias), "stride": stride, "padding": padding, "relu": _relu(options),
    }  # fmt: skip


def _same_padding(shape: list[int], kernel: list[int], stride: list[int]) -> list[int]:
    """What SAME means: left, right, top, bottom; the odd pixel goes right and below."""
    total = [max((-(-side // s) - 1) * s + k - side, 0) for side, k, s in zip(shape[1:3], kernel, stride, strict=True)]
    return [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]


def _relu(options: Any) -> bool:
    assert options.fusedActivationFunction in (0, 1)
    return bool(options.fusedActivationFunction)


def _transposed_convolution(conversion: Conversion, operator: Any) -> dict[str, Any]:
    _, weight, bias = (int(index) for index in operator.inputs)
    kernel = conversion.source.shape(weight)[1:3]  # equal to the stride: the pieces do not overlap
    return {
        "kind": "transposed_convolution", "weight": conversion.weight(weight, (3, 0, 1, 2)),
        "bias": conversion.weight(bias), "stride": kernel,
    }  # fmt: skip


def _two(kind: str) -> Callable[[Conversion, Any], dict[str, Any]]:
    return lambda conversion, operator: {
        "kind": kind, "inputs": [int(index) for index in operator.inputs], "relu": _relu(operator.builtinOptions),
    }  # fmt: skip


def _mean(conversion: Conversion, operator: Any) -> dict[str, Any]:
    options, shape = operator.builtinOptions, conversion.source.shape(operator.inputs[0])
    assert [options.filterHeight, options.filterWidth] == shape[1:3]
    return {"kind": "mean"}


def _max_pool(conversion: Conversion, operator: Any) -> dict[str, Any]:
    options = operator.builtinOptions
    window, stride = [options.filterHeight, options.filterWidth], [options.strideH, options.strideW]
    assert not any(_same_padding(conversion.source.shape(operator.inputs[0]), window, stride))
    return {"kind": "max_pool", "window": window, "stride": stride}


def _resize(conversion: Conversion, operator: Any) -> dict[str, Any]:
    assert operator.builtinOptions.halfPixelCenters and not operator.builtinOptions.alignCorners
    return {"kind": "resize", "size": conversion.source.constant(operator.inputs[1]).tolist()}


def _flatten(conversion: Conversion, operator: Any) -> dict[str, Any]:
    return {"kind": "flatten", "shape": conversion.source.shape(operator.outputs[0])[1:]}


CONVERSIONS: dict[str, Callable[[Conversion, Any], dict[str, Any] | None]] = {
    "DEQUANTIZE": _no_operation,
    "DENSIFY": _no_operation,
    "PAD": _pad,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": lambda conversion, operator: _convolution(conversion, operator, depthwise=True),
    "Convolution2DTransposeBias": _transposed_convolution,
    "ADD": _two("add"),
    "MUL": _two("multiply"),
    "CONCATENATION": _two("concatenate"),
    "RELU": lambda conversion, operator: {"kind": "relu"},
    "PRELU": lambda conversion, operator: {"kind": "prelu", "weight": conversion.weight(operator.inputs[1])},
    "HARD_SWISH": lambda conversion, operator: {"kind": "hard_swish"},
    "LOGISTIC": lambda conversion, operator: {"kind": "sigmoid"},
    "AVERAGE_POOL_2D": _mean,
    "MAX_POOL_2D": _max_pool,
    "RESIZE_BILINEAR": _resize,
    "DEPTH_TO_SPACE": lambda conversion, operator: {
        "kind": "depth_to_space",
        "block": operator.builtinOptions.blockSize,
    },
    "RESHAPE": _flatten,
}


def difference(source: TfliteGraph, network: GraphNetwork) -> float:
    """Largest difference between both runs on pictures of faces, in units of the output's largest value."""
    largest = 0.0
    for path in EXAMPLES:
        picture = Image.open(path).convert("RGB").resize(network.size[::-1])
        image = np.asarray(picture, np.float32)[None] / 255
        for expected, values in zip(source.run(image), network(torch.from_numpy(image)), strict=True):
            values = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
            error = np.abs(values.numpy().reshape(expected.shape) - expected).max()
            largest = max(largest, float(error / np.abs(expected).max()))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="mediapipe-0.10.21-*.whl")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as wheel:
        paths = {Path(name).stem: name for name in wheel.namelist() if name.endswith(".tflite")}
        for original, name in NETWORKS.items():
            source = TfliteGraph(wheel.read(paths[original]))
            conversion = Conversion(source)
            metadata = {
                GRAPH_KEY: json.dumps(conversion.graph()),
                "source": f"{arguments.wheel.name}: {paths[original]}",
            }
            path = arguments.out / f"{name}.safetensors"
            save_file(conversion.weights, path, metadata)
            found = difference(source, GraphNetwork.load(name, arguments.out))
            print(f"{name}: {path.stat().st_size / 1e6:.2f} MB, differs from the original by {found:.1e}")
            if found > TOLERANCE:
                raise SystemExit(f"{name} is not the network that it was made from")


if __name__ == "__main__":
    main()
