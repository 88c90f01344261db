"""Write `weights/perception/*.safetensors` from the networks in a mediapipe wheel, and check them against LiteRT.

    pip download --no-deps mediapipe==0.10.21
    pip install ai-edge-litert flatbuffers
    python -m eartalking.perception.convert_networks mediapipe-0.10.21-*.whl

Needed only to make the weights anew. Each network is read from its .tflite file, its operations are renamed to those
of `graph_network`, constants are unpacked (half precision, sparse), and the result must equal the run of the original.
LiteRT cannot run the three operations by which the lips' network looks at the lips a second time, so of that one the
parts before and after them are compared; they themselves are tested by what they must give.
"""

from __future__ import annotations

import argparse
import copy
import json
import zipfile
from collections.abc import Callable, Sequence
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
    "face_landmark_with_attention": "lips",
    "iris_landmark": "iris",
    "selfie_segmentation": "person_matte",
}
# Where not everything that a network finds is used: the outputs that are.
USED_OUTPUTS = {"lips": ["transform_landmarks_v2"]}
EXAMPLES = [Path(__file__).parents[2] / "examples" / name for name in ("photo.jpg", "portrait.png")]
# Where half precision loses something, and nothing that anybody sees: irises and lids are 0.013 of 64 pixels elsewhere.
HALVED = ("iris",)
TOLERANCE = 1e-4  # largest difference to the original run, in units of the output's largest value


class TfliteGraph:
    """One .tflite file: its operations by name, its constants as float32 arrays, and its original run."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

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
        self.content = model

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """Outputs for an image (1, H, W, 3) float32, or for whatever this part of a graph takes."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=self.content, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        return [interpreter.get_tensor(one["index"]).copy() for one in interpreter.get_output_details()]

    def kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        return (
            code.customCode.decode()
            if code.customCode
            else self.kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        )

    def named(self, names: list[str]) -> list[int]:
        """The tensors of these names."""
        every = [tensor.name.decode() for tensor in self.graph.tensors]
        return [every.index(name) for name in names]

    def needed(self, outputs: list[int], given: Sequence[int] = ()) -> list[Any]:
        """The operations, in their order, that these tensors are made of, where others are given."""
        wanted, found = set(outputs) - set(given), []
        for operator in reversed(self.graph.operators):
            if wanted & {int(index) for index in operator.outputs}:
                wanted |= {int(index) for index in operator.inputs} - set(given)
                found.append(operator)
        return found[::-1]

    def is_constant(self, tensor: int) -> bool:
        return tensor in self.unpacked or self.model.buffers[self.graph.tensors[tensor].buffer].data is not None

    def part(self, given: list[int], asked: list[int]) -> TfliteGraph:
        """What makes the tensors `asked` of the tensors `given`, as a graph of its own."""
        import flatbuffers

        model, graph = copy.copy(self.model), copy.copy(self.graph)
        graph.inputs, graph.outputs, graph.operators = given, asked, self.needed(asked, given)
        model.subgraphs, model.signatureDefs = [graph], None
        builder = flatbuffers.Builder(1 << 22)
        builder.Finish(model.Pack(builder), b"TFL3")
        return TfliteGraph(bytes(builder.Output()))

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
    """Operations and weights in the form of `GraphNetwork`, gathered from a `TfliteGraph`: those that its outputs, or
    the values of the given names, are made of."""

    def __init__(self, source: TfliteGraph, used: list[str] | None = None) -> None:
        self.source = source
        self.outputs = [int(index) for index in source.graph.outputs] if used is None else source.named(used)
        self.weights: dict[str, torch.Tensor] = {}
        self.padded: dict[int, tuple[int, list[int]]] = {}  # output of a spatial PAD -> what it pads, and by how much
        self.operations: list[dict[str, Any]] = []
        for operator in source.needed(self.outputs):
            operation = CONVERSIONS[source.kind(operator)](self, operator)
            if operation is not None:
                inputs = operation.pop("inputs", [int(operator.inputs[0])])
                output = f"v{operator.outputs[0]}"
                self.operations.append({"inputs": [f"v{i}" for i in inputs], "output": output, **operation})

    def graph(self) -> dict[str, Any]:
        graph = self.source.graph
        outputs = [f"v{index}" for index in self.outputs]
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


