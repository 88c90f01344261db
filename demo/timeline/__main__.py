"""The timeline by itself, with the example voice: `python -m demo.timeline [--port N]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import gradio as gr

from demo.timeline import control_timeline, empty_value, waveform_peaks
from eartalking.io.sound import read_audio

VOICE = Path(__file__).parents[2] / "examples" / "speech.wav"


def build() -> gr.Blocks:
    """A page with one timeline over the example voice."""
    waveform = read_audio(VOICE)
    value = empty_value(waveform.size / 16000) | {
        "waveform": waveform_peaks(waveform),
        "tracks": {"yaw": [[0.4, 0.0], [1.2, 15.0], [2.0, None]], "emotion": [[1.0, ["happy", 0.8]], [2.4, None]]},
    }
    with gr.Blocks(title="Control timeline", fill_width=True) as page:
        timeline = control_timeline(value=value)
        asked = gr.JSON(label="Controls in Python", elem_id="asked", max_height=240)
        timeline.input(lambda value: value["tracks"], timeline, asked, show_progress="hidden")
    return page


def main() -> None:
    """Parse the command line and serve the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    build().launch(server_port=parser.parse_args().port)


if __name__ == "__main__":
    main()
