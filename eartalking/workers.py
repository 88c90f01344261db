"""The threads that frames are computed in. A frame passes three stages:

    motion     voice and controls -> latents; needs the state that the frame before left
    geometry   latents -> where every pixel of the portrait goes
    pixels     -> the picture

Each of these begins when what it needs is done: motion after the frame before it, the others after the stage before
them. There is a thread for each core, four at most, and each takes up the next piece of work that can begin: so none
waits while there is anything to do, and no core is shared by two, which would throw out each other's cache. (A thread
for each stage, three of them on two cores, made 4 % fewer frames.)

All streams of a process share these threads, and nothing else in it needs to compute with PyTorch while they do.
PyTorch uses one thread inside each operator there: a second one makes a stream hardly faster (39.4 instead of 39.5 ms a
frame, measured on two cores), while frames side by side do; and frames do not depend on the number of cores.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from eartalking.io.threads import granted_cores

# Frames of a stream under way at a time. Motion is a third of the work and follows frame after frame, so that more
# threads would have nothing to do; and those under way are lost when a control changes.
UNDER_WAY = 3
MOST_THREADS = 4  # more of them mostly wait for the interpreter
# Seconds that a thread may hold the interpreter while others wait for it, instead of 0.005: a frame starts two thousand
# operators, and waited for the interpreter before many of them. Frames come 10 % faster.
SWITCH_INTERVAL = 1e-4
Result = TypeVar("Result")


def submit(function: Callable[..., Result], *arguments: object) -> Future[Result]:
    """Have `function` computed without gradients, as soon as those of its arguments that are futures are done, however
    they end. It gets the futures themselves."""
    result: Future[Result] = Future()
    work = [(result, function, arguments)]
    _after([argument for argument in arguments if isinstance(argument, Future)], work)
    return result


def _after(needed: list[Future[Any]], work: list[tuple[Any, ...]]) -> None:
    """Begin `work`, a list of one, when the futures are done. Both lists are emptied: a future keeps what it called,
    and would keep itself and all that follows it alive."""
    if needed:
        needed.pop().add_done_callback(lambda _: _after(needed, work))
        return
    result, function, arguments = work.pop()
    try:
        _threads().submit(_compute, result, function, arguments)
    except RuntimeError:  # the interpreter is about to end
        result.cancel()


def _compute(result: Future[Result], function: Callable[..., Result], arguments: tuple[object, ...]) -> None:
    if not result.set_running_or_notify_cancel():
        return
    try:
        with torch.inference_mode():
            value = function(*arguments)
    except BaseException as error:
        result.set_exception(error)
    else:
        result.set_result(value)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(granted_cores(), MOST_THREADS), "frames", initializer=_set_up)


def _set_up() -> None:
    # Of PyTorch's threads, this also sets what threads get that have not used PyTorch yet: it keeps one number for all
    # of those.
    torch.set_num_threads(1)
    sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not live on in a forked process
