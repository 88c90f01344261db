"""From waveform to audio tokens at the video's frame rate, causally, with a fixed look-ahead.

One video frame (1/25 s) is 640 samples or 4 mel hops. Audio features of frame t may use samples before
(t + lookahead + 1) * 640 and nothing later. Both encoders share one interface:

    forward(waveform) -> tokens (B, T, K, out_dim), T = ceil(samples / 640)      the whole clip
    init_state(batch) -> state                                                   a new stream
    step(samples (B, 640), state) -> tokens (B, K, out_dim) or None, next state  None for the first `lookahead`

A stream is flushed with `lookahead` steps of zeros. States are never changed in place.

Notation: B batch, T frames, K tokens per frame, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eartalking.config import SAMPLE_RATE, SAMPLES_PER_FRAME, AudioConfig
from eartalking.modules.attention import rms_norm
from eartalking.modules.constant import constant
from eartalking.modules.conv import CausalConv1d
from eartalking.modules.torchvision_operators import declare_torchvision_operators

MEL_BINS = 80
HOP = 160
HOPS_PER_FRAME = SAMPLES_PER_FRAME // HOP
WINDOW = 400
N_FFT = 512
MEL_HISTORY = WINDOW - HOP  # samples before a hop that its window covers
MEL_FLOOR = 1e-4  # power; below the noise of a quiet recording, above rounding errors
# Log-mel statistics of synthetic speech at ordinary loudness, pauses included.
LOG_MEL_MEAN = -4.0
LOG_MEL_STD = 4.0


@constant
def mel_edges(device: torch.device) -> Tensor:
    """Where the triangles of `mel_filterbank` begin, peak and end: (MEL_BINS + 2,) in Hz; number k peaks at row k + 1.

    Slaney's scale is linear below 1 kHz, so that even the lowest triangles are wider than an FFT bin.
    """
    log_step = math.log(6.4) / 27  # above 1 kHz, which is mel 15
    highest = 15 + math.log(SAMPLE_RATE / 2 / 1000) / log_step
    mels = torch.linspace(0, highest, MEL_BINS + 2, dtype=torch.float64, device=device)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * log_step))


@constant
def mel_filterbank(device: torch.device) -> Tensor:
    """Triangles of peak 1, evenly spaced on Slaney's mel scale from 0 to 8 kHz: (N_FFT // 2 + 1, MEL_BINS)."""
    edges = mel_edges(torch.device("cpu"))
    bins = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).to(device=device, dtype=torch.float32)


def log_mel(waveform: Tensor, history: Tensor | None = None) -> Tensor:
    """Natural-log mel power at 100 Hz, strictly causal.

    waveform (B, samples) float in [-1, 1] at 16 kHz -> (B, ceil(samples / 160), 80) float32. Row h covers
    samples [160 h - 240, 160 h + 160). history: the 240 samples before the waveform, zeros by default.
    """
    waveform = waveform.float()
    if history is None:
        history = waveform.new_zeros(len(waveform), MEL_HISTORY)
    waveform = F.pad(waveform, (0, -waveform.shape[-1] % HOP))
    window = torch.hann_window(WINDOW, device=waveform.device)
    segments = torch.cat([history.float(), waveform], dim=-1).unfold(-1, WINDOW, HOP)  # (B, hops, 400)
    with torch.autocast(waveform.device.type, enabled=False):
        power = torch.fft.rfft(segments * window, n=N_FFT).abs().square()  # (B, hops, 257)
        return torch.log((power @ mel_filterbank(waveform.device)).clamp_min(MEL_FLOOR))


