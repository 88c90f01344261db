"""One training loop for every stage: schedule, EMA, resume, log and samples on disk.

A run is a folder: `state.pt` (everything needed to go on, rewritten every few minutes), `log.jsonl` (one row per
report), `samples/` (pictures). Starting a run again with the same folder resumes it; `--max-minutes` ends a slice early
and keeps the state, so that a run can be spread over many short leases of a machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

Losses = dict[str, Tensor]


def _option(help: str, **field_options: Any) -> Any:
    """A field that is a flag of every stage's command line."""
    return field(metadata={"help": help}, **field_options)


@dataclass(frozen=True)
class RunOptions:
    """How long and how fast; the learning rate warms up, stays, and decays linearly to zero over the last share.

    Every field that has a help text is a flag of every stage: its name, type and default are the field's.
    """

    out: Path = _option("run folder; resumed when it holds a state")
    steps: int = _option("total optimizer steps of the run")
    batch_size: int = _option("samples per step")
    learning_rate: float = _option("of AdamW, after the warm-up")
    warmup_steps: int = _option("steps with rising rate", default=200)
    decay_share: float = _option("last share of the steps with falling rate", default=0.3)
    minutes: float = _option(
        "length of the run where steps do not say it: it ends, its rate fallen, after so many", default=float("inf")
    )
    ema_decay: float = _option("of the moving average that is evaluated and saved", default=0.999)
    max_minutes: float = _option("end this slice early, keep the state", default=float("inf"))
    eval_every: int = _option("steps between evaluations", default=500)
    precision: Literal["auto", "no", "bf16"] = _option(
        "of the forward pass; auto: bf16 on a GPU, and on a CPU that has it", default="auto"
    )
    seed: int = _option("of everything that is drawn", default=0)
    weight_decay: float = 0.01
    save_minutes: float = 4.0
    log_every: int = 25

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, **defaults: Any) -> None:
        """Add the flags; `defaults` are the stage's own, for fields that have none or another one."""
        types = typing.get_type_hints(cls)
        for item in fields(cls):
            if "help" not in item.metadata:
                continue
            default = defaults.get(item.name, item.default)
            choices = typing.get_args(types[item.name]) or None
            parser.add_argument(
                f"--{item.name.replace('_', '-')}",
                type=str if choices else types[item.name],
                choices=choices,
                default=None if default is MISSING else default,
                required=default is MISSING,
                help=item.metadata["help"],
            )

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> RunOptions:
        """The options out of what `add_arguments` added."""
        return cls(**{item.name: getattr(args, item.name) for item in fields(cls) if hasattr(args, item.name)})

    @property
    def mixed_precision(self) -> str:
        """As accelerate names it: "no" or "bf16"."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if has_bf16() else "no"

    def progress(self, step: int, seconds: float = 0.0) -> float:
        """How much of the run is over after so many steps and seconds: 0..1."""
        return min(1.0, max(step / self.steps, seconds / (60 * self.minutes)))

    def rate(self, step: int, seconds: float = 0.0) -> float:
        """Learning-rate factor in 0..1 after so many steps and seconds."""
        left = (1 - self.progress(step, seconds)) / max(self.decay_share, 1e-9)
        return min(1.0, (step + 1) / self.warmup_steps, left)


def has_bf16() -> bool:
    """Whether this machine is faster in bfloat16. A CPU without AVX-512 makes it up from float32, and takes five to ten
    times as long for a convolution."""
    return torch.cuda.is_available() or "AVX512" in torch.backends.cpu.get_cpu_capability()


class Ema:
    """Exponential moving average of a module's parameters; the decay warms up so that short runs profit too."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = list(module.parameters())
        torch._foreach_lerp_(list(self.module.parameters()), [p.detach() for p in parameters], 1 - decay)
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)


