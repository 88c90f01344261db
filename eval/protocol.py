"""Everything besides the videos that a number depends on; its hash stands in every row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from eartalking.config import FPS, SAMPLE_RATE

VERSION = 2  # raised whenever a metric's definition changes
# What `eartalking.io.VideoWriter` does; a test holds the two together.
CODEC = "h264 yuv420p crf=18 preset=veryfast threads=1 x264-params=rc-lookahead=0:no-mbtree=1; sound pcm"
CROPS = ("face", "none")
IDENTITIES = ("truth", "portrait")
AUDIOS = ("own", "reference")


@dataclass(frozen=True)
class Protocol:
    """How clips are read and counted. Every field enters the hash.

    Attributes:
        crop: "face": both videos of a pair are cut by the box of the truth's face, framed as
            `eartalking.perception.face_detector` frames; "none": they hold a framed face already, and only their
            largest centred square is taken.
        size: side of the square frames in pixels, even, at least 32.
        fps: frames a second; videos of other rates are resampled.
        codec: the re-encoding that every video goes through, the truth included; "" leaves it out.
        audio: "own": the sound track of the judged video; "reference": the truth's, for methods that write none.
        identity: what `csim` compares a frame with: the "truth" of the same instant (self-reenactment) or the
            "portrait".
        pair_every: lpips, ssim and psnr look at each n-th frame only.
        identity_every: the identity networks look at each n-th frame only.
        window: frames of a window of the video distances.
        max_shift: frames that the search for the audio-visual offset goes either way.
        bin_seconds: length of the time bins of drift; the others are compared with the first.
        resamples, frechet_resamples: draws of the bootstrap.
        seed: of the bootstrap.
        clips: (name, SHA-256 of the truth) of every clip of the list.

    Raises:
        ValueError: a field has a value that is not known.
    """

    crop: str = "face"
    size: int = 256
    fps: int = FPS
    sample_rate: int = SAMPLE_RATE
    codec: str = CODEC
    audio: str = "own"
    identity: str = "truth"
    pair_every: int = 5
    identity_every: int = 10
    window: int = 16
    max_shift: int = 15
    bin_seconds: float = 10.0
    resamples: int = 1000
    frechet_resamples: int = 20
    seed: int = 0
    aggregation: str = "per video, then the mean over videos (offset: the median); Fréchet: all frames pooled"
    clips: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("crop", self.crop, CROPS),
            ("audio", self.audio, AUDIOS),
            ("identity", self.identity, IDENTITIES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if self.codec not in ("", CODEC):
            raise ValueError(f"the codec is {CODEC!r} or none, not {self.codec!r}")
        if self.fps != FPS or self.sample_rate != SAMPLE_RATE or self.size < 32 or self.size % 2:
            raise ValueError(f"the protocol needs {FPS} fps, {SAMPLE_RATE} Hz and an even size of at least 32 pixels")

    def with_clips(self, hashes: Mapping[str, str]) -> Protocol:
        """The same protocol on a list of clips: name -> SHA-256 of the truth."""
        return dataclasses.replace(self, clips=tuple(sorted(hashes.items())))

    def hash(self) -> str:
        """Twelve hex digits over every field and the definitions' version."""
        return _digest({"version": VERSION, **dataclasses.asdict(self)})

    def reading(self) -> str:
        """Hash of only what decides how the pixels and the sound of one file are read: what caches depend on."""
        fields = ("crop", "size", "fps", "sample_rate", "codec")
        return _digest({"version": VERSION, **{name: getattr(self, name) for name in fields}})


def _digest(fields: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
