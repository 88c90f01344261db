"""The leaderboard reads any results table, and never ranks measured rows with copied ones."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from chromium import complaints_of, needs_chromium

from benchmarks.leaderboard.headline import TITLES, title
from benchmarks.leaderboard.method_latency import KEYS
from benchmarks.leaderboard.rows import METRICS
from benchmarks.leaderboard.table import (
    LARGEST,
    SMALLEST,
    ZERO,
    Choice,
    best,
    is_measured,
    metrics,
    offered,
    read_table,
    suites,
)
from demo.leaderboard import _axes, _start, build_leaderboard_tab, plot, points, provenance, ranking
from demo.settings import LEADERBOARD
from eartalking.errors import InputError

TABLE = """method,source,fid_lite0,fid_lite0_ci_low,sync_c,ttff_ms,n_videos,commit,note
slow,measured,14.9,13.0,3.9,2310,64,abc,
ours,measured,12.3,11.1,4.1,151.3,64,abc,"<b>bold</b>, with a comma"
nameless,measured,,,,5,64,abc,no faces found
theirs,paper,1.5,,9.0,,,,table 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "leaderboard.csv"
    path.write_text(TABLE)
    return path


def test_cells_are_numbers_where_the_column_is(path: Path) -> None:
    rows = read_table(path)
    assert rows[1] == {
        "method": "ours",
        "source": "measured",
        "fid_lite0": 12.3,
        "fid_lite0_ci_low": 11.1,
        "sync_c": 4.1,
        "ttff_ms": 151.3,
        "n_videos": 64.0,
        "commit": "abc",
        "note": "<b>bold</b>, with a comma",
    }
    assert rows[2]["fid_lite0"] is None and [is_measured(row) for row in rows] == [True, True, True, False]
    assert metrics(rows) == ["fid_lite0", "sync_c", "ttff_ms"]


def test_copied_rows_are_never_ranked_with_measured_ones(path: Path) -> None:
    rows = read_table(path)
    table = ranking(rows, Choice(measured=True, metric="fid_lite0", best=SMALLEST))
    assert (
        list(table["method"]) == ["ours", "slow", "nameless"]
        and list(table["rank"]) == [1, 2, None]
        and list(table["row"]) == [2, 1, 3]
    )
    copied = ranking(rows, Choice(measured=False, metric="fid_lite0", best=SMALLEST))
    assert list(copied["method"]) == ["theirs"] and list(copied["rank"]) == [1]
    assert list(ranking(rows, Choice(True, metric="sync_c", best=LARGEST))["method"]) == ["ours", "slow", "nameless"]
    assert [point.name for point in points(rows, Choice(True), "ttff_ms", "fid_lite0")] == ["slow", "ours"]
    assert not points(rows, Choice(False), "ttff_ms", "fid_lite0")


def test_only_metrics_with_values_are_offered(path: Path) -> None:
    rows = read_table(path)
    assert offered(rows, Choice(True)) == ["fid_lite0", "sync_c", "ttff_ms"]
    assert offered(rows, Choice(False)) == ["fid_lite0", "sync_c"]


def test_direction_is_the_file_s_word_before_the_name_s(path: Path) -> None:
    rows = read_table(path)
    assert [best(rows, name) for name in ("fid_lite0", "sync_c", "ttff_ms")] == [SMALLEST, LARGEST, SMALLEST]
    assert best([{"zeal": 1.0, "zeal_direction": "higher"}], "zeal") == LARGEST
    assert best([{"fid": 1.0, "fid_direction": "↑"}], "fid") == LARGEST
    assert best([{"max_drop": 1.0}], "max_drop") is None
    table = [
        {"method": name, "av_offset": value, "av_offset_direction": "zero"}
        for name, value in (("a", -3.0), ("b", 1.0), ("c", 0.0))
    ]
    assert best(table, "av_offset") == ZERO
    assert list(ranking(table, Choice(True, metric="av_offset", best=ZERO))["method"]) == ["c", "b", "a"]


