"""The gates of `benchmarks.quality`: what is measured, on what, against which value."""
