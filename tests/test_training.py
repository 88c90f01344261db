"""The whole pipeline at toy size, by its own commands: render, train each stage, resume, stream."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from eartalking import StreamSession, load_model
from eartalking.io.video_writer import VideoWriter
from eartalking.modules.masked_ar_head import MaskedARHead
from eartalking.motion.face_units import UNIT_INDEX
from eartalking.perception.face_marks import NUM_MARKS
from eartalking.synth import clips
from eartalking.synth.head import load_bundle
from eartalking.synth.identity import sample_identity
from eartalking.synth.performance import neutral_portrait
from eartalking.synth.render import Renderer
from eartalking.synth.speech import Utterance
from eartalking.training import (
    audio,
    code,
    decoder,
    departure,
    departure_handover,
    encode,
    encoder,
    further,
    heads,
    joint,
    latent_motion,
    latents,
    prepare,
    refiner,
    shading,
    surface,
    teacher_forcing,
    voice,
)
from eartalking.training.data import LatentClips, StillPairs, find_clips
from eartalking.training.losses import detail
from eartalking.training.marks import MarkedStills

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
def portraits(root: Path) -> Path:
    folder = root / "portraits"
    assert (
        clips.main(["--out", str(folder), "--kind", "portraits", "--count", "2", "--frames", "3", "--size", "64"]) == 0
    )
    return folder


@pytest.fixture(scope="module")
def talking(root: Path, speech: Path) -> Path:
    folder = root / "talking"
    arguments = ["--kind", "speech", "--count", "2", "--frames", "40", "--size", "64", "--speech", str(speech)]
    arguments += ["--no-correspondence", "--released"]
    assert clips.main(["--out", str(folder), *arguments]) == 0
    return folder


def test_clips_hold_what_they_promise(stills: Path, talking: Path) -> None:
    pairs = StillPairs(stills)
    assert len(pairs) == 2 * 2 * 4, "clips, people, states"
    item, twin = pairs[1], pairs[9]
    assert item["frame"].shape == item["portrait"].shape == (64, 64, 3)
    assert item["correspondence"].shape == (16, 16, 2) and item["visibility"].shape == (16, 16)
    torch.testing.assert_close(item["motion"], twin["motion"])
    assert (item["frame"] != twin["frame"]).any(), "the twin is somebody else"
    assert (item["landmarks"] != twin["landmarks"]).any() and item["portrait_landmarks"].shape == (3, 2)
    left, right, mouth = item["portrait_landmarks"]
    assert 0.2 < left[0] < right[0] < 0.8 and mouth[1] > left[1] + 0.1, "eyes beside each other, the mouth below"
    assert (item["portrait_motion"] != twin["portrait_motion"]).any(), "who poses in another way"
    marked = MarkedStills(stills)
    assert marked[1]["portrait_marks"].shape == (NUM_MARKS, 3) and marked[1].keys() > item.keys()
    assert len(list((stills / "marks").iterdir())) == 2, "read once, and kept"
    with pytest.raises(FileNotFoundError, match="no clips"):
        find_clips(stills / "nothing")


def test_clips_are_the_same_from_the_same_seed(stills: Path, root: Path) -> None:
    again = root / "again"
    clips.main(
        ["--out", str(again), "--kind", "stills", "--count", "1", "--start", "1", "--frames", "4", "--size", "64"]
    )
    (path,) = find_clips(again)
    first, second = load_file(path), load_file(stills / path.name)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


COMMON = ["--batch-size", "2", "--precision", "no", "--eval-every", "2"]


def test_stages_in_order_end_in_a_stream(
    root: Path, stills: Path, portraits: Path, talking: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train_the_autoencoder(root, stills, portraits)
    _compare_latents(root, stills, talking)
    _encode_the_latents(root, stills, talking, speech)
    training = _train_the_model(root, speech)
    spoken = ["--speech", str(speech), "--val", str(speech), "--seconds", "1.6"]
    spoken += ["--portraits", str(stills), "--val-portraits", str(stills)]
    _train_the_departure(root, spoken)
    _train_from_voice_to_pixels(root, talking, spoken)
    _train_another_emission(root, training, capsys)

    loaded = load_model(root / "drawn" / "checkpoint")
    trained = load_model(root / "decoder" / "checkpoint").autoencoder.decoder
    torch.testing.assert_close(loaded.autoencoder.decoder.conv_out.weight, trained.conv_out.weight)
    assert loaded.autoencoder.surface.basis.any(), "the surface encoder was taken over"
    assert loaded.autoencoder.shading.light.any(), "the light was taken over"
    assert loaded.autoencoder.refiner.eye.conv_out.weight.any(), "the refiner was taken over"
    assert (loaded.autoencoder.code.latent_std != 1).any()
    session = StreamSession(loaded, np.full((64, 64, 3), 128, np.uint8), crop="center")
    assert len([*session.push(np.zeros(3200, np.float32)), *session.flush()]) == 5


def _log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def _train_the_autoencoder(root: Path, stills: Path, portraits: Path) -> None:
    pairs = ["--checkpoint", str(root / "code"), "--data", str(stills), "--val", str(stills), *COMMON]
    code.main(["--stills", str(stills), "--preset", "tiny", "--out", str(root / "code")])
    encoder.main([*pairs, "--out", str(root / "encoder"), "--steps", "2"])
    pictures = ["--data", str(portraits), "--val", str(portraits), *COMMON]
    pictures = ["--checkpoint", str(root / "encoder" / "checkpoint"), *pictures]
    surface.main([*pictures, "--out", str(root / "surface"), "--steps", "4"])
    assert {"eval_moved_px", "eval_cover"} <= _log(root / "surface")[-1].keys()
    lit = ["--checkpoint", str(root / "surface" / "checkpoint"), *pairs[2:6], "--out", str(root / "shading")]
    shading.main(lit)
    first = ["--checkpoint", str(root / "shading" / "checkpoint"), *pairs[2:], "--out", str(root / "decoder")]
    decoder.main([*first, "--steps", "2"])
    decoder.main([*first, "--steps", "8"])  # goes on where it stopped
    assert [row["step"] for row in _log(root / "decoder")] == [2, 4, 6, 8]
    assert list((root / "decoder" / "samples").glob("*.jpg"))
    refined = ["--data", str(stills), "--val", str(stills), "--out", str(root / "refiner"), "--no-perceptual", *COMMON]
    refiner.main(["--checkpoint", str(root / "decoder" / "checkpoint"), *refined, "--steps", "4"])
    assert {"eval_eyes_psnr", "eval_mouth_psnr", "eval_landmarks_px"} <= _log(root / "refiner")[-1].keys()


def _compare_latents(root: Path, stills: Path, talking: Path) -> None:
    source = ["--checkpoint", str(root / "refiner" / "checkpoint"), *COMMON, "--steps", "2"]
    pairs = ["--data", str(stills), "--val", str(stills), "--decoded", str(root / "decoded")]
    for kind, size in (("face_code", "4"), ("learned", "4"), ("pixels", "8")):
        run = root / f"latents-{kind}"
        latents.main([*source, *pairs, "--kind", kind, "--size", size, "--out", str(run)])
        assert {"eval_mouth_psnr", "eval_start_mouth_psnr"} <= _log(run)[-1].keys()
        spoken = ["--clips", str(talking), "--val", str(talking), "--length", "8", "--eval-length", "10", "--videos"]
        latent_motion.main([*source, *spoken, f"--latents={run / 'latents.safetensors'}", f"--out={run / 'motion'}"])
        assert ("eval_learnt_r2_free" in _log(run / "motion")[-1]) == (kind != "face_code")
        assert {path.parent.name for path in run.glob("motion/videos/*/*.mp4")} == {"decoded", "foretold", "truth"}


def _encode_the_latents(root: Path, stills: Path, talking: Path, speech: Path) -> None:
    source = ["--checkpoint", str(root / "code"), "--speech", str(speech), "--val-speech", str(speech)]
    source += ["--portraits", str(stills), "--val-portraits", str(stills)]
    encode.main([*source, "--out", str(root / "latents")])
    folders = {"decoder": "decoder", "encoder": "encoder", "refiner": "refiner"}
    parts = [f"--{name}={root / folder / 'checkpoint'}" for name, folder in folders.items()]
    encode.main([*source, *parts, "--clips", str(talking), "--out", str(root / "whole")])
    early, late = (LatentClips(root / name / "train.safetensors") for name in ("latents", "whole"))
    assert [late.num_frames(clip) for clip in range(len(late))] == [40] * 4  # two animated, two read from frames
    assert early.tensors["latents"].float().mean().abs() < 0.1
    assert not early.tensors["reference_features"].any() and late.tensors["reference_features"].any()
    model = load_model(root / "latents" / "checkpoint")
    motion = model.autoencoder.code.latents_to_motion(early.tensors["latents"].float())
    torch.testing.assert_close(motion[:, 52], early.tensors["labels"][:, 52].float(), atol=0.02, rtol=0.02)  # yaw


def _train_the_model(root: Path, speech: Path) -> list[str]:
    voices = ["--speech", str(speech), "--val", str(speech), "--preset", "tiny", "--frames", "20"]
    audio.main([*voices, "--out", str(root / "audio"), "--steps", "2", *COMMON])
    lengths = ["--length", "12", "--eval-length", "20", "--steps", "2", *COMMON]
    training = ["--audio", str(root / "audio" / "checkpoint"), *lengths]
    training += ["--data", str(root / "latents"), "--checkpoint", str(root / "latents" / "checkpoint")]
    teacher_forcing.main([*training, "--out", str(root / "model")])
    whole = root / "whole"
    final = ["--data", str(whole), "--checkpoint", str(whole / "checkpoint"), "--resample-share", "0.5"]
    final += ["--init", str(root / "model" / "checkpoint"), "--out", str(root / "final")]
    teacher_forcing.main([*training, *final])
    assert {"eval_copy", "eval_forced", "eval_no_history_shuffled", "eval_mouth_free", "eval_mouth_shuffled"} <= _log(
        root / "final"
    )[-1].keys()
    return training


def _train_the_departure(root: Path, spoken: list[str]) -> None:
    training = ["--checkpoint", str(root / "final" / "checkpoint"), *spoken, "--out", str(root / "drawn"), *COMMON]
    departure.main([*training, "--steps", "2"])
    departure.main([*training, "--steps", "4"])  # goes on where it stopped
    assert [row["step"] for row in _log(root / "drawn")] == [2, 4]
    assert {"eval_jaw", "eval_pose_spread", "eval_pose_seeds", "eval_blinks_a_minute"} <= _log(root / "drawn")[
        -1
    ].keys()
    head = load_model(root / "drawn" / "checkpoint").departure_head
    assert head.persistence.any() and head.at_home.sum() == 6 and head.neutral.any()


def _train_from_voice_to_pixels(root: Path, talking: Path, spoken: list[str]) -> None:
    """The mouth that is heard, the joint stage, and a departure head that is handed over: from whole models to whole
    models; and heads that are measured anew."""
    drawn = root / "drawn" / "checkpoint"
    listening = ["--checkpoint", str(drawn), *spoken, "--data", str(root / "latents"), "--rounds", "2"]
    listening += ["--eval-length", "20"]
    voice.main([*listening, "--out", str(root / "heard")])
    heard = load_model(root / "heard" / "checkpoint")
    assert not torch.equal(heard.voice_to_latents.weight, load_model(drawn).voice_to_latents.weight)
    clips_of = ["--data", str(talking), "--val", str(talking), "--length", "20", "--steps", "2", *COMMON]
    for pixels in ("0", "1"):
        run = root / f"joint-{pixels}"
        joint.main(["--checkpoint", str(root / "heard" / "checkpoint"), *clips_of, "--pixels", pixels, f"--out={run}"])
        assert {"eval_mouth_psnr", "eval_known_mouth_psnr", "eval_jaw"} <= _log(run)[-1].keys()
    trained = load_model(root / "joint-1" / "checkpoint")
    assert not torch.equal(trained.voice_to_latents.weight, heard.voice_to_latents.weight)
    assert torch.equal(trained.departure_head.to_velocity.weight, heard.departure_head.to_velocity.weight)
    pair = ["--checkpoint", str(root / "joint-1" / "checkpoint"), "--teacher", str(drawn), *spoken, *COMMON]
    departure_handover.main([*pair, "--steps", "2", "--out", str(root / "handed")])
    assert {"eval_pose_spread", "eval_pose_speed"} <= _log(root / "handed")[-1].keys()
    people = [flag for flag in zip(spoken[::2], spoken[1::2], strict=True) if "val" not in flag[0]]
    corpus = [word for flag in people for word in flag]
    heads.main(["--checkpoint", str(root / "handed" / "checkpoint"), *corpus, "--out", str(root / "heads")])
    assert load_model(root / "heads" / "checkpoint").departure_head.sway.sways.sum() == 2


def _train_another_emission(root: Path, training: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # The paper's emission around the same autoencoder: another config, the same command.
    config = load_model(root / "latents" / "checkpoint").config
    sizes = dataclasses.asdict(dataclasses.replace(config, emission="masked_ar"))
    (root / "masked_ar.json").write_text(json.dumps(sizes))
    teacher_forcing.main([*training, "--config", str(root / "masked_ar.json"), "--out", str(root / "masked_ar")])
    assert isinstance(load_model(root / "masked_ar" / "checkpoint").emission_head, MaskedARHead)
    (root / "masked_ar.json").write_text(json.dumps(sizes | {"emision": "flow"}))
    with pytest.raises(SystemExit):
        teacher_forcing.main([*training, "--config", str(root / "masked_ar.json"), "--out", str(root / "misspelt")])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        teacher_forcing.main([*training, "--init", str(root / "nowhere"), "--out", str(root / "nothing")])
    assert "--init" in (told := capsys.readouterr().err) and "nowhere" in told and "--config None" not in told


def test_a_round_goes_on_where_the_machine_was_taken_away(
    root: Path, stills: Path, portraits: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = root / "kinds"
    for kind, folder in (("stills", stills), ("portraits", portraits), ("speech", speech)):
        for split in ("train", "val"):
            (data / kind).mkdir(parents=True, exist_ok=True)
            (data / kind / split).symlink_to(folder)
    code.main(["--stills", str(stills), "--preset", "tiny", "--out", str(root / "start")])
    start = load_model(root / "start")
    call = ["--checkpoint", str(root / "start"), "--data", str(data), "--out", str(root / "rounds"), "--steps", "3"]
    call += ["--stages", "surface", "refiner", "--batch-size", "2", "--precision", "no", "--eval-every", "3"]
    assert further.main([*call, "--minutes", "1e-9"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["whole"] is False
    assert further.main([*call, "--minutes", "10"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["whole"] and report["round"].endswith("001") and (root / "rounds" / "001" / "curves.png").exists()
    moved = load_model(report["checkpoint"]).autoencoder
    assert not torch.equal(moved.surface.conv_in.weight, start.autoencoder.surface.conv_in.weight)
    assert further.main([*call, "--minutes", "1e-9"]) == 0
    plan = json.loads((root / "rounds" / "002" / "plan.json").read_text())
    assert plan["checkpoint"] == report["checkpoint"], "a new round starts where the last one ended"
    with pytest.raises(SystemExit):
        further.main(["--out", str(root / "other"), "--minutes", "1", "--data", str(root / "nowhere")])
    assert "--make" in capsys.readouterr().err


def test_a_mirror_swaps_sides_and_keeps_the_rest() -> None:
    motion = torch.randn(3, 60)
    seen = encoder.mirrored(motion)
    left, right = UNIT_INDEX["eyeBlinkLeft"], UNIT_INDEX["eyeBlinkRight"]
    torch.testing.assert_close(seen[:, left], motion[:, right])
    torch.testing.assert_close(seen[:, UNIT_INDEX["jawLeft"]], motion[:, UNIT_INDEX["jawRight"]])
    torch.testing.assert_close(seen[:, UNIT_INDEX["jawOpen"]], motion[:, UNIT_INDEX["jawOpen"]])
    torch.testing.assert_close(seen[:, 52:], motion[:, 52:] * torch.tensor([-1.0, 1, -1, -1, 1, -1, 1, 1]))
    torch.testing.assert_close(encoder.mirrored(seen), motion)


def test_real_videos_become_clips(root: Path, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    made = {name: value for name, value in made.items() if not name.endswith("landmarks")}  # only a renderer tells
    assert made.keys() <= first.keys() | {"correspondence"}
    for name, value in made.items():
        assert first[name].shape[1:] == value.shape[1:] and first[name].dtype == value.dtype, name
    assert first["frames"].shape == (60, 64, 64, 3) and len(first["waveform"]) == 60 * 640


def test_detail_is_told_from_blur_and_not_from_its_place() -> None:
    sharp = 0.3 * torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    beside, blurred = sharp.roll(1, -1), torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    strength = detail(sharp)
    assert strength.shape == (2, 3, 17, 21)
    assert (detail(beside) - strength).abs().mean() < 0.2 * strength.mean()
    assert (detail(blurred) - strength).abs().mean() > 0.7 * strength.mean()
