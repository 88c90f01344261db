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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class RunOptions:
    """How long and how fast; the learning rate warms up, stays, and decays linearly to zero over the last share."""

    out: Path
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 200
    decay_share: float = 0.3
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    max_minutes: float = float("inf")
    save_minutes: float = 4.0
    eval_every: int = 500
    log_every: int = 25
    precision: str = "bf16"
    seed: int = 0

    @staticmethod
    def add_arguments(
        parser: argparse.ArgumentParser, *, steps: int, batch_size: int, learning_rate: float, warmup_steps: int = 200
    ) -> None:
        parser.add_argument("--out", type=Path, required=True, help="run folder; resumed when it holds a state")
        parser.add_argument("--steps", type=int, default=steps, help="total optimizer steps of the run")
        parser.add_argument("--batch-size", type=int, default=batch_size)
        parser.add_argument("--learning-rate", type=float, default=learning_rate)
        parser.add_argument("--warmup-steps", type=int, default=warmup_steps)
        parser.add_argument("--decay-share", type=float, default=0.3, help="last share of the steps with falling rate")
        parser.add_argument("--ema-decay", type=float, default=0.999)
        parser.add_argument(
            "--max-minutes", type=float, default=float("inf"), help="end this slice early, keep the state"
        )
        parser.add_argument("--eval-every", type=int, default=500, help="steps between evaluations")
        parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
        parser.add_argument("--seed", type=int, default=0)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> RunOptions:
        names = {name for name in cls.__dataclass_fields__ if hasattr(args, name)}
        return cls(**{name: getattr(args, name) for name in names})

    def rate(self, step: int) -> float:
        """Learning-rate factor in 0..1 at a step."""
        decay_steps = max(1, round(self.steps * self.decay_share))
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, (self.steps - step) / decay_steps))


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
    compute_losses: Callable[[nn.Module, Any, int], Losses],
    evaluate: Callable[[nn.Module, int], dict[str, float]],
    options: RunOptions,
    accelerator: Accelerator,
) -> nn.Module:
    """Run one stage and return the EMA module, in eval mode.

    `compute_losses(module, batch, step)` returns named scalars; "loss" is minimised, the others are logged.
    `evaluate(ema_module, step)` may write pictures under `options.out / "samples"` and returns named numbers.
    Only parameters that require gradients are trained.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
    )
    ema = Ema(module, options.ema_decay)
    state_path = options.out / "state.pt"
    step, elapsed = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["module"])
        ema.module.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed_seconds"]
    module, optimizer = accelerator.prepare(module, optimizer)
    ema.module.to(accelerator.device)
    module.train()
    started = saved = time.monotonic()
    sums: dict[str, float] = {}
    bar = tqdm(total=options.steps, initial=step, unit="step", disable=not accelerator.is_main_process, mininterval=5)

    def save() -> None:
        if accelerator.is_main_process:
            state = {
                "module": accelerator.unwrap_model(module).state_dict(),
                "ema": ema.module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "elapsed_seconds": elapsed + time.monotonic() - started,
            }
            torch.save(state, state_path.with_suffix(".partial"))
            os.replace(state_path.with_suffix(".partial"), state_path)

    def log(row: dict[str, Any]) -> None:
        if accelerator.is_main_process:
            row = {"step": step, "seconds": round(elapsed + time.monotonic() - started, 1), **row}
            with (options.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

    while step < options.steps and time.monotonic() - started < options.max_minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * options.rate(step)
        with accelerator.autocast():
            losses = compute_losses(module, next_batch(), step)
        accelerator.backward(losses["loss"])
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        ema.update(accelerator.unwrap_model(module), step)
        bar.update()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % options.log_every == 0:
            means = {name: round(total / options.log_every, 5) for name, total in sums.items()}
            sums.clear()
            bar.set_postfix(means, refresh=False)
            log(means)
        if (step % options.eval_every == 0 or step == options.steps) and accelerator.is_main_process:
            with torch.no_grad():
                log({f"eval_{name}": round(value, 5) for name, value in evaluate(ema.module, step).items()})
        if time.monotonic() - saved > options.save_minutes * 60:
            save()
            saved = time.monotonic()
    save()
    bar.close()
    return ema.module.eval()
