"""Every method of the comparison through its one interface, on tiny random models."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.methods import argument, base, built_in, choose, motion_ar
from benchmarks.methods.base import Method, NotReady, Request, Sound, num_frames
from benchmarks.methods.clip_diffusion import OVERLAP, WINDOW, ClipDenoiser, ClipDiffusion, ClipSizes
from benchmarks.methods.external import External
from benchmarks.methods.latent import (
    LatentBaseline,
    Portrait,
    make_audio_trunk,
    save_audio_trunk,
    save_weights,
    stream_audio_features,
)
from benchmarks.methods.motion_ar import MotionAr, MotionModel, MotionSizes
from benchmarks.methods.ours import Ours, ShuffledAudio, TrueMotion, ablations
from benchmarks.methods.references import CopyPrevious, GroundTruth, StaticPortrait
from eartalking import StreamSession, TalkingHeadModel, load_model
from eartalking.checkpoint import save_model
from eartalking.config import TINY
from eartalking.controls import Controls
from eartalking.errors import InputError
from eartalking.io.video_writer import VideoWriter
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.motion.vector import BLINK_COLUMNS, NUM_MOTION_LABELS
from eartalking.synth.performance import neutral_portrait

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
    method, sound = Ours(checkpoint=checkpoint), Sound(voice, live=True)
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


def test_true_motion_draws_what_it_is_told_and_hears_nothing(
    checkpoint: str, request_: Request, voice: np.ndarray, tmp_path: Path
) -> None:
    method, labels = TrueMotion(checkpoint), tmp_path / "clip.labels.npz"
    with pytest.raises(NotReady, match="clip: nothing says"):
        video(method, request_, voice)
    performance = neutral_portrait(np.random.default_rng(0))[np.zeros(FRAMES, int)]
    performance.head_pose[20:, 0] += 20
    np.savez(labels, **vars(performance))
    told = dataclasses.replace(request_, labels=labels)
    shown, deaf = video(method, told, voice), video(method, told, 0 * voice)
    assert shown.shape == (FRAMES, *request_.portrait.shape)
    np.testing.assert_array_equal(shown, deaf)
    assert (shown[:20] == shown[0]).all() and (shown[20] != shown[0]).any()


def test_shuffled_audio_hears_the_other_voice(checkpoint: str, request_: Request, voice: np.ndarray) -> None:
    method = ShuffledAudio(checkpoint)
    shuffled = video(method, request_, voice)
    repeated = np.resize(request_.other_voice, FRAMES * 640)
    np.testing.assert_array_equal(shuffled, video(Ours(checkpoint=checkpoint), request_, repeated))
    with pytest.raises(NotReady, match="second clip"):
        video(method, Request("clip", request_.portrait, 3), voice)


@pytest.fixture(scope="module")
def baselines(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of both baselines, with an audio trunk."""
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
    save_audio_trunk(make_audio_trunk(load_model(checkpoint).audio_encoder), folder / "motion_ar.safetensors")
    return folder


def test_the_audio_trunk_streams(checkpoint: str, voice: np.ndarray) -> None:
    encoder = load_model(checkpoint).audio_encoder
    trunk = make_audio_trunk(encoder)
    waveform = torch.from_numpy(voice)[None]
    with torch.inference_mode():
        whole = trunk(waveform).flatten(2)[0]
        streamed = torch.cat(list(stream_audio_features(trunk, Sound(voice), FRAMES)))
    assert torch.allclose(whole, streamed, atol=1e-4)
    assert whole.shape == (FRAMES, encoder.dim)


def test_clip_diffusion_works_window_by_window(checkpoint: str, baselines: Path, request_: Request, voice: np.ndarray,
                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(ClipDiffusion, "num_steps", 2)
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


def asked_video(
    method: LatentBaseline, request: Request, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch, **tracks: object
) -> np.ndarray:
    """The motion (T, L) that is shown under controls that stay the same."""
    shown = []
    monkeypatch.setattr(Portrait, "picture", lambda self, model, latents: shown.append(latents) or request.portrait)
    controls = Controls({name: [(0.0, value)] for name, value in tracks.items()})
    video(method, dataclasses.replace(request, controls=controls), voice)
    return method.model.autoencoder.code.latents_to_motion(torch.cat(shown)).numpy()


@pytest.mark.parametrize("kind", [ClipDiffusion, MotionAr])
def test_baselines_obey_every_control(
    kind: type, checkpoint: str, baselines: Path, request_: Request, voice: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClipDiffusion, "num_steps", 2)
    method = kind(checkpoint, baselines / f"{kind.name}.safetensors")

    def asked(**tracks: object) -> np.ndarray:
        return asked_video(method, request_, voice, monkeypatch, **tracks)

    motion = asked(yaw=12.0, gaze_pitch=-10.0, blink=1.0)
    np.testing.assert_allclose(motion[:, 52], 1, atol=1e-3)
    np.testing.assert_allclose(motion[:, 56], -1, atol=1e-3)
    np.testing.assert_allclose(motion[:, list(BLINK_COLUMNS)], 4, atol=1e-3)
    smile, jaw = UNIT_INDEX["mouthSmileLeft"], UNIT_INDEX["jawOpen"]
    assert asked(smile=1.0)[:, smile].mean() > asked()[:, smile].mean() + 0.1
    still, wide = asked(mouth_scale=0.0)[:, jaw], asked(mouth_scale=2.0)[:, jaw]
    assert (wide >= still - 1e-3).all() and wide.mean() > still.mean()


def test_untrained_baselines_name_the_command(checkpoint: str, tmp_path: Path) -> None:
    for method in (
        ClipDiffusion(checkpoint, tmp_path / "no.safetensors"),
        MotionAr(checkpoint, tmp_path / "no.safetensors"),
    ):
        with pytest.raises(NotReady, match="not trained: run python -m benchmarks.methods.train_"):
            method.prepare()
        assert method.version() == "missing"


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
    ships = [method.name for method in choose(["all"], [], checkpoint)]
    assert set(known) - set(ships) == {"clip_diffusion_few_steps"} and ships == [
        name for name in known if name in ships
    ]
    retrained = choose([f"no_noise={checkpoint}"], [])[0]
    assert retrained.name == "no_noise" and retrained.checkpoint == checkpoint
    other = choose([f"motion_ar_1=motion_ar:{tmp_path / 'seed1.safetensors'}"], [])[0]
    assert isinstance(other, MotionAr) and (other.name, other.weights) == (
        "motion_ar_1",
        tmp_path / "seed1.safetensors",
    )
    for method in (retrained, other, known["motion_ar"], known["ours"]):
        again = choose([argument(method)], [], checkpoint)[0]
        assert (type(again), again.name, again.version()) == (type(method), method.name, method.version())
    with pytest.raises(ValueError, match="unknown method 'hallo'"):
        choose(["hallo"], [])
    with pytest.raises(ValueError, match="two methods are called ours"):
        choose(["ours", "all"], [])
