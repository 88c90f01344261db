"""Every method of the comparison through its one interface, on tiny random models."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.methods import base, built_in, choose, clip_diffusion, motion_ar, train_clip_diffusion, train_motion_ar
from benchmarks.methods.base import Method, NotReady, Request, Sound, num_frames
from benchmarks.methods.clip_diffusion import OVERLAP, WINDOW, ClipDenoiser, ClipDiffusion, ClipSizes
from benchmarks.methods.external import External
from benchmarks.methods.latent import EARS_NAME, listen, make_ears, save_ears, save_weights
from benchmarks.methods.motion_ar import MotionAr, MotionModel, MotionSizes, set_columns
from benchmarks.methods.ours import Ours, ShuffledAudio, ablations
from benchmarks.methods.references import CopyPrevious, GroundTruth, StaticPortrait
from eartalking import StreamSession, TalkingHeadModel, load_model
from eartalking.checkpoint import save_model
from eartalking.config import TINY
from eartalking.controls import ControlFrame
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


def test_sound_comes_in_frames_and_live_no_sooner_than_it_is_said(voice: np.ndarray) -> None:
    pieces = list(Sound(voice))
    assert len(pieces) == FRAMES and all(piece.shape == (640,) for piece in pieces)
    np.testing.assert_array_equal(np.concatenate(pieces)[: len(voice)], voice)
    assert (pieces[-1][-100:] == 0).all()
    live = Sound(voice[: 5 * 640], live=True)
    started = time.perf_counter()
    times = [time.perf_counter() - started for _ in live]
    assert live.taken == 5 and all(when >= 0.04 * (index + 1) - 1e-3 for index, when in enumerate(times))


def test_references_show_what_they_say(request_: Request, voice: np.ndarray) -> None:
    truth, late = video(GroundTruth(), request_, voice), video(CopyPrevious(), request_, voice)
    assert len(truth) == len(late) == FRAMES
    np.testing.assert_array_equal(late[1:], truth[:-1])
    np.testing.assert_array_equal(late[0], request_.portrait)
    still = video(StaticPortrait(), request_, voice)
    assert len(still) == FRAMES and (still == request_.portrait).all()
    with pytest.raises(NotReady, match="no true video"):
        video(GroundTruth(), Request("clip", request_.portrait, 3), voice)


def test_ours_is_a_stream_session(checkpoint: str, request_: Request, voice: np.ndarray) -> None:
    session = StreamSession(load_model(checkpoint), request_.portrait, seed=0, crop="center")
    expected = [frame.image for frame in session.push(voice)] + [frame.image for frame in session.flush()]
    np.testing.assert_array_equal(video(Ours(checkpoint=checkpoint), request_, voice), expected)


def test_ours_needs_no_more_sound_than_its_lookahead(checkpoint: str, request_: Request, voice: np.ndarray) -> None:
    method, sound = Ours(checkpoint=checkpoint), Sound(voice)
    method.prepare()
    next(method.generate(request_, sound))
    assert sound.taken == 1 + TINY.audio.lookahead


def test_each_ablation_changes_the_video_and_not_the_weights(
    checkpoint: str, request_: Request, voice: np.ndarray
) -> None:
    ours = Ours(checkpoint=checkpoint)
    full = video(ours, request_, voice)
    methods = ablations(checkpoint)
    for method in methods:
        frames = video(method, request_, voice)
        assert frames.shape == full.shape
        assert (frames != full).any(), method.name
        for name, value in ours.model.state_dict().items():
            assert torch.equal(value, method.model.state_dict()[name]), (method.name, name)
        assert "at inference only" in method.about
    assert len({method.version() for method in [ours, *methods]}) == len(methods) + 1


def test_shuffled_audio_hears_the_other_voice(checkpoint: str, request_: Request, voice: np.ndarray) -> None:
    method = ShuffledAudio(checkpoint)
    shuffled = video(method, request_, voice)
    repeated = np.resize(request_.other_voice, FRAMES * 640)
    np.testing.assert_array_equal(shuffled, video(Ours(checkpoint=checkpoint), request_, repeated))
    with pytest.raises(NotReady, match="second clip"):
        video(method, Request("clip", request_.portrait, 3), voice)


@pytest.fixture(scope="module")
def baselines(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of both baselines, with ears."""
    folder = tmp_path_factory.mktemp("baselines")
    shape, audio = (16, 4), TINY.audio.dim
    torch.manual_seed(0)
    sizes = {
        "num_latents": shape[0],
        "latent_channels": shape[1],
        "audio_dim": audio,
        "dim": 32,
        "depth": 1,
        "num_heads": 2,
    }
    denoiser, motion = ClipDenoiser(ClipSizes(**sizes)), MotionModel(MotionSizes(**sizes, head_dim=32))
    for layer in (denoiser.to_latents, motion.head.to_mean):
        torch.nn.init.normal_(layer.weight, 0, 0.1)
    trained = {"trained": {"steps": 7}}
    save_weights(denoiser, folder / "clip_diffusion.safetensors", {"config": sizes, **trained})
    save_weights(motion, folder / "motion_ar.safetensors", {"config": sizes | {"head_dim": 32}, **trained})
    save_ears(make_ears(load_model(checkpoint).audio_encoder), folder / "motion_ar.safetensors")
    return folder


