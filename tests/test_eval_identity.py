"""Identity metrics: a face with itself, with its portrait, and the external network's alignment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metric_clips import FRAMED, SIZE, blurred, measured, moving, pair
from PIL import Image

from eartalking.perception.identity import FaceIdentity
from eval.metrics.identity import Descriptor, identity_metrics
from eval.networks.arcface import ArcFace

PORTRAIT = Path(__file__).parent.parent / "examples" / "portrait.png"


@pytest.fixture(scope="module")
def describe() -> Descriptor:
    return FaceIdentity().descriptor


def face_frames() -> np.ndarray:
    image = Image.open(PORTRAIT).convert("RGB").resize((256, 256))
    return np.stack([np.asarray(image)] * 5)


def test_identity_of_a_face_with_itself_and_of_no_face(tmp_path: Path, describe: Descriptor) -> None:
    protocol = dataclasses.replace(FRAMED, size=256, identity_every=2)
    face, nobody = face_frames(), moving(5, size=256)
    cosine, distance = identity_metrics(describe, protocol=protocol)
    itself = pair(tmp_path, face, face, protocol)
    assert measured(cosine, itself).value == pytest.approx(1) and measured(distance, itself).value == pytest.approx(
        0, abs=1e-6
    )
    half = np.concatenate([face[:2], nobody[:1], face[:1], nobody[:1]])
    partial = measured(cosine, itself, pair(tmp_path, half, face, protocol), pair(tmp_path, nobody, face, protocol))
    assert partial.value == pytest.approx(1) and partial.n_videos == 2 and partial.n_frames == 4
    assert partial.coverage == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert "coverage" in partial.note
    assert "no frame shows a face" in partial.note
    blur = [measured(cosine, pair(tmp_path, blurred(face, radius), face, protocol)).value for radius in (2, 5)]
    assert 1 > blur[0] > blur[1]
    photo = Image.open(PORTRAIT.with_name("photo.jpg")).convert("RGB")
    side = min(photo.size)
    other = np.stack([np.asarray(photo.resize((256, 256), box=(0, 0, side, side)))] * 5)
    swapped = pair(tmp_path, other, face, protocol)
    assert measured(distance, swapped).value > 0.6 and measured(cosine, swapped).value < blur[0]


def test_identity_can_be_held_against_the_portrait(tmp_path: Path) -> None:
    protocol = dataclasses.replace(FRAMED, identity="portrait", identity_every=1)
    cosine, distance = identity_metrics(lambda image: image[0, 0, :].astype(float), protocol=protocol)
    frames = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    frames[:, :, :, 0], frames[2:, :, :, 1] = 100, 100
    clip = pair(tmp_path, frames, frames, protocol)
    # The truth's first frame is the portrait.
    assert measured(cosine, clip).value == pytest.approx((1 + 1 + 2**-0.5 + 2**-0.5) / 4)
    assert measured(distance, clip).value == pytest.approx(50)


def onnx_model(
    path: Path, shape: list[int], nodes: list[Any], constants: dict[str, np.ndarray], outputs: dict[str, Any]
) -> Path:
    """A network of insightface's interface: one picture in, the named outputs."""
    import onnx

    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [info("input", onnx.TensorProto.FLOAT, shape)],
        [info(name, onnx.TensorProto.FLOAT, size) for name, size in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def detector_of(path: Path, found: dict[tuple[int, int], float]) -> Path:
    """A SCRFD network that always sees faces of 64 pixels at the given (x, y), with the given scores. Their five points
    are those that ArcFace aligns to, so that the aligned picture is a plain cut of 112 pixels around (x, y).
    """
    import onnx
    from insightface.utils.face_align import arcface_dst

    constants: dict[str, np.ndarray] = {}
    for stride in (8, 16, 32):
        anchors = 2 * (640 // stride) ** 2
        for kind, width in (("score", 1), ("box", 4), ("points", 10)):
            constants[f"{kind}{stride}"] = np.zeros((anchors, width), np.float32)
    for (x, y), score in found.items():
        anchor = 2 * (y // 8 * 80 + x // 8)
        constants["score8"][anchor] = score
        constants["box8"][anchor] = 32 / 8
        constants["points8"][anchor] = ((arcface_dst - 56) / 8).reshape(-1)
    order = [f"{kind}{stride}" for kind in ("score", "box", "points") for stride in (8, 16, 32)]
    # Each output is its constant, plus nothing of the picture.
    nodes = [onnx.helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0)]
    nodes.append(onnx.helper.make_node("Mul", ["mean", "nothing"], ["zero"]))
    nodes += [onnx.helper.make_node("Add", [name, "zero"], [f"out_{name}"]) for name in order]
    outputs = {f"out_{name}": list(constants[name].shape) for name in order}
    return onnx_model(path, [1, 3, 640, 640], nodes, constants | {"nothing": np.float32(0)}, outputs)


def test_arcface_aligns_the_surest_face_and_describes_it(tmp_path: Path) -> None:
    """Through insightface itself, with two toy networks in place of buffalo_l's."""
    import onnx

    means = [onnx.helper.make_node("ReduceMean", ["input"], ["out"], axes=[2, 3], keepdims=0)]
    recogniser = onnx_model(tmp_path / "r.onnx", [1, 3, 112, 112], means, {}, {"out": [1, 3]})
    face = ArcFace(detector_of(tmp_path / "two.onnx", {(160, 160): 0.6, (400, 400): 0.9}), recogniser)
    picture = np.zeros((640, 640, 3), np.uint8)
    picture[100:220, 100:220, 1], picture[340:460, 340:460, 0] = 255, 255  # a green face, and a surer red one
    np.testing.assert_allclose(face.descriptor(picture), [1, -1, -1], atol=0.02)  # of -1..1; red comes first
    nobody = ArcFace(detector_of(tmp_path / "none.onnx", {}), recogniser)
    assert nobody.descriptor(picture) is None
