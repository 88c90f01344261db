"""What programs are told about the API's arguments: JSON schemas with every control track and its range, and docstrings
that reach them whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from demo.timeline.tracks import TRACK_INFO
from eartalking.controls import CONTROL_RANGES, CONTROL_TRACKS, EMOTION_TRACK, EMOTIONS
from eartalking.output import FRAMES

LARGEST_SEED = 2**31 - 1
Schema = dict[str, Any]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_NOTHING: Schema = {"type": "null"}
_PIXELS: Schema = {"type": "number", "description": "pixels of the portrait's file"}


def _track_values() -> dict[str, Schema]:
    """The schema of one value of each track, as `ControlFrame` takes it."""
    values: dict[str, Schema] = {}
    for track in CONTROL_TRACKS:
        if track == EMOTION_TRACK:
            intensity = {"type": "number", "minimum": 0, "maximum": 1}
            pair = [{"type": "string", "enum": list(EMOTIONS)}, intensity]
            values[track] = {"type": "array", "prefixItems": pair, "minItems": 2, "maxItems": 2}
        else:
            low, high = CONTROL_RANGES[track]
            values[track] = {"type": "number", "minimum": low, "maximum": high}
    return values


def _released(value: Schema) -> Schema:
    return {"anyOf": [value, _NOTHING]}


def _keyframes(value: Schema) -> Schema:
    frame = {"type": "array", "prefixItems": [{"type": "number", "minimum": 0}, _released(value)]}
    return {"type": "array", "items": frame | {"minItems": 2, "maxItems": 2}}


def _tracks(schema_of: Callable[[Schema], Schema]) -> Schema:
    described = {track: {"description": _meaning(track)} for track in CONTROL_TRACKS}
    return {"type": "object", "properties": {t: schema_of(v) | described[t] for t, v in _track_values().items()}}


def _meaning(track: str) -> str:
    info = TRACK_INFO[track]
    if track == EMOTION_TRACK:
        return f"{info.label} [name, intensity 0..1]. {info.tip}. null: the model decides."
    low, high = CONTROL_RANGES[track]
    unit = " degrees" if info.unit == "°" else ""
    return f"{info.label}, {low:g}..{high:g}{unit}. {info.tip}. null: the model decides."


TRACKS: Schema = _tracks(_released) | {"minProperties": 1}
CONTROLS: Schema = {
    "type": "object",
    "properties": {
        "fps": {"type": "number", "const": 25},
        "tracks": _tracks(_keyframes)
        | {"description": "per track its keyframes [[seconds, value], ...] in order of time; linear in between"},
    },
}
CROP: Schema = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "left": _PIXELS,
                "top": _PIXELS,
                "side": _PIXELS | {"exclusiveMinimum": 0},
                "size": {"type": "integer", "enum": [256, 512], "description": "pixels a side of the video's square"},
                "frame": {"type": "string", "enum": list(FRAMES), "description": "the square, or the whole picture"},
                "background": {
                    "type": "string",
                    "description": "of the square: keep, or a colour as in CSS, such as white or #00b140",
                },
            },
        },
        _NOTHING,
    ]
}
FACE: Schema = {"type": "string", "pattern": "^(largest|left|right|[1-9][0-9]?)$"}
SEED: Schema = {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED}


class JsonInput(gr.JSON):
    """`gr.JSON` of one kind of document. The original tells programs that its type is {}, which is no schema: MCP
    clients and servers refuse every call."""

    is_template = True  # drawn by gr.JSON's own frontend

    def __init__(self, value: Any, schema: Schema, **kwargs: Any) -> None:
        self._schema = schema
        super().__init__(value, **kwargs)

    def api_info(self) -> Schema:
        return self._schema


class SeedInput(gr.Number):
    """`gr.Number` that tells programs which numbers are seeds."""

    is_template = True

    def api_info(self) -> Schema:
        return SEED


class FaceInput(gr.Textbox):
    """`gr.Textbox` that tells programs how a face is named."""

    is_template = True

    def api_info(self) -> Schema:
        return FACE


def told_whole(endpoint: Endpoint) -> Endpoint:
    """Unwrap an endpoint's docstring: Gradio reads one line per argument, and takes each line of "Returns:" for a value
    of its own."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(endpoint.__doc__ or "").splitlines():
        if line in ("Args:", "Returns:"):
            section = line
        indent = len(line) - len(line.lstrip())
        goes_on = (section == "Args:" and indent > 4) or (section == "Returns:" and lines[-1].startswith(" "))
        if goes_on:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    endpoint.__doc__ = "\n".join(lines)
    return endpoint
