"""SynthTalk's renderer: frames, portraits and exact correspondence, by OpenGL without a window (moderngl, EGL).

Face units are one matrix product for many frames; the vertex shader turns head and eyes, so a frame costs one
upload of the moving vertices and one draw call. Runs on llvmpipe as well as on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import moderngl
import numpy as np
import torch
from PIL import Image, ImageFilter

from eartalking.motion.face_units import FACE_UNITS
from eartalking.motion.head_space import rotation
from eartalking.synth.head import HeadBundle, load_bundle, vertex_normals
from eartalking.synth.identity import Identity
from eartalking.synth.shaders import (
    BACKGROUND_FRAGMENT,
    BACKGROUND_VERTEX,
    COLOUR_FRAGMENT,
    COLOUR_VERTEX,
    CORRESPONDENCE_BACKGROUND_FRAGMENT,
    CORRESPONDENCE_FRAGMENT,
    CORRESPONDENCE_VERTEX,
    POINT_FRAGMENT,
    POINT_VERTEX,
    SHRINK_FRAGMENT,
    SURFACE_FRAGMENT,
    SURFACE_VERTEX,
)

if TYPE_CHECKING:
    from eartalking.synth.performance import Performance

FRAMES_PER_BATCH = 32
# Two surfaces closer than this (head heights, along the view) count as the same one in the visibility test.
DEPTH_TOLERANCE = 0.02
LID_FOLLOW_DEGREES = 28.0  # gaze at which an eyeLook unit is fully on
MAX_VERTICES, MAX_TRIANGLES = 16384, 32768


class Renderer:
    """One off-screen OpenGL context and the identity that is loaded into it.

    Not thread-safe: make one per process. Raises an Exception of moderngl if no EGL driver is installed.
    """

    def __init__(
        self, size: int = 256, map_size: int = 64, *, supersampling: float = 1.5, bundle: HeadBundle | None = None
    ) -> None:
        """size, map_size: pixels of frames and maps; the surface's map has twice as many. supersampling: frames are
        drawn this much larger and averaged (1 to 2); on llvmpipe 1.5 looks like multisampling with 4 samples and takes
        two thirds of its time."""
        self.size, self.map_size = size, map_size
        self.bundle = bundle or load_bundle()
        self.context = context = moderngl.create_context(standalone=True, backend="egl")
        context.enable(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        context.front_face = "cw"  # the picture is upside down in the frame buffer, which turns the winding round
        self._moving, self._delta = _moving_vertices(self.bundle)
        self._make_buffers()
        quad = context.buffer(np.array([-1, -1, -1, 1, 1, -1, 1, 1], "f4"))

        def background(fragment: str) -> tuple[moderngl.Program, moderngl.VertexArray]:
            program = context.program(vertex_shader=BACKGROUND_VERTEX, fragment_shader=fragment)
            return program, context.vertex_array(program, [(quad, "2f", "in_corner")])

        self._colour, self._colour_mesh = self._mesh_pass(COLOUR_VERTEX, COLOUR_FRAGMENT)
        self._surface, self._surface_mesh = self._mesh_pass(SURFACE_VERTEX, SURFACE_FRAGMENT)
        self._point, self._point_mesh = self._mesh_pass(POINT_VERTEX, POINT_FRAGMENT)
        self._map, self._map_mesh = self._mesh_pass(CORRESPONDENCE_VERTEX, CORRESPONDENCE_FRAGMENT)
        self._backdrop, self._backdrop_quad = background(BACKGROUND_FRAGMENT)
        self._map_backdrop, self._map_backdrop_quad = background(CORRESPONDENCE_BACKGROUND_FRAGMENT)

        self._shrink, self._shrink_quad = background(SHRINK_FRAGMENT)
        self._frame = context.simple_framebuffer((size, size), components=4)
        large = round(size * supersampling)
        self._large_texture = context.texture((large, large), 4)
        self._large_frame = context.framebuffer([self._large_texture], context.depth_renderbuffer((large, large)))
        self._surface_texture = context.texture((size, size), 2, dtype="f4")
        self._surface_texture.filter = (moderngl.NEAREST, moderngl.NEAREST)
        self._surface_frame = context.framebuffer([self._surface_texture], context.depth_renderbuffer((size, size)))
        self._map_frame = context.framebuffer(
            [context.texture((map_size, map_size), 4, dtype="f4")], context.depth_renderbuffer((map_size, map_size))
        )
        side = 2 * map_size
        self._point_frame = context.framebuffer(
            [context.texture((side, side), 4, dtype="f4")], context.depth_renderbuffer((side, side))
        )
        self.identity: Identity | None = None
        self._atlas: Any = None  # a moderngl.Texture, once there is an identity
        self._backdrop_texture: Any = None
        self._reference: Performance | None = None

    def _make_buffers(self) -> None:
        context = self.context
        self._dynamic = context.buffer(reserve=MAX_VERTICES * 24, dynamic=True)  # position, normal
        self._reference_positions = context.buffer(reserve=MAX_VERTICES * 12, dynamic=True)
        self._static = context.buffer(reserve=MAX_VERTICES * 28)  # uv, material, group
        self._index = context.buffer(reserve=MAX_TRIANGLES * 12)

    def _mesh_pass(self, vertex: str, fragment: str) -> tuple[moderngl.Program, moderngl.VertexArray]:
        program = self.context.program(vertex_shader=vertex, fragment_shader=fragment)
        layouts = [
            (self._dynamic, [("3f", "in_position"), ("3f", "in_normal")]),
            (self._static, [("2f", "in_uv"), ("4f", "in_material"), ("1f", "in_group")]),
            (self._reference_positions, [("3f", "in_reference")]),
        ]
        content = []
        for buffer, attributes in layouts:
            # Attributes that a pass does not use are padding to it.
            formats = [form if name in program else f"{int(form[0]) * 4}x" for form, name in attributes]
            names = [name for _, name in attributes if name in program]
            if names:
                content.append((buffer, " ".join(formats), *names))
        return program, self.context.vertex_array(program, content, self._index)

    def set_identity(self, identity: Identity) -> None:
        """Upload geometry, textures, background, light and camera; forgets the portrait of the one before."""
        if len(identity.rest) > MAX_VERTICES or len(identity.triangles) > MAX_TRIANGLES:
            raise ValueError(f"mesh too large: {len(identity.rest)} vertices, {len(identity.triangles)} triangles")
        self.identity, self._reference = identity, None
        self._dynamic.write(np.concatenate([identity.rest, identity.normals], axis=1).astype("f4").tobytes())
        self._reference_positions.write(identity.rest.astype("f4").tobytes())
        static = np.concatenate([identity.uv, identity.material, identity.group[:, None]], axis=1)
        self._static.write(static.astype("f4").tobytes())
        self._index.orphan()
        self._index.write(identity.triangles.astype("i4").tobytes())
        self._num_indices = identity.triangles.size
        moving = len(self._moving)
        self._base = np.concatenate([identity.rest[:moving], identity.normals[:moving]], axis=1).astype(np.float32)
        for texture in (self._atlas, self._backdrop_texture):
            if texture is not None:
                texture.release()
        self._atlas = self.context.texture(identity.atlas.shape[1::-1], 4, identity.atlas.tobytes())
        self._backdrop_texture = self.context.texture(identity.backdrop.shape[1::-1], 3, identity.backdrop.tobytes())
        light, photograph = identity.light, identity.photograph
        half = light.key_direction + np.array([0, 0, 1])
        shared = {
            "pivot": self.bundle.pivot,
            "eye_centres": identity.eye_centres,
            "camera": identity.camera,
            "focal": identity.focal,
            "vignette": 0.5 * photograph.vignette,
            "key_half": half / np.linalg.norm(half),
            "tolerance": DEPTH_TOLERANCE,
            **vars(light),
        }
        for program in (self._colour, self._surface, self._point, self._map, self._backdrop, self._map_backdrop):
            _set(program, shared)
        _set(self._colour, {"frame_size": float(self._large_texture.width)})
        _set(self._map, {"frame_size": float(self.size)})

    def render(self, performance: Performance) -> np.ndarray:
        """Frames (T, size, size, 3) uint8 of the loaded identity in every state of `performance`."""
        identity = self._loaded()
        frames = np.empty((len(performance.head_pose), self.size, self.size, 3), np.uint8)
        raw = np.empty((self.size, self.size, 4), np.uint8)
        opening = self.mouth_open(performance)
        for index, dynamic in enumerate(self._states(performance)):
            self._large_frame.use()
            self.context.clear()
            self._atlas.use(0)
            self._dynamic.write(dynamic)
            _set(self._colour, _pose_uniforms(performance, index))
            self._colour["mouth_light"] = 0.6 + 0.4 * min(float(opening[index]) / 0.1, 1.0)
            self._colour_mesh.render(vertices=self._num_indices)
            self._backdrop_texture.use(0)
            self._backdrop_quad.render(moderngl.TRIANGLE_STRIP)  # last: only where nothing covers it
            self._frame.use()
            self.context.clear()
            self._large_texture.use(0)
            self._shrink_quad.render(moderngl.TRIANGLE_STRIP)
            self._frame.read_into(raw, components=4, alignment=1)
            frames[index] = raw[..., :3]
        self._photograph(frames, identity, performance)
        return frames

    def set_reference(self, performance: Performance) -> np.ndarray:
        """Make the single state in `performance` the portrait; its picture (size, size, 3) uint8."""
        if len(performance.head_pose) != 1:
            raise ValueError(f"the portrait is one state, got {len(performance.head_pose)}")
        self._reference = performance
        self._loaded()
        dynamic = next(iter(self._states(performance)))
        self._reference_positions.write(np.ascontiguousarray(dynamic[:, :3]))
        pose = _pose_uniforms(performance, 0)
        _set(self._map, {f"reference_{name}": value for name, value in pose.items()})
        _set(self._surface, pose)
        self._dynamic.write(dynamic)
        self._surface_frame.use()
        self.context.clear()
        self._atlas.use(0)
        self._surface_mesh.render(vertices=self._num_indices)
        return self.render(performance)[0]

    def correspondence(self, performance: Performance) -> tuple[np.ndarray, np.ndarray]:
        """Where each frame's pixels are in the portrait.

        Returns positions (T, map, map, 2) float32 in [-1, 1] (x right, y down, `grid_sample` with
        align_corners=False) of the surface point at each pixel centre, and visibility (T, map, map) uint8, 255
        where the portrait shows that point. Background maps to itself. Raises RuntimeError without a portrait.
        """
        self._loaded()
        if self._reference is None:
            raise RuntimeError("call set_reference before correspondence")
        size = self.map_size
        values = np.empty((len(performance.head_pose), size, size, 4), np.float32)
        self._map_frame.use()
        self._map["atlas"], self._map["portrait_surface"], self._map_backdrop["portrait_surface"] = 0, 1, 1
        self._atlas.use(0)
        self._surface_texture.use(1)
        for index, dynamic in enumerate(self._states(performance)):
            self.context.clear()
            self._map_backdrop_quad.render(moderngl.TRIANGLE_STRIP)
            self._dynamic.write(dynamic)
            _set(self._map, _pose_uniforms(performance, index))
            self._map_mesh.render(vertices=self._num_indices)
            self._map_frame.read_into(values[index], components=4, dtype="f4", alignment=1)
        return values[..., :2].copy(), (values[..., 2] > 0.5).astype(np.uint8) * 255

    def surface(self, performance: Performance) -> np.ndarray:
        """What each pixel of every state shows: (T, side, side, 4) float32, the point of the head at rest, and its
        triangle counted from 1, 0 where the background is. Forgets the portrait."""
        identity = self._loaded()
        self._reference = None
        self._reference_positions.write(np.ascontiguousarray(identity.rest, dtype="f4"))
        values = np.empty((len(performance.head_pose), *self._point_frame.size, 4), np.float32)
        self._point_frame.use()
        self._point["atlas"] = 0
        self._atlas.use(0)
        for index, dynamic in enumerate(self._states(performance)):
            self.context.clear()
            self._dynamic.write(dynamic)
            _set(self._point, _pose_uniforms(performance, index))
            self._point_mesh.render(vertices=self._num_indices)
            self._point_frame.read_into(values[index], components=4, dtype="f4", alignment=1)
        return values

    def mouth_open(self, performance: Performance) -> np.ndarray:
        """Gap between the inner lips (T,) float32 in head heights, 0 when closed."""
        return np.maximum(self.bundle.lip_gap(_face_units(performance)), 0)

    def release(self) -> None:
        """Free the OpenGL context."""
        self.context.release()

    def _loaded(self) -> Identity:
        if self.identity is None:
            raise RuntimeError("call set_identity first")
        return self.identity

    def _states(self, performance: Performance):  # noqa: ANN202 (iterator of (N, 6) arrays)
        """Positions and normals (N, 6) float32 of the moving vertices, frame by frame."""
        units = _face_units(performance)
        for start in range(0, len(units), FRAMES_PER_BATCH):
            moved = units[start : start + FRAMES_PER_BATCH] @ self._delta
            moved = moved.reshape(len(moved), *self._base.shape)
            moved += self._base
            yield from moved

    def _photograph(self, frames: np.ndarray, identity: Identity, performance: Performance) -> None:
        """Tone curve, blur and noise, in place; the vignette is in the shaders."""
        photograph = identity.photograph
        level = (np.arange(256)[:, None] / 255) ** photograph.gamma * photograph.gain + photograph.lift
        table = (np.clip(level, 0, 1) * 255 + 0.5).astype(np.uint8)
        for channel in range(3):
            frames[..., channel] = table[frames[..., channel], channel]
        if photograph.blur:
            blur = ImageFilter.GaussianBlur(photograph.blur * self.size)
            for index in range(len(frames)):
                frames[index] = np.asarray(Image.fromarray(frames[index]).filter(blur))
        if photograph.noise:
            # One grain field, shifted differently for every state: cheap, and the same state gives the same frame.
            rng = np.random.default_rng(identity.seed)
            size, margin = self.size, 32
            grain = (rng.normal(0, photograph.noise, (size + margin, size + margin, 3))).round().astype(np.int16)
            for index in range(len(frames)):
                state = np.random.default_rng(np.abs(performance.head_pose[index] * 1e4).astype(np.int64))
                row, column = state.integers(0, margin, 2)
                noisy = frames[index] + grain[row : row + size, column : column + size]
                frames[index] = np.clip(noisy, 0, 255, out=noisy)


def _moving_vertices(bundle: HeadBundle) -> tuple[np.ndarray, np.ndarray]:
    """Render vertices (N,) that face units move, always the first N, and what each unit adds to their positions
    and normals: (52, N * 6). Normals are linearised: their change at a unit's full activation, on the mean head."""
    moves = np.abs(bundle.deltas).max(axis=(0, 2)) > 0
    count = int(np.flatnonzero(moves[bundle.render_vertex]).max()) + 1
    pick = bundle.render_vertex[:count]
    rest = vertex_normals(bundle.mean, bundle.triangles)
    change = np.stack([vertex_normals(bundle.mean + 0.7 * d, bundle.triangles) - rest for d in bundle.deltas]) / 0.7
    change[np.abs(bundle.deltas).max(axis=2) == 0] = 0
    delta = np.concatenate([bundle.deltas[:, pick], change[:, pick]], axis=2).astype(np.float32)
    return np.arange(count), np.ascontiguousarray(delta.reshape(len(delta), -1))


