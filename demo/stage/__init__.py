"""The stage: a canvas that plays the running take, with transport, meters and results. Its value is the ticket of a
take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from demo.component import component

_HERE = Path(__file__).parent
_SCRIPTS = ("clock.js", "hand.js", "steering.js", "player.js")


def player_script() -> str:
    """The player with its parts, for the page's head: they must be there before any component uses them."""
    return "".join(f"<script>{(_HERE / name).read_text(encoding='utf-8')}</script>" for name in _SCRIPTS)


def stage(**kwargs: Any) -> gr.HTML:
    """The component. Give it `{"token": ..., "url": "live/<token>"}` and it plays that take from its start."""
    return component(_HERE, "stage", **kwargs)
