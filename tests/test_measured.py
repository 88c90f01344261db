"""The tables of README and of docs/measured.md are those of the result files."""

import re
from pathlib import Path

import pytest

from benchmarks import measured
from benchmarks.gates.table import ALL_GATES
from benchmarks.measured import MARKED, TABLES, TEXTS, about, filled


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_tables_are_of_the_results(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert filled(text) == text, "run `python -m benchmarks.measured`"


def test_every_table_stands_somewhere() -> None:
    found = [name for path in TEXTS for _, name, _ in MARKED.findall(path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(TABLES)


def test_every_gate_is_told_what_it_is() -> None:
    assert not [name for name in ALL_GATES if not about(name)]
    assert about("control_latency_yaw_frames") != about("control_yaw_deg")


def test_the_summary_takes_what_ships_and_says_so_of_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def gate(name: str, value: float | None) -> dict:
        return {"name": name, "value": value, "gate": ">= 0", "passed": value is not None}

    hardware = {"cores": 2, "processor": "any"}
    old = {"checkpoint_sha256": "old", "date": "2026-01-01", "hardware": hardware}
    old["gates"] = [gate("motion_hour", 0.25), gate("motion_lips_closed", 0.125)]
    new = old | {"checkpoint_sha256": "new", "gates": [gate("motion_hour", None), gate("motion_lips_closed", 0.75)]}
    results = {"quick": new, "motion": old, "photographs": old | {"gates": []}}
    monkeypatch.setattr(measured, "_result", results.__getitem__)
    monkeypatch.setattr(measured, "_shipped", lambda: "new")
    lines = measured.summary().splitlines()
    assert next(line for line in lines if "shut lips" in line).endswith("| 0.75 | >= 0 |  |")
    assert next(line for line in lines if "in an hour" in line).endswith("| 0.25 | >= 0 | earlier weights |")


def test_a_table_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        filled("<!-- table: nothing -->\n<!-- end -->")


def test_links_of_the_document_lead_somewhere() -> None:
    path = TEXTS[1]
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert targets and not [target for target in targets if not (path.parent / target).exists()]
