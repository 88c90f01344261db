"""Methods of the comparison, one small adapter each: `built_in` makes them all, `choose` those that a command line
names, `argument` names them again.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.methods.base import Method
from benchmarks.methods.clip_diffusion import ClipDiffusion, FewStepClipDiffusion
from benchmarks.methods.external import External
from benchmarks.methods.latent import LatentBaseline
from benchmarks.methods.motion_ar import MotionAr
from benchmarks.methods.ours import Ours, ShuffledAudio, TrueMotion, ablations
from benchmarks.methods.references import CopyPrevious, GroundTruth, StaticPortrait
from eartalking.checkpoint import DEFAULT_CHECKPOINT

BASELINES: dict[str, type[LatentBaseline]] = {
    baseline.name: baseline for baseline in (ClipDiffusion, FewStepClipDiffusion, MotionAr)
}


def built_in(checkpoint: str = DEFAULT_CHECKPOINT) -> dict[str, Method]:
    """Every method that is known, by name, in the order of the tables; ours and the baselines decode with
    `checkpoint`.
    """
    methods: list[Method] = [
        GroundTruth(),
        Ours(checkpoint=checkpoint),
        *(make(checkpoint) for make in BASELINES.values()),
        *ablations(checkpoint),
        TrueMotion(checkpoint),
        ShuffledAudio(checkpoint),
        CopyPrevious(),
        StaticPortrait(),
    ]
    return {method.name: method for method in methods}


def choose(names: list[str], externals: list[Path], checkpoint: str = DEFAULT_CHECKPOINT) -> list[Method]:
    """The named methods: built-in names, "all" of them that ship, NAME=CHECKPOINT for another model of ours, or
    NAME=BASELINE:FILE for other weights of a baseline; and the external ones.

    Raises:
        ValueError: an unknown name, or one name twice.
        InputError: a description of an external method that cannot be used.
    """
    known = built_in(checkpoint)
    chosen: list[Method] = []
    for name in names:
        own, equals, place = name.partition("=")
        baseline, colon, weights = place.partition(":")
        if name == "all":
            chosen += [method for method in known.values() if method.ships]
        elif own and colon and baseline in BASELINES:
            chosen.append(BASELINES[baseline](checkpoint, Path(weights), own))
        elif own and equals and place:
            about = f"this project's model, checkpoint {'/'.join(Path(place).parts[-2:])}"
            chosen.append(Ours(own, about, place, kind="retrained"))
        elif name in known:
            chosen.append(known[name])
        else:
            known_names = ", ".join(["all", *known, "NAME=CHECKPOINT", "NAME=BASELINE:FILE"])
            raise ValueError(f"unknown method {name!r}; known: {known_names}")
    chosen += [External(path) for path in externals]
    twice = {method.name for method in chosen if sum(other.name == method.name for other in chosen) > 1}
    if twice:
        raise ValueError(f"two methods are called {', '.join(sorted(twice))}")
    return chosen


def argument(method: Method) -> str:
    """How `choose` finds the same method again, in another process."""
    if method.name in built_in():
        return method.name
    if isinstance(method, LatentBaseline):
        return f"{method.name}={type(method).name}:{method.weights}"
    return f"{method.name}={getattr(method, 'checkpoint', '')}"
