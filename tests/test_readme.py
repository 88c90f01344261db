"""The README is executable: its Python block runs, its commands name what exists."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    scope: dict = {"tmp_path": tmp_path}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102
    assert scope["frames"], "the example yields frames"


def test_commands_name_modules_and_files_that_exist() -> None:
    for line in "\n".join(blocks("bash")).splitlines():
        words = shlex.split(line, comments=True)
        for previous, word in zip(words, words[1:], strict=False):
            if previous == "-m" and word.startswith(("eartalking", "eval", "benchmarks")):
                assert (ROOT / (word.replace(".", "/") + ".py")).exists(), word
            if word.startswith("examples/"):
                assert (ROOT / word).exists(), word


def test_pictures_exist() -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
