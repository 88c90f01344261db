"""The Live tab: the portrait of the Create tab, or the first example's, speaks with the visitor's own voice."""

from __future__ import annotations

from typing import Any

import gradio as gr

from demo.channel import BusyError
from demo.examples import EXAMPLES
from demo.microphone import live_stage
from demo.portrait import chosen
from demo.sessions import Sessions
from demo.uploads import UploadError

CONSENT = "I speak with my own voice, I may animate this portrait, and I will say that the result is AI-generated."
CONSENT_NEEDED = "Please confirm the consent box first: it is about real people."
_WORDS = """
**Speak, and the portrait speaks.** It takes the portrait chosen under *Create*, or the first example's. Nothing is
kept on the server but what you record, and that goes when you leave.
"""
_NOT_HERE = """
**Live talks are not offered on this machine**: its GPU is lent for seconds at a time. Run the app on a computer of your
own.
"""


def build_live_tab(sessions: Sessions, crop: gr.HTML) -> None:
    """crop: the Create tab's crop of the portrait."""
    if not sessions.engine.talks:
        gr.Markdown(_NOT_HERE)
        return
    with gr.Column(elem_id="talk"):
        gr.Markdown(_WORDS)
        consent = gr.Checkbox(False, label=CONSENT, elem_id="talk-consent")
        start = gr.Button("Start", variant="primary", elem_id="talk-start")
        message = gr.Markdown("", elem_id="talk-message")
        screen = live_stage()

    def talk_live(crop_value: Any, agreed: bool, request: gr.Request) -> tuple[Any, str]:
        session = sessions.get(request.session_hash)
        try:
            if not agreed:
                raise UploadError(CONSENT_NEEDED)
            if session.portrait is None:
                sessions.set_bundled(session, EXAMPLES[0].portrait, EXAMPLES[0].voice)
            talk = sessions.start_talk(session, seed=0, crop=chosen(crop_value))
        except (UploadError, BusyError) as error:
            return gr.skip(), f"**{error}**"
        return {"token": talk.token, "url": talk.url}, ""

    start.click(
        talk_live, [crop, consent], [screen, message], queue=False, api_visibility="private", show_progress="hidden"
    )
