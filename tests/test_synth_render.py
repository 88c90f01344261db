"""SynthTalk's renderer: signs of the controls, exact correspondence, reproducible identities."""

import numpy as np
import pytest

pytest.importorskip("moderngl")

from eartalking.motion.face_units import unit_vector
from eartalking.synth.head import PARTS, HeadBundle, load_bundle
from eartalking.synth.identity import Identity, sample_identity
from eartalking.synth.performance import Performance, random_stills
from eartalking.synth.render import Renderer

SIZE, MAP = 96, 48


def still(pose: tuple = (0, 0, 0), gaze: tuple = (0, 0), **units: float) -> Performance:
    """One state with the given pose, gaze and face units; everything else neutral."""
    state = random_stills(1, np.random.default_rng(0))
    state.head_pose[:], state.gaze[:], state.translation[:] = pose, gaze, 0
    state.face_units[:] = unit_vector(units)
    return state


@pytest.fixture(scope="module")
def bundle() -> HeadBundle:
    return load_bundle()


@pytest.fixture(scope="module")
def identity(bundle: HeadBundle) -> Identity:
    return sample_identity(5, "train", bundle)


@pytest.fixture(scope="module")
def renderer(identity: Identity):
    try:
        renderer = Renderer(SIZE, MAP)
    except Exception as error:  # moderngl raises plain Exceptions where the machine has no EGL driver
        pytest.skip(f"no OpenGL here: {error}")
    renderer.set_identity(identity)
    yield renderer
    renderer.release()


def warp(image: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Bilinear look-up of image (H, W, 3) at positions (h, w, 2) in [-1, 1], align_corners=False."""
    size = image.shape[0]
    x, y = np.clip(((position + 1) * size - 1) / 2, 0, size - 1.001).transpose(2, 0, 1)
    column, row = x.astype(int), y.astype(int)
    fx, fy = (x - column)[..., None], (y - row)[..., None]
    top = image[row, column] * (1 - fx) + image[row, column + 1] * fx
    bottom = image[row + 1, column] * (1 - fx) + image[row + 1, column + 1] * fx
    return top * (1 - fy) + bottom * fy


def centre_grid() -> np.ndarray:
    line = (np.arange(MAP) + 0.5) / MAP * 2 - 1
    return np.stack(np.meshgrid(line, line), axis=-1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_bundle_has_every_part(bundle: HeadBundle):
    for name in PARTS:
        assert len(bundle.vertices_of(name)) > 20, name
    assert np.abs(bundle.deltas).max(axis=(1, 2)).min() > 1e-3  # no unit is empty


def test_identities_depend_on_seed_and_split_only(bundle: HeadBundle, identity: Identity):
    again = sample_identity(5, "train", bundle)
    other = sample_identity(5, "test", bundle)
    assert np.array_equal(again.rest, identity.rest) and np.array_equal(again.atlas, identity.atlas)
    assert other.rest.shape != identity.rest.shape or not np.allclose(other.rest, identity.rest)
    with pytest.raises(ValueError, match="split"):
        sample_identity(5, "training", bundle)


def test_frames_are_reproducible(renderer: Renderer):
    states = random_stills(3, np.random.default_rng(1))
    frames = renderer.render(states)
    assert frames.shape == (3, SIZE, SIZE, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, renderer.render(states))
    assert np.array_equal(frames[1], renderer.render(states[1])[0])


def test_same_state_maps_to_itself(renderer: Renderer):
    state = still((12, -5, 4), (5, 0), jawOpen=0.4)
    renderer.set_reference(state)
    position, visible = renderer.correspondence(state)
    assert position.shape == (1, MAP, MAP, 2) and visible.shape == (1, MAP, MAP) and visible.dtype == np.uint8
    assert np.abs(position[0] - centre_grid()).max() < 1e-3
    assert (visible == 255).mean() > 0.97


@pytest.mark.parametrize("state", [still((18, 0, 0)), still((-8, 10, 12)), still(mouthSmile=1), still(jawOpen=0.7)])
def test_warping_the_portrait_reproduces_the_frame(renderer: Renderer, state: Performance):
    portrait = renderer.set_reference(still())
    frame = warp(renderer.render(state)[0], centre_grid())
    position, visible = renderer.correspondence(state)
    moved = (visible[0] == 255) & (np.abs(position[0] - centre_grid()).max(axis=-1) > 0.02)
    warped = warp(portrait, position[0])
    assert moved.sum() > 20
    assert psnr(warped[moved], frame[moved]) > psnr(warp(portrait, centre_grid())[moved], frame[moved]) + 2


@pytest.mark.parametrize(
    ("pose", "axis", "sign"), [((20, 0, 0), 0, 1), ((-20, 0, 0), 0, -1), ((0, 15, 0), 1, -1), ((0, -15, 0), 1, 1)]
)
def test_pose_moves_the_face_the_documented_way(renderer: Renderer, pose: tuple, axis: int, sign: int):
    """With the turned head as portrait, the middle of the neutral face is found where it went."""
    renderer.set_reference(still(pose))
    position, _ = renderer.correspondence(still())
    middle = slice(MAP // 2 - 2, MAP // 2 + 2)
    moved = (position[0] - centre_grid())[middle, middle, axis].mean()
    assert sign * moved > 0.05  # image coordinates: x right, y down


def test_roll_is_clockwise(renderer: Renderer):
    renderer.set_reference(still((0, 0, 15)))
    position, _ = renderer.correspondence(still())
    crown, chin = position[0, MAP // 4, MAP // 2, 0], position[0, 3 * MAP // 4, MAP // 2, 0]
    assert crown > chin + 0.05


def test_mouth_opening_follows_the_jaw(renderer: Renderer):
    opening = renderer.mouth_open(Performance.concat([still(), still(jawOpen=0.4), still(jawOpen=1)]))
    assert opening[0] < 0.005 and 0.02 < opening[1] < opening[2] < 0.3


def test_blink_hides_the_eyeballs(renderer: Renderer, identity: Identity):
    eye = np.array([identity.eye_centres[0, 0], identity.eye_centres[0, 1], 0.5])
    depth = identity.camera[2] - eye[2]
    x, y = (eye[:2] - identity.camera[:2]) * identity.focal / depth
    column, row = int((x + 1) * SIZE / 2), int((1 - y) * SIZE / 2)
    opened, closed = renderer.render(Performance.concat([still(), still(eyeBlink=1)])).astype(int)
    area = (slice(row - 2, row + 3), slice(column - 3, column + 4))
    assert np.abs(opened[area] - closed[area]).mean() > 8


def test_correspondence_needs_a_portrait(bundle: HeadBundle, renderer: Renderer, identity: Identity):
    renderer.set_identity(identity)
    with pytest.raises(RuntimeError, match="set_reference"):
        renderer.correspondence(still())
