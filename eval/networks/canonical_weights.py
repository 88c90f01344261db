"""The field's own network weights: where they come from, what they must hash to, and where they lie on this machine.

`canonical_weights.json` is the manifest. A file is looked for in the folder of `--weights` or of the environment
variable EARTALKING_WEIGHTS, else in the user's cache. With fetch=True (`--fetch`) pooch fetches a missing file from its
mirrors in turn; EARTALKING_OFFLINE=1 forbids it. A file whose SHA-256 differs is refused, wherever it came from: its
number would stand under a false name.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pooch

from eartalking.errors import os_cause
from eval.cache import default_folder, file_hash

MANIFEST = Path(__file__).with_name("canonical_weights.json")
FOLDER_VARIABLE = "EARTALKING_WEIGHTS"
OFFLINE_VARIABLE = "EARTALKING_OFFLINE"
TIMEOUT_SECONDS = 30
# This goes into result files, which are read elsewhere: it names no folder of this machine.
_HOW = f"put them into the folder of --weights or {FOLDER_VARIABLE}, or --fetch them"


class WeightsMissing(RuntimeError):
    """Weights that are not on this machine; the message says why, and where to put them."""


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
            hashes = f"SHA-256 {found[:12]}... instead of {entry.sha256[:12]}..."
            raise WeightsMissing(f"{entry.file} is another file of that name: {hashes}")
        return path

    def _fetch(self, entry: WeightsFile, path: Path) -> None:
        print(f"fetching {entry.file}; licence: {entry.licence}", file=sys.stderr)
        causes = []
        for url in entry.mirrors:
            download = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, progressbar=True)
            try:
                # It fetches into a temporary file, and moves it here only if the hash is right.
                pooch.retrieve(url, f"sha256:{entry.sha256}", path.name, path.parent, downloader=download)
                return
            except (OSError, ValueError) as error:  # no answer (requests' errors are OSErrors); another hash
                causes.append(f"{url}: {os_cause(error)}")
        raise WeightsMissing(f"the weights {entry.file} are not here and cannot be fetched ({'; '.join(causes)})")
