"""The Compare tab: two videos side by side on one clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

WEB = Path(__file__).parent / "compare_web"
Take = dict[str, Any]


def build_compare_tab(list_takes: Callable[[gr.Request], Sequence[Take]], elem_id: str = "compare") -> None:
    """Build the tab's content inside the current `gr.Blocks` context.

    Args:
        list_takes: what this visitor may compare, newest first: dicts with `id`, `label` and `url` (relative to the
            page, or absolute). Asked again whenever the tab is shown. Files that the visitor opens stay in the browser.
        elem_id: the component's id; in the browser `window.EARCompare.get(elem_id)` has play, pause, seek(seconds) and
    state.
    """
    pair = gr.HTML(
        value={"takes": []},
        html_template=(WEB / "compare.html").read_text(encoding="utf-8"),
        css_template=(WEB / "compare.css").read_text(encoding="utf-8"),
        js_on_load=f"const COMPARE_ID = {json.dumps(elem_id)};\n" + (WEB / "compare.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
    )

    def takes(request: gr.Request) -> dict[str, list[Take]]:
        return {"takes": [{key: str(take[key]) for key in ("id", "label", "url")} for take in list_takes(request)]}

    pair.refresh(takes, None, pair, show_progress="hidden", queue=False, api_visibility="private")
