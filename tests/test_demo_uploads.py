"""Bad uploads: a sentence for the user, the session usable, nothing left on disk. And whose files go when."""

from __future__ import annotations

import os
import platform
import struct
import tempfile
import wave
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from demo_app import LIMITS, PHOTO, PORTRAIT, SPEECH, film, one_thread, tiny_engine, write_voice
from gradio.utils import get_upload_folder
from PIL import Image

from demo.channel import BusyError
from demo.portrait import shown
from demo.sessions import Sessions, UserSession
from demo.uploads import CropBox, UploadError, open_portrait, read_controls
from eartalking import Controls, StreamSession
from eartalking.config import SAMPLES_PER_FRAME
from eartalking.controls import ControlFrame
from eartalking.perception.face_detector import crop_face


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[Sessions]:
    sessions = Sessions(tiny_engine(), LIMITS)
    yield sessions
    sessions.close_all()
    assert not sessions.root.exists()


@pytest.fixture
def sessions(shared: Sessions) -> Iterator[Sessions]:
    yield shared
    for key in list(shared._sessions):
        shared.close(key)
    assert os.listdir(shared.root) == []


def huge_png(path: Path, side: int) -> Path:
    """A valid header of side x side pixels over almost no data, as an attacker would send it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def silence(path: Path, seconds: float, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(rate)
        file.writeframes(bytes(2 * round(seconds * rate)))
    return path


def bad_portraits(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "cut.jpg").write_bytes(PHOTO.read_bytes()[:900])
    (folder / "text.png").write_text("hello " * 99)
    (folder / "empty.png").touch()
    (folder / "big.png").write_bytes(bytes(LIMITS.upload_bytes + 1))
    Image.new("RGB", (9, 9)).save(folder / "dot.png")
    return {
        "corrupt": (folder / "cut.jpg", "cannot be used"),
        "wrong type": (folder / "text.png", "not a picture"),
        "sound": (write_voice(folder / "voice.png", 0.5), "not a picture"),
        "empty": (folder / "empty.png", "empty"),
        "too many bytes": (folder / "big.png", "MB"),
        "200 megapixels": (huge_png(folder / "huge.png", 14143), "megapixels"),
        "a bit too large": (huge_png(folder / "large.png", 2300), "megapixels"),
        "too small": (folder / "dot.png", "too small"),
    }


def heavy(path: Path, more_than: int) -> Path:
    path.write_bytes(bytes(more_than + 1))
    return path


def bad_voices(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "text.wav").write_text("hello " * 99)
    (folder / "empty.wav").touch()
    return {
        "silent": (silence(folder / "silent.wav", 2), "silent"),
        "empty": (folder / "empty.wav", "empty"),
        "no samples": (silence(folder / "none.wav", 0), "cannot be used"),
        "wrong type": (folder / "text.wav", "cannot be used"),
        "a picture": (PHOTO, "cannot be used"),
        "long and silent": (silence(folder / "long.wav", LIMITS.voice_seconds + 2), "silent"),
        "a film without sound": (film(folder / "mute.mp4", None), "no sound track"),
        "too many bytes": (heavy(folder / "heavy.mp4", LIMITS.voice_bytes), "5 MB"),
    }


def stored_by_gradio(name: str) -> Path:
    """Where Gradio puts an upload: in a folder of its own below its upload folder."""
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder)) / name


def test_what_gradio_did_not_store_is_never_deleted(sessions: Sessions, tmp_path: Path) -> None:
    own = tmp_path / "own.png"  # a checkout below the temporary folder has its examples there
    own.write_bytes(PORTRAIT.read_bytes())
    sessions.set_portrait(sessions.get("a"), own)
    sessions.close("a")
    assert own.exists()


def test_bad_uploads_are_refused_with_a_sentence_and_leave_nothing(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("somebody")
    cases = [(sessions.set_portrait, case) for case in bad_portraits(tmp_path).items()]
    cases += [(sessions.set_voice, case) for case in bad_voices(tmp_path).items()]
    for accept, (name, (path, words)) in cases:
        upload = stored_by_gradio(path.name)
        upload.write_bytes(path.read_bytes())
        with pytest.raises(UploadError, match=words) as error:
            accept(session, upload)
        assert str(error.value).endswith(".") and str(tmp_path) not in str(error.value), name
        assert os.listdir(session.folder) == [] and not upload.parent.exists(), name
    sessions.set_portrait(session, PHOTO)  # and it goes on
    sessions.set_voice(session, SPEECH)
    assert PHOTO.exists() and SPEECH.exists()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"tracks": ', "broken JSON"),
        ('{"tracks": {"yaw": [[0, 99]]}}', "yaw"),
        ({"tracks": {"tilt": [[0, 1]]}}, "tilt"),
        ({"tracks": {"yaw": [[1, 1], [0, 2]]}}, "does not follow"),
        ({"tracks": {"emotion": [[0, ["bored", 1]]]}}, "bored"),
        ({"fps": 30, "tracks": {}}, "fps"),
        ([1, 2], "expected"),
        ({"tracks": {"yaw": [[0, object()]]}}, "cannot be used"),
    ],
)
def test_bad_controls_are_refused_with_a_sentence(document: object, words: str) -> None:
    with pytest.raises(UploadError, match=words):
        read_controls(document)


def test_good_controls_come_as_text_document_or_file(tmp_path: Path) -> None:
    controls = Controls({"yaw": [(0.0, 1.5), (2.0, None)], "emotion": [(1.0, ("happy", 0.5))]})
    controls.save(tmp_path / "c.json")
    document = {"fps": 25, "tracks": {"yaw": [[0, 1.5], [2, None]], "emotion": [[1, ["happy", 0.5]]]}}
    for source in (document, tmp_path / "c.json", (tmp_path / "c.json").read_text()):
        assert read_controls(source) == controls
    assert read_controls(None) == read_controls("") == Controls()


@pytest.mark.parametrize("path", [PHOTO, PORTRAIT])
def test_the_automatic_crop_is_the_command_line_s_and_can_be_moved(path: Path) -> None:
    portrait = open_portrait(path, LIMITS)
    np.testing.assert_array_equal(portrait.cut(None, 256), crop_face(portrait.image).image)
    still = CropBox(portrait.box.left, portrait.box.top, 0.8 * portrait.box.side)
    moved = replace(still, left=still.left + 40)
    shift = round(40 / still.side * 256)
    a, b = portrait.cut(still, 256).astype(int)[:, shift : shift + 128], portrait.cut(moved, 256).astype(int)[:, :128]
    assert np.abs(a - b).mean() < 12 < np.abs(portrait.cut(still, 256).astype(int)[:, :128] - b).mean()


def test_a_crop_stays_in_the_picture_or_as_far_beyond_it_as_the_automatic_one(tmp_path: Path) -> None:
    photo, tight = open_portrait(PHOTO, LIMITS), open_portrait(PORTRAIT, LIMITS)  # 340 and 512 pixels a side
    assert photo.fitted(CropBox(10, 20, 100)) == CropBox(10, 20, 100)
    assert photo.fitted(CropBox(300, -50, 100)) == CropBox(240, 0, 100)
    assert photo.fitted(CropBox(-30, 0, 400)) == CropBox(0, 0, 340)
    assert tight.box.top < 0 and tight.fitted(tight.box) == tight.box
    np.testing.assert_allclose(
        astuple(tight.fitted(replace(tight.box, top=tight.box.top - 40))), astuple(tight.box), atol=1e-6
    )
    np.testing.assert_array_equal(photo.cut(CropBox(300, -50, 100), 64), photo.cut(CropBox(240, 0, 100), 64))
    for outside in (CropBox(340, 0, 50), CropBox(0, -60, 50), CropBox(1e9, 1e9, 50)):
        with pytest.raises(UploadError, match="outside the picture, which has 340 x 340 pixels"):
            photo.cut(outside, 64)
    with pytest.raises(UploadError, match="too small"):
        photo.cut(CropBox(10, 10, 3), 64)
    Image.open(PHOTO).resize((2500, 2500)).crop((0, 0, 2500, 1900)).save(tmp_path / "large.jpg", exif=_on_its_side())
    large = open_portrait(tmp_path / "large.jpg", LIMITS)
    assert large.scale == 2048 / 2500 and large.file_size == pytest.approx((1900, 2500), abs=1)


def _on_its_side() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6  # orientation: to be turned by a quarter
    return tags


def test_of_several_faces_one_is_chosen(sessions: Sessions, tmp_path: Path) -> None:
    scene = Image.new("RGB", (1100, 520), "grey")
    photo = Image.open(PHOTO).convert("RGB")
    scene.paste(photo, (20, 100))
    scene.paste(photo.resize((480, 480)), (500, 20))
    scene.save(tmp_path / "two.png")
    session = sessions.get("tab")
    two = sessions.set_portrait(session, tmp_path / "two.png")
    assert two.number == 2 and len(two.faces) == 2 and two.faces[0][2] < two.faces[1][0] and two.face == two.faces[1]
    left = sessions.choose_face(session, 1)
    assert session.portrait is left and left.face == two.faces[0] and left.box != two.box and two.number == 2
    np.testing.assert_array_equal(left.cut(None, 64), crop_face(left.image, 64, face="left").image)
    for choice, number in (("left", 1), ("right", 2), ("2", 2)):
        assert sessions.set_portrait(session, tmp_path / "two.png", choice).number == number
    with pytest.raises(UploadError, match="shows 2 faces, not 3"):
        sessions.set_portrait(session, tmp_path / "two.png", "3")
    with pytest.raises(UploadError, match="choose a portrait"):
        sessions.choose_face(session, 1)
    sessions.set_portrait(session, PHOTO)
    with pytest.raises(UploadError, match="no face number 2"):
        sessions.choose_face(session, 2)


def test_faces_are_found_by_several_threads_at_once() -> None:
    alone = {path: open_portrait(path, LIMITS).face for path in (PHOTO, PORTRAIT)}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda path: (path, open_portrait(path, LIMITS).face), [PHOTO, PORTRAIT] * 3))
    assert all(face == alone[path] for path, face in together)


def test_without_a_face_the_middle_is_offered(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    portrait = open_portrait(tmp_path / "noise.png", LIMITS)
    assert portrait.face is None and portrait.box == CropBox(0, 50, 200)
    np.testing.assert_array_equal(portrait.cut(None, 64), crop_face(noise, 64, mode="center").image)


def test_without_a_face_nothing_speaks_until_a_crop_says_where_it_is(sessions: Sessions, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "grey.png")
    session = sessions.get("tab")
    sessions.set_portrait(session, tmp_path / "grey.png")
    sessions.set_voice(session, write_voice(tmp_path / "voice.wav", 0.2))
    with pytest.raises(UploadError, match="No face was found"):
        sessions.start_take(session, controls=Controls(), seed=0)
    with pytest.raises(UploadError, match="No face was found"):
        sessions.start_talk(session, seed=0)
    take = sessions.start_take(session, controls=Controls(), seed=0, crop=CropBox(40, 20, 160), pace="free")
    assert take.wait(60) and take.state == "finished"


def start(sessions: Sessions, session: UserSession, tmp_path: Path) -> None:
    sessions.set_portrait(session, PORTRAIT)
    sessions.set_voice(session, write_voice(tmp_path / "voice.wav", 1.0))
    sessions.start_take(session, controls=Controls(), seed=0)


def test_leaving_stops_the_stream_and_deletes_everything(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("tab")
    start(sessions, session, tmp_path)
    take = session.takes[-1]
    assert sessions.find_take(take.token) is take
    sessions.close("tab")
    assert take.state == "stopped" and not session.folder.exists() and len(sessions) == 0
    assert sessions.find_take(take.token) is None and sessions.engine.slots.free == LIMITS.takes + LIMITS.waiting


def test_a_new_take_replaces_the_one_that_runs(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.get("tab")
    for _ in range(LIMITS.takes + 2):  # more than there are places
        start(sessions, session, tmp_path)
    states = [take.state for take in session.takes]
    assert states[-1] == "running" and states.count("running") == 1


def test_users_do_not_wait_for_each_other_until_the_places_are_gone(sessions: Sessions, tmp_path: Path) -> None:
    for name in range(LIMITS.takes + LIMITS.waiting):
        start(sessions, sessions.get(str(name)), tmp_path)
        assert sessions.get(str(name)).takes[-1].place == max(name + 1 - LIMITS.takes, 0)
    with pytest.raises(BusyError):
        start(sessions, sessions.get("one too many"), tmp_path)


def test_the_idle_are_forgotten_and_the_running_are_not(sessions: Sessions, tmp_path: Path) -> None:
    idle, busy = sessions.get("idle"), sessions.get("busy")
    start(sessions, busy, tmp_path)
    for session in (idle, busy):
        session.seen -= LIMITS.idle_seconds + 1
    sessions.sweep()
    assert not idle.folder.exists() and busy.folder.exists() and len(sessions) == 1


def test_there_is_room_for_so_many_visitors_and_who_was_idle_the_longest_goes(tmp_path: Path) -> None:
    sessions = Sessions(tiny_engine(), replace(LIMITS, visitors=2))
    try:
        start(sessions, sessions.get("watching"), tmp_path)
        for name in ("idle", "newer", "newest"):
            sessions.get(name)
        assert set(sessions._sessions) == {"watching", "newest"}
    finally:
        sessions.close_all()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do it by themselves, or cannot")
def test_what_is_free_is_given_back_to_the_system(sessions: Sessions) -> None:
    memory = psutil.Process().memory_info
    pieces = [bytearray(5000) for _ in range(20_000)]  # small ones, of which many lie between what stays
    held = pieces[::100]
    full = memory().rss
    del pieces
    sessions.sweep()
    assert full - memory().rss > 50 * 2**20 and len(held) == 200


def test_an_upload_that_two_share_goes_with_the_second(sessions: Sessions) -> None:
    upload = stored_by_gradio("same.png")
    upload.write_bytes(PORTRAIT.read_bytes())
    for name in "ab":
        sessions.set_portrait(sessions.get(name), upload)
    sessions.close("a")
    assert upload.exists()
    sessions.close("b")
    assert not upload.parent.exists()


def test_a_take_needs_both(sessions: Sessions) -> None:
    session = sessions.get("tab")
    with pytest.raises(UploadError, match="portrait"):
        sessions.start_take(session, controls=Controls(), seed=0)
    sessions.set_portrait(session, PORTRAIT)
    with pytest.raises(UploadError, match="voice"):
        sessions.start_take(session, controls=Controls(), seed=0)


def test_only_finished_takes_up_to_a_few_are_kept(tmp_path: Path) -> None:
    sessions = Sessions(tiny_engine(), replace(LIMITS, kept_takes=2))
    try:
        session = sessions.get("tab")
        sessions.set_portrait(session, PORTRAIT)
        sessions.set_voice(session, write_voice(tmp_path / "voice.wav", 0.2))
        for seed in range(4):
            assert sessions.start_take(session, controls=Controls(), seed=seed, pace="free").wait(30)
        assert [take.job.seed for take in session.takes] == [1, 2, 3]
        assert sorted(path.parent.name for path in session.folder.rglob("*.mp4")) == sorted(
            take.token for take in session.takes
        )
    finally:
        sessions.close_all()


def test_bundled_files_are_opened_once_for_all(sessions: Sessions) -> None:
    for name in "ab":
        sessions.set_bundled(sessions.get(name), PORTRAIT, SPEECH)
    assert (
        sessions.get("a").portrait is sessions.get("b").portrait and sessions.get("a").voice is sessions.get("b").voice
    )
    sessions.close("a")
    assert PORTRAIT.exists() and SPEECH.exists()


def test_a_portrait_with_shut_eyes_says_so_and_one_at_the_edge_shows_no_more_than_there_is(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sessions.get("edge")
    with Image.open(PHOTO) as photo:
        photo.crop((90, 0, *photo.size)).save(tmp_path / "edge.png")
    portrait = sessions.set_portrait(session, tmp_path / "edge.png")
    assert portrait is not None and portrait.box.left < -1
    still = sessions.still(session, ControlFrame(), None)
    streamed = StreamSession(sessions.engine.model, tmp_path / "edge.png")
    assert streamed._output.view is not None
    streamed.push(np.zeros(SAMPLES_PER_FRAME, np.float32))
    np.testing.assert_array_equal(still, next(iter(streamed.flush())).image)  # to the pixel what the command line makes

    with monkeypatch.context() as change:
        change.setattr(StreamSession, "eyes_stay_shut", True)
        portrait = sessions.set_portrait(session, tmp_path / "edge.png")
    assert portrait is not None and portrait.asleep
    assert "eyes are shut" in shown(portrait)["picture"]["note"]
    assert "eyes are shut" in shown(replace(portrait, faces=portrait.faces * 2))["picture"]["note"]
    assert shown(replace(portrait, asleep=False))["picture"]["note"] == ""
