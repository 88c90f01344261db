"""The page: what it looks like and which event does what. All work is done by the other modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from demo.about import build_about_tab
from demo.api import add_api
from demo.api_schema import LARGEST_SEED
from demo.channel import BusyError
from demo.compare import build_compare_tab
from demo.examples import EXAMPLES, PORTRAITS, VOICES, example_cards
from demo.leaderboard import build_leaderboard_tab
from demo.live_tab import CONSENT_NEEDED, build_live_tab
from demo.looks import looks
from demo.messages import bad, clear, message_line, message_place, note
from demo.portrait import PortraitInput, chosen, picture_url, portrait_crop, shown
from demo.sessions import Sessions, UserSession
from demo.settings import LEADERBOARD
from demo.stage import stage
from demo.steer import steering
from demo.timeline import control_timeline
from demo.typed import LONGEST_TEXT, say
from demo.uploads import UploadError, read_controls

CONSENT = "I may animate this portrait and use this voice, and I will say that the result is AI-generated."
_HEADER = """
<header class="ear-head">
  <div><h1>Make a portrait speak, and steer it while it does</h1>
    <p>Click an example, or bring a face and a voice of your own. <span>EARTalking</span></p></div>
  <button type="button" class="ear-theme" aria-label="Switch between light and dark">
    <svg viewBox="0 0 24 24" aria-hidden="true">
  <path d="M12 3a9 9 0 1 0 9 9 7 7 0 0 1-9-9z"/></svg></button>
</header>
"""
_LONGEST_TITLE = 40  # characters of a file's name that tell a take from others
_SWITCH_THEME = """
const button = element.querySelector(".ear-theme");
button.addEventListener("click", () => document.body.classList.toggle("dark"));
"""


def build_page(sessions: Sessions) -> gr.Blocks:
    """The whole app as `gr.Blocks`; `Blocks.unload` frees what a visitor leaves behind."""
    sessions.preload(PORTRAITS, VOICES)
    with gr.Blocks(title="EARTalking", fill_width=True, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        add_api(sessions)  # first: of two events that are called alike the later one gets another name
        gr.HTML(value=None, html_template=_HEADER, js_on_load=_SWITCH_THEME, apply_default_css=False)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Create", id="create"):
                crop = _build_create(sessions)
            with gr.Tab("Live", id="live"):
                build_live_tab(sessions, crop)
            with gr.Tab("Compare", id="compare"):
                build_compare_tab(_finished_takes(sessions))
            with gr.Tab("Leaderboard", id="leaderboard"):
                build_leaderboard_tab(LEADERBOARD)
            with gr.Tab("About", id="about"):
                build_about_tab()

        def leave(request: gr.Request) -> None:
            sessions.close(request.session_hash)

        page.unload(leave)
    return page


def _finished_takes(sessions: Sessions) -> Callable[[gr.Request], list[dict[str, Any]]]:
    """What the visitor has made, newest first, as the Compare tab takes it."""

    def takes(request: gr.Request) -> list[dict[str, Any]]:
        made = [take for take in sessions.get(request.session_hash).takes if take.has_video]
        return [{"id": take.token, "label": take.label, "url": f"{take.url}/talking.mp4"} for take in reversed(made)]

    return takes


class _CreateHandlers:
    """What happens on the Create tab; each gives the values of the components that it was registered with."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._looks = looks(sessions.engine.image_size)

    def take_portrait(self, path: str | None, request: gr.Request) -> tuple[Any, Any, Any]:
        session = self._sessions.get(request.session_hash)
        try:
            found = self._sessions.set_portrait(session, None if path is None else Path(path))
        except UploadError as error:
            return None, shown(None), bad(error, "portrait")
        session.title = "" if path is None else Path(path).stem[:_LONGEST_TITLE]
        return gr.skip(), shown(found), clear()

    def choose_face(self, event: gr.EventData, request: gr.Request) -> tuple[Any, Any]:
        try:
            found = self._sessions.choose_face(self._sessions.get(request.session_hash), int(event.number))
        except (UploadError, TypeError, ValueError) as error:
            return gr.skip(), bad(error, "portrait")
        return shown(found), clear()

    def preview(self, event: gr.EventData, crop_value: Any, request: gr.Request) -> Any:
        """What the portrait looks like under the controls that are asked for, while no take runs."""
        session = self._sessions.get(request.session_hash)
        try:
            controls = read_controls({"fps": 25, "tracks": event.tracks})
            still = self._sessions.still(session, controls.at(0), chosen(crop_value))
        except UploadError:
            return gr.skip()  # Generate says what is wrong with the portrait or its crop
        return gr.skip() if still is None else {"number": event.number, "url": picture_url(still)}

    def take_voice(self, path: str | None, request: gr.Request) -> tuple[Any, Any, Any, Any]:
        session = self._sessions.get(request.session_hash)
        try:
            heard = self._sessions.set_voice(session, None if path is None else Path(path))
        except UploadError as error:
            return None, gr.skip(), _voice_on_timeline(session), bad(error, "voice")
        if not heard:
            return gr.skip(), gr.skip(), gr.skip(), clear()
        session.words = ""
        return gr.skip(), "", _voice_on_timeline(session), note(heard.note, "voice")

    def type_voice(self, words: str, request: gr.Request) -> tuple[Any, Any, Any]:
        session = self._sessions.get(request.session_hash)
        try:
            return self._speak(session, words), _voice_on_timeline(session), clear()
        except UploadError as error:
            return gr.skip(), gr.skip(), bad(error, "voice")

    def _speak(self, session: UserSession, words: str) -> str:
        """Let the voice be these words; returns its file."""
        spoken = say(words, session.folder / "typed.wav")
        self._sessions.set_voice(session, spoken)
        session.words = words.strip()
        return str(spoken)

    def start(
        self,
        crop_value: Any,
        timeline_value: Any,
        look: str,
        seed_value: float | None,
        with_badge: bool,
        agreed: bool,
        words: str | None,
        request: gr.Request,
    ) -> tuple[Any, Any, Any, Any]:
        """Words that were typed and not sent by Enter are spoken, too: what stands in the box is what is meant."""
        session = self._sessions.get(request.session_hash)
        voice, heard = gr.skip(), gr.skip()
        try:
            if words and words.strip() not in ("", session.words):
                voice = self._speak(session, words)
                heard = _voice_on_timeline(session)
            _require_consent(session, agreed)
            controls = read_controls({"fps": 25, "tracks": (timeline_value or {}).get("tracks", {})})
            crop = chosen(crop_value)
            take = self._sessions.start_take(
                session,
                controls=controls,
                seed=int(seed_value or 0),
                crop=crop,
                look=self._looks.get(look),
                badge=with_badge,
            )
        except (UploadError, BusyError) as error:
            return voice, heard, gr.skip(), bad(error, "generate")
        return voice, heard, {"token": take.token, "url": take.url}, clear()

    def speak_example(
        self, event: gr.EventData, look: str, seed_value: float | None, with_badge: bool, request: gr.Request
    ) -> tuple[Any, ...]:
        session = self._sessions.get(request.session_hash)
        example = EXAMPLES[event.index]
        try:
            self._sessions.set_bundled(session, example.portrait, example.voice)
            session.title = example.title
            controls = read_controls({"fps": 25, "tracks": example.tracks})
            take = self._sessions.start_take(
                session,
                controls=controls,
                seed=int(seed_value or 0),
                look=self._looks.get(look),
                badge=with_badge,
            )
        except (UploadError, BusyError) as error:
            return (*(gr.skip() for _ in range(6)), bad(error, "examples"))
        session.words = ""
        ticket = {"token": take.token, "url": take.url}
        timeline_value = _voice_on_timeline(session) | {"tracks": example.tracks}
        return str(example.portrait), str(example.voice), "", shown(session.portrait), timeline_value, ticket, clear()


