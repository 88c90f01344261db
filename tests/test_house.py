"""How large a file, a function, an argument list and the checkout may be. An exception has its reason here."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES, FUNCTION_LINES, ARGUMENTS = 400, 60, 8
FILE_BYTES = 10_000_000  # Hugging Face takes no larger file in plain git
TRACKED_BYTES = 59_000_000  # the checkout has to travel to machines that take 64 MiB, and something with it


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def sources() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def test_no_file_is_longer_than_one_sitting() -> None:
    assert not [str(p.relative_to(ROOT)) for p in sources() if len(p.read_text().splitlines()) > LINES]


def test_functions_and_argument_lists_are_short() -> None:
    long = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            arguments = [argument for argument in given if argument.arg not in ("self", "cls")]
            if node.end_lineno - node.lineno >= FUNCTION_LINES or len(arguments) > ARGUMENTS:
                long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not long


def test_the_checkout_travels() -> None:
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    assert not [str(path) for path, size in sizes.items() if size > FILE_BYTES]
    assert sum(sizes.values()) < TRACKED_BYTES