def _multiply(conversion: Conversion, operator: Any) -> dict[str, Any]:
    values, other = (int(index) for index in operator.inputs)
    if not conversion.source.is_constant(other):
        return _two("multiply")(conversion, operator)
    assert not _relu(operator.builtinOptions)
    by = conversion.source.constant(other)
    if by.shape[-2:] == (4, 4):  # of a map in space, of which `second_look` gives what is in the plane
        by = by[:, :2][..., [0, 1, 3]]
    return {"kind": "scale", "by": by.tolist()}


def _options(operator: Any) -> dict[str, Any]:
    """Of an operation that only this network has."""
    from flatbuffers import flexbuffers

    return dict(flexbuffers.Loads(bytes(operator.customOptions)))


def _second_look(conversion: Conversion, operator: Any) -> dict[str, Any]:
    options = _options(operator)
    assert options["target_rotation_radians"] == 0
    return {
        "kind": "second_look", "around": list(options["subset_idxs"]),
        "level": [options["left_rotation_idx"], options["right_rotation_idx"]],
        "scale": [options["scale_x"], options["scale_y"]], "size": [options["output_width"], options["output_height"]],
    }  # fmt: skip


def _cut_out(conversion: Conversion, operator: Any) -> dict[str, Any]:
    options = _options(operator)
    size = [options["output_width"], options["output_height"]]
    return {"kind": "cut_out", "inputs": [int(index) for index in operator.inputs], "size": size}


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
    "MUL": _multiply,
    "Landmarks2TransformMatrix": _second_look,
    "TransformTensorBilinear": _cut_out,
    "TransformLandmarks": lambda conversion, operator: {
        "kind": "brought_back",
        "inputs": [int(index) for index in operator.inputs],
    },
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


def difference(source: TfliteGraph, conversion: Conversion) -> float:
    """Largest difference between both runs on pictures of faces, in units of the output's largest value."""
    graph = conversion.graph()
    cuts = [one for one in graph["operations"] if one["kind"] in ("cut_out", "brought_back")]
    # What LiteRT runs, from which value to which: everything, or what lies before and after what it cannot run.
    runs = [(graph["input"], graph["outputs"])]
    if cuts:
        cut, back = cuts
        looked_at = next(one for one in graph["operations"] if one["output"] == cut["inputs"][1])
        runs = [(graph["input"], [cut["inputs"][0], *looked_at["inputs"]]), (cut["output"], [back["inputs"][0]])]
    names = list(dict.fromkeys(name for given, asked in runs for name in (given, *asked)))
    network = GraphNetwork({**graph, "outputs": names}, conversion.weights)
    largest = 0.0
    for path in EXAMPLES:
        picture = Image.open(path).convert("RGB").resize(network.size[::-1])
        image = np.asarray(picture, np.float32)[None] / 255
        with torch.inference_mode():
            values = dict(zip(names, network(torch.from_numpy(image)), strict=True))
        last = {name: one.permute(0, 2, 3, 1) if one.ndim == 4 else one for name, one in values.items()}
        for given, asked in runs:
            part = source.part([int(given[1:])], [int(name[1:]) for name in asked]) if cuts else source
            for expected, name in zip(part.run(last[given].numpy().copy()), asked, strict=True):
                error = np.abs(last[name].numpy().reshape(expected.shape) - expected).max()
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
            conversion = Conversion(source, USED_OUTPUTS.get(name))
            metadata = {
                GRAPH_KEY: json.dumps(conversion.graph()),
                "source": f"{arguments.wheel.name}: {paths[original]}",
            }
            path = arguments.out / f"{name}.safetensors"
            found = difference(source, conversion)
            if name in HALVED:
                conversion.weights = {key: weight.half() for key, weight in conversion.weights.items()}
            save_file(conversion.weights, path, metadata)
            print(f"{name}: {path.stat().st_size / 1e6:.2f} MB, differs from the original by {found:.1e}")
            if found > TOLERANCE:
                raise SystemExit(f"{name} is not the network that it was made from")


if __name__ == "__main__":
    main()