def _build_create(sessions: Sessions) -> gr.HTML:
    """The tab; returns the crop of the portrait."""
    with gr.Row(elem_id="create"):
        with gr.Column(elem_id="start"):
            cards = example_cards()
            message_place("examples")
        with gr.Column(elem_id="inputs"):
            portrait = PortraitInput(
                label="Portrait",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                height=160,
                elem_id="portrait",
                buttons=[],
            )
            crop = portrait_crop()
            message_place("portrait")
            voice = gr.Audio(
                label="Voice", sources=["upload", "microphone"], type="filepath", elem_id="voice", buttons=[]
            )
            text = gr.Textbox(
                placeholder="or type what to say, in English", show_label=False, label="Text to say",
                max_length=LONGEST_TEXT, submit_btn=True, elem_id="typed",
            )  # fmt: skip
            message_place("voice")
            look, seed, badge = _options(list(looks(sessions.engine.image_size)))
            consent, generate = _consent_and_generate()
        with gr.Column(elem_id="watch"):
            screen = stage()
        with gr.Column(elem_id="controls"):
            steer = steering()
    message = message_line()
    timeline = control_timeline(label="Control timeline", elem_id="timeline")

    handlers = _CreateHandlers(sessions)
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    portrait.input(handlers.take_portrait, portrait, [portrait, crop, message], **private)
    consent.input(clear, None, message, queue=False, **private)
    crop.select(handlers.choose_face, None, [crop, message], **private)
    steer.input(handlers.preview, crop, steer, trigger_mode="always_last", **private)
    voice.input(handlers.take_voice, voice, [voice, text, timeline, message], **private)
    text.submit(handlers.type_voice, text, [voice, timeline, message], **private)
    # Not queued: a queue would only add its own delay before the first frame. How many may run is the slots' business.
    generate.click(
        handlers.start,
        [crop, timeline, look, seed, badge, consent, text],
        [voice, timeline, screen, message],
        queue=False,
        **private,
    )
    cards.select(
        handlers.speak_example,
        [look, seed, badge],
        [portrait, voice, text, crop, timeline, screen, message],
        queue=False,
        **private,
    )
    return crop


def _options(looks_offered: list[str]) -> tuple[gr.Dropdown, gr.Number, gr.Checkbox]:
    with gr.Accordion("Options", open=False):
        look = gr.Dropdown(
            looks_offered,
            value=looks_offered[0],
            label="Picture",
            elem_id="look",
            filterable=False,
            info="More pixels take longer to make: on a small machine the video starts later.",
        )
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED,
                         info="Same inputs, controls and seed: same video.")  # fmt: skip
        badge = gr.Checkbox(False, label="Visible AI-generated badge", info="The file's metadata says so in any case.")
    return look, seed, badge


def _consent_and_generate() -> tuple[gr.Checkbox, gr.Button]:
    with gr.Column(elem_id="go"):
        consent = gr.Checkbox(False, label=CONSENT, elem_id="consent")
        generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
        message_place("generate")
    return consent, generate


def _require_consent(session: UserSession, agreed: bool) -> None:
    if agreed or session.portrait is None or session.voice is None:
        return
    if session.portrait.path not in PORTRAITS or session.voice.path not in VOICES:
        raise UploadError(CONSENT_NEEDED)


def _voice_on_timeline(session: UserSession) -> dict[str, Any]:
    if session.voice is None:
        return {"waveform": [], "duration": 10.0}
    return {"fps": 25, "duration": session.voice.seconds, "waveform": session.voice.peaks, "applied": {}, "playhead": 0}
