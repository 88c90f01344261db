"""Leaf neural blocks: torch only, plain arguments, streaming state passed in and out."""
