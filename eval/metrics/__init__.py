"""The metrics, and the mathematics that they share."""
