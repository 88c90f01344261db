"""The field's own network weights: where they come from, what they must hash to, and where they lie on this machine.

`canonical_weights.json` is the manifest. A file is looked for in the folder of `--weights` or of the environment
variable EARTALKING_WEIGHTS, else in the user's cache. Nothing is fetched unasked: with fetch=True (`--fetch`) a missing
file comes from its mirrors in turn, and EARTALKING_OFFLINE=1 forbids even that. Whatever the way, a file whose SHA-256
differs is
refused: the number would stand under a false name.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from eartalking.errors import os_cause
from eval.cache import default_folder, file_hash

MANIFEST = Path(__file__).with_name("canonical_weights.json")
FOLDER_VARIABLE = "EARTALKING_WEIGHTS"
OFFLINE_VARIABLE = "EARTALKING_OFFLINE"
TIMEOUT_SECONDS = 30
# Result files travel, so reasons name no folder of this machine.
_HOW = f"put them into the folder of --weights or {FOLDER_VARIABLE}, or --fetch them"


class WeightsMissing(RuntimeError):
    """Weights that are not here and cannot be had; the message says why and where to put them."""


@dataclass(frozen=True)
class WeightsFile:
    """One entry of the manifest."""

    file: str
    sha256: str
    licence: str
    mirrors: tuple[str, ...]


def read_weights_manifest(path: Path = MANIFEST) -> dict[str, WeightsFile]:
    """Name -> entry. Raises ValueError on an entry that lacks a field."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    try:
        return {name: WeightsFile(**{**entry, "mirrors": tuple(entry["mirrors"])}) for name, entry in entries.items()}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from None


class WeightsStore:
    """Finds weights by name. folder: where they are put by hand, None for the environment variable or the cache; fetch:
    whether a missing file may be fetched."""

    def __init__(self, folder: Path | None = None, fetch: bool = False, manifest: Path = MANIFEST) -> None:
        chosen = folder or os.environ.get(FOLDER_VARIABLE)
        self.folder = Path(chosen) if chosen else default_folder().parent / "weights"
        self.fetch = fetch and os.environ.get(OFFLINE_VARIABLE, "") in ("", "0")
        self.manifest = manifest

    @cached_property
    def entries(self) -> dict[str, WeightsFile]:
        return read_weights_manifest(self.manifest)

    def path(self, name: str) -> Path:
        """The verified file of `name`.

        Raises:
            WeightsMissing: not here and not to be fetched, no mirror answers, or the hash differs.
        """
        entry = self.entries[name]
        path = self.folder / entry.file
        if not path.is_file():
            if not self.fetch:
                raise WeightsMissing(f"the weights {entry.file} are not here ({_HOW})")
            self._fetch(entry, path)
        found = file_hash(path)
        if found != entry.sha256:
            raise WeightsMissing(
                f"{entry.file} is another file of that name: SHA-256 {found[:12]}... instead of {entry.sha256[:12]}..."
            )
        return path

    def _fetch(self, entry: WeightsFile, path: Path) -> None:
        causes = []
        print(f"fetching {entry.file}; licence: {entry.licence}", file=sys.stderr)
        part = path.with_name(f".{secrets.token_hex(6)}.part")
        for url in entry.mirrors:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _download(url, part, entry.file)
                if (found := file_hash(part)) != entry.sha256:
                    causes.append(f"{url}: SHA-256 {found[:12]}... instead of {entry.sha256[:12]}...")
                    continue
                os.replace(part, path)
                return
            except (OSError, urllib.error.URLError, ValueError) as error:
                causes.append(f"{url}: {os_cause(error)}")
            finally:
                part.unlink(missing_ok=True)
        raise WeightsMissing(f"the weights {entry.file} are not here and cannot be fetched ({'; '.join(causes)})")


def _download(url: str, target: Path, title: str) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, open(target, "wb") as file:
        total = int(answer.headers.get("content-length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=title, mininterval=2) as bar:
            while block := answer.read(1 << 20):
                file.write(block)
                bar.update(len(block))
