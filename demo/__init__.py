"""The browser demo: a Gradio page, a live preview over a WebSocket, and an API. `app.py` starts it."""
