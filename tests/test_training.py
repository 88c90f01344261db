"""The whole pipeline at toy size, by its own commands: render, train each stage, resume, stream."""
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.numpy import load_file
from torch import nn

from eartalking import StreamSession, load_model
from eartalking.data import LatentClips, StillPairs, find_clips
from eartalking.synth import clips
from eartalking.synth.head import load_bundle
from eartalking.synth.identity import sample_identity
from eartalking.synth.motion import neutral_portrait
from eartalking.synth.render import Renderer
from eartalking.synth.speech import Utterance
from eartalking.training import audio, autoencoder, encode, prepare, teacher_forcing
from eartalking.training.common import Ema, RunOptions, train
from eartalking.video import VideoWriter

ROOT = Path(__file__).parent.parent


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
    assert item["correspondence"].shape == (16, 16, 2) and item["visibility"].shape == (16, 16)
    assert (item["frame"] != item["target"]).any(), "the twin is somebody else"
    with pytest.raises(FileNotFoundError, match="no clips"):
        find_clips(stills / "nothing")


def test_clips_are_the_same_from_the_same_seed(stills: Path, root: Path) -> None:
    again = root / "again"
    clips.main(["--out", str(again), "--kind", "stills", "--count", "1", "--start", "1", "--frames", "4", "--size", "64"])
    (path,) = find_clips(again)
    first, second = load_file(path), load_file(stills / path.name)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_stages_in_order_end_in_a_stream(root: Path, stills: Path, talking: Path, speech: Path) -> None:
    common = ["--preset", "tiny", "--batch-size", "2", "--precision", "no", "--eval-every", "2"]
    first = ["--data", str(stills), "--val", str(stills), "--out", str(root / "ae"), *common]
    autoencoder.main([*first, "--steps", "2"])
    autoencoder.main([*first, "--steps", "8"])  # goes on where it stopped, into the stage that makes pixels
    steps = [json.loads(line)["step"] for line in (root / "ae" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8]
    assert list((root / "ae" / "samples").glob("*.png"))

    audio.main(["--speech", str(speech), "--val", str(speech), "--out", str(root / "audio"), "--steps", "2", "--frames", "20", *common])

    source = ["--speech", str(speech), "--val-speech", str(speech), "--portraits", str(stills), "--val-portraits", str(stills)]
    source += ["--guide", str(root / "ae" / "guide.safetensors"), "--clips", str(talking)]
    encode.main(["--checkpoint", str(root / "ae" / "checkpoint"), *source, "--out", str(root / "latents")])
    latents = LatentClips(root / "latents" / "train.safetensors")
    assert [latents.num_frames(clip) for clip in range(len(latents))] == [40, 40, 40, 40]  # two animated, two read from frames
    assert latents.tensors["latents"].float().mean().abs() < 0.1

    guide = (root / "ae" / "guide.safetensors").read_bytes()
    before = load_model(root / "ae" / "checkpoint").autoencoder.state_dict()
    autoencoder.main([*first, "--steps", "10", "--decoder-only"])
    after = load_model(root / "ae" / "checkpoint").autoencoder.state_dict()
    assert not torch.equal(before["decoder.conv_in.weight"], after["decoder.conv_in.weight"])
    assert (root / "ae" / "guide.safetensors").read_bytes() == guide, "latents made before stay valid"
    encode.main(["--checkpoint", str(root / "ae" / "checkpoint"), *source, "--out", str(root / "refreshed")])

    model = ["--data", str(root / "latents"), "--audio", str(root / "audio" / "checkpoint"), "--length", "12"]
    model += ["--batch-size", "2", "--precision", "no", "--eval-every", "2", "--eval-length", "20", "--steps", "2"]
    teacher_forcing.main([*model, "--checkpoint", str(root / "latents" / "checkpoint"), "--out", str(root / "model")])
    final = ["--checkpoint", str(root / "refreshed" / "checkpoint"), "--init", str(root / "model" / "checkpoint")]
    final += ["--resample-share", "0.5"]
    teacher_forcing.main([*model, *final, "--out", str(root / "final")])
    row = json.loads((root / "final" / "log.jsonl").read_text().splitlines()[-1])
    assert {"eval_copy", "eval_forced", "eval_no_history_shuffled", "eval_mouth_free", "eval_mouth_shuffled"} <= row.keys()

    loaded = load_model(root / "final" / "checkpoint")
    torch.testing.assert_close(loaded.autoencoder.decoder.conv_in.weight, after["decoder.conv_in.weight"])
    assert (loaded.autoencoder.latent_std != 1).any()
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


def test_real_videos_come_in_by_the_second_door(root: Path, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = root / "videos"
    videos.mkdir()
    identity = sample_identity(44, "test", load_bundle())
    renderer = Renderer(128, 16)
    renderer.set_identity(identity)
    motion = neutral_portrait(np.random.default_rng(0))[np.zeros(30, int)]
    soundfile = ROOT / "examples" / "speech.wav"
    with VideoWriter(videos / "talk.mp4", (128, 128), audio=soundfile) as writer:
        for image in np.resize(renderer.render(motion), (170, 128, 128, 3)):
            writer.write(image)
    (videos / "broken.mp4").write_bytes(b"nonsense")
    assert prepare.main(["--videos", str(videos), "--out", str(root / "real"), "--frames", "60", "--size", "64"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["clips"] == 3
    first = load_file(find_clips(root / "real")[0])
    made = load_file(find_clips(talking)[0])
    assert made.keys() <= first.keys() | {"correspondence"}
    for name, value in made.items():
        assert first[name].shape[1:] == value.shape[1:] and first[name].dtype == value.dtype, name
    assert first["frames"].shape == (60, 64, 64, 3) and len(first["waveform"]) == 60 * 640
