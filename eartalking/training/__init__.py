"""The training stages, one command each; nothing here is imported by inference code."""
