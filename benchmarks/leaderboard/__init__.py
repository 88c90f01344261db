"""The leaderboard of `benchmarks.compare`: its rows, timings and plots."""
