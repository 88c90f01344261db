"""The converted networks: they load, take batches, and compute what their operations say."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from eartalking.errors import InputError
from eartalking.perception.graph_network import OPERATIONS, WEIGHTS_FOLDER, GraphNetwork
from eartalking.perception.lips import LIP_POINTS
from eartalking.perception.turned_square import Picture, TurnedSquare

SHAPES = {
    "face_detector_far": ((192, 192), {(2304, 16), (2304, 1)}),
    "face_detector_near": ((128, 128), {(896, 16), (896, 1)}),
    "face_mesh": ((192, 192), {(1404, 1, 1), (1, 1, 1)}),
    "lips": ((192, 192), {(80, 2)}),
    "iris": ((64, 64), {(213,), (15,)}),
    "person_matte": ((256, 256), {(1, 256, 256)}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_network_gives_its_shapes_and_a_batch_is_its_pictures(name: str) -> None:
    network = GraphNetwork.load(name)
    size, shapes = SHAPES[name]
    images = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        both, second = network(images), network(images[1:])
    assert network.size == size
    assert {tuple(output.shape[1:]) for output in both} == shapes
    for together, alone in zip(both, second, strict=True):
        torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-3 * float(alone.abs().max()))
    assert {operation["kind"] for operation in network.graph["operations"]} <= set(OPERATIONS)


def test_weights_are_small_and_say_where_they_come_from() -> None:
    sizes = [(WEIGHTS_FOLDER / f"{name}.safetensors").stat().st_size for name in SHAPES]
    assert max(sizes) < 10e6 and sum(sizes) < 6e6
    text = (WEIGHTS_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in text and all(name in text for name in SHAPES)


def test_missing_or_damaged_network_is_told(tmp_path) -> None:  # noqa: ANN001
    with pytest.raises(InputError, match="no network here"):
        GraphNetwork.load("face_mesh", tmp_path)
    (tmp_path / "face_mesh.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0damaged!")
    with pytest.raises(InputError, match="no network here"):
        GraphNetwork.load("face_mesh", tmp_path)


def test_graph_computes_what_modules_compute() -> None:
    """A convolution with an odd padding, a PReLU and a flattening, against the same in modules."""
    torch.manual_seed(0)
    convolution, prelu = nn.Conv2d(3, 4, 3, stride=2), nn.PReLU(4)
    operations = [
        {"kind": "convolution", "inputs": ["x"], "output": "a", "weight": "w", "bias": "b", "stride": [2, 2],
         "padding": [0, 1, 0, 1], "relu": False},
        {"kind": "prelu", "inputs": ["a"], "output": "b", "weight": "p"},
        {"kind": "flatten", "inputs": ["b"], "output": "y", "shape": [16, 4]},
    ]  # fmt: skip
    weights = {"w": convolution.weight.data, "b": convolution.bias.data, "p": prelu.weight.data}
    network = GraphNetwork({"input": "x", "outputs": ["y"], "size": [8, 8], "operations": operations}, weights)
    images = torch.rand(2, 8, 8, 3)
    expected = prelu(convolution(nn.functional.pad(images.permute(0, 3, 1, 2), (0, 1, 0, 1))))
    torch.testing.assert_close(network(images)[0], expected.permute(0, 2, 3, 1).reshape(2, 16, 4))


def test_depth_to_space_orders_blocks_before_channels() -> None:
    values = torch.arange(8.0).view(1, 8, 1, 1)  # block row, block column, channel
    spread = OPERATIONS["depth_to_space"]([values], {"block": 2}, {})
    assert spread[0].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


def test_the_lips_points_are_those_that_the_network_looks_around() -> None:
    operations = GraphNetwork.load("lips").graph["operations"]
    (look,) = (one for one in operations if one["kind"] == "second_look")
    assert tuple(look["around"]) == LIP_POINTS and len(set(LIP_POINTS)) == 80


def test_a_second_look_is_level_and_leaves_room_around() -> None:
    """Four corners of a rectangle that is turned by 30 degrees, 8 wide and 4 high, in a cut of 16 x 16."""
    turn = torch.tensor([[math.cos(math.pi / 6), -0.5], [0.5, math.cos(math.pi / 6)]])
    corners = torch.tensor([[-4.0, -2.0], [4.0, -2.0], [4.0, 2.0], [-4.0, 2.0]]) @ turn.T + torch.tensor([20.0, 24.0])
    options = {"around": [0, 1, 2, 3], "level": [0, 1], "scale": [1.5, 2.0], "size": [16, 16]}
    maps = OPERATIONS["second_look"]([corners[None]], options, {})
    assert maps.shape == (1, 2, 3)
    places = torch.tensor([[8.0, 8.0], [0.0, 8.0], [8.0, 16.0]])  # the middle of the cut, of its left and lower edge
    expected = torch.tensor([[0.0, 0.0], [-6.0, 0.0], [0.0, 4.0]]) @ turn.T + torch.tensor([20.0, 24.0])
    brought = OPERATIONS["brought_back"]([places[None], maps], {}, {})
    torch.testing.assert_close(brought[0], expected, atol=1e-4, rtol=0)
    ramp = torch.stack(torch.meshgrid(torch.arange(48) + 0.5, torch.arange(48) + 0.5, indexing="xy"))[None]
    cut = OPERATIONS["cut_out"]([ramp, maps], {"size": [16, 16]}, {})
    pixels = torch.tensor([[0.5, 0.5], [12.5, 3.5]])
    for place, pixel in zip(OPERATIONS["brought_back"]([pixels[None], maps], {}, {})[0], pixels.tolist(), strict=True):
        torch.testing.assert_close(cut[0, :, int(pixel[1]), int(pixel[0])], place, atol=1e-3, rtol=0)


def test_a_turned_cut_and_its_points_are_the_picture_s_own() -> None:
    """A spot in the picture is where `to_picture` says it is in the cut, whatever the turn, the size and the level."""
    image = np.zeros((300, 400, 3), np.uint8)
    image[118:123, 248:253] = 255  # centre 250.5, 120.5
    picture = Picture(image)
    for square in (TurnedSquare(230, 110, 100, 0), TurnedSquare(240, 130, 90, 75), TurnedSquare(200, 150, 380, -140)):
        cut = picture.cut(square, 128)[..., 0].numpy()
        rows, columns = np.mgrid[:128, :128]
        spot = np.array([(columns * cut).sum(), (rows * cut).sum()]) / cut.sum()
        assert square.to_picture((spot[None] + 0.5) / 128)[0] == pytest.approx([250.5, 120.5], abs=0.6)


def test_outside_of_the_picture() -> None:
    picture = Picture(np.full((64, 64, 3), 200, np.uint8))
    square = TurnedSquare(0, 0, 64)
    assert picture.cut(square, 32)[0, 0].tolist() == [200.0] * 3
    assert picture.cut(square, 32, outside="zeros")[0, 0].tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="uint8"):
        Picture(np.zeros((4, 4, 3)))
