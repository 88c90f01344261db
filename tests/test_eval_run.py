"""`eval.run`: known answers from the command line, bad input clip by clip, caching, and rows that can be reproduced."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from eartalking.errors import InputError
from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import VideoWriter
from eval.listing import find_pairs, read_manifest
from eval.protocol import Protocol
from eval.run import ABOUT_COLUMNS, COLUMNS, main, score

SIZE = 128
FRAMED = Protocol(crop="none", size=SIZE, resamples=50, frechet_resamples=3, pair_every=4)
FAST = ["psnr", "ssim", "flicker"]


def moving(frames: int = 20, seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = np.kron(blocks, np.ones((24, 24, 1), np.uint8))
    return np.stack([picture[t : t + SIZE, t : t + SIZE] for t in range(frames)])


def video(path: Path, frames: np.ndarray, fps: int = 25, audio: Path | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, frames.shape[1:3], fps, audio) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b", "sub/c")):
        video(tmp_path / "ref" / f"{name}.mp4", moving(seed=seed))
    return tmp_path / "ref"


def values(rows: list[dict]) -> dict[str, float | None]:
    return {row["metric"]: row["value"] for row in rows}


def test_identical_folders_give_the_known_answers(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "results.csv"
    for path in truth.rglob("*.mp4"):
        made = tmp_path / "pred" / path.relative_to(truth)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(path.read_bytes())
    names = "fid,fid_lite0,fvd_lite0,perceptual_lite0,psnr,ssim"
    folders = {"pred": tmp_path / "pred", "ref": truth, "weights": tmp_path, "cache": tmp_path / "cache"}
    given = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    assert main([*given, "--out", str(out), "--crop", "none", "--metrics", names, "--threads", "1"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    with open(out, newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert tuple(next(iter(rows.values()))) == COLUMNS + ABOUT_COLUMNS
    for name in ("fid_lite0", "fvd_lite0", "perceptual_lite0"):
        assert float(rows[name]["value"]) == pytest.approx(0, abs=1e-3) and rows[name]["direction"] == "lower"
        assert rows[name]["n_videos"] == "3" and float(rows[name]["coverage"]) == 1 and rows[name]["note"] == ""
    assert float(rows["ssim"]["value"]) == pytest.approx(1) and rows["psnr"]["value"] == "100.0"
    assert rows["fid"]["value"] == "" and "weights" in rows["fid"]["note"] and rows["fid"]["n_videos"] == "0"
    assert printed["values"].keys() == rows.keys() - {"fid"} and printed["problems"] == 0
    details = json.loads((tmp_path / "results.clips.json").read_text())
    assert {row["clip"] for row in details} == {"a", "b", "sub/c"} and len(details) == 18
    assert "eval.run" in rows["ssim"]["command"] and str(truth) in rows["ssim"]["command"]
    assert len({row["row_id"] for row in rows.values()}) == len(rows)
    assert len({row["protocol"] for row in rows.values()}) == 1


def test_a_second_run_computes_only_what_changed(truth: Path, tmp_path: Path) -> None:
    video(tmp_path / "pred" / "a.mp4", moving(seed=7))
    video(tmp_path / "pred" / "b.mp4", moving(seed=8))
    video(tmp_path / "pred" / "sub" / "c.mp4", moving(seed=9))

    def run() -> tuple[list[dict], int]:
        scores = score(tmp_path / "pred", truth, FRAMED, FAST, cache=tmp_path / "cache", title=None)
        return scores.rows, scores.computed

    first, cold = run()
    second, warm = run()
    assert cold == 15 and warm == 0 and first == second  # 6 probes; ssim, psnr and flicker of 3 clips
    video(tmp_path / "pred" / "b.mp4", moving(seed=10))
    third, changed = run()
    assert changed == 4 and values(third)["psnr"] != values(first)["psnr"] and third[0]["row_id"] == first[0]["row_id"]


def test_one_bad_clip_costs_only_itself(truth: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    video(pred / "a.mp4", moving(seed=0))
    (pred / "b.mp4").write_bytes(b"this is no video")
    video(pred / "stranger.mp4", moving())
    scores = score(pred, truth, FRAMED, FAST, title=None)
    for row in scores.rows:
        assert row["n_videos"] == 1 and row["coverage"] == pytest.approx(1 / 3, abs=1e-3)
        assert row["value"] is not None and "coverage" in row["note"]
    files = [line.split(":")[0].removeprefix(str(tmp_path)) for line in scores.problems]
    assert files == ["/pred/stranger.mp4", "/pred/b.mp4", "/ref/sub/c.mp4"]
    assert "not judged" in scores.problems[0]
    assert "damaged" in scores.problems[1]
    assert "no video was made" in scores.problems[2]


def test_lengths_and_rates_may_differ_and_are_told(truth: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    video(pred / "a.mp4", moving()[:10])
    video(pred / "b.mp4", moving(seed=1)[::2], fps=12)  # hardly fewer frames at 25 a second
    video(pred / "sub" / "c.mp4", moving(1))
    scores = score(pred, truth, FRAMED, ["psnr", "flicker"], title=None)
    assert any("10 frames, 20 in the truth" in line for line in scores.problems)
    flicker = {row["clip"]: row for row in scores.clips if row["metric"] == "flicker"}
    assert flicker["a"]["coverage"] == 0.5 and flicker["b"]["coverage"] >= 0.95
    assert flicker["sub/c"]["value"] is None and "two frames" in flicker["sub/c"]["reason"]
    assert any(line.startswith("sub/c: flicker needs two frames") for line in scores.problems)


def test_nan_frames_wrong_arrays_and_other_sizes(tmp_path: Path) -> None:
    frames = moving().astype(np.float32) / 255
    bad = frames.copy()
    bad[3, 0, 0, 0] = np.nan
    wide = np.concatenate([frames, frames], axis=2)
    for name, made in {"nan": bad, "wide": wide, "loud": frames * 255, "flat": frames[0], "good": frames}.items():
        for folder, array in (("pred", made), ("ref", frames)):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.savez(tmp_path / folder / f"{name}.npz", frames=array)
    (tmp_path / "ref" / "empty.npz").write_bytes(b"")
    (tmp_path / "pred" / "empty.npz").write_bytes(b"")
    scores = score(tmp_path / "pred", tmp_path / "ref", FRAMED, ["psnr"], title=None)
    reasons = {row["clip"]: row["reason"] for row in scores.clips}
    assert "1 of 20 frames contain numbers that are not finite" in reasons["nan"] and "0..1" in reasons["loud"]
    assert "(T, H, W, 3)" in reasons["flat"] and "damaged" in reasons["empty"]
    # crop "none" takes the centred square
    assert reasons["good"] == reasons["wide"] == ""
    assert scores.rows[0]["n_videos"] == 2


def test_folders_that_cannot_be_judged_end_in_one_line(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        "no videos here": ["--pred", str(tmp_path / "empty"), "--ref", str(truth)],
        "no such folder": ["--pred", str(tmp_path / "nowhere"), "--ref", str(truth)],
        "is not a folder": ["--pred", str(truth), "--ref", str(truth), "--cache", __file__],
        "No such file": ["--pred", str(truth), "--manifest", str(tmp_path / "nowhere.json")],
        "unknown metrics beauty": ["--pred", str(truth), "--ref", str(truth), "--metrics", "beauty"],
    }
    for words, arguments in cases.items():
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--out", str(tmp_path / "out.csv")])
        message = capsys.readouterr().err.strip()
        assert stop.value.code == 2 and words in message and len(message.splitlines()) == 1
    with pytest.raises(SystemExit):
        main(["--pred", str(truth), "--ref", str(truth), "--out", str(tmp_path / "missing" / "out.csv")])
    assert not (tmp_path / "out.csv").exists()


def test_a_manifest_that_points_nowhere_is_told_clip_by_clip(truth: Path, tmp_path: Path) -> None:
    clips = [
        {"ref": "ref/a.mp4", "voice": "x"},
        {"name": "b", "ref": "ref/gone.mp4"},
        {"ref": "ref/sub/c.mp4", "pred": "ref/sub/c.mp4"},
        {"name": "d", "ref": "ref/b.mp4", "controls": "gone.json", "pred": "ref/b.mp4"},
    ]
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"suite": "test", "clips": clips}))
    scores = score(truth, path, FRAMED, ["psnr"], title=None)
    assert scores.rows[0]["n_videos"] == 2 and scores.rows[0]["coverage"] == 0.5
    assert len(scores.problems) == 2 and "gone.mp4: " in scores.problems[0] and "gone.json: " in scores.problems[1]


@pytest.mark.parametrize(("text", "words"), [
    ("{", "broken JSON"), ("[]", "expected"), ('{"clips": []}', "at least one clip"),
    ('{"clips": [{"name": "a"}]}', "clip 1"),
    ('{"clips": [{"ref": "a.mp4"}, {"ref": "x/a.mp4"}]}', "appears twice"),
    ('{"clips": [{"ref": "a.mp4", "pred": 5}]}', "pred must be a text"),
])  # fmt: skip
def test_a_broken_manifest_names_its_fault(truth: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_manifest(path, truth)


def test_names_are_matched_and_companions_found(truth: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    video(pred / "a.mp4", moving())
    (pred / "a.controls.csv").write_text("yaw\n5\n")
    (truth / "a.controls.json").write_text("{}")
    (truth / "a.portrait.png").write_bytes(b"")
    (truth / "a.labels.npz").write_bytes(b"")
    pairs, strangers = find_pairs(pred, truth)
    assert [pair.name for pair in pairs] == ["a", "b", "sub/c"] and strangers == []
    assert pairs[0].controls == pred / "a.controls.csv"
    assert pairs[0].portrait == truth / "a.portrait.png"
    assert pairs[1].pred is None
    np.savez(pred / "a.npz", frames=moving())
    with pytest.raises(InputError, match="which one is meant"):
        find_pairs(pred, truth)


def test_a_row_can_be_made_again_and_another_list_is_another_protocol(truth: Path, tmp_path: Path) -> None:
    first, again = (score(truth, truth, FRAMED, ["psnr"], title=None).rows[0] for _ in range(2))
    assert first == again
    other = score(truth / "sub", truth / "sub", FRAMED, ["psnr"], title=None).rows[0]
    assert other["protocol"] != first["protocol"] and other["row_id"] != first["row_id"]


def test_truth_is_a_folder_or_a_clip_list(truth: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"clips": [{"name": name, "ref": f"ref/{name}.mp4"} for name in ("a", "b", "sub/c")]}))
    folder, listed = (score(truth, given, FRAMED, ["psnr"], title=None).rows for given in (truth, path))
    assert folder == listed
    with pytest.raises(InputError, match="a folder of videos, or a clip list"):
        score(truth, truth / "a.mp4", FRAMED, ["psnr"])
    with pytest.raises(InputError, match="No such file"):
        score(truth, tmp_path / "nowhere.json", FRAMED, ["psnr"])


def test_a_video_without_sound_takes_the_reference_sound_when_told_to(tmp_path: Path) -> None:
    from eval.clips import read_pair

    speech = Path(__file__).parent.parent / "examples" / "speech.wav"
    ref = video(tmp_path / "ref" / "a.mp4", moving(), audio=speech)
    pred = video(tmp_path / "pred" / "a.mp4", moving())
    with pytest.raises(InputError, match="no sound track"):
        _ = read_pair(pred, ref, FRAMED).pred.waveform
    clip = read_pair(pred, ref, Protocol(crop="none", size=SIZE, audio="reference"))
    np.testing.assert_array_equal(clip.pred.waveform, clip.ref.waveform)
    assert len(clip.pred.waveform) == 20 * 640 and np.abs(clip.pred.waveform).max() > 0


def test_the_shipped_syncnet_follows_a_shifted_sound_exactly(tmp_path: Path) -> None:
    clip = Path(__file__).parent.parent / "benchmarks" / "testset_small" / "small_000.mp4"
    opened = read_video(clip, 25)
    frames, sound = np.stack(list(opened.frames))[:80], opened.waveform
    for name, shift in (("straight", 0), ("late", 4)):
        waveform = np.concatenate([np.zeros(640 * shift, np.float32), sound])[: 640 * len(frames)]
        for folder in ("ref", "pred"):
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            np.savez(tmp_path / name / folder / "a.npz", frames=frames, waveform=waveform)
    names = ["sync_c_synthtalk", "av_offset_synthtalk"]
    straight, late = (
        values(score(tmp_path / name / "pred", tmp_path / name / "ref", Protocol(crop="none"), names, title=None).rows)
        for name in ("straight", "late")
    )
    assert straight["av_offset_synthtalk"] == 0 and late["av_offset_synthtalk"] == -4
    assert late["sync_c_synthtalk"] == pytest.approx(straight["sync_c_synthtalk"], rel=0.1)
