"""The baselines' training commands, on tiny random models."""

import importlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.methods import distil_clip_diffusion, train_clip_diffusion, train_motion_ar, train_rivals
from benchmarks.methods.base import Method, NotReady, Request, Sound, num_frames
from benchmarks.methods.clip_diffusion import (
    OVERLAP,
    WINDOW,
    ClipDenoiser,
    ClipDiffusion,
    ClipSizes,
    FewStepClipDiffusion,
)
from benchmarks.methods.latent import AUDIO_TRUNK_NAME, make_audio_trunk, stream_audio_features
from benchmarks.methods.motion_ar import MotionAr
from benchmarks.methods.train_clip_diffusion import Windows
from eartalking import TalkingHeadModel, load_model
from eartalking.checkpoint import save_model
from eartalking.config import TINY
from eartalking.errors import InputError
from eartalking.io.video_writer import VideoWriter
from eartalking.motion.vector import NUM_MOTION_LABELS
from eartalking.training.data import LatentClips

FRAMES = 30


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = TalkingHeadModel(TINY)
    with torch.no_grad():  # a fresh flow head predicts nothing: make it answer to what it hears
        model.emission_head.to_mean.weight.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, FRAMES * 640 - 100).astype(np.float32)


@pytest.fixture(scope="module")
def request_(voice: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Request:
    truth = tmp_path_factory.mktemp("truth") / "clip.mp4"
    with VideoWriter(truth, (64, 64)) as writer:
        for index in range(FRAMES):
            writer.write(np.full((64, 64, 3), 5 * index + 20, np.uint8))
    portrait = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    other = np.random.default_rng(2).normal(0, 0.1, 7 * 640).astype(np.float32)
    return Request("clip", portrait, num_frames(voice), truth=truth, other_voice=other)


def video(method: Method, request: Request, voice: np.ndarray) -> np.ndarray:
    method.prepare()
    return np.stack(list(method.generate(request, Sound(voice))))


def latents(folder: Path) -> None:
    """Two encoded clips of 40 frames, as eartalking.training.encode writes them."""
    frames, clips, samples = 80, 2, 80 * 640
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "latents": torch.randn(frames, 16, 4, generator=generator),
        "values": torch.zeros(frames, 9),
        "intensity": torch.zeros(frames),
        "labels": torch.randn(frames, NUM_MOTION_LABELS, generator=generator),
        "emotion": torch.zeros(frames, dtype=torch.int32),
        "reference_latents": torch.randn(clips, 16, 4, generator=generator),
        "reference_features": torch.zeros(clips, 16, 16),
        "waveform": (3000 * torch.randn(samples, generator=generator)).to(torch.int16),
        "frame_offsets": torch.tensor([0, 40, 80]),
        "sample_offsets": torch.tensor([0, samples // 2, samples]),
    }
    for name in ("train", "val"):
        save_file(tensors, folder / f"{name}.safetensors")


def test_the_clip_diffusion_command_trains_and_what_it_writes_runs(
    checkpoint: str, request_: Request, voice: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents(tmp_path)
    weights = tmp_path / "weights" / "clip_diffusion.safetensors"
    run = [
        "--data",
        str(tmp_path),
        "--checkpoint",
        checkpoint,
        "--weights",
        str(weights),
        "--batch-size",
        "2",
        "--precision",
        "no",
    ]
    with pytest.raises(SystemExit):  # no audio trunk is named
        train_clip_diffusion.main([*run, "--out", str(tmp_path / "run"), "--steps", "2"])
    assert train_clip_diffusion.main([*run, "--out", str(tmp_path / "run"), "--steps", "2", "--audio", checkpoint]) == 0
    record = json.loads(weights.with_suffix(".json").read_text())["trained"]
    assert record["steps"] == 2 and record["clips"] == 2
    assert {"eval_error", "eval_error_shuffled", "eval_mean_frame", "eval_jaw", "eval_jaw_shuffled"} <= set(record)
    trunk = weights.with_name(AUDIO_TRUNK_NAME).read_bytes()
    assert (
        train_clip_diffusion.main([*run, "--out", str(tmp_path / "next"), "--steps", "1"]) == 0
    )  # the audio trunk that lies there
    assert weights.with_name(AUDIO_TRUNK_NAME).read_bytes() == trunk
    monkeypatch.setattr(ClipDiffusion, "num_steps", 1)
    assert len(video(ClipDiffusion(checkpoint, weights), request_, voice)) == FRAMES
    few = FewStepClipDiffusion(checkpoint, weights.with_name("clip_diffusion_few_steps.safetensors"))
    with pytest.raises(NotReady, match="not trained: run python -m benchmarks.methods.distil_clip_diffusion"):
        few.prepare()
    distil = ["--data", str(tmp_path), "--checkpoint", checkpoint, "--teacher", str(weights), "--precision", "no"]
    distil += ["--batch-size", "2", "--out", str(tmp_path / "few"), "--steps", "2"]
    assert distil_clip_diffusion.main(distil) == 0
    assert len(video(few, request_, voice)) == FRAMES


def test_the_student_is_told_where_the_teachers_steps_lead() -> None:
    sizes = ClipSizes(16, 4, 32, dim=32, depth=1, num_heads=2)
    torch.manual_seed(0)
    teacher = ClipDenoiser(sizes).requires_grad_(False)
    torch.nn.init.normal_(teacher.to_latents.weight, 0, 0.1)
    windows = Windows(torch.randn(2, WINDOW, 16, 4), torch.randn(2, WINDOW, 32), torch.randn(2, 16, 4))
    noise, known = torch.randn(2, WINDOW, 16, 4), torch.zeros(2, WINDOW, dtype=torch.bool)
    sampled = teacher.sample(windows.audio, windows.portrait, None, noise, distil_clip_diffusion.TEACHER_STEPS)
    arrived = distil_clip_diffusion.arrive(teacher, noise, 0, known, windows)
    assert torch.allclose(arrived, sampled, atol=1e-5)  # from the start on: the teacher's own sample
    known[:, :OVERLAP] = True
    assert torch.equal(distil_clip_diffusion.arrive(teacher, noise, 3, known, windows)[:, :OVERLAP], noise[:, :OVERLAP])


def test_the_motion_command_trains_and_what_it_writes_runs(
    checkpoint: str, request_: Request, voice: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents(tmp_path)
    monkeypatch.setattr(train_motion_ar, "EVAL_FRAMES", 20)
    weights = tmp_path / "weights" / "motion_ar.safetensors"
    arguments = [
        "--data",
        str(tmp_path),
        "--checkpoint",
        checkpoint,
        "--audio",
        checkpoint,
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "2",
    ]
    assert train_motion_ar.main([*arguments, "--batch-size", "2", "--weights", str(weights), "--precision", "no"]) == 0
    assert json.loads(weights.with_suffix(".json").read_text())["trained"]["steps"] == 2
    assert len(video(MotionAr(checkpoint, weights), request_, voice)) == FRAMES


def test_diffusion_learns_what_it_is_shown() -> None:
    torch.manual_seed(0)
    net = ClipDenoiser(ClipSizes(4, 4, 8, 4, 32, 1, 2))
    latents, audio, portrait = torch.randn(2, WINDOW, 4, 4) * 0.1 + 1, torch.randn(2, WINDOW, 8), torch.randn(2, 4, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = net.loss(latents, audio, portrait, torch.tensor([0, OVERLAP]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:5])
    noise = torch.randn(2, WINDOW, 4, 4)
    made = net.eval().sample(audio, portrait, None, noise, 20)
    assert (made - 1).abs().mean() < 0.6 * (noise - 1).abs().mean()


def test_clips_are_heard_once_and_as_a_stream_hears_them(checkpoint: str, tmp_path: Path) -> None:
    latents(tmp_path)
    clips, trunk = LatentClips(tmp_path / "train.safetensors"), make_audio_trunk(load_model(checkpoint).audio_encoder)
    encoded = train_clip_diffusion.ClipsWithAudio(clips, trunk, tmp_path / "run", "train")
    with torch.inference_mode():
        streamed = torch.cat(list(stream_audio_features(trunk, Sound(clips.waveform(1).numpy()), 40)))
    assert torch.allclose(encoded.features[40:].float(), streamed, atol=5e-3)
    windows = encoded.sample(3, np.random.default_rng(0))
    assert windows.latents.shape == (3, WINDOW, 16, 4) and windows.portrait.shape == (3, 16, 4)
    for latent, audio in zip(windows.latents, windows.audio, strict=True):  # the sound of the very frames
        first = int((clips.tensors["latents"] == latent[0]).all(-1).all(-1).nonzero())
        assert torch.equal(audio, encoded.features[first : first + WINDOW].float())
    file = next((tmp_path / "run").glob("*.safetensors"))
    before = file.stat().st_mtime_ns
    train_clip_diffusion.ClipsWithAudio(clips, trunk, tmp_path / "run", "train")
    assert file.stat().st_mtime_ns == before


def test_rivals_are_trained_for_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess:
        commands.append(command)
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        rows = [{"step": 30, "seconds": 100.0, "loss": 1.0}, {"step": 40, "seconds": 120.0, "eval_jaw": 0.5}]
        (out / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return subprocess.CompletedProcess(command, int("no_sink" in out.name))

    monkeypatch.setattr(train_rivals.subprocess, "run", run)
    given = ["--data", "latents", "--free-data", "free", "--speech", "said", "--val-speech", "heard", "--minutes", "20"]
    given += ["--portraits", "people", "--val-portraits", "others"]
    assert (
        train_rivals.main([*given, "--out", str(tmp_path), "--only", "ours_mean", "ours", "motion_ar", "--seed", "7"])
        == 0
    )
    budgets = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(budgets) == ["ours_mean", "ours", "motion_ar"] == [Path(c[c.index("--out") + 1]).name for c in commands]
    assert budgets["motion_ar"]["frames"] == 40 * 32 * 24 and budgets["motion_ar"]["held_out"] == {"jaw": 0.5}
    minutes = {Path(c[c.index("--out") + 1]).name: float(c[c.index("--minutes") + 1]) for c in commands}
    assert minutes["ours_mean"] + minutes["ours"] == minutes["motion_ar"] == 20
    assert all(command[-2:] == ["--seed", "7"] for command in commands) and (tmp_path / "budgets.png").is_file()
    assert str(tmp_path / "ours_mean" / "checkpoint") in commands[1]
    config = json.loads((tmp_path / "ours_mean.json").read_text())
    assert config["departure"] is None and config["sink_size"] == 1
    assert train_rivals.main([*given, "--out", str(tmp_path), "--only", "no_sink"]) == 1
    assert "no_sink failed" in capsys.readouterr().err
    assert json.loads((tmp_path / "no_sink.json").read_text())["sink_size"] == 0


def test_each_stage_takes_the_arguments_that_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {name: "no" for name in ("data", "free_data", "speech", "val_speech", "portraits", "val_portraits", "out")}
    plan = train_rivals.Plan(tmp_path, 1.0, places, ["--precision", "no"])  # as of all trainers of this process
    for stage in train_rivals.STAGES:
        module = importlib.import_module(stage.module)
        with pytest.raises((SystemExit, FileNotFoundError, InputError, NotReady)):  # the folders are not there
            module.main(plan.command(stage)[3:])
        said = capsys.readouterr().err
        assert "unrecognized arguments" not in said and "are required" not in said, said
