"""The bundled examples: one click makes a face speak. The faces are rendered, or photographs in the public domain."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo.portrait import thumbnail

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Example:
    """A portrait and a voice of `examples/`; `tracks` is what the timeline says at the start."""

    title: str
    about: str
    portrait: Path
    voice: Path
    tracks: dict[str, list[list[Any]]]


EXAMPLES = (
    Example("An astronaut", "a photograph (NASA)", ROOT / "examples/photo.jpg", ROOT / "examples/speech.wav", {}),
    Example(
        "A person who does not exist",
        "a rendered head",
        ROOT / "examples/portrait.png",
        ROOT / "examples/speech.wav",
        {},
    ),
    Example(
        "A turn and a smile",
        "a photograph (US Navy)",
        ROOT / "examples/hopper.jpg",
        ROOT / "examples/speech.wav",
        {
            "yaw": [[0.4, 0], [1.4, 12], [2.6, 12], [3.8, -12], [5.0, 0]],
            "smile": [[2.4, 0], [3.2, 0.9], [5.2, 0.2]],
            "emotion": [[2.6, ["happy", 0.8]], [5.0, None]],
        },
    ),
)

_ON_LOAD = """
for (const card of element.querySelectorAll(".ear-example"))
  card.addEventListener("click", () => trigger("select", { index: Number(card.dataset.index) }));
"""


def example_cards(**kwargs: Any) -> gr.HTML:
    """The component; `.select` fires with `event.index`, a place in EXAMPLES."""
    return gr.HTML(
        value=None, html_template=_html(), js_on_load=_ON_LOAD, elem_id="examples", apply_default_css=False, **kwargs
    )


PORTRAITS = {example.portrait for example in EXAMPLES}
VOICES = {example.voice for example in EXAMPLES}


def _html() -> str:
    cards = "".join(
        f'<button type="button" class="ear-example" data-index="{index}">'
        f'<img src="{thumbnail(example.portrait, 160)}" alt="">'
        f"<span><b>{escape(example.title)}</b><small>{escape(example.about)}</small></span>"
        '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M8 5v14l11-7z"/></svg></button>'
        for index, example in enumerate(EXAMPLES)
    )
    heading = '<h2 class="ear-step">Click one and it speaks</h2>'
    group = 'role="group" aria-label="Examples: one click and a face speaks"'
    return f'{heading}<div class="ear-examples" {group}>{cards}</div>'
