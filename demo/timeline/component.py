"""The `gr.HTML` component: its template, style sheet and script, and its two server functions."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import gradio as gr

from demo.timeline.files import MAX_BYTES, text_from_tracks, tracks_from_bytes
from demo.timeline.tracks import track_table
from eartalking.config import FPS
from eartalking.controls import EMOTIONS
from eartalking.errors import InputError

WEB = Path(__file__).parent / "web"
# In the order in which one builds on the other; together they are the body of one function.
SCRIPTS = ("curves", "presets", "store", "draw", "panel", "view", "pointer", "keys", "actions", "main")


def script(elem_id: str, label: str) -> str:
    """The component's `js_on_load`: constants, among them the ranges of `eartalking.controls`, then the files of
    `web/`.
    """
    # In the script, and not template props: Gradio loses those when a hidden component is shown again.
    constants = {"FPS": FPS, "EMOTIONS": EMOTIONS, "TRACKS": track_table(), "TIMELINE_ID": elem_id, "LABEL": label}
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    return '"use strict";\n' + head + "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)


def read_controls(file: dict[str, str]) -> dict[str, Any]:
    """For the page: `{"name", "content": base64}` -> `{"tracks"}`, or `{"error"}` naming the file and the cause."""
    name = str(file.get("name", "controls"))
    content = str(file.get("content", ""))
    if len(content) > MAX_BYTES * 4 // 3 + 4:
        return {"error": f"{name}: larger than {MAX_BYTES // 2**20} MB, which no controls file needs"}
    try:
        return {"tracks": tracks_from_bytes(name, base64.b64decode(content, validate=True))}
    except (InputError, binascii.Error) as error:
        return {"error": str(error)}


def write_controls(request: dict[str, Any]) -> dict[str, str]:
    """For the page: `{"tracks", "kind": "json" or "csv"}` -> `{"text"}` of the controls file, or `{"error"}`."""
    try:
        return {"text": text_from_tracks(request["tracks"], request["kind"])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {"error": f"These controls cannot be saved: {error}"}


def empty_value(duration: float = 10.0) -> dict[str, Any]:
    """The value of a timeline without voice and keyframes, `duration` seconds long."""
    return {"fps": FPS, "duration": duration, "waveform": [], "tracks": {}, "applied": {}, "playhead": 0}


def control_timeline(
    label: str = "Control timeline", elem_id: str = "timeline", value: dict[str, Any] | None = None, **kwargs: Any
) -> gr.HTML:
    """A control timeline inside the current `gr.Blocks`; `kwargs` as for `gr.HTML` (`visible`, `scale`, ...).

    See `demo.timeline` for its value, its events and its interface in the browser.
    """
    return gr.HTML(  # not a subclass: Gradio writes a .pyi file beside the source of each subclass
        value=value if value is not None else empty_value(),
        label=label,
        elem_id=elem_id,
        html_template=(WEB / "timeline.html").read_text(encoding="utf-8"),
        css_template=(WEB / "timeline.css").read_text(encoding="utf-8"),
        js_on_load=script(elem_id, label),
        apply_default_css=False,
        server_functions=[read_controls, write_controls],
        **kwargs,
    )