def train(
    module: nn.Module,
    next_batch: Callable[[], Any],
    compute_losses: Callable[[nn.Module, Any, float], Losses],
    evaluate: Callable[[nn.Module, int], dict[str, float]],
    options: RunOptions,
    accelerator: Accelerator,
) -> nn.Module:
    """Run one stage and return the EMA module, in eval mode.

    `compute_losses(module, batch, progress)` returns named scalars at a progress of 0..1 through the run; "loss" is
    minimised, the others are logged.
    `evaluate(ema_module, step)` may write pictures under `options.out / "samples"` and returns named numbers.
    Only parameters that require gradients are trained.
    """
    run = _Run(module, options, accelerator)
    bar = tqdm(
        total=options.steps, initial=run.step, unit="step", disable=not accelerator.is_main_process, mininterval=5
    )
    sums: dict[str, float] = {}
    while run.progress < 1 and run.seconds_here() < options.max_minutes * 60:
        with accelerator.autocast():
            losses = compute_losses(run.module, next_batch(), run.progress)
        run.update(losses["loss"])
        bar.update()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if run.step % options.log_every == 0:
            means = {name: round(total / options.log_every, 5) for name, total in sums.items()}
            sums.clear()
            bar.set_postfix(means, refresh=False)
            run.log(means)
        if run.step % options.eval_every == 0:
            run.evaluate(evaluate)
        run.save_if_due()
    if run.progress == 1:
        run.evaluate(evaluate)
    run.save()
    bar.close()
    return run.ema.module.eval()


class _Run:
    """What changes while a stage trains, and its folder: everything that is needed to go on is in `state.pt`."""

    def __init__(self, module: nn.Module, options: RunOptions, accelerator: Accelerator) -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        self.options, self.accelerator = options, accelerator
        self.trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained, lr=options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
        )
        self.ema = Ema(module, options.ema_decay)
        self.path = options.out / "state.pt"
        self.step, self.elapsed, self.evaluated = 0, 0.0, -1
        if self.path.exists():
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            module.load_state_dict(state["module"])
            self.ema.module.load_state_dict(state["ema"])
            optimizer.load_state_dict(state["optimizer"])
            self.step, self.elapsed = state["step"], state["elapsed_seconds"]
            self.evaluated = state.get("evaluated", self.step)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self.ema.module.to(accelerator.device)
        self.module.train()
        self.started = self.saved = time.monotonic()

    def seconds_here(self) -> float:
        """Since this slice of the run began."""
        return time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """How much of the run is over, 0..1, all slices together."""
        return self.options.progress(self.step, self.elapsed + self.seconds_here())

    def evaluate(self, evaluate: Callable[[nn.Module, int], dict[str, float]]) -> None:
        """Log what `evaluate` says of the moving average, once per step."""
        if not self.accelerator.is_main_process or self.evaluated == self.step:
            return
        with torch.no_grad():
            numbers = evaluate(self.ema.module, self.step)
        self.log({f"eval_{name}": round(value, 5) for name, value in numbers.items()})
        self.evaluated = self.step

    def update(self, loss: Tensor) -> None:
        """One optimizer step down the loss's gradient."""
        rate = self.options.rate(self.step, self.elapsed + self.seconds_here())
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * rate
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(self.accelerator.unwrap_model(self.module), self.step)

    def save_if_due(self) -> None:
        """Save once every few minutes."""
        if time.monotonic() - self.saved > self.options.save_minutes * 60:
            self.save()
            self.saved = time.monotonic()

    def save(self) -> None:
        """Write the state; the one before is replaced only by a whole one."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "module": self.accelerator.unwrap_model(self.module).state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_seconds": self.elapsed + self.seconds_here(),
            "evaluated": self.evaluated,
        }
        torch.save(state, self.path.with_suffix(".partial"))
        os.replace(self.path.with_suffix(".partial"), self.path)

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to `log.jsonl`."""
        if self.accelerator.is_main_process:
            row = {"step": self.step, "seconds": round(self.elapsed + self.seconds_here(), 1), **row}
            with (self.options.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
