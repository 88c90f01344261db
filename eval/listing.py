"""Which clips are judged: two folders matched by name, or a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eartalking.errors import InputError, os_cause
from eval.clips import ARRAYS_SUFFIX

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ARRAYS_SUFFIX)
PORTRAIT_SUFFIXES = (".portrait.png", ".portrait.jpg")
CONTROL_SUFFIXES = (".controls.json", ".controls.csv")
LABELS_SUFFIX = ".labels.npz"  # what a SynthTalk clip's labels are called: no video
_FILE_KEYS = ("ref", "pred", "portrait", "controls")


@dataclass(frozen=True)
class Pair:
    """The files of one clip. pred is None where no video was made; portrait and controls where there are none."""

    name: str
    pred: Path | None
    ref: Path
    portrait: Path | None = None
    controls: Path | None = None


def list_pairs(pred_dir: Path, truth: Path) -> tuple[list[Pair], list[str]]:
    """`read_manifest` where the truth is a file (any `.json` is taken for one), else `find_pairs`.

    Raises:
        InputError: as these two.
    """
    if truth.suffix.lower() == ".json" or truth.is_file():
        return read_manifest(truth, pred_dir), []
    return find_pairs(pred_dir, truth)


def find_pairs(pred_dir: Path, ref_dir: Path) -> tuple[list[Pair], list[str]]:
    """Every video of `ref_dir` (subfolders included) with the video of `pred_dir` of the same name up to the suffix,
    and a line for every video of `pred_dir` that has no truth.

    Beside the truth, or beside the made video (which wins), `NAME.controls.json` or `.csv` is what was asked for, and
    `NAME.portrait.png` or `.jpg` the portrait.

    Raises:
        InputError: a folder is missing, not a folder, holds no video, or two videos differ in their suffix only.
    """
    refs, preds = _videos(ref_dir), _videos(pred_dir)
    folders = pred_dir, ref_dir
    beside = {name: [_beside(folders, name, kind) for kind in (PORTRAIT_SUFFIXES, CONTROL_SUFFIXES)] for name in refs}
    pairs = [Pair(name, preds.get(name), path, *beside[name]) for name, path in refs.items()]
    unmatched = [path for name, path in preds.items() if name not in refs]
    return pairs, [f"{path}: no video of that name in {ref_dir}; it is not judged" for path in unmatched]


def read_manifest(path: Path, pred_dir: Path) -> list[Pair]:
    """The clips of a JSON file `{"clips": [{"name", "ref", "pred", "portrait", "controls"}, ...]}`, paths relative to
    it.

    Only `ref` is needed: `name` is its stem otherwise, `pred` the video of that name in `pred_dir`. Other keys are not
    read. Whether the files exist is found out later, clip by clip.

    Raises:
        InputError: the file is missing, broken, empty, or names a clip twice.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(path, os_cause(error)) from None
    except UnicodeDecodeError:
        raise InputError(path, "expected a folder of videos, or a clip list in JSON") from None
    except json.JSONDecodeError as error:
        raise InputError(path, f"broken JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    clips = document.get("clips") if isinstance(document, dict) else None
    if not isinstance(clips, list) or not clips:
        raise InputError(path, 'expected {"clips": [{"ref": FILE, ...}, ...]} with at least one clip')
    preds = _videos(pred_dir)
    pairs = [_pair(path, number, clip, preds) for number, clip in enumerate(clips, start=1)]
    names = [pair.name for pair in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(path, f"the clip {twice!r} appears twice")
    return pairs


def _pair(path: Path, number: int, clip: Any, preds: dict[str, Path]) -> Pair:
    if not isinstance(clip, dict) or not isinstance(clip.get("ref"), str):
        raise InputError(path, f'clip {number}: expected {{"ref": FILE, ...}}, not {clip!r}')
    wrong = next((key for key in ("name", *_FILE_KEYS) if not isinstance(clip.get(key, ""), str)), None)
    if wrong is not None:
        raise InputError(path, f"clip {number}: {wrong} must be a text, not {clip[wrong]!r}")
    name = clip.get("name") or Path(clip["ref"]).with_suffix("").name
    files = {key: path.parent / clip[key] for key in _FILE_KEYS if key in clip}
    return Pair(name, files.get("pred", preds.get(name)), files["ref"], files.get("portrait"), files.get("controls"))


def _videos(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(folder, "is not a folder" if folder.exists() else "no such folder")
    videos: dict[str, Path] = {}
    for path in _files(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in videos:
            raise InputError(path, f"{videos[name].name} is there too: which one is meant?")
        videos[name] = path
    if not videos:
        raise InputError(folder, f"no videos here ({', '.join(VIDEO_SUFFIXES)})")
    return videos


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        is_video = path.suffix.lower() in VIDEO_SUFFIXES and not path.name.endswith(LABELS_SUFFIX)
        if is_video and not hidden and path.is_file():
            yield path


def _beside(folders: tuple[Path, ...], name: str, suffixes: tuple[str, ...]) -> Path | None:
    candidates = [folder / (name + suffix) for folder in folders for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), None)
