"""The stage: a canvas that plays the running take, with transport, meters and results. Its value is the ticket of a
take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from demo.component import component

_HERE = Path(__file__).parent


def player_script() -> str:
    """The player, for the page's head: it must be there before any component uses it."""
    return f"<script>{(_HERE / 'player.js').read_text(encoding='utf-8')}</script>"


def stage(**kwargs: Any) -> gr.HTML:
    """The component. Give it `{"token": ..., "url": "live/<token>"}` and it plays that take from its start."""
    return component(_HERE, "stage", **kwargs)
