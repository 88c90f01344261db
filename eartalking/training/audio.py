"""Stage 6, the audio encoder: `python -m eartalking.training.audio --speech DIR --val DIR --out RUN`.

Speech needs no rendering, so the encoder is first trained by itself on hours of it: from the voice alone it regresses
SynthTalk's mouth units and names the phone of each frame. The autoregressive model then starts from it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from eartalking.audio import AudioEncoder, log_mel
from eartalking.checkpoint import load_model, save_model
from eartalking.config import PRESETS, SAMPLES_PER_FRAME
from eartalking.errors import run_program
from eartalking.model import TalkingHeadModel
from eartalking.motion.face_units import NUM_FACE_UNITS, UNIT_INDEX
from eartalking.synth.speech import Utterance, augment_waveform, corpus_files
from eartalking.synth.visemes import PHONES, frame_phones, speech_mouth
from eartalking.training.loop import Losses, RunOptions, train
from eartalking.training.speakers import as_other_speakers

UNIT_SCALE = 4.0  # brings face units to a spread of about one


@dataclass(frozen=True)
class VoiceTrack:
    """An utterance with its targets: waveform (samples,), units (T, 52), phones (T,)."""

    waveform: np.ndarray
    units: np.ndarray
    phones: np.ndarray

    @classmethod
    def of(cls, utterance: Utterance) -> VoiceTrack:
        num_frames = -(-len(utterance.waveform) // SAMPLES_PER_FRAME)
        units = speech_mouth(utterance.phones, utterance.waveform, num_frames)
        return cls(utterance.waveform, units, frame_phones(utterance.phones, num_frames))


def load_tracks(folder: Path) -> list[VoiceTrack]:
    """All utterances of a corpus with their targets."""
    return [VoiceTrack.of(Utterance.load(path)) for path in corpus_files(folder)]


@dataclass
class VoiceBatch:
    """mel (B, 4 (T + lookahead), 80), units (B, T, 52), phones (B, T)."""

    mel: Tensor
    units: Tensor
    phones: Tensor

    @classmethod
    def draw(
        cls,
        tracks: list[VoiceTrack],
        count: int,
        num_frames: int,
        lookahead: int,
        rng: np.random.Generator,
        speakers: torch.Generator | None = None,
    ) -> VoiceBatch:
        """Random windows of `num_frames` frames; what follows a window is heard only as far as the lookahead.
        speakers: draws the vocal tracts that say them, in rooms and through microphones of `rng`; None for those that
        did, as they were recorded."""
        weights = np.array([len(track.phones) for track in tracks], float)
        waves, units, phones = [], [], []
        total = (num_frames + lookahead) * SAMPLES_PER_FRAME
        for index in rng.choice(len(tracks), count, p=weights / weights.sum()):
            track = tracks[index]
            start = int(rng.integers(max(1, len(track.phones) - num_frames + 1)))
            wave = track.waveform[start * SAMPLES_PER_FRAME :][:total]
            wave = wave if speakers is None else augment_waveform(wave, rng)
            waves.append(np.pad(wave, (0, total - len(wave))))
            rows = track.units[start : start + num_frames], track.phones[start : start + num_frames]
            missing = num_frames - len(rows[0])
            units.append(np.pad(rows[0], ((0, missing), (0, 0))))
            phones.append(np.pad(rows[1], (0, missing)))
        mel = log_mel(torch.from_numpy(np.stack(waves)).float())
        if speakers is not None:
            mel = as_other_speakers(mel, speakers)
        return cls(mel, torch.from_numpy(np.stack(units)), torch.from_numpy(np.stack(phones)).long())

    def to(self, device: torch.device) -> VoiceBatch:
        return VoiceBatch(self.mel.to(device), self.units.to(device), self.phones.to(device))


class AudioTrainer(nn.Module):
    """The encoder's trunk with the two heads of this stage."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.to_units = nn.Linear(encoder.dim, NUM_FACE_UNITS)
        self.to_phones = nn.Linear(encoder.dim, len(PHONES))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder.hidden(mel)  # (B, T, D)
        return self.to_units(hidden).float(), self.to_phones(hidden).float()


def compute_losses(trainer: nn.Module, batch: VoiceBatch, progress: float) -> Losses:
    units, phones = trainer(batch.mel)
    regression = F.mse_loss(units, batch.units * UNIT_SCALE)
    naming = F.cross_entropy(phones.flatten(0, 1), batch.phones.flatten(), label_smoothing=0.05)
    return {"loss": regression + 0.15 * naming, "units": regression, "phones": naming}


def evaluate(trainer: AudioTrainer, batch: VoiceBatch) -> dict[str, float]:
    """Correlation of the jaw's opening with the truth, with the right voice and with another clip's."""
    jaw = UNIT_INDEX["jawOpen"]
    units, phones = trainer(batch.mel)
    shuffled, _ = trainer(batch.mel.roll(1, 0))
    truth = batch.units * UNIT_SCALE
    return {
        "units": float(F.mse_loss(units, truth)),
        "units_of_mean": float(F.mse_loss(truth.mean((0, 1)).expand_as(truth), truth)),
        "phone_accuracy": float((phones.argmax(-1) == batch.phones).float().mean()),
        "jaw_correlation": _correlation(units[..., jaw], truth[..., jaw]),
        "jaw_correlation_shuffled": _correlation(shuffled[..., jaw], truth[..., jaw]),
    }


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eartalking.training.audio", description=__doc__.split("\n")[0])
    RunOptions.add_arguments(parser, steps=3000, batch_size=32, learning_rate=1e-3)
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus, training split")
    parser.add_argument("--val", type=Path, required=True, help="speech corpus, validation split")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--init", help="checkpoint to start from")
    parser.add_argument("--frames", type=int, default=100, help="frames per window")
    args = parser.parse_args(argv)
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=not torch.cuda.is_available())
    model = load_model(args.init) if args.init else TalkingHeadModel(PRESETS[args.preset])
    if model.config.audio.encoder != "conv":
        parser.error(
            f"--init: {args.init} has a pretrained audio encoder ({model.config.audio.encoder}); "
            "this stage is not for it"
        )
    trainer = AudioTrainer(model.audio_encoder).requires_grad_(True)
    trainer.encoder.to_tokens.requires_grad_(False)  # has no part in this stage
    tracks, held_out = (load_tracks(folder) for folder in (args.speech, args.val))
    rng, speakers = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    lookahead = model.audio_encoder.lookahead
    fixed = VoiceBatch.draw(held_out, 64, args.frames, lookahead, np.random.default_rng(0))
    average = train(
        trainer,
        lambda: VoiceBatch.draw(tracks, options.batch_size, args.frames, lookahead, rng, speakers).to(
            accelerator.device
        ),
        compute_losses,
        lambda module, step: evaluate(module, fixed.to(accelerator.device)),
        options,
        accelerator,
    )
    if accelerator.is_main_process:
        model.audio_encoder.load_state_dict(average.encoder.state_dict())
        save_model(model, options.out / "checkpoint")
    return 0


if __name__ == "__main__":
    run_program(main)
