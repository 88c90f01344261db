"""Test sets: the shipped one, made ones, those of real videos, and what is said when something is missing."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eartalking.controls import EMOTIONS, Controls
from eartalking.errors import InputError
from eartalking.io.sound import read_audio
from eartalking.io.video_reader import read_video
from eartalking.io.video_writer import VideoWriter
from eartalking.perception.face_detector import crop_face
from eartalking.synth.performance import make_performance
from eartalking.synth.render import Renderer
from eartalking.synth.speech import Utterance
from eval import photographs
from eval.testset import MANIFEST, SCRIPTED_TRACKS, SUITES, from_videos, main, make_synthtalk, read_manifest
from eval.testset_script import HOLD, follow_script

SMALL_SET = Path(__file__).parent.parent / "benchmarks" / "testset_small"


@pytest.fixture(scope="module")
def utterance() -> Utterance:
    phones = [
        ("SIL", 0.0, 0.2),
        *[(phone, 0.2 + i * 0.4, 0.6 + i * 0.4) for i, phone in enumerate(["AA", "M", "IY", "B"] * 3)],
    ]
    return Utterance(
        np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32), phones, "a me", "test/voice", "none", [0.5]
    )


@pytest.fixture(scope="module")
def corpus(utterance: Utterance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "split", "voice", "seconds", "licence", "text"])
        for index in range(3):
            utterance.save(folder / f"{index}.npz")
            writer.writerow([f"{index}.npz", "test", "test/voice", "5", "none", "a me"])
    return folder


def test_the_shipped_set_is_small_whole_and_held_out() -> None:
    files = [path for path in SMALL_SET.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
    clips = read_manifest(SMALL_SET)
    assert len(clips) == len({clip.identity for clip in clips}) == SUITES["small"].clips
    assert json.loads((SMALL_SET / MANIFEST).read_text())["split"] == "test"
    assert any(clip.voice.startswith("prompts/") for clip in clips) and any(
        not clip.voice.startswith("prompts/") for clip in clips
    )
    assert sum(clip.controls is not None for clip in clips) == 2
    for clip in clips:
        video = read_video(clip.ref)
        assert sum(1 for _ in video.frames) == clip.num_frames == -(-len(read_audio(clip.audio)) // 640)
        with np.load(clip.labels) as labels:
            assert len(labels["head_pose"]) == len(labels["mouth_open"]) == clip.num_frames
            assert labels["speaking"].mean() > 0.5
        assert Image.open(clip.portrait).size == (256, 256)


def test_a_script_is_what_the_labels_follow() -> None:
    scripted = [clip for clip in read_manifest(SMALL_SET) if clip.controls is not None]
    for clip, track in zip(scripted, ("yaw", "blink"), strict=True):
        controls = Controls.load(clip.controls)
        with np.load(clip.labels) as labels:
            column = labels["head_pose"][:, 0] if track == "yaw" else labels["blink"]
        asked = [controls.at(frame)[track] for frame in range(clip.num_frames)]
        np.testing.assert_allclose(column, asked, atol=1e-3)
        assert np.count_nonzero(np.diff(asked)) == clip.num_frames // HOLD - 1  # steps, no ramps


@pytest.mark.parametrize("track", SCRIPTED_TRACKS)
def test_every_track_can_be_scripted(track: str, utterance: Utterance) -> None:
    motion = make_performance(utterance, np.random.default_rng(0), control_jumps=False)
    followed, controls = follow_script(motion, utterance, track, np.random.default_rng(0))
    assert len(followed) == len(motion)
    value = controls.at(HOLD)[track]
    if track == "emotion":
        assert EMOTIONS[followed.emotion[HOLD]] == value[0] and followed.emotion_intensity[HOLD] == value[1] == 1
    columns = {"yaw": followed.head_pose[:, 0], "pitch": followed.head_pose[:, 1], "roll": followed.head_pose[:, 2]}
    columns |= {
        "gaze_yaw": followed.gaze[:, 0],
        "gaze_pitch": followed.gaze[:, 1],
        "blink": followed.blink,
        "smile": followed.smile,
    }
    if track in columns:
        np.testing.assert_allclose(columns[track][HOLD], value, atol=1e-4)
        assert abs(columns[track][HOLD] - columns[track][HOLD - 1]) > 0.1
    if track in ("blink", "smile", "emotion"):
        assert np.abs(followed.face_units - motion.face_units).max() > 0.1  # the face does it, not only the label


def test_the_same_seed_makes_the_same_set_and_what_is_there_is_kept(corpus: Path, tmp_path: Path) -> None:
    try:
        Renderer(64, 16).release()
    except Exception as error:  # moderngl raises plain Exceptions where the machine has no EGL driver
        pytest.skip(f"no OpenGL here: {error}")
    for name in ("one", "two"):
        make_synthtalk(tmp_path / name, "small", seed=3, speech=corpus, count=1, size=64)
    clips = [read_manifest(tmp_path / name)[0] for name in ("one", "two")]
    pictures = [np.stack(list(read_video(clip.ref).frames)).astype(int) for clip in clips]
    assert pictures[0].shape == pictures[1].shape and np.abs(pictures[0] - pictures[1]).mean() < 0.05
    for one, two in (
        (clips[0].portrait, clips[1].portrait),
        (clips[0].audio, clips[1].audio),
        (clips[0].labels, clips[1].labels),
    ):
        assert one.read_bytes() == two.read_bytes()
    assert clips[0].num_frames == 100 and clips[0].voice == "test/voice"
    before = clips[0].ref.stat().st_mtime_ns
    make_synthtalk(tmp_path / "one", "small", seed=3, speech=corpus, count=2, size=64)
    assert clips[0].ref.stat().st_mtime_ns == before and len(read_manifest(tmp_path / "one")) == 2
    with pytest.raises(ValueError, match="6 clips with enough speech"):
        make_synthtalk(tmp_path / "three", "small", speech=corpus, size=64)


def test_photographs_stand_for_people_who_were_never_filmed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        Renderer(64, 16).release()
    except Exception as error:  # moderngl raises plain Exceptions where the machine has no EGL driver
        pytest.skip(f"no OpenGL here: {error}")
    picture = next(iter(read_video(read_manifest(SMALL_SET)[0].ref).frames))
    monkeypatch.setattr(photographs, "faces", lambda: [("somebody", picture, "1", True)])
    make_synthtalk(tmp_path, "photographs", speech=corpus, count=1, size=64)
    (clip,) = read_manifest(tmp_path)
    portrait, true = np.asarray(Image.open(clip.portrait)), next(iter(read_video(clip.ref).frames))
    assert portrait.shape == true.shape == (64, 64, 3) and np.abs(portrait.astype(int) - true).mean() > 10
    np.testing.assert_array_equal(portrait, crop_face(picture, 64, face="1").image)
    assert json.loads((tmp_path / MANIFEST).read_text())["clips"][0]["photograph"] == "somebody"
    monkeypatch.setattr(photographs, "faces", lambda: [])
    with pytest.raises(RuntimeError, match="no photograph is here"):
        make_synthtalk(tmp_path / "none", "photographs", speech=corpus, size=64)


def test_a_folder_of_videos_becomes_a_set_with_a_line_for_each_that_cannot(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "deep").mkdir(parents=True)
    clip = read_manifest(SMALL_SET)[0]
    shutil.copy(clip.ref, videos / "deep" / "speaker.mp4")
    with VideoWriter(videos / "mute.mp4", (64, 64)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with VideoWriter(videos / "nobody.mp4", (64, 64), audio=clip.audio) as writer:
        for _ in range(5):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    problems = from_videos(tmp_path / "set", videos, seconds=0.4, size=128)
    assert len(problems) == 2 and any("mute.mp4" in line and "sound" in line for line in problems)
    assert any("nobody.mp4" in line and "face" in line for line in problems)
    (made,) = read_manifest(tmp_path / "set")
    assert made.name == "deep_speaker" and made.num_frames == 10 and len(read_audio(made.audio)) == 10 * 640
    assert Image.open(made.portrait).size == (128, 128)


def test_bad_sets_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no test set here"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not the manifest"):
        read_manifest(tmp_path)
    entry = {"name": "a", "ref": "a.mp4", "portrait": "a.png", "audio": "a.wav", "num_frames": 1}
    (tmp_path / MANIFEST).write_text(json.dumps({"clips": [entry]}))
    with pytest.raises(InputError, match="clip 'a': a.mp4 is missing"):
        read_manifest(tmp_path)
    assert main(["--out", str(tmp_path / "out"), "--videos", str(tmp_path)]) == 1
    assert "no videos" in capsys.readouterr().out
