"""Who may import whom: the arrows of docs/architecture.md, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "eartalking"

# What each part may import from the package; a folder stands for all of its modules.
ALLOWED = {
    "__init__": {"checkpoint", "controls", "model", "session"},
    "errors": set(),
    "config": set(),
    "motion_vector": set(),
    "face_units": set(),
    "head_space": set(),
    "modules": {"modules"},
    "cores": set(),
    "controls": {"config", "errors"},
    "video": {"config", "errors"},
    "face": {"config", "errors"},
    "audio": {"modules", "config"},
    "frame_encoder": {"modules", "config"},
    "part_refiner": {"modules", "config"},
    "surface": {"modules", "config", "face_units", "head_space", "motion_vector"},
    "motion_fit": {"motion_vector", "surface"},
    "autoencoder": {"modules", "config", "frame_encoder", "motion_fit", "part_refiner", "surface"},
    "model": {"modules", "config", "controls", "audio", "autoencoder", "face_units", "motion_vector"},
    "checkpoint": {"config", "errors", "model"},
    "session": {"config", "errors", "controls", "face", "model"},
    "generate": {"", "config", "cores", "errors", "controls", "face", "video", "session", "checkpoint"},
    "face_reader": {"modules", "controls", "errors"},
    "data": {"config", "motion_vector"},
    "synth": {"synth", "config", "controls", "face_units", "head_space", "video"},
    "training": {
        "training",
        "synth",
        "data",
        "audio",
        "autoencoder",
        "checkpoint",
        "config",
        "controls",
        "model",
        "motion_vector",
        "video",
        "face",
        "face_reader",
        "face_units",
        "frame_encoder",
        "part_refiner",
        "surface",
        "modules",
        "errors",
    },
}
ELSEWHERE = {"av": {"video"}, "dlib": {"face"}, "cv2": set(), "gradio": set()}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = part(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in {"eval", "demo", "benchmarks", "app"}, f"{path} imports {name}"
        assert own in ELSEWHERE.get(top, {own}), f"{path} imports {name}"
        if top == "eartalking":
            assert rest.split(".")[0] in ALLOWED[own], f"{path} imports {name}"
