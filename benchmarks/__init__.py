"""What the default checkpoint is measured by: `benchmarks.quality` (the gates) and `benchmarks.stream_latency`."""
