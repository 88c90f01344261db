"""Systems of other people: their own command line run once per clip, or a folder of videos that they made.

Described by a small JSON file, given to `benchmarks.compare --external FILE`:

    {"name": "sadtalker", "about": "SadTalker 0.0.2, commit cd4c046", "command":
     "python inference.py --source_image {portrait} --driven_audio {audio} --result_video {output}", "folder":
     "/opt/SadTalker"}
    {"name": "hallo2", "about": "Hallo2, videos made on an A100", "videos": "their/videos"}

`command` runs in `folder` (default: where compare was started) with {portrait} (a PNG of the framed face), {audio} (a
16 kHz WAV) and {output} (an .mp4 to write) filled in, and must end with status 0. `videos` holds one file per clip of
the test set's manifest, `NAME.mp4` for the clip NAME, as long as its sound, the face framed as in the portrait.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.methods.base import Method, NotReady, Request, Sound, content
from eartalking.config import FPS
from eartalking.errors import InputError
from eartalking.io.video_reader import read_video

_KEYS = {"name", "about", "command", "folder", "videos"}


class External(Method):
    """See the module. Raises InputError for a description that cannot be used."""

    kind = "external"

    def __init__(self, description: Path) -> None:
        try:
            values = json.loads(Path(description).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(description, f"not a method's description ({error})") from None
        if (
            not isinstance(values, dict)
            or set(values) - _KEYS
            or not values.get("name")
            or ("command" in values) == ("videos" in values)
        ):
            raise InputError(
                description, f"needs a name, and either a command or videos; known keys: {', '.join(sorted(_KEYS))}"
            )
        if "command" in values and "{output}" not in values["command"]:
            raise InputError(description, "the command must say {output}, or its video cannot be found")
        self.description = Path(description)
        self.name, self.about = values["name"], values.get("about", "")
        self.command: str | None = values.get("command")
        self.folder: str | None = values.get("folder")
        self.videos = None if "videos" not in values else self.description.parent / values["videos"]
        self.measurable = self.command is not None

    def prepare(self) -> None:
        if self.videos is not None and not self.videos.is_dir():
            raise NotReady(f"{self.videos}: no such folder")

    def generate(self, request: Request, sound: Sound) -> Iterator[np.ndarray]:
        if self.videos is not None:
            yield from read_video(self.videos / f"{request.name}.mp4", FPS).frames
            return
        for _ in sound:  # a command line wants the whole file: it starts when the last word has been said
            pass
        with tempfile.TemporaryDirectory(prefix="compare-") as folder:
            output = Path(folder) / "output.mp4"
            places = {"portrait": str(request.portrait_path), "audio": str(request.audio_path), "output": str(output)}
            words = [word.format(**places) for word in shlex.split(self.command)]
            try:
                done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
            except OSError as error:
                raise NotReady(f"{self.name}: {words[0]} cannot be started ({error.strerror})") from error
            if done.returncode or not output.is_file():
                last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
                raise NotReady(f"{self.name}: the command ended with status {done.returncode}: {last}")
            yield from read_video(output, FPS).frames

    def version(self) -> str:
        files = sorted(self.videos.glob("*.mp4")) if self.videos is not None and self.videos.is_dir() else []
        return content(self.description, *files)
