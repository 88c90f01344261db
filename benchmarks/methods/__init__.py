"""Methods of the comparison, one small adapter each: `built_in` makes them all, `choose` those that a command line
names.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.methods.base import Method
from benchmarks.methods.clip_diffusion import ClipDiffusion, FewStepClipDiffusion
from benchmarks.methods.external import External
from benchmarks.methods.motion_ar import MotionAr
from benchmarks.methods.ours import Ours, ShuffledAudio, ablations
from benchmarks.methods.references import CopyPrevious, GroundTruth, StaticPortrait
from eartalking.checkpoint import DEFAULT_CHECKPOINT


def built_in(checkpoint: str = DEFAULT_CHECKPOINT) -> dict[str, Method]:
    """Every method that is known, by name, in the order of the tables; ours and the baselines decode with
    `checkpoint`.
    """
    methods: list[Method] = [
        GroundTruth(),
        Ours(checkpoint=checkpoint),
        ClipDiffusion(checkpoint),
        FewStepClipDiffusion(checkpoint),
        MotionAr(checkpoint),
        *ablations(checkpoint),
        ShuffledAudio(checkpoint),
        CopyPrevious(),
        StaticPortrait(),
    ]
    return {method.name: method for method in methods}


def choose(names: list[str], externals: list[Path], checkpoint: str = DEFAULT_CHECKPOINT) -> list[Method]:
    """The named methods: built-in names, "all" of them that ship, or NAME=CHECKPOINT for another model of ours; and the
    external ones.

    Raises:
        ValueError: an unknown name, or one name twice.
        InputError: a description of an external method that cannot be used.
    """
    known = built_in(checkpoint)
    chosen: list[Method] = []
    for name in names:
        own, equals, folder = name.partition("=")
        if name == "all":
            chosen += [method for method in known.values() if method.ships]
        elif equals and own and folder:
            about = f"this project's model, checkpoint {'/'.join(Path(folder).parts[-2:])}"
            chosen.append(Ours(own, about, folder, kind="retrained"))
        elif name in known:
            chosen.append(known[name])
        else:
            raise ValueError(f"unknown method {name!r}; known: all, {', '.join(known)}, or NAME=CHECKPOINT")
    chosen += [External(path) for path in externals]
    twice = {method.name for method in chosen if sum(other.name == method.name for other in chosen) > 1}
    if twice:
        raise ValueError(f"two methods are called {', '.join(sorted(twice))}")
    return chosen
