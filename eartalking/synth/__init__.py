"""SynthTalk: the synthetic talking-head data engine (never imported by inference code)."""
