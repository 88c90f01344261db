"""The demo: `python app.py`, then open the address that it prints."""

from __future__ import annotations

from demo.app import build_demo, launch

demo, sessions = build_demo()

if __name__ == "__main__":
    launch(demo, sessions)
