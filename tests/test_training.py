"""The whole pipeline at toy size, by its own commands: render, train each stage, resume, stream."""
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from eartalking import StreamSession, load_model
from eartalking.data import LatentClips, StillPairs, find_clips
from eartalking.synth import clips
from eartalking.synth.speech import Utterance
from eartalking.training import audio, autoencoder, encode, teacher_forcing
from eartalking.training.common import Ema, RunOptions, train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def speech(root: Path) -> Path:
    """A corpus of two utterances that need no synthesiser."""
    folder = root / "speech"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "split", "voice", "seconds", "licence", "text"])
        for index in range(2):
            phones = [("SIL", 0.0, 0.3), ("AA", 0.3, 0.8), ("M", 0.8, 0.95), ("IY", 0.95, 1.4), ("SIL", 1.4, 1.6)]
            waveform = rng.normal(0, 0.1, 25600).astype(np.float32)
            Utterance(waveform, phones, "a me", f"test/{index}", "none", [0.5]).save(folder / f"{index}.npz")
            writer.writerow([f"{index}.npz", "train", f"test/{index}", "1.6", "none", "a me"])
    return folder


@pytest.fixture(scope="module")
def stills(root: Path) -> Path:
    folder = root / "stills"
    assert clips.main(["--out", str(folder), "--kind", "stills", "--count", "2", "--frames", "4", "--size", "64"]) == 0
    return folder


@pytest.fixture(scope="module")
def talking(root: Path, speech: Path) -> Path:
    folder = root / "talking"
    arguments = ["--kind", "speech", "--count", "2", "--frames", "40", "--size", "64", "--speech", str(speech), "--no-correspondence"]
    assert clips.main(["--out", str(folder), *arguments]) == 0
    return folder


def test_clips_hold_what_they_promise(stills: Path, talking: Path) -> None:
    item = StillPairs(stills, twin_share=1.0)[1]
    assert item["frame"].shape == item["target_portrait"].shape == (64, 64, 3)
    assert item["correspondence"].shape == (64, 64, 2) and item["visibility"].shape == (64, 64)
    assert (item["frame"] != item["target"]).any(), "the twin is somebody else"
    with pytest.raises(FileNotFoundError, match="no clips"):
        find_clips(stills / "nothing")


def test_clips_are_the_same_from_the_same_seed(stills: Path, root: Path) -> None:
    again = root / "again"
    clips.main(["--out", str(again), "--kind", "stills", "--count", "1", "--start", "1", "--frames", "4", "--size", "64"])
    (path,) = find_clips(again)
    assert path.read_bytes() == (stills / path.name).read_bytes()


def test_stages_in_order_end_in_a_stream(root: Path, stills: Path, talking: Path, speech: Path) -> None:
    common = ["--preset", "tiny", "--batch-size", "2", "--precision", "no", "--eval-every", "2"]
    first = ["--data", str(stills), "--val", str(stills), "--out", str(root / "ae"), *common]
    autoencoder.main([*first, "--steps", "2"])
    autoencoder.main([*first, "--steps", "8"])  # goes on where it stopped, into the stage that makes pixels
    steps = [json.loads(line)["step"] for line in (root / "ae" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8]
    assert list((root / "ae" / "samples").glob("*.png"))

    audio.main(["--speech", str(speech), "--val", str(speech), "--out", str(root / "audio"), "--steps", "2", "--frames", "20", *common])

    source = str(root / "ae" / "checkpoint")
    encode.main(["--checkpoint", source, "--train", str(talking), "--val", str(talking), "--out", str(root / "latents")])
    latents = LatentClips(root / "latents" / "train.safetensors")
    assert len(latents) == 2 and latents.num_frames(0) == 40
    assert latents.tensors["latents"].float().mean().abs() < 0.1

    decoder = ["--decoder-only", "--init", str(root / "latents" / "checkpoint"), "--out", str(root / "decoder"), "--steps", "2"]
    before = load_model(root / "latents" / "checkpoint").autoencoder.state_dict()
    autoencoder.main([*first[:4], *common, *decoder])
    after = load_model(root / "decoder" / "checkpoint").autoencoder.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}, "latents made before stay valid"

    model = ["--data", str(root / "latents"), "--audio", str(root / "audio" / "checkpoint"), "--length", "12"]
    model += ["--batch-size", "2", "--precision", "no", "--eval-every", "2", "--eval-length", "20", "--steps", "2"]
    teacher_forcing.main([*model, "--checkpoint", str(root / "latents" / "checkpoint"), "--out", str(root / "model")])
    final = ["--checkpoint", str(root / "decoder" / "checkpoint"), "--init", str(root / "model" / "checkpoint"), "--resample-share", "0.5"]
    teacher_forcing.main([*model, *final, "--out", str(root / "final")])
    row = json.loads((root / "final" / "log.jsonl").read_text().splitlines()[-1])
    assert {"eval_copy", "eval_forced", "eval_no_history_shuffled", "eval_mouth_free", "eval_mouth_shuffled"} <= row.keys()

    loaded = load_model(root / "final" / "checkpoint")
    torch.testing.assert_close(loaded.autoencoder.decoder.conv_in.weight, after["decoder.conv_in.weight"])
    session = StreamSession(loaded, np.full((64, 64, 3), 128, np.uint8), crop="center")
    assert len([*session.push(np.zeros(3200, np.float32)), *session.flush()]) == 5


def fit(out: Path, steps: int, max_minutes: float = float("inf")) -> nn.Module:
    """A deterministic toy run: the batch depends on the step alone."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)

    def losses(model: nn.Module, batch: None, step: int) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
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
    assert options.rate(99) == options.rate(500) == options.rate(800) == 1.0
    assert options.rate(900) == pytest.approx(0.5)
    assert options.rate(1000) == 0.0


def test_ema_follows(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    ema = Ema(module, 0.5)
    with torch.no_grad():
        module.weight.add_(1.0)
    before = ema.module.weight.clone()
    ema.update(module, step=100)
    torch.testing.assert_close(ema.module.weight, (before + module.weight) / 2)


def test_guide_hands_over_and_never_comes_back() -> None:
    shares = [autoencoder.guided_share(step / 100) for step in range(101)]
    assert shares[0] == 0.9 and shares == sorted(shares, reverse=True) and shares[60] == shares[100] == 0.0
