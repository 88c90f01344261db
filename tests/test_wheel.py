"""`pip install .`: the wheel holds the whole library with its weights, and runs from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Not from a checkout: what is left of other builds there must not get into the wheel.
NOT_BUILT_FROM = shutil.ignore_patterns(
    ".git", "build", "*.egg-info", "data", "runs", ".venv", "__pycache__", "benchmarks"
)


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_BUILT_FROM)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        folder / "source",
    )
    return next(folder.glob("*.whl"))


def test_every_module_and_every_weight_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "weights/**/*", "synth/assets/*")
        for path in (ROOT / "eartalking").rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= inside, sorted(expected - inside)
    assert not {name.split("/")[0] for name in inside} & {"eval", "demo", "benchmarks", "tests"}


def test_an_installed_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    zipfile.ZipFile(wheel).extractall(site)  # what pip does with a wheel of pure Python
    # The dependencies are this environment's: a path in a .pth file does not run that folder's own .pth files, so an
    # editable install there stays out of reach.
    dependencies = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = run(python, "-c", "import eartalking; print(eartalking.__file__)", cwd=elsewhere, env=environment)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    shutil.copy(ROOT / "examples" / "portrait.png", elsewhere / "me.png")
    short = ["-c", "import sys, wave; s = wave.open(sys.argv[1]); d = wave.open('voice.wav', 'wb'); "
             "d.setparams(s.getparams()); d.writeframes(s.readframes(s.getframerate() // 2)); d.close()"]  # fmt: skip
    run(python, *short, ROOT / "examples" / "speech.wav", cwd=elsewhere)
    out = run(
        python, "-m", "eartalking.generate", "me.png", "voice.wav", "-o", "out.mp4", cwd=elsewhere, env=environment
    )  # fmt: skip
    result = json.loads(out.splitlines()[-1])
    assert result["frames"] == 13 and result["checkpoint"] == "default"
    assert (elsewhere / "out.mp4").stat().st_size > 1000
