"""Opening media files: what every reader and writer of this room shares."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from os import PathLike

import av
from av.video.reformatter import Interpolation

from eartalking.errors import InputError, check_file, os_cause

FilePath = str | PathLike[str]
# Bicubic with accurate rounding and full chroma: the scaler's fast paths darken by one level each way.
EXACT_COLOURS = int(Interpolation.BICUBIC) | 0x40000 | 0x2000


@contextlib.contextmanager
def open_media(path: FilePath) -> Iterator[av.container.InputContainer]:
    """A media file, opened for reading.

    Raises:
        InputError: missing, no plain file, empty, not a media file, or (while it is read) damaged.
    """
    check_file(path)
    try:
        # The whitelist keeps playlists from opening anything over a network.
        with av.open(media_url(path), options={"protocol_whitelist": "file"}) as container:
            yield container
    except InputError:
        raise
    except av.InvalidDataError:
        raise InputError(path, "not an audio or video file, or damaged") from None
    except (OSError, av.FFmpegError, ValueError) as error:  # ValueError: what a decoder finds wrong
        raise InputError(path, os_cause(error)) from None


def media_url(path: FilePath) -> str:
    """The file as FFmpeg takes it: without the scheme, a name such as `a:b.wav` would be taken for a protocol."""
    return f"file:{os.path.abspath(path)}"
