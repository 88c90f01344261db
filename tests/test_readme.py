"""The README is executable: its Python block runs, its commands name what exists."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eartalking import Controls

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


def commands() -> list[list[str]]:
    """Every `python -m MODULE ...` of README's bash blocks and of its text, as words."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    lines += re.findall(r"`(python -m [^`]+)`", README)
    parts = [part for line in lines for part in re.split(r"&&", line.split("#")[0])]
    return [words for words in map(shlex.split, parts) if words[:2] == ["python", "-m"]]


def test_commands_are_found() -> None:
    modules = {words[2] for words in commands()}
    assert {"eartalking.generate", "pytest", "eval.run", "benchmarks.quality", "demo.deploy"} <= modules


@pytest.mark.parametrize("module", sorted({words[2] for words in commands()} - {"pytest"}))
def test_a_command_has_the_flags_that_readme_gives_it(module: str) -> None:
    source = ROOT / (module.replace(".", "/") + ".py")
    assert source.is_file(), module
    flags = {word for words in commands() if words[2] == module for word in words[3:] if word.startswith("--")}
    if flags:
        done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        known = set(re.findall(r"--[a-z0-9][a-z0-9-]*", done.stdout))
        assert flags <= known, f"{module}: {sorted(flags - known)}"


def test_example_files_exist() -> None:
    named = {word for words in commands() for word in words if word.startswith("examples/")}
    assert named and all((ROOT / word).exists() for word in named)


def test_the_controls_in_json_are_controls(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("json")):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        assert Controls.load(path).at(30).given()
    assert blocks("json")


def test_the_client_example_fits_the_endpoint() -> None:
    """The example's call has as many arguments as the page's `/generate` asks for, and its controls are controls."""
    tree = ast.parse(blocks("py")[0])
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "predict"
    )
    endpoint = next(
        node
        for node in ast.walk(ast.parse((ROOT / "demo" / "api.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "generate"
    )
    taken = [name.arg for name in endpoint.args.args if name.arg not in ("self", "request", "sessions")]
    assert len(call.args) == len(taken) - len(endpoint.args.defaults), taken
    tracks = ast.literal_eval(call.args[2])["tracks"]
    assert Controls(tracks).tracks.keys() == tracks.keys()
    assert [word.value.value for word in call.keywords] == ["/generate"]


def test_pictures_exist() -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
