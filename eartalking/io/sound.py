"""Reading sound: a file's voice for the model, and its sound track for a video.

`waveform` is (samples,) float32 mono in [-1, 1].
"""

from __future__ import annotations

import math
import queue
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
import numpy as np

from eartalking.config import SAMPLE_RATE
from eartalking.errors import InputError, os_cause
from eartalking.io.container import FilePath, media_url, open_media

MIN_SECONDS = 0.1  # below this there is nothing to say, and some codecs carry padding only
SOUNDTRACK_RATE = 48_000
SOUNDTRACK_BITS_PER_CHANNEL = 96_000
# How much of each channel goes into an output channel; what is not named counts as _SURROUND.
_MONO = ({"FC": 1.0, "FL": 0.5, "FR": 0.5, "LFE": 0.0},)
_STEREO = tuple(
    {side: 1.0, other: 0.0, "FC": 0.7, "LFE": 0.0, f"B{other[1]}": 0.0, f"S{other[1]}": 0.0}
    for side, other in (("FL", "FR"), ("FR", "FL"))
)
_SURROUND = 0.35
# Files that do not name their channels, as most WAVs do not: the order that WAV prescribes.
_UNNAMED = {1: ("FC",), 2: ("FL", "FR"), 6: ("FL", "FR", "FC", "LFE", "BL", "BR")}


def read_audio(path: FilePath, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """The best sound track of any file that PyAV decodes, (samples,) float32 mono at `sample_rate`.

    Channels are mixed with the centre (the voice) foremost and without the bass channel; a mix above 1 is scaled. Where
    the channels cancel each other in the mix (a stereo recording with one side in opposite phase), the loudest of them
    is taken instead.

    Raises:
        InputError: missing, unreadable, empty, not audio, without a sound track, damaged, or shorter than
        MIN_SECONDS.
    """
    powers = _ChannelPowers()
    frames = _resample((powers.watch(chunk).mixed(_MONO) for chunk in _decode_audio(path)), "mono", sample_rate)
    waveform = np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray()[0] for frame in frames)])
    channel = powers.instead_of(waveform)
    if channel is not None:
        frames = _resample((chunk.alone(channel) for chunk in _decode_audio(path)), "mono", sample_rate)
        waveform = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    if len(waveform) < MIN_SECONDS * sample_rate:
        seconds = len(waveform) / sample_rate
        raise InputError(path, f"the audio is too short ({seconds:.2f} s; {MIN_SECONDS:g} s needed)")
    peak = float(np.abs(waveform).max())
    if not math.isfinite(peak):
        raise InputError(path, "the audio contains samples that are not finite numbers")
    return waveform / peak if peak > 1 else waveform


def seconds_of_sound(path: FilePath, enough: float = math.inf) -> float:
    """Length of a file's sound in seconds, told from packet times without decoding; counting stops a second after
    `enough`. 0 where it cannot be told: `read_audio` says why.
    """
    latest = 0.0
    try:
        with open_media(path) as container:
            stream = container.streams.best("audio")
            if stream is None:
                return 0.0
            first = None
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue
                first = packet.pts if first is None else first
                latest = float((packet.pts - first + (packet.duration or 0)) * packet.time_base)
                if latest > enough + 1:
                    break
    except InputError:
        return 0.0
    return latest


@dataclass(frozen=True)
class _Chunk:
    """A decoded piece of sound: `samples` (channels, n) float32, and the channels' names (`FL`, ...)."""

    samples: np.ndarray
    rate: int
    channels: tuple[str, ...]

    def mixed(self, outputs: tuple[Mapping[str, float], ...]) -> av.AudioFrame:
        """Mixed down to one or two output channels, none of which can exceed the loudest input."""
        samples = self.samples
        if self.channels != ("FL", "FR")[: len(outputs)]:
            named = [[weights.get(name, _SURROUND) for name in self.channels] for weights in outputs]
            mix = np.array(named if {"FL", "FC"} & set(self.channels) else np.ones_like(named), np.float32)
            samples = (mix / mix.sum(axis=1, keepdims=True)) @ samples
        return self._frame(samples, "mono" if len(outputs) == 1 else "stereo")

    def alone(self, channel: int) -> av.AudioFrame:
        """One channel by itself; the first where there are fewer."""
        return self._frame(self.samples[min(channel, len(self.samples) - 1)][None], "mono")

    def _frame(self, samples: np.ndarray, layout: str) -> av.AudioFrame:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = self.rate
        return frame


class _ChannelPowers:
    """Mean power of each channel of a file, to tell whether its mix lost the voice."""

    CANCELLED = 0.1  # of the loudest channel's power

    def __init__(self) -> None:
        self.sums = np.zeros(0)
        self.samples = 0

    def watch(self, chunk: _Chunk) -> _Chunk:
        """The same chunk, counted."""
        power = np.square(chunk.samples, dtype=np.float64).sum(axis=1)
        if len(power) != len(self.sums):  # some streams change their layout on the way: the latest one counts
            self.sums, self.samples = np.zeros(len(power)), 0
        self.sums += power
        self.samples += chunk.samples.shape[1]
        return chunk

    def instead_of(self, mix: np.ndarray) -> int | None:
        """The channel to take because the mix (samples,) has next to nothing of it; None where the mix is sound."""
        if len(self.sums) < 2 or not self.samples or not len(mix):
            return None
        loudest = int(self.sums.argmax())
        power = self.sums[loudest] / self.samples
        return loudest if np.square(mix, dtype=np.float64).mean() < self.CANCELLED * power else None


