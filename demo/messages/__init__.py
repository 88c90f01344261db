"""The page's one message. It stands beside the control that caused it, and the stage says the same; the next message,
or none, takes its place, so an old one never lingers.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from demo.component import component

_HERE = Path(__file__).parent
Message = dict[str, str]


def message_line() -> gr.HTML:
    """The component. Its value is a message: {"text", "mood": "bad" or "", "at": the name of a place}."""
    return component(_HERE, "message", "<i></i>", value=clear())


def message_place(name: str) -> None:
    """A place where a message may stand."""
    template = f'<div class="ear-message-place" data-at="{name}"></div>'
    gr.HTML(value=None, html_template=template, apply_default_css=False, elem_classes="ear-message-holder")


def bad(error: Exception, at: str) -> Message:
    """Something cannot be done; `at` is the place beside the control that was used."""
    return {"text": str(error), "mood": "bad", "at": at}


def note(text: str, at: str) -> Message:
    """Something that is worth knowing."""
    return {"text": text, "mood": "", "at": at}


def clear() -> Message:
    """No message."""
    return {"text": "", "mood": "", "at": "generate"}
