"""What a Hugging Face Space reads: README's front matter, the pinned gradio, and that the demo starts without a
network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
from demo_app import free_port
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import LocalTokenNotFoundError

from demo.deploy import main, space_files, space_requirements

ROOT = Path(__file__).parents[1]


def test_front_matter_fits_the_requirements() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    matter = re.match(r"---\n(.*?)\n---\n", text, flags=re.S)
    assert matter, "README.md begins with the Space's front matter"
    values = dict(line.split(": ", 1) for line in matter[1].splitlines())
    pinned = re.search(r"^gradio\[mcp\]==([\d.]+)", space_requirements(), flags=re.M)
    assert pinned, "the Space's requirements pin gradio"
    assert values["sdk"] == "gradio" and values["sdk_version"] == pinned[1] == version("gradio")
    assert len(values["short_description"]) <= 60
    assert (ROOT / values["app_file"]).is_file()


def test_app_starts_and_serves_without_a_network() -> None:
    """A proxy that refuses everything stands in for no network; the page itself must come from the package and the
    repository.
    """
    port = free_port()
    proxies = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1,localhost",
    }
    environment = {**os.environ, **proxies, "GRADIO_SERVER_PORT": str(port)}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 240
        while True:
            assert server.poll() is None, "app.py ended by itself"
            assert time.monotonic() < end, "it did not start in time"
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except OSError:
                time.sleep(0.2)
        assert "EARPlayer" in page
        fetched = re.findall(r"""(?:src|href)=["'](https?://[^"']+)""", page)
        assert not [url for url in fetched if "127.0.0.1" not in url and "localhost" not in url], fetched
    finally:
        server.terminate()
        server.wait(20)


class Hub:
    """Stands in for the hub's client: notes what it is told."""

    def __init__(self, there: list[str], error: Exception | None = None) -> None:
        self.there, self.error, self.made, self.operations = there, error, {}, []

    def create_repo(self, space: str, **options: object) -> None:
        if self.error:
            raise self.error
        self.made = {"space": space, **options}

    def list_repo_files(self, space: str, repo_type: str) -> list[str]:
        return self.there

    def create_commit(self, space: str, operations: list, commit_message: str, repo_type: str) -> None:
        self.operations = operations


def test_deploy_makes_the_space_the_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub([".gitattributes", "app.py", "old_module.py"])
    assert main(["someone/talking", "--private"], hub) == 0
    assert hub.made["repo_type"] == "space" and hub.made["private"] and hub.made["exist_ok"]
    added = {o.path_in_repo: o for o in hub.operations if isinstance(o, CommitOperationAdd)}
    assert {"app.py", "README.md", "eartalking/session.py", "eartalking/weights/default/config.json"} <= set(added)
    assert not any(name.startswith("tests/") for name in added)
    assert [o.path_in_repo for o in hub.operations if isinstance(o, CommitOperationDelete)] == ["old_module.py"]
    assert added["requirements.txt"].path_or_fileobj == space_requirements().encode()
    assert "spaces/someone/talking" in capsys.readouterr().out


def test_what_the_space_installs_has_no_path_and_no_extra() -> None:
    lines = [line for line in space_requirements().splitlines() if not line.startswith("#")]
    assert any(line.startswith("torch>=") for line in lines) and not any(line.startswith(("-", ".")) for line in lines)


def test_what_goes_to_the_space_is_small_enough() -> None:
    sizes = [(ROOT / name).stat().st_size for name in space_files()]
    assert max(sizes) <= 10e6 and sum(sizes) < 58e6


@pytest.mark.parametrize(
    "error", [LocalTokenNotFoundError("Token is required.\nSee more"), OSError("no route to the hub")]
)
def test_deploy_tells_what_is_wrong_in_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["someone/talking"], Hub([], error)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_dry_run_uploads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub([])
    assert main(["someone/talking", "--dry-run"], hub) == 0
    assert not hub.operations and "MB in" in capsys.readouterr().out