@dataclass(frozen=True)
class AudioState:
    """What a stream of audio must remember: recent samples, and each convolution's left context."""

    history: Tensor  # (B, samples)
    contexts: tuple[Tensor, ...]  # one (B, C, context) per convolution
    frames_seen: Tensor  # () int64

    def clone(self) -> AudioState:
        """An independent copy."""
        contexts = tuple(context.clone() for context in self.contexts)
        return AudioState(self.history.clone(), contexts, self.frames_seen.clone())

    def to_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Copies of all tensors under flat names, ready for safetensors."""
        return {f"{prefix}{name}": tensor.detach().clone().contiguous() for name, tensor in self._named()}

    def from_tensors(self, tensors: Mapping[str, Tensor], prefix: str = "") -> AudioState:
        """The state that `to_tensors` gave, checked against the shapes of this one (a fresh init_state).

        Raises KeyError or ValueError if it does not fit.
        """
        loaded = []
        for name, own in self._named():
            given = tensors[f"{prefix}{name}"]
            if given.shape != own.shape:
                raise ValueError(f"{prefix}{name}: expected {tuple(own.shape)}, got {tuple(given.shape)}")
            loaded.append(given.to(own).clone())
        return AudioState(loaded[0], tuple(loaded[2:]), loaded[1])

    def _named(self) -> list[tuple[str, Tensor]]:
        contexts = [(f"contexts.{index}", context) for index, context in enumerate(self.contexts)]
        return [("history", self.history), ("frames_seen", self.frames_seen), *contexts]


class ChannelNorm(nn.Module):
    """RMS norm over the channels of (B, C, L): per step, hence causal."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, L)."""
        return rms_norm(x.transpose(1, 2), self.scale).transpose(1, 2)


class ResidualBlock(nn.Module):
    """x + pointwise(gelu(dilated causal convolution of 3 taps(norm(x))))."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.conv = CausalConv1d(dim, dim, 3, dilation=dilation)
        self.pointwise = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, D, L), the convolution's state -> the same shape, next state."""
        hidden, state = self.conv(self.norm(x), state)
        return x + self.pointwise(F.gelu(hidden)), state


