"""Looks: Gradio's theme with the system's own fonts (nothing is fetched), and the style sheet for our components."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def build_theme() -> gr.Theme:
    """A quiet theme around one warm accent."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.zinc,
        font=list(_SANS),
        font_mono=list(_MONO),
        radius_size=gr.themes.sizes.radius_lg,
    ).set(
        body_background_fill="#f6f6f4",
        body_background_fill_dark="#101113",
        block_background_fill="#ffffff",
        block_background_fill_dark="#191b1e",
        border_color_primary="#e2e2de",
        border_color_primary_dark="#2c2f34",
        button_primary_background_fill="#c2410c",
        button_primary_background_fill_hover="#9a3412",
        button_primary_background_fill_dark="#ea580c",
        button_primary_background_fill_hover_dark="#f97316",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#170a03",
        input_background_fill="#f6f6f4",
        input_background_fill_dark="#111315",
        block_border_width="1px",
        block_shadow="none",
        checkbox_border_radius="5px",
    )


def style_sheet() -> str:
    """`style.css`."""
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def frame_style() -> str:
    """For the page's head: Gradio confines the style sheet to what lies inside its outer frame."""
    return (
        # clip, not hidden: what sticks to the window's edge must find the window
        "<style>.gradio-container { overflow: clip !important; } @media (max-width: 640px) "
        "{ .gradio-container > .main.fillable { padding: 12px 14px 24px !important; } }</style>"
    )