class Soundtrack:
    """A file's sound at its own quality as 48 kHz frames, decoded only as far as it has been asked for."""

    def __init__(self, path: FilePath) -> None:
        chunks = _decode_audio(path)
        first = next(chunks, None)
        if first is None:
            raise InputError(path, "the sound track is empty")
        self.layout = "mono" if len(first.channels) == 1 else "stereo"
        outputs = _MONO if self.layout == "mono" else _STEREO
        mixed = (chunk.mixed(outputs) for chunk in chain([first], chunks))
        self._frames = _resample(mixed, self.layout, SOUNDTRACK_RATE)
        self._position = 0  # samples handed out

    def frames(self, until: float) -> Iterator[av.AudioFrame]:
        """The frames not handed out yet that begin before `until` seconds."""
        while self._position < until * SOUNDTRACK_RATE:
            frame = next(self._frames, None)
            if frame is None:
                return
            # Counted, not copied from the source: without times the AAC encoder's priming would not be
            # marked, and players would start 21 ms late.
            frame.pts, frame.time_base = self._position, Fraction(1, SOUNDTRACK_RATE)
            self._position += frame.samples
            yield frame


class SpokenSound:
    """Sound that is still being spoken, as a `Soundtrack`. `add` and `frames` may be called from two threads."""

    layout = "mono"

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(rate, SOUNDTRACK_RATE)
        self._spoken: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._position = 0  # samples handed out

    def add(self, waveform: np.ndarray) -> None:
        """What has been said since: (samples,) float32, at the rate."""
        self._spoken.put(waveform)

    def frames(self, until: float) -> Iterator[av.AudioFrame]:
        """All that was added and not handed out yet: it is never more than is seen."""
        while not self._spoken.empty():
            waveform = self._resampler(self._spoken.get())
            if len(waveform):
                frame = _mono_frame(waveform, SOUNDTRACK_RATE)
                frame.pts, frame.time_base = self._position, Fraction(1, SOUNDTRACK_RATE)
                self._position += frame.samples
                yield frame


class Resampler:
    """A stream of mono sound at `source_rate`, brought to `rate`; what it holds back is less than 2 ms."""

    def __init__(self, source_rate: int, rate: int) -> None:
        self._source_rate = source_rate
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """The next piece (samples,) float32 -> what can be said of it, (samples,) float32."""
        frame = _mono_frame(waveform, self._source_rate)
        pieces = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _mono_frame(waveform: np.ndarray, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform, np.float32)[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame


def write_beginning(source: FilePath, target: FilePath, seconds: float) -> None:
    """The first `seconds` of a file's sound into a new FLAC file, 48 kHz 16 bit, mono or stereo.

    Raises:
        InputError: `source` has no sound that can be read, or `target` cannot be written.
    """
    track = Soundtrack(source)
    left = round(seconds * SOUNDTRACK_RATE)
    try:
        with av.open(media_url(target), "w", format="flac") as container:
            stream = container.add_stream("flac", rate=SOUNDTRACK_RATE, layout=track.layout)
            stream.format = "s16"
            for frame in track.frames(seconds):
                samples = frame.to_ndarray()[:, :left]
                left -= samples.shape[1]
                piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=track.layout)
                piece.sample_rate, piece.pts, piece.time_base = SOUNDTRACK_RATE, frame.pts, frame.time_base
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise InputError(target, os_cause(error)) from None


def _resample(frames: Iterable[av.AudioFrame], layout: str, rate: int) -> Iterator[av.AudioFrame]:
    """Planar float frames at `rate`; the input's rate may change on the way (some AAC streams)."""
    resampler, source_rate = None, 0
    for frame in frames:
        if resampler is None or frame.sample_rate != source_rate:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            source_rate = frame.sample_rate
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def _decode_audio(path: FilePath) -> Iterator[_Chunk]:
    with open_media(path) as container:
        stream = container.streams.best("audio")
        if stream is None:
            raise InputError(path, "the file has no sound track")
        # The encoder's padding at the end of an MP4 is not sound: its header knows where the sound ends.
        isobmff = "mp4" in container.format.name and stream.duration
        end = stream.duration * stream.time_base if isobmff else math.inf
        seconds = Fraction(0)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                continue  # one damaged packet; players skip it too
            for frame in frames:
                samples = _to_float(frame)
                left = end - seconds
                seconds += Fraction(frame.samples, frame.sample_rate)
                if left > 0 and seconds > end:
                    samples = samples[:, : round(left * frame.sample_rate)]
                if samples.shape[1]:
                    yield _Chunk(samples, frame.sample_rate, _channel_names(frame))


def _channel_names(frame: av.AudioFrame) -> tuple[str, ...]:
    names = tuple(channel.name for channel in frame.layout.channels)
    return _UNNAMED.get(len(names), names) if set(names) == {"NONE"} else names


def _to_float(frame: av.AudioFrame) -> np.ndarray:
    """(channels, samples) float32 of a frame in any sample format; integers scale to [-1, 1)."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype.kind == "u":
        return (samples.astype(np.float32) - 128) / 128
    scale = 1.0 if samples.dtype.kind == "f" else -1.0 / np.iinfo(samples.dtype).min
    return (samples * scale).astype(np.float32)
