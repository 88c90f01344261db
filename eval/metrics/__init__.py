"""The metrics and the mathematics that they share: features of a clip -> statistics over clips -> a value."""
