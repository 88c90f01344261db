"""EARTalking: a portrait and a voice become a streamed, lip-synced, controllable talking head."""

from eartalking.checkpoint import load_model
from eartalking.controls import Controls
from eartalking.model import TalkingHeadModel
from eartalking.session import StreamSession

__all__ = ["Controls", "StreamSession", "TalkingHeadModel", "load_model"]
