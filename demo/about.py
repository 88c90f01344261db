"""The About tab: how it works, what it cannot do, whose consent it needs, whose work it stands on."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_TEXT = Path(__file__).with_suffix(".md")


def build_about_tab() -> None:
    """Fill the tab with `about.md`."""
    gr.Markdown(_TEXT.read_text(encoding="utf-8"), elem_id="about")
