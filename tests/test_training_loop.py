"""The one training loop: resumed equals uninterrupted, its rate, its average, its flags."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from eartalking.training.loop import Ema, RunOptions, train


def fit(out: Path, steps: int, max_minutes: float = float("inf")) -> nn.Module:
    """A deterministic toy run: the batch depends on the step alone."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)

    def losses(model: nn.Module, batch: None, progress: float) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(round(progress * steps)))
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    options = RunOptions(out, steps, 16, 0.05, warmup_steps=2, precision="no", max_minutes=max_minutes, eval_every=1000)
    return train(module, lambda: None, losses, lambda model, step: {}, options, Accelerator(cpu=True))


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 30)
    fit(tmp_path / "parts", 30, max_minutes=0)  # an empty slice keeps a state, too
    state = tmp_path / "parts" / "state.pt"
    assert torch.load(state, weights_only=True)["step"] == 0
    resumed = fit(tmp_path / "parts", 30)
    torch.testing.assert_close(resumed.weight, whole.weight)
    torch.testing.assert_close(fit(tmp_path / "whole", 30).weight, whole.weight)  # nothing left to do


def test_rate_warms_up_stays_and_decays(tmp_path: Path) -> None:
    options = RunOptions(tmp_path, 1000, 1, 1.0, warmup_steps=100, decay_share=0.2)
    assert options.rate(0) == pytest.approx(0.01)
    assert options.rate(99) == options.rate(500) == 1.0 and options.rate(800) == pytest.approx(1.0)
    assert options.rate(900) == pytest.approx(0.5)
    assert options.rate(1000) == 0.0


def test_a_run_can_be_told_in_minutes(tmp_path: Path) -> None:
    options = RunOptions(tmp_path, 10**9, 1, 1.0, warmup_steps=1, decay_share=0.2, minutes=10)
    assert options.rate(5, 60 * 7) == 1.0 and options.rate(5, 60 * 9) == pytest.approx(0.5)
    assert options.rate(5, 60 * 10) == options.rate(5, 60 * 20) == 0.0
    short = RunOptions(
        tmp_path / "run", 10**9, 16, 0.05, warmup_steps=2, precision="no", eval_every=10**6, minutes=1e-3
    )
    module, asked = nn.Linear(4, 1), []

    def losses(model: nn.Module, batch: None, progress: float) -> dict[str, torch.Tensor]:
        asked.append(progress)
        return {"loss": model(torch.ones(16, 4)).square().mean()}

    def run() -> list[dict]:
        train(module, lambda: None, losses, lambda model, step: {"seen": 1.0}, short, Accelerator(cpu=True))
        written = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
        return [row for row in written if "eval_seen" in row]

    (row,) = run()
    assert row["step"] == len(asked) and asked == sorted(asked) and asked[-1] < 1
    assert run() == [row], "what is over is neither trained nor evaluated again"


def test_ema_follows(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    ema = Ema(module, 0.5)
    with torch.no_grad():
        module.weight.add_(1.0)
    before = ema.module.weight.clone()
    ema.update(module, step=100)
    torch.testing.assert_close(ema.module.weight, (before + module.weight) / 2)


def test_every_stage_takes_the_flags_and_defaults_of_the_options() -> None:
    parser = argparse.ArgumentParser()
    RunOptions.add_arguments(parser, steps=7, batch_size=3, learning_rate=0.1, warmup_steps=2)
    options = RunOptions.from_arguments(parser.parse_args(["--out", "run", "--ema-decay", "0.5", "--precision", "no"]))
    assert options == RunOptions(Path("run"), 7, 3, 0.1, warmup_steps=2, ema_decay=0.5, precision="no")
    with pytest.raises(SystemExit):
        parser.parse_args([])
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", "run", "--precision", "fp8"])
