"""The voice's input takes videos, too."""

from __future__ import annotations

from pathlib import Path


def voice_script() -> str:
    """For the page's head; it acts on the component with the id `voice`."""
    return f"<script>{(Path(__file__).parent / 'videos.js').read_text(encoding='utf-8')}</script>"