def test_ears_are_the_trunk_and_hear_as_a_stream(checkpoint: str, voice: np.ndarray) -> None:
    encoder = load_model(checkpoint).audio_encoder
    ears = make_ears(encoder)
    waveform = torch.from_numpy(voice)[None]
    with torch.inference_mode():
        whole = ears(waveform).flatten(2)[0]
        streamed = torch.cat(list(listen(ears, Sound(voice), FRAMES)))
    assert torch.allclose(whole, streamed, atol=1e-4)
    assert whole.shape == (FRAMES, encoder.dim)


def test_clip_diffusion_works_window_by_window(checkpoint: str, baselines: Path, request_: Request, voice: np.ndarray,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(clip_diffusion.ClipDenoiser.sample, "__defaults__", (2,))
    method, sound = ClipDiffusion(checkpoint, baselines / "clip_diffusion.safetensors"), Sound(voice)
    method.prepare()
    next(method.generate(request_, sound))
    assert sound.taken == WINDOW + TINY.audio.lookahead  # a whole window must be heard before its first frame is shown
    frames = video(method, request_, voice)
    assert frames.shape == (FRAMES, 64, 64, 3) and method.about.endswith("trained for 7 steps")
    np.testing.assert_array_equal(frames, video(method, request_, voice))
    known = torch.randn(1, OVERLAP, 16, 4)
    window = method.net.sample(
        torch.randn(1, WINDOW, 32), torch.randn(1, 16, 4), known, torch.randn(1, WINDOW, 16, 4), 2
    )
    assert torch.equal(window[:, :OVERLAP], known)  # what was shown stays as it was


def test_clips_are_heard_once_and_as_a_stream_hears_them(checkpoint: str, tmp_path: Path) -> None:
    latents(tmp_path)
    clips, ears = LatentClips(tmp_path / "train.safetensors"), make_ears(load_model(checkpoint).audio_encoder)
    heard = train_clip_diffusion.HeardClips(clips, ears, tmp_path / "run", "train")
    with torch.inference_mode():
        streamed = torch.cat(list(listen(ears, Sound(clips.waveform(1).numpy()), 40)))
    assert torch.allclose(heard.features[40:].float(), streamed, atol=5e-3)
    windows = heard.sample(3, np.random.default_rng(0))
    assert windows.latents.shape == (3, WINDOW, 16, 4) and windows.portrait.shape == (3, 16, 4)
    for latent, audio in zip(windows.latents, windows.audio, strict=True):  # the sound of the very frames
        first = int((clips.tensors["latents"] == latent[0]).all(-1).all(-1).nonzero())
        assert torch.equal(audio, heard.features[first : first + WINDOW].float())
    file = next((tmp_path / "run").glob("*.safetensors"))
    before = file.stat().st_mtime_ns
    train_clip_diffusion.HeardClips(clips, ears, tmp_path / "run", "train")
    assert file.stat().st_mtime_ns == before


def test_clip_diffusion_sees_the_whole_window(baselines: Path) -> None:
    method = ClipDiffusion(str(baselines), baselines / "clip_diffusion.safetensors")
    net = ClipDenoiser(ClipSizes(**json.loads(method.weights.with_suffix(".json").read_text())["config"]))
    torch.nn.init.normal_(net.to_latents.weight, 0, 0.1)
    x, audio, portrait = torch.randn(1, WINDOW, 16, 4), torch.randn(1, WINDOW, 32), torch.randn(1, 16, 4)
    known, t = torch.zeros(1, WINDOW, dtype=torch.bool), torch.tensor([0.5])
    late = audio.clone()
    late[:, -1] += 1
    moved = (net(x, t, known, audio, portrait) - net(x, t, known, late, portrait)).abs().amax((0, 2, 3))
    assert (moved > 1e-7).all()  # bidirectional: the last sound reaches the first frame


def test_motion_ar_streams_frame_by_frame(
    checkpoint: str, baselines: Path, request_: Request, voice: np.ndarray
) -> None:
    method, sound = MotionAr(checkpoint, baselines / "motion_ar.safetensors"), Sound(voice)
    method.prepare()
    next(method.generate(request_, sound))
    assert sound.taken == 1 + TINY.audio.lookahead
    assert video(method, request_, voice).shape == (FRAMES, 64, 64, 3)


def test_motion_ar_training_and_streaming_agree(baselines: Path) -> None:
    sizes = MotionSizes(**json.loads((baselines / "motion_ar.json").read_text())["config"])
    net = MotionModel(sizes).eval()
    torch.nn.init.normal_(net.head.to_mean.weight, 0, 0.3)
    audio, portrait = torch.randn(1, 14, 32), torch.randn(1, NUM_MOTION_LABELS)
    state, streamed, past = net.start(portrait), [], [portrait]
    noise = torch.zeros(1, NUM_MOTION_LABELS)
    monkey = motion_ar.TEMPERATURE
    motion_ar.TEMPERATURE = 0.0  # the regression alone, so that both ways can be compared
    try:
        for index in range(14):
            state.previous = net.step(audio[:, index], noise, state)
            streamed.append(state.previous)
            past.append(state.previous)
    finally:
        motion_ar.TEMPERATURE = monkey
    x = torch.cat(
        [net.sink_block(portrait), net.frame_block(audio, torch.stack(past[:-1], 1), torch.zeros(1, 14))], dim=1
    )
    with torch.no_grad():
        whole = net.head.mean(net.backbone(x, net.to_sink(portrait))[:, 1:, 1])
    assert torch.allclose(whole, torch.stack(streamed, 1), atol=1e-4)


def test_pose_and_gaze_are_set_exactly() -> None:
    motion = torch.zeros(1, NUM_MOTION_LABELS)
    set_columns(motion, ControlFrame(yaw=12.0, gaze_pitch=-10.0, blink=1.0))
    assert motion[0, 52] == 1 and motion[0, 56] == -1
    assert motion.count_nonzero() == 2


def test_untrained_baselines_name_the_command(checkpoint: str, tmp_path: Path) -> None:
    for method in (
        ClipDiffusion(checkpoint, tmp_path / "no.safetensors"),
        MotionAr(checkpoint, tmp_path / "no.safetensors"),
    ):
        with pytest.raises(NotReady, match="not trained: run python -m benchmarks.methods.train_"):
            method.prepare()
        assert method.version() == "missing"


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
    with pytest.raises(SystemExit):  # nobody has said what to hear with
        train_clip_diffusion.main([*run, "--out", str(tmp_path / "run"), "--steps", "2"])
    assert train_clip_diffusion.main([*run, "--out", str(tmp_path / "run"), "--steps", "2", "--audio", checkpoint]) == 0
    record = json.loads(weights.with_suffix(".json").read_text())["trained"]
    assert record["steps"] == 2 and record["clips"] == 2
    assert {"eval_error", "eval_error_shuffled", "eval_mean_frame", "eval_jaw", "eval_jaw_shuffled"} <= set(record)
    ears = weights.with_name(EARS_NAME).read_bytes()
    assert (
        train_clip_diffusion.main([*run, "--out", str(tmp_path / "next"), "--steps", "1"]) == 0
    )  # the ears that lie there
    assert weights.with_name(EARS_NAME).read_bytes() == ears
    monkeypatch.setattr(clip_diffusion.ClipDenoiser.sample, "__defaults__", (1,))
    assert len(video(ClipDiffusion(checkpoint, weights), request_, voice)) == FRAMES


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


def description(where: Path, /, **values: object) -> Path:
    path = where / "method.json"
    path.write_text(json.dumps(values))
    return path


PROGRAM = """
import os
import sys
sys.path.insert(0, os.getcwd())  # the description's folder
import numpy as np
from PIL import Image
from eartalking.io.sound import read_audio
from eartalking.io.video_writer import VideoWriter
portrait, audio, output = sys.argv[1:]
with VideoWriter(output, (64, 64)) as writer:
    for _ in range(-(-len(read_audio(audio)) // 640)):
        writer.write(np.asarray(Image.open(portrait)))
"""


def test_an_external_command_is_run_once_the_sound_is_complete(
    request_: Request, voice: np.ndarray, tmp_path: Path
) -> None:
    from PIL import Image

    from eval.testset import write_wav

    (tmp_path / "program.py").write_text(PROGRAM)
    Image.fromarray(request_.portrait).save(tmp_path / "portrait image.png")
    write_wav(tmp_path / "voice.wav", voice)
    asked = Request(
        "clip",
        request_.portrait,
        FRAMES,
        portrait_path=tmp_path / "portrait image.png",
        audio_path=tmp_path / "voice.wav",
    )
    command = f"{sys.executable} {tmp_path / 'program.py'} {{portrait}} {{audio}} {{output}}"
    method, sound = (
        External(description(tmp_path, name="theirs", command=command, folder=str(Path(__file__).parent.parent))),
        Sound(voice),
    )
    method.prepare()
    frames = list(method.generate(asked, sound))
    assert len(frames) == FRAMES and sound.taken == FRAMES and method.kind == "external"
    failing = External(
        description(
            tmp_path, name="theirs", command=f"{sys.executable} -c 'import sys; sys.exit(\"no GPU\")' {{output}}"
        )
    )
    with pytest.raises(NotReady, match="status 1: no GPU"):
        list(failing.generate(asked, Sound(voice)))


def test_a_folder_of_their_videos_is_scored_as_it_is(request_: Request, voice: np.ndarray, tmp_path: Path) -> None:
    method = External(description(tmp_path, name="theirs", videos="videos"))
    with pytest.raises(NotReady, match="no such folder"):
        method.prepare()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.mp4").write_bytes(request_.truth.read_bytes())
    assert len(video(method, request_, voice)) == FRAMES and not method.measurable


@pytest.mark.parametrize(
    "values",
    [
        {"name": "a"},
        {"name": "a", "command": "x"},
        {"name": "a", "videos": "v", "command": "x {output}"},
        {"videos": "v"},
        {"name": "a", "videos": "v", "speed": 3},
    ],
)
def test_a_wrong_description_is_one_clear_error(values: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="method.json"):
        External(description(tmp_path, **values))


def test_methods_are_chosen_by_name(checkpoint: str, tmp_path: Path) -> None:
    known = built_in(checkpoint)
    assert list(known)[0] == "ground_truth" and {
        "ours",
        "clip_diffusion",
        "motion_ar",
        "ours_no_sink",
        "shuffled_audio",
    } <= set(known)
    assert all(method.kind in base.KINDS and method.about for method in known.values())
    assert [method.name for method in choose(["all"], [], checkpoint)] == list(known)
    retrained = choose([f"no_noise={checkpoint}"], [])[0]
    assert retrained.name == "no_noise" and retrained.checkpoint == checkpoint
    with pytest.raises(ValueError, match="unknown method 'hallo'"):
        choose(["hallo"], [])
    with pytest.raises(ValueError, match="two methods are called ours"):
        choose(["ours", "all"], [])
