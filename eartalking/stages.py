"""The three stages that every frame passes. Each has a thread of its own, so three frames can be computed at once.

    motion     voice and controls -> latents; needs the state that the frame before left
    geometry   latents -> where every pixel of the portrait goes
    pixels     -> the picture

All streams of a process share these three threads, and nothing else in it needs to compute with PyTorch while they do.
PyTorch uses one thread inside each operator there: a second one makes a stream hardly faster (39.4 instead of 39.5 ms a
frame, measured on two cores), while three stages side by side do; and frames do not depend on the number of cores.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

MOTION, GEOMETRY, PIXELS = STAGES = ("motion", "geometry", "pixels")
# Frames under way at a time: one more than there are stages, so that a stage that is done finds work waiting where the
# one before is slow now and then. On two cores 8 % faster than without.
UNDER_WAY = len(STAGES) + 1
# Seconds that a thread may hold the interpreter while others wait for it, instead of 0.005: a stage starts a thousand
# operators a frame, and waited for the interpreter before many of them. Frames come 2 to 4 % faster.
SWITCH_INTERVAL = 1e-4
Result = TypeVar("Result")


def submit(stage: str, function: Callable[..., Result], *arguments: object) -> Future[Result]:
    """Have `function` computed by the thread of a stage, without gradients, after what was submitted there before.

    Work may wait for the futures of earlier stages, and of its own stage's earlier work: those threads never wait for
    later ones.
    """
    return _thread(stage).submit(_compute, function, *arguments)


@torch.inference_mode()
def _compute(function: Callable[..., Result], *arguments: object) -> Result:
    return function(*arguments)


@functools.cache
def _thread(stage: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, stage, initializer=_set_up)


def _set_up() -> None:
    # Of PyTorch's threads, this also sets what threads get that have not used PyTorch yet: it keeps one number for all
    # of those.
    torch.set_num_threads(1)
    sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.cache_clear)  # threads do not live on in a forked process
