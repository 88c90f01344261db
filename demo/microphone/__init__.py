"""The live stage: a canvas that shows the portrait speaking with the visitor's own voice, and what steers it. Its value
is the ticket of a talk.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.component import component
from demo.timeline.tracks import track_table
from eartalking.controls import EMOTION_TRACK, EMOTIONS

_HERE = Path(__file__).parent


def live_stage(**kwargs: Any) -> gr.HTML:
    """The component. Give it `{"token": ..., "url": "live/<token>"}` and it asks for the microphone and opens that
    talk."""
    page = (_HERE / "microphone.html").read_text(encoding="utf-8")
    return component(_HERE, "microphone", page.replace("<!-- rows -->", _rows()), **kwargs)


def _rows() -> str:
    rows = "".join(_row(track) for track in track_table() if track["name"] != EMOTION_TRACK)
    feelings = "".join(f"<option>{name}</option>" for name in EMOTIONS)
    return rows + (
        '<div class="ear-row" data-track="emotion"><label for="talk-emotion">Emotion</label>'
        f'<select id="talk-emotion"><option value="">auto</option>{feelings}</select></div>'
    )


def _row(track: dict[str, Any]) -> str:
    name, label = track["name"], escape(track["label"])
    return (
        f'<div class="ear-row is-auto" data-track="{name}" title="{escape(track["tip"])}">'
        f'<label for="talk-{name}">{label}</label>'
        f'<input id="talk-{name}" type="range" min="{track["low"]}" max="{track["high"]}" step="{track["step"]}" '
        f'value="{track["neutral"]}" data-neutral="{track["neutral"]}"><output>auto</output>'
        f'<button type="button" aria-label="Let the model decide: {label}" title="Let the model decide">×</button>'
        "</div>"
    )