def test_suites_are_never_ranked_together() -> None:
    cells = (("a", "quick", 1.0), ("b", "full", 9.0), ("c", "quick", 2.0))
    rows = [{"method": name, "suite": suite, "psnr": value} for name, suite, value in cells]
    assert list(suites(rows, True)) == ["quick", "full"]
    assert list(ranking(rows, Choice(True, "quick", "psnr", LARGEST))["method"]) == ["c", "a"]
    assert [point.name for point in points(rows, Choice(True, "full"), "psnr", "psnr")] == ["b"]


def test_the_fullest_suite_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "suites.csv"
    path.write_text("method,suite,clips,psnr\na,quick,8,1\na,full,64,2\na,controls,16,3\n")
    assert suites(read_table(path), True) == {"full": 64, "controls": 16, "quick": 8}


def scored(name: str, value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict:
    return {"method": name, "kind": "baseline", "psnr": value, "psnr_ci_low": low, "psnr_ci_high": high} | more


def test_ties_share_a_rank_and_references_have_none() -> None:
    rows = [
        scored("second", 8.0, 7.0, 8.5),
        scored("truth", 40.0, 39.0, 41.0, kind="reference"),
        scored("first", 9.0, 8.4, 9.5),
        scored("last", 5.0, 4.0, 6.0),
        scored("unmeasured", None),
        scored("still", 1.0, kind="reference"),
        scored("equal", 5.0),
    ]
    table = ranking(rows, Choice(True, metric="psnr", best=LARGEST))
    assert list(table["method"]) == ["first", "second", "last", "equal", "truth", "still", "unmeasured"]
    assert list(table["rank"]) == [1, 1, 3, 3, None, None, None]
    errors = [{"method": name, "off": value} for name, value in (("a", -2.0), ("b", 1.0), ("c", 2.0))]
    assert list(ranking(errors, Choice(True, metric="off", best=ZERO))["rank"]) == [1, 2, 2]
    assert list(ranking(errors, Choice(True, metric="off", best=SMALLEST))["rank"]) == [1, 2, 3]


def test_the_shipped_table_opens_on_main_results_with_names_and_intervals() -> None:
    rows = read_table(LEADERBOARD)
    choice = Choice(True, next(iter(suites(rows, True))), "sync_c_synthtalk", LARGEST)
    assert choice.suite == "full"
    table = ranking(rows, choice)
    assert len(table.columns) <= 14 and not [column for column in table.columns if "_" in column]
    ours = table[table["method"] == "ours"].iloc[0]
    row = next(row for row in rows if (row["method"], row["suite"]) == ("ours", "full"))
    value, low, high = (row[f"sync_c_synthtalk{part}"] for part in ("", "_ci_low", "_ci_high"))
    assert ours["rank"] == 1 and f"{value:.4g} [{low:.3g}, {high:.3g}]" in list(ours)
    assert {"the truth, re-encoded", "the portrait, still"} <= set(table["method"])
    assert any(column.endswith("dB ↑") for column in table)
    timed = ranking(rows, Choice(True, "quick", "sync_c_synthtalk", LARGEST))
    assert any(column.endswith("frames/s ↑") for column in timed)
    every = ranking(rows, choice, every=True)
    assert len(every.columns) > len(table.columns) and "Sharpness of the face: difference from the truth ↓" in every
    assert not [row for row in rows if row["kind"] == "ours" and row["method"] != "ours"]


def test_every_metric_has_a_name_in_words() -> None:
    assert {*METRICS, *KEYS} <= set(TITLES) and len({title(metric) for metric in TITLES}) == len(TITLES)


def test_points_have_names_that_do_not_cover_each_other_and_papers_have_a_plot() -> None:
    rows = read_table(LEADERBOARD)
    choice = Choice(True, "quick", "sync_c_synthtalk", LARGEST)
    picture = plot(rows, choice, "ttff_ms", "sync_c_synthtalk")
    drawn = points(rows, choice, "ttff_ms", "sync_c_synthtalk")
    assert len(drawn) > 4 and all(f">{point.name}</text>" in picture for point in drawn)
    names = re.findall(r"<text x='([\d.]+)' y='([\d.]+)'>", picture)
    places = [(float(x), float(y)) for x, y in names]
    assert len(places) == len(drawn)
    assert all(abs(a[1] - b[1]) >= 14 or abs(a[0] - b[0]) > 60 for a, b in itertools.combinations(places, 2))
    papers = _start(rows, False)
    axes = _axes(rows, papers)
    assert len(points(rows, papers, *axes)) >= 3 and "<svg" in plot(rows, papers, *axes)
    assert "choose others" in plot(rows, papers, "ttff_ms", "fid")


def test_names_in_the_plot_are_no_markup() -> None:
    rows = [{"method": "<b>bold</b>", "psnr": 1.0, "fps": 2.0}]
    assert "&lt;b&gt;bold" in plot(rows, Choice(True), "fps", "psnr")
    assert "<b>" not in plot(rows, Choice(True), "fps", "psnr")


def test_any_columns_will_do(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("who,zeal,colour\na,1,red\nb,3,\n")
    rows = read_table(path)
    table = ranking(rows, Choice(True, metric="zeal", best=LARGEST))
    assert list(table["who"]) == ["b", "a"] and metrics(rows) == ["zeal"]
    path.write_text("who\na\n")
    assert list(ranking(read_table(path), Choice(True))["who"]) == ["a"]


def test_provenance_has_every_column_and_is_no_markup(path: Path) -> None:
    page = provenance(read_table(path), 2)
    cells = ("ours", "measured", "12.3", "11.1", "4.1", "151.3", "64", "abc", "with a comma")
    for column, cell in zip(TABLE.splitlines()[0].split(","), cells, strict=True):
        assert column.removeprefix("fid_lite0_") in page and cell in page
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page


@pytest.mark.parametrize(
    "text, cause",
    [
        ("", "empty"),
        ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "repeated"),
        ("a,b\n1\n", "row 2"),
        ("a,b\n1,2\n1,2,3\n", "row 3"),
        ('a\n"b\n', "broken CSV"),
    ],
)
def test_a_bad_file_is_one_error_with_its_cause(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "leaderboard.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=cause):
        read_table(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.csv"):
        read_table(tmp_path / "none.csv")


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    with gr.Blocks() as blocks:
        build_leaderboard_tab(path)
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    page = browser.new_page()
    complaints = complaints_of(page)
    page.goto(address)
    page.locator("#leaderboard-table").get_by_text("ours").locator("visible=true").first.wait_for()
    yield page
    page.close()
    blocks.close()
    assert complaints == []


@needs_chromium
def test_in_the_browser(page: Any, path: Path) -> None:
    table, detail = page.locator("#leaderboard-table"), page.locator("#leaderboard-row")
    assert not table.get_by_text("theirs").locator("visible=true").count()
    table.get_by_text("ours").locator("visible=true").first.click()
    detail.get_by_text("with a comma").wait_for()
    picture = page.locator("#leaderboard-plot")
    assert (
        picture.locator("text", has_text="ours").is_visible() and picture.locator("text", has_text="slow").count() == 1
    )
    page.get_by_label("Everything").check()
    table.get_by_text("First frame, live, ms ↓").locator("visible=true").first.wait_for()
    with page.expect_download() as download:
        page.locator("#leaderboard-download").click()
    assert Path(download.value.path()).read_text() == TABLE
    page.get_by_label("Reported in papers").check()
    table.get_by_text("theirs").locator("visible=true").first.wait_for()
    assert not table.get_by_text("ours").locator("visible=true").count()
    path.write_text("")
    page.locator("#leaderboard-refresh").click()
    page.get_by_text("the file is empty").wait_for()
    path.unlink()
    page.locator("#leaderboard-refresh").click()
    page.get_by_text("No results here yet").wait_for()
