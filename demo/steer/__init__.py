"""Sliders and an emotion pad that steer the running take straight through the player, without a detour over Gradio."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.component import component
from demo.timeline.tracks import track_table
from eartalking.controls import EMOTION_TRACK, EMOTIONS

_HERE = Path(__file__).parent
_GROUPS = {
    "Head": ("yaw", "pitch", "roll"),
    "Eyes": ("gaze_yaw", "gaze_pitch", "blink"),
    "Face": ("brow", "smile", "mouth_scale"),
}
_PAD_RADIUS = 38  # percent of the pad, for the words around it


def steering(**kwargs: Any) -> gr.HTML:
    """The component. `.input` fires with `event.tracks`, the controls that are asked for, when they change while no
    take runs; set its value to {"number": event.number, "url": a picture} and the stage shows that."""
    return component(_HERE, "steer", _html(), **kwargs)


def _html() -> str:
    tracks = {track["name"]: track for track in track_table()}
    groups = "".join(
        f"<fieldset><legend>{name}</legend>{''.join(_row(tracks[track]) for track in members)}</fieldset>"
        for name, members in _GROUPS.items()
    )
    feelings = [name for name in EMOTIONS if name != "neutral"]
    return (
        f'<section class="ear-steer" aria-label="Steer live" data-emotions="{escape(json.dumps(feelings))}">'
        '<header><h3>Steer</h3><button type="button" class="ear-release-all" title="Release all controls">'
        "Let the model decide all</button></header>"
        f'<div class="ear-groups">{groups}{_pad(feelings)}</div></section>'
    )


def _row(track: dict[str, Any]) -> str:
    name, label, tip = track["name"], escape(track["label"]), escape(track["tip"])
    return (
        f'<div class="ear-row is-auto" data-track="{name}" data-unit="{track["unit"]}" '
        f'data-neutral="{track["neutral"]}" '
        f'data-low="{track["low"]}" title="{tip}"><label for="steer-{name}">{label}</label>'
        f'<input id="steer-{name}" type="range" min="{track["low"]}" max="{track["high"]}" step="{track["step"]}" '
        f'value="{track["neutral"]}"><output>auto</output>'
        f'<button type="button" aria-label="Let the model decide: {label}" '
        'title="Let the model decide (release)">×</button></div>'
    )


def _pad(feelings: list[str]) -> str:
    words = ""
    for index, name in enumerate(feelings):
        angle = 2 * math.pi * index / len(feelings) - math.pi / 2
        left, top = 50 + _PAD_RADIUS * math.cos(angle), 50 + _PAD_RADIUS * math.sin(angle)
        words += f'<span data-feeling="{name}" style="left:{left:.1f}%;top:{top:.1f}%">{name}</span>'
    return (
        f'<fieldset class="ear-feel"><legend>{EMOTION_TRACK.title()}</legend>'
        '<div class="ear-pad is-auto" tabindex="0" role="slider" '
        'aria-label="Emotion: left and right choose, up and down set the strength" '
        f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="0">{words}'
        '<i class="ear-ring"></i><i class="ear-knob"></i></div>'
        '<div class="ear-row-end"><output class="ear-feeling">auto</output>'
        '<button type="button" class="ear-pad-release" aria-label="Let the model decide: emotion" '
        'title="Let the model decide (release)">×</button>'
        "</div></fieldset>"
    )
