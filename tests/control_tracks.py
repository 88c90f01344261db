"""Random control tracks, and what eartalking.controls makes of them."""

import random
from typing import Any

from eartalking.controls import CONTROL_RANGES, EMOTIONS, SCALAR_TRACKS, Controls


def random_tracks(chance: random.Random, count: int = 8) -> dict[str, list[list[Any]]]:
    """Keyframes on and off the frame grid, with releases, on most tracks."""
    tracks: dict[str, list[list[Any]]] = {}
    for track in (*SCALAR_TRACKS, "emotion"):
        draws = range(chance.randrange(count))
        times = sorted({chance.randrange(100) / 25 if chance.random() < 0.7 else chance.uniform(0, 4) for _ in draws})
        low, high = CONTROL_RANGES.get(track, (0.0, 1.0))
        tracks[track] = []
        for time in times:
            number = chance.uniform(low, high) if chance.random() < 0.8 else chance.choice([low, high, 0.0])
            value = [chance.choice(EMOTIONS), number] if track == "emotion" else number
            tracks[track].append([time, None if chance.random() < 0.25 else value])
    return {track: keyframes for track, keyframes in tracks.items() if keyframes}


def controls(tracks: dict[str, list[list[Any]]]) -> Controls:
    return Controls({track: [tuple(keyframe) for keyframe in keyframes] for track, keyframes in tracks.items()})


def values(tracks: dict[str, list[list[Any]]], track: str, frames: range) -> list[Any]:
    loaded = controls({track: tracks.get(track, [])})
    return [loaded.at(frame)[track] for frame in frames]
