"""Put the parts together and serve them."""

from __future__ import annotations

import gc
import os
from typing import Any

import gradio as gr

from demo.conversation import LARGEST_MESSAGE
from demo.engine import Engine, load_engine
from demo.examples import ROOT
from demo.page import build_page
from demo.routes import gone_file_handlers, live_routes
from demo.sessions import Sessions
from demo.settings import Limits
from demo.stage import player_script
from demo.theme import build_theme, frame_style, style_sheet
from demo.voice import voice_script

# How often Gradio looks for work. Its own 1 ms takes the interpreter's lock from the model 1000 times a second.
_QUEUE_SECONDS = 0.02


def build_demo(
    engine: Engine | None = None, limits: Limits | None = None, checkpoint: str = "default"
) -> tuple[gr.Blocks, Sessions]:
    """The page and the state behind it. Without an engine, `checkpoint` is loaded."""
    limits = limits or Limits()
    engine = engine or load_engine(checkpoint, limits)
    sessions = Sessions(engine, limits)
    return build_page(sessions), sessions


def launch(page: gr.Blocks, sessions: Sessions, **kwargs: Any) -> tuple[Any, str, str]:
    """Serve the page together with its live routes, as `gr.Blocks.launch` does."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    page.queue(default_concurrency_limit=sessions.limits.takes + 2, max_size=32)
    page._queue.sleep_when_free = _QUEUE_SECONDS
    block = not kwargs.pop("prevent_thread_lock", False)
    served = page.launch(
        app_kwargs={"routes": live_routes(sessions), "exception_handlers": gone_file_handlers()},
        theme=build_theme(),
        css=style_sheet(),
        head=frame_style() + player_script() + voice_script(),
        max_file_size=max(sessions.limits.upload_bytes, sessions.limits.voice_bytes),
        mcp_server=True,
        ssr_mode=False,  # its Node process would stand between the browser and the live stream
        footer_links=["api", "gradio", "settings"],
        run_history=False,
        allowed_paths=[str(ROOT / "examples")],  # whichever folder the app is started from
        prevent_thread_lock=True,
        **kwargs,
    )
    # Frames are JPEG: compressing them once more would cost more time than encoding them did.
    page.server.config.ws_per_message_deflate = False
    page.server.config.ws_max_size = 4 * LARGEST_MESSAGE  # bytes; a larger message never gets as far as to be refused
    if block:
        # A full collection looks at every object of the libraries, and holds all streams up for 0.2 s meanwhile: longer
        # than the frames last that lie ahead. What is here now is here to stay.
        gc.collect()
        gc.freeze()
        page.block_thread()
    return served