def _face_units(performance: Performance) -> np.ndarray:
    """The performance's face units (T, 52) with the lids following the gaze."""
    units = np.array(performance.face_units, np.float32)
    yaw, pitch = performance.gaze[:, 0] / LID_FOLLOW_DEGREES, performance.gaze[:, 1] / LID_FOLLOW_DEGREES
    open_lids = {side: 1 - units[:, FACE_UNITS.index(f"eyeBlink{side}")] for side in ("Left", "Right")}
    for name, value in {
        "LookUpLeft": pitch, "LookUpRight": pitch, "LookDownLeft": -pitch, "LookDownRight": -pitch,
        "LookOutLeft": yaw, "LookInRight": yaw, "LookInLeft": -yaw, "LookOutRight": -yaw,
    }.items():  # fmt: skip
        lids = open_lids["Left" if name.endswith("Left") else "Right"]
        units[:, FACE_UNITS.index(f"eye{name}")] = np.clip(value, 0, 1) * lids
    return units


def _turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix (3, 3), column-major as OpenGL reads it; degrees."""
    return rotation(torch.tensor([yaw, pitch, roll], dtype=torch.float64)).numpy().T


def _pose_uniforms(performance: Performance, index: int) -> dict[str, np.ndarray]:
    return {
        "head_rotation": _turn(*performance.head_pose[index].tolist()),
        "head_offset": performance.translation[index],
        "eye_rotation": _turn(*[*performance.gaze[index].tolist(), 0.0]),
    }


def _set(program: moderngl.Program, values: Mapping[str, np.ndarray | float]) -> None:
    """Write the uniforms that this program has."""
    for name, value in values.items():
        if name in program:
            program[name].write(np.asarray(value, "f4").tobytes())
