"""Measuring: readers that look at pixels only, and the mathematics of the metrics."""
