"""The networks that metrics look through, and their weights."""
