"""The networks that features come from, one module each, and where their weights are."""
