"""Who may import whom: the arrows of docs/architecture.md, read from the source of the whole tree."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SPINE = {"checkpoint", "config", "controls", "errors", "model", "session"}
# Room or module -> what it may import of the project. A name stands for everything below it; "eartalking" alone is the
# package's own public names. A module that is named overrules its room.
ALLOWED = {
    "eartalking": {f"eartalking.{name}" for name in ("checkpoint", "controls", "model", "session")},
    "eartalking.errors": set(),
    "eartalking.config": set(),
    "eartalking.modules": {"eartalking.modules"},
    "eartalking.control_files": {"eartalking.config"},
    "eartalking.controls": {f"eartalking.{name}" for name in ("config", "control_files", "errors")},
    "eartalking.level": {"eartalking.config"},
    "eartalking.io": {f"eartalking.{name}" for name in ("io", "config", "errors")},
    "eartalking.audio": {f"eartalking.{name}" for name in ("modules", "config")},
    "eartalking.motion": {f"eartalking.{name}" for name in ("motion", "config", "controls", "modules")},
    "eartalking.perception": {
        f"eartalking.{name}" for name in ("perception", "config", "controls", "errors", "io", "modules")
    },
    "eartalking.autoencoder": {
        f"eartalking.{name}" for name in ("autoencoder", "config", "modules", "motion", "perception")
    },
    "eartalking.model": {
        f"eartalking.{name}" for name in ("audio", "autoencoder", "config", "controls", "modules", "motion")
    },
    "eartalking.checkpoint": {f"eartalking.{name}" for name in ("config", "errors", "model")},
    "eartalking.workers": {"eartalking.io"},
    "eartalking.output": {f"eartalking.{name}" for name in ("autoencoder", "errors", "io", "modules", "perception")},
    "eartalking.session": {
        f"eartalking.{name}"
        for name in (
            "audio",
            "autoencoder",
            "config",
            "controls",
            "errors",
            "io",
            "level",
            "model",
            "modules",
            "motion",
            "output",
            "perception",
            "workers",
        )
    },
    "eartalking.live": {f"eartalking.{name}" for name in ("config", "level", "session", "workers")},
    "eartalking.generate": {"eartalking"}
    | {
        f"eartalking.{name}"
        for name in ("checkpoint", "config", "controls", "errors", "io", "level", "output", "perception", "session")
    },
    "eartalking.synth": {
        f"eartalking.{name}"
        for name in ("synth", "config", "controls", "errors", "io", "modules", "motion", "perception")
    },
    "eartalking.training": {
        f"eartalking.{name}"
        for name in (
            "training",
            "synth",
            "io",
            "audio",
            "autoencoder",
            "checkpoint",
            "config",
            "controls",
            "errors",
            "model",
            "modules",
            "motion",
            "perception",
        )
    },
    "eval": {"eval", "eartalking", "eartalking.modules.torchvision_operators"}
    | {
        f"eartalking.{name}"
        for name in ("audio", "config", "controls", "errors", "io", "motion", "perception", "synth")
    },
    "eval.networks.train_syncnet": {"eval"}
    | {
        f"eartalking.{name}"
        for name in ("config", "errors", "io", "modules", "synth", "training.data", "training.loop")
    },
    "benchmarks": {"benchmarks", "eval", "eartalking"}
    | {
        f"eartalking.{name}"
        for name in (*SPINE, "audio", "autoencoder", "io", "modules", "motion", "output", "perception", "synth")
    },
    # A baseline hears a training window as the model does.
    "benchmarks.methods.latent": {"benchmarks", "eartalking"}
    | {f"eartalking.{name}" for name in (*SPINE, "audio", "autoencoder", "modules", "motion", "training.data")},
    "benchmarks.methods.train_clip_diffusion": {"benchmarks", "eval", "eartalking"},
    "benchmarks.methods.distil_clip_diffusion": {"benchmarks", "eval", "eartalking"},
    "benchmarks.methods.train_motion_ar": {"benchmarks", "eval", "eartalking"},
    "benchmarks.methods.train_rivals": {"benchmarks", "eartalking"},
    "demo": {"demo", "benchmarks.leaderboard", "eartalking"}
    | {
        f"eartalking.{name}"
        for name in (
            "config",
            "controls",
            "errors",
            "io",
            "level",
            "live",
            "output",
            "perception",
            "session",
            "synth.voices",
        )
    },
    "app": {"demo"},
}
# A trainer of a baseline needs the training loop and its data: `eartalking` below stands for all rooms there.
WHOLE_LIBRARY = {
    f"benchmarks.methods.{name}"
    for name in ("train_clip_diffusion", "distil_clip_diffusion", "train_motion_ar", "train_rivals")
}
# A package of codecs, detectors, widgets, tables or plots -> the only places that know it.
PACKAGES = {
    "av": {"eartalking.io"},
    "dlib": {"eartalking.perception.identity", "eartalking.perception.frontal_detector"},
    "cv2": set(),
    "gradio": {"demo"},
    "moderngl": {"eartalking.synth"},
    "accelerate": {"eartalking.training", "benchmarks.methods", "benchmarks.compare", "eval.networks.train_syncnet"},
    "pandas": {"benchmarks", "demo.leaderboard"},
    "matplotlib": {"benchmarks.leaderboard", "benchmarks.long_streams", "eartalking.training.curves"},
    "playwright": {"benchmarks.demo_latency", "benchmarks.demo_page", "benchmarks.live_latency"},
    "lpips": {"eval.networks"},
    "insightface": {"eval.networks"},
    "torchvision": {"eartalking.modules.torchvision_operators"},
    "pytorch_fid": {"eval.networks"},
    "python_speech_features": {"eval.networks"},
    "pooch": {"eval.networks"},
    "torchmetrics": {"eval"},
    "transformers": {"eartalking.audio"},
    "huggingface_hub": {"eartalking.checkpoint", "demo.deploy"},
}
OURS = {"eartalking", "eval", "benchmarks", "demo", "app", "tests"}
SOURCES = [
    path
    for top in ("eartalking", "eval", "benchmarks", "demo", "app.py")
    for path in sorted([ROOT / top] if top.endswith(".py") else (ROOT / top).rglob("*.py"))
]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removesuffix(".__main__")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def allowed_for(module: str) -> set[str]:
    owner = max((place for place in ALLOWED if within(module, {place})), key=len)
    return ALLOWED[owner]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    module = name_of(path)
    allowed = allowed_for(module)
    for name in imported(path):
        top = name.split(".")[0]
        if top in PACKAGES:
            assert within(module, PACKAGES[top]), f"{path} imports {name}"
        if top not in OURS:
            continue
        whole = name == "eartalking" or module in WHOLE_LIBRARY or not name.startswith("eartalking.")
        rest = allowed - {"eartalking"} if name.startswith("eartalking.") and not whole else allowed
        assert within(name, rest), f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_way_of_importing(path: Path) -> None:
    """The project's own names come by `from module import name`: never a module as a bag of names."""
    modules = {name_of(source) for source in SOURCES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] in OURS for alias in node.names), f"{path}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            for alias in node.names:
                assert f"{node.module}.{alias.name}" not in modules, f"{path}:{node.lineno} imports a module"


def test_every_room_is_named() -> None:
    """A new room or module at the top of the library has its own line above."""
    tops = {".".join(name_of(path).split(".")[:2]) for path in SOURCES if name_of(path).startswith("eartalking.")}
    assert tops <= set(ALLOWED)