class AudioEncoder(nn.Module):
    """Small causal convolutional encoder of log-mels: 100 Hz -> 25 Hz, about one second of the past.

    mel_mean and mel_std (80,) normalise the log-mels; they are buffers, so they travel with the checkpoint.
    """

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(
        self,
        dim: int,
        out_dim: int,
        tokens_per_frame: int = 2,
        lookahead: int = 2,
        dilations: tuple[int, ...] = (1, 2, 4, 4),
    ) -> None:
        super().__init__()
        self.dim = dim
        self.out_dim = out_dim
        self.tokens_per_frame = tokens_per_frame
        self.lookahead = lookahead  # frames
        self.stem = CausalConv1d(MEL_BINS, dim, 5)  # 100 Hz
        self.downsamples = nn.ModuleList(CausalConv1d(dim, dim, 4, stride=2) for _ in range(2))  # 50, 25 Hz
        self.norms = nn.ModuleList(ChannelNorm(dim) for _ in range(2))
        self.blocks = nn.ModuleList(ResidualBlock(dim, dilation) for dilation in dilations)  # 25 Hz
        self.out_norm = nn.LayerNorm(dim)
        self.to_tokens = nn.Linear(dim, tokens_per_frame * out_dim)
        self.register_buffer("mel_mean", torch.full((MEL_BINS,), LOG_MEL_MEAN))
        self.register_buffer("mel_std", torch.full((MEL_BINS,), LOG_MEL_STD))

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform (B, samples) -> tokens (B, ceil(samples / 640), K, out_dim); silence after the end."""
        return self.forward_mel(log_mel(pad_to_frames(waveform, self.lookahead)))

    def forward_mel(self, mel: Tensor) -> Tensor:
        """Log-mels (B, 4 * (T + lookahead), 80) -> tokens (B, T, K, out_dim): the last frames only look ahead."""
        return self.tokens(self.hidden(mel))

    def hidden(self, mel: Tensor) -> Tensor:
        """Log-mels (B, 4 * (T + lookahead), 80) -> the trunk's features (B, T, D), row t for frame t."""
        if mel.shape[1] % HOPS_PER_FRAME or mel.shape[1] <= HOPS_PER_FRAME * self.lookahead:
            raise ValueError(
                f"need whole frames of {HOPS_PER_FRAME} hops and more than {self.lookahead} of them, "
                f"got {mel.shape[1]} hops"
            )
        hidden, _ = self._trunk(mel, (None,) * (3 + len(self.blocks)))
        return hidden[:, self.lookahead :]

    def tokens(self, hidden: Tensor) -> Tensor:
        """The trunk's features (..., D) -> tokens (..., K, out_dim)."""
        return self.to_tokens(hidden).unflatten(-1, (self.tokens_per_frame, self.out_dim))

    def init_state(self, batch: int) -> AudioState:
        """The state of a stream before its first sample."""
        device = self.mel_mean.device
        convs = [self.stem, *self.downsamples, *(block.conv for block in self.blocks)]
        return AudioState(
            torch.zeros(batch, MEL_HISTORY, device=device),
            tuple(conv.init_state(batch) for conv in convs),
            torch.zeros((), dtype=torch.int64),
        )

    def step(self, samples: Tensor, state: AudioState) -> tuple[Tensor | None, AudioState]:
        """samples (B, 640), state -> tokens (B, K, out_dim) of frame `frames_seen - lookahead`, next state."""
        check_frame(samples)
        mel = log_mel(samples, state.history)
        hidden, contexts = self._trunk(mel, state.contexts)
        state = AudioState(samples[:, -MEL_HISTORY:].float(), contexts, state.frames_seen + 1)
        if state.frames_seen <= self.lookahead:
            return None, state
        return self.tokens(hidden[:, 0]), state

    def _trunk(self, mel: Tensor, contexts: tuple[Tensor | None, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """mel (B, 4 L, 80) -> features (B, L, D) that know nothing after their own frame, next contexts."""
        x = ((mel - self.mel_mean) / self.mel_std).transpose(1, 2)
        x, stem_context = self.stem(x, contexts[0])  # (B, D, 4 L)
        next_contexts = [stem_context]
        for norm, downsample, context in zip(self.norms, self.downsamples, contexts[1:3], strict=True):
            x, context = downsample(norm(F.gelu(x)), context)  # (B, D, 2 L), then (B, D, L)
            next_contexts.append(context)
        for block, context in zip(self.blocks, contexts[3:], strict=True):
            x, context = block(x, context)
            next_contexts.append(context)
        return self.out_norm(x.transpose(1, 2)), tuple(next_contexts)


class Wav2Vec2AudioEncoder(nn.Module):
    """wav2vec 2.0 as the audio encoder of large models: hidden states interpolated to 25 Hz.

    wav2vec 2.0 attends in both directions, so it is run on a sliding window that ends `lookahead` frames after
    the frame in question and starts `past` frames before it; whole clips and streams see the same windows.
    Slow and strong: cache `hidden` when training with a frozen backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        out_dim: int,
        tokens_per_frame: int = 2,
        lookahead: int = 2,
        past: int = 24,
        windows_per_batch: int = 64,
    ) -> None:
        """backbone: a transformers Wav2Vec2Model; see `build_encoder` and `load_pretrained`."""
        super().__init__()
        self.backbone = backbone
        self.dim: int = backbone.config.hidden_size
        self.out_dim = out_dim
        self.tokens_per_frame = tokens_per_frame
        self.lookahead = lookahead
        self.past = past
        self.windows_per_batch = windows_per_batch
        self.out_norm = nn.LayerNorm(self.dim)
        self.to_tokens = nn.Linear(self.dim, tokens_per_frame * out_dim)

    def load_pretrained(self, name: str) -> None:
        """Take over the backbone of a hub id ("facebook/wav2vec2-base-960h") or a folder; ValueError where the sizes
        differ.
        """
        declare_torchvision_operators()  # as in `build_encoder`
        from transformers import Wav2Vec2Model

        given = Wav2Vec2Model.from_pretrained(name)
        try:
            self.backbone.load_state_dict(given.state_dict())
        except RuntimeError as error:
            raise ValueError(f"{name} has other sizes than this encoder: width {given.config.hidden_size}, "
                             f"{given.config.num_hidden_layers} layers") from error  # fmt: skip

    def forward(self, waveform: Tensor) -> Tensor:
        """waveform (B, samples) -> tokens (B, ceil(samples / 640), K, out_dim); silence after the end."""
        return self.tokens(self.hidden(waveform))

    def hidden(self, waveform: Tensor) -> Tensor:
        """waveform (B, samples) -> features (B, T, D), row t for frame t."""
        padded = F.pad(pad_to_frames(waveform, self.lookahead), (self.past * SAMPLES_PER_FRAME, 0))
        windows = padded.unfold(-1, self._window_samples, SAMPLES_PER_FRAME)  # (B, T, samples)
        batch, frames = windows.shape[:2]
        parts = windows.flatten(0, 1).split(self.windows_per_batch)
        return torch.cat([self._encode(part) for part in parts]).view(batch, frames, self.dim)

    def tokens(self, hidden: Tensor) -> Tensor:
        """Features (..., D) -> tokens (..., K, out_dim)."""
        return self.to_tokens(hidden).unflatten(-1, (self.tokens_per_frame, self.out_dim))

    def init_state(self, batch: int) -> AudioState:
        """The state of a stream before its first sample: a window of silence."""
        weight = self.out_norm.weight
        history = torch.zeros(batch, self._window_samples - SAMPLES_PER_FRAME, device=weight.device)
        return AudioState(history, (), torch.zeros((), dtype=torch.int64))

    def step(self, samples: Tensor, state: AudioState) -> tuple[Tensor | None, AudioState]:
        """samples (B, 640), state -> tokens (B, K, out_dim) of frame `frames_seen - lookahead`, next state."""
        check_frame(samples)
        window = torch.cat([state.history, samples.float()], dim=-1)
        state = AudioState(window[:, SAMPLES_PER_FRAME:], (), state.frames_seen + 1)
        if state.frames_seen <= self.lookahead:
            return None, state
        return self.tokens(self._encode(window)), state

    @property
    def _window_samples(self) -> int:
        return (self.past + 1 + self.lookahead) * SAMPLES_PER_FRAME

    def _encode(self, windows: Tensor) -> Tensor:
        """Windows (M, samples) -> features (M, D) of the frame `past`."""
        mean = windows.mean(dim=-1, keepdim=True)
        variance = windows.var(dim=-1, keepdim=True, unbiased=False)
        windows = (windows - mean) / torch.sqrt(variance + 1e-7)  # what the pretrained models expect
        states = self.backbone(windows).last_hidden_state  # (M, about 50 Hz, D)
        states = F.interpolate(states.transpose(1, 2), size=self.past + 1 + self.lookahead, mode="linear")
        return self.out_norm(states[..., self.past])


def build_encoder(config: AudioConfig, out_dim: int) -> AudioEncoder | Wav2Vec2AudioEncoder:
    """The encoder that a config asks for, with random weights."""
    tokens, lookahead = config.tokens_per_frame, config.lookahead
    if config.encoder == "conv":
        return AudioEncoder(config.dim, out_dim, tokens, lookahead)
    # Here, because the import takes seconds and the small encoder needs none of it.
    declare_torchvision_operators()  # transformers imports torchvision where there is one
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = Wav2Vec2Config(
        hidden_size=config.dim,
        num_hidden_layers=config.wav2vec2_layers,
        num_attention_heads=max(1, config.dim // 64),
        intermediate_size=4 * config.dim,
        conv_dim=[2 * config.dim // 3] * 7,
        num_conv_pos_embedding_groups=math.gcd(16, config.dim),
    )
    # The backbone is not trained further, so nothing in it may be random while the rest is trained.
    for option in ("layerdrop", "hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(sizes, option, 0.0)
    sizes.apply_spec_augment = False
    backbone = Wav2Vec2Model(sizes)
    return Wav2Vec2AudioEncoder(backbone, out_dim, tokens, lookahead, config.wav2vec2_past)


def pad_to_frames(waveform: Tensor, lookahead: int) -> Tensor:
    """waveform (B, samples) with silence up to the next whole frame and for `lookahead` frames more."""
    frames = -(-waveform.shape[-1] // SAMPLES_PER_FRAME) + lookahead
    return F.pad(waveform, (0, frames * SAMPLES_PER_FRAME - waveform.shape[-1]))


def check_frame(samples: Tensor) -> None:
    """Raise ValueError unless samples are one frame (B, 640): a stream is always cut the same way."""
    if samples.ndim != 2 or samples.shape[1] != SAMPLES_PER_FRAME:
        raise ValueError(f"a step takes (B, {SAMPLES_PER_FRAME}) samples, got {tuple(samples.shape)}")
