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

from demo_app import free_port

ROOT = Path(__file__).parents[1]


def test_front_matter_fits_the_requirements() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    matter = re.match(r"---\n(.*?)\n---\n", text, flags=re.S)
    assert matter, "README.md begins with the Space's front matter"
    values = dict(line.split(": ", 1) for line in matter[1].splitlines())
    pinned = re.search(
        r"^gradio\[mcp\]==([\d.]+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), flags=re.M
    )
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
