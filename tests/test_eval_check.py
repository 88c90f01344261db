"""The command that holds metrics against known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_set import first_clips

from eval import check
from eval.run import Scores

FAST = "psnr,ssim,sharpness_gap"


def report(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_right_metrics_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = first_clips(2, tmp_path)
    assert check.main(["--set", str(clips), "--metrics", FAST]) == 0
    assert report(capsys) == {"right": 5, "wrong": [], "not_measured": []}


def test_a_metric_without_weights_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", str(first_clips(2, tmp_path)), "--metrics", "psnr,fid", "--weights", str(tmp_path)]
    assert check.main(arguments) == 0
    assert report(capsys)["not_measured"] == ["fid"]


def test_a_metric_that_says_the_same_of_everything_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deaf(pred: Path, truth: Path, protocol: object, metrics: list[str], **_: object) -> Scores:
        value = {"psnr": 100.0, "av_offset_synthtalk": 0.0, "sync_c_synthtalk": 0.3}
        return Scores([{"metric": name, "value": value[name]} for name in metrics], [])

    monkeypatch.setattr(check, "score", deaf)
    names = "psnr,av_offset_synthtalk,sync_c_synthtalk"
    assert check.main(["--set", str(first_clips(2, tmp_path)), "--metrics", names]) == 1
    wrong = report(capsys)["wrong"]
    assert {answer["metric"] for answer in wrong} == set(names.split(","))
    assert sum(answer["metric"] == "av_offset_synthtalk" for answer in wrong) == len(check.OFFSETS)


def test_sound_is_moved_as_it_says() -> None:
    sound = np.arange(3200, dtype=np.float32)
    early, late = check.moved(sound, 2), check.moved(sound, -2)
    np.testing.assert_array_equal(early[:1920], sound[1280:])
    np.testing.assert_array_equal(late[1280:], sound[:1920])
    assert len(early) == len(late) == 3200 and not early[1920:].any() and not late[:1280].any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "fid,beauty"], "unknown metrics beauty"),
        (["--syncnet-example", "no.avi"], "no.avi: no such file"),
        (["--set", "."], "at least two videos"),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        check.main(arguments)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
