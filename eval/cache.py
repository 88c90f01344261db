"""Features on disk, named by what they come from: file, protocol and extractor. The same ones are computed once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def default_folder() -> Path:
    """Where features are kept by default: in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eartalking" / "eval"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FeatureCache:
    """A folder of `.npz` files; without one, features live as long as this object. `computed` counts what was not
    found.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.computed = 0
        self._kept: dict[tuple[str, ...], Arrays] = {}

    def get(self, key: tuple[str, ...], compute: Callable[[], Mapping[str, np.ndarray]]) -> Arrays:
        """The arrays stored under `key`, or those of `compute()`, which are stored. What `compute` raises is not
        stored.
        """
        path = self._path(key)
        if path is None and key in self._kept:
            return dict(self._kept[key])
        if path is not None and path.is_file():
            try:
                with np.load(path, allow_pickle=False) as stored:
                    return dict(stored)
            except (OSError, ValueError, EOFError, KeyError):
                pass  # cut short by a crash or a full disk: computed again
        arrays = {name: np.asarray(value) for name, value in compute().items()}
        self.computed += 1
        if path is None:
            self._kept[key] = dict(arrays)
        else:
            self._store(path, arrays)
        return arrays

    def _path(self, key: tuple[str, ...]) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:34]}.npz"

    def _store(self, path: Path, arrays: Mapping[str, Any]) -> None:
        part = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                np.savez(file, **arrays)
            os.replace(part, path)  # at once, because several processes may write and read the same key
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()  # without the cache the next run takes longer; the result is the same
