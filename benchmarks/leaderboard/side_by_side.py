"""What the methods made of one clip, below each other: numbers are to be looked at, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eartalking.io.video_reader import read_video

COLUMNS = 8  # moments of the clip
SIDE = 128  # pixels of a frame
LABEL = 14  # pixels of height of a row's name
QUALITY = 75  # of JPEG


def side_by_side(videos: Mapping[str, Path]) -> Image.Image | None:
    """A row of frames of every video that is there, under its name; None where there is none."""
    rows = []
    for name, path in videos.items():
        if not path.is_file():
            continue
        frames = list(read_video(path).frames)
        chosen = np.linspace(0, len(frames) - 1, COLUMNS + 2).round().astype(int)[1:-1]  # neither end
        row = Image.new("RGB", (COLUMNS * SIDE, LABEL + SIDE), "white")
        ImageDraw.Draw(row).text((3, 1), name, fill="black")
        for column, index in enumerate(chosen):
            frame = Image.fromarray(frames[index]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            row.paste(frame, (column * SIDE, LABEL))
        rows.append(row)
    if not rows:
        return None
    whole = Image.new("RGB", (COLUMNS * SIDE, len(rows) * (LABEL + SIDE)))
    for number, row in enumerate(rows):
        whole.paste(row, (0, number * row.height))
    return whole
