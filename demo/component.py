"""A `gr.HTML` component of our own: a folder with a template and a script of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr


def component(folder: Path, name: str, template: str | None = None, **kwargs: Any) -> gr.HTML:
    """The component `name`, also its element's id: `folder/name.html`, or `template` where that is computed, and
    `folder/name.js`.
    """
    return gr.HTML(
        value=kwargs.pop("value", None),
        html_template=(folder / f"{name}.html").read_text(encoding="utf-8") if template is None else template,
        js_on_load=(folder / f"{name}.js").read_text(encoding="utf-8"),
        elem_id=name,
        apply_default_css=False,
        **kwargs,
    )
