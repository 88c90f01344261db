"""The leaderboard on several machines, and after it was killed: the rows are those of one run on one machine.

Machines are played by processes on the loopback interface, Slurm's two programs by a line of bash each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo_app import free_port
from small_set import first_clips

from benchmarks.leaderboard.rows import read_csv

ROOT = Path(__file__).parent.parent
METHODS = ("copy_previous", "static_portrait")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
WAIT = 300  # seconds
SAME = ("method", "suite", "clips", "testset", "protocol", "version", "seed", "note")
# Gloo asks for the interface of the machine's name, which containers often do not know.
ENVIRONMENT = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def short_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of the shipped set."""
    return first_clips(3, tmp_path_factory.mktemp("set"))


def arguments(short_set: Path, folder: Path) -> list[str]:
    options = {"methods": ",".join(METHODS), "testset": short_set, "work": folder / "work", "out": folder / "out"}
    options |= {"metrics": "psnr,flicker", "threads": 1}
    return [f"--{name}={value}" for name, value in options.items()] + ["--no-latency"]


def start(*command: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*map(str, command)],
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*runs: subprocess.Popen[str]) -> None:
    for run in runs:
        said, _ = run.communicate(timeout=WAIT)
        assert run.returncode == 0, said


def rows(folder: Path) -> dict[str, dict]:
    """The measured rows of the table, without what tells when and how they were made."""
    table = read_csv(folder / "out" / "leaderboard.csv")
    measured = {row["method"]: row for row in table if row["source"] == "measured"}
    assert len(measured) == sum(row["source"] == "measured" for row in table)
    kept = (*SAME, *(key for key in table[0] if key.startswith(("psnr", "flicker"))))
    return {name: {key: row[key] for key in kept} for name, row in measured.items()}


@pytest.fixture(scope="module")
def at_once(short_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The rows of one process that is left in peace."""
    folder = tmp_path_factory.mktemp("once")
    finish(start(sys.executable, "-m", "benchmarks.compare", *arguments(short_set, folder)))
    found = rows(folder)
    assert set(found) == set(METHODS) and all(row["psnr_n_videos"] == 3 for row in found.values())
    return found


def test_a_run_that_is_killed_again_and_again_loses_and_repeats_nothing(
    short_set: Path, at_once: dict[str, dict], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    # Killed while videos are written, and while features are read.
    for points in (2, len(METHODS) * 3 + 2):
        run = start(sys.executable, "-m", "benchmarks.compare", *arguments(short_set, tmp_path))
        end = time.monotonic() + WAIT
        while run.poll() is None and sum(path.is_file() for path in work.rglob("*")) < points:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert not (tmp_path / "out" / "leaderboard.csv").exists()
    finish(start(sys.executable, "-m", "benchmarks.compare", *arguments(short_set, tmp_path)))
    assert rows(tmp_path) == at_once


def test_two_machines_that_slurm_starts_make_the_rows_of_one(
    short_set: Path, at_once: dict[str, dict], tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_ins = {
        "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@" & done; wait -n && wait -n',
        "scontrol": '[ "$*" = "show hostnames here,there" ] && printf "127.0.0.1\\nthere\\n"',
        "torchrun": f'exec {" ".join(TORCHRUN)} "$@"',
    }
    for name, script in stand_ins.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (programs / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "here,there", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    recipe = ROOT / "benchmarks" / "compare.sbatch"
    finish(start("bash", recipe, *arguments(short_set, tmp_path), PATH=path, MASTER_PORT=str(free_port()), **job))
    assert rows(tmp_path) == at_once
    assert len(list((tmp_path / "work").rglob("*.mp4"))) == len(METHODS) * 3
    command = str(read_csv(tmp_path / "out" / "leaderboard.csv")[0]["command"])
    assert command.startswith("torchrun --nnodes 2 --nproc-per-node 1 -m benchmarks.compare ")
