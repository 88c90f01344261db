"""Train the embedded SyncNet on SynthTalk, and check that it finds known offsets.

    python -m eval.networks.train_syncnet --clips data/clips/train --val data/clips/val --out runs/syncnet
    python -m eval.networks.train_syncnet --check data/testset/full

Mouths and log-mels are cut out once into `out/*.npz`. Training compares every mouth with the sounds of its own clip
within 15 frames, and with the sounds of all other clips of the batch (InfoNCE). `--check` plants offsets of -10..+10
frames in the clips of a test set (eval.testset), looks for them over whole clips, repeats it with the sound of another
clip, and writes what it found beside the weights. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.numpy import load_file
from torch import Tensor
from tqdm import tqdm

from eartalking.errors import InputError
from eartalking.io.video_reader import read_video
from eartalking.synth.speech import augment_waveform
from eartalking.training.data import find_clips
from eartalking.training.loop import Losses, RunOptions, train
from eval.metrics.sync import MAX_SHIFT, offset_curve, sync_scores
from eval.networks.mouth import CROP_HEIGHT, CROP_WIDTH, NoMouthError, face_boxes, mouth_crops
from eval.networks.syncnet import WEIGHTS, SyncNet, clip_mel, load_syncnet, save_syncnet
from eval.testset import read_manifest

MARGIN = 1.25  # of the stored mouths: room to shift them in training
SOUNDS = 3  # versions of each voice: as it is, and augmented
SEGMENT = 50  # frames
WARMUP_STEPS = 30
PLANTED = range(-10, 11)
# Augmentation of a segment's mouths, as shares of the crop.
_SHIFT, _ZOOM, _TILT, _JITTER = 0.06, 0.12, 0.08, 0.012


@dataclass
class Mouths:
    """Clips one after the other: crops (N, h, w) uint8, mels (SOUNDS, 4 N, 80) float16, offsets (clips + 1,) in
    frames.
    """

    crops: np.ndarray
    mels: np.ndarray
    offsets: np.ndarray

    @classmethod
    def load_or_make(cls, cache: Path, folder: Path, sounds: int) -> Mouths:
        """From the cache if it is there, else from the clips of a folder."""
        if not cache.is_file():
            made = cls.from_clips(folder, sounds)
            cache.parent.mkdir(parents=True, exist_ok=True)
            partial = cache.with_suffix(".partial.npz")
            np.savez(partial, **vars(made))
            partial.replace(cache)
        with np.load(cache) as stored:
            return cls(stored["crops"], stored["mels"], stored["offsets"])

    @classmethod
    def from_clips(cls, folder: Path, sounds: int) -> Mouths:
        """Cut out of the clips of a folder, each with `sounds` versions of its voice; clips that are too short or show
        no face are left out."""
        rng = np.random.default_rng(0)
        crops, mels, offsets = [], [], [0]
        for path in tqdm(find_clips(folder), desc="mouths", unit="clip", mininterval=5):
            clip = load_file(path)
            frames, waveform = clip["frames"], clip["waveform"]
            if len(frames) < SEGMENT:
                continue
            try:
                boxes, _ = face_boxes(frames)
            except NoMouthError:
                continue
            crops.append(mouth_crops(frames, boxes, MARGIN))
            versions = [waveform, *(augment_waveform(waveform, rng) for _ in range(sounds - 1))]
            mels.append(np.stack([clip_mel(version, len(frames)).half().numpy() for version in versions]))
            offsets.append(offsets[-1] + len(frames))
        return cls(np.concatenate(crops), np.concatenate(mels, axis=1), np.array(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def segments(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random segments of different clips: crops (B, SEGMENT, h, w) uint8 and mels (B, 4 SEGMENT, 80)."""
        crops, mels = [], []
        for clip in rng.permutation(len(self))[:count]:
            start = int(rng.integers(self.offsets[clip], self.offsets[clip + 1] - SEGMENT + 1))
            crops.append(self.crops[start : start + SEGMENT])
            mels.append(self.mels[rng.integers(len(self.mels)), 4 * start : 4 * (start + SEGMENT)])
        return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(mels))

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        """A whole clip without augmentation: crops (T, 48, 64) in the measuring size, mel (4 T, 80)."""
        first, last = self.offsets[index], self.offsets[index + 1]
        crops = torch.from_numpy(self.crops[first:last]).float()[:, None]
        grid = _grid(torch.eye(2, 3)[None] / MARGIN).expand(len(crops), -1, -1, -1)
        middle = F.grid_sample(crops, grid, align_corners=False)
        return middle[:, 0], torch.from_numpy(self.mels[0, 4 * first : 4 * last])


def augment(crops: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, T, h, w) uint8 with margin -> (B, T, 48, 64) float: one framing, mirror, contrast and blur per segment, noise
    and a small jitter of the framing per frame."""
    batch, frames = crops.shape[:2]
    draw = lambda size, *shape: torch.from_numpy(rng.uniform(-size, size, shape)).float()  # noqa: E731
    zoom = (1 + draw(_ZOOM, batch, 1)) / MARGIN
    mirror = torch.from_numpy(rng.choice([-1.0, 1.0], (batch, 1))).float()
    tilt = draw(_TILT, batch, 1).expand(-1, frames)
    x = draw(_SHIFT, batch, 1) + draw(_JITTER, batch, frames)
    y = draw(_SHIFT, batch, 1) + draw(_JITTER, batch, frames)
    zoom, mirror = (zoom * (1 + draw(_JITTER, batch, frames))), mirror.expand(-1, frames)
    rows = [torch.stack([zoom * mirror, -zoom * tilt, x], -1), torch.stack([zoom * tilt * mirror, zoom, y], -1)]
    grid = _grid(torch.stack(rows, -2).flatten(0, 1))
    out = F.grid_sample(crops.flatten(0, 1)[:, None].float(), grid, align_corners=False, padding_mode="border")
    out = out.unflatten(0, (batch, frames))[:, :, 0]
    blurred = F.avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
    out = torch.lerp(out, blurred, torch.from_numpy(rng.uniform(-0.3, 1, (batch, 1, 1, 1))).float().clamp_min(0))
    light = 1 + draw(0.05, batch, frames, 1, 1)
    return out * light + torch.randn_like(out) * torch.from_numpy(rng.uniform(0, 6, (batch, 1, 1, 1))).float()


def _grid(matrices: Tensor) -> Tensor:
    return F.affine_grid(matrices, [len(matrices), 1, CROP_HEIGHT, CROP_WIDTH], align_corners=False)


def contrast(video: Tensor, audio: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, T, D) -> loss within the clip over shifts up to 15, loss over the whole batch, and the share of
    windows whose nearest sound within the clip is their own or its neighbour."""
    frames = video.shape[1]
    similarity = video @ audio.transpose(1, 2) * scale  # (B, T, T)
    time = torch.arange(frames)
    far = (time[:, None] - time).abs() > MAX_SHIFT
    within = similarity.masked_fill(far, -torch.inf)
    target = time.expand(len(video), -1)
    own = (F.cross_entropy(within.transpose(1, 2), target) + F.cross_entropy(within, target)) / 2
    whole = video.flatten(0, 1) @ audio.flatten(0, 1).T * scale
    everything = torch.arange(len(whole))
    across = (F.cross_entropy(whole, everything) + F.cross_entropy(whole.T, everything)) / 2
    hits = ((within.argmax(-1) - target).abs() <= 1).float().mean()
    return own, across, hits


def planted_offsets(video: np.ndarray, audio: np.ndarray, planted: range = PLANTED) -> list[int]:
    """The offset found for each planted one, of embeddings (T, D): mouth and sound are moved against each other by so
    many frames (positive: the sound comes early); frames without a partner are left out."""
    length = min(len(video), len(audio))
    found = []
    for offset in planted:
        mouths = video[max(0, -offset) : length - max(0, offset)]
        sounds = audio[max(0, offset) : length - max(0, -offset)]
        found.append(round(sync_scores(offset_curve(mouths, sounds))["av_offset"]))
    return found


def confidence(video: np.ndarray, audio: np.ndarray) -> float:
    """Median minus minimum of the offset curve over the frames that both have."""
    length = min(len(video), len(audio))
    return sync_scores(offset_curve(video[:length], audio[:length]))["sync_c"]


@dataclass
class Proof:
    """Planted offsets found (clips, offsets), and the confidence with a clip's own sound and with another clip's
    (clips,).
    """

    found: np.ndarray
    own: np.ndarray
    shuffled: np.ndarray

    @classmethod
    def of(cls, embedded: list[tuple[np.ndarray, np.ndarray]]) -> Proof:
        """Raises ValueError: fewer than two clips."""
        if len(embedded) < 2:
            raise ValueError("a proof needs at least two clips: each is also given the sound of another")
        others = embedded[1:] + embedded[:1]
        return cls(
            np.array([planted_offsets(video, audio) for video, audio in embedded]),
            np.array([confidence(video, audio) for video, audio in embedded]),
            np.array([confidence(video, sound) for (video, _), (_, sound) in zip(embedded, others, strict=True)]),
        )

    def exact(self, chosen: np.ndarray | slice = slice(None)) -> float | None:
        """Share of the planted offsets that were found exactly, over all or the chosen clips; None without any."""
        errors = self.found[chosen] - np.array(PLANTED)
        return float((errors == 0).mean()) if len(errors) else None


@torch.inference_mode()
def evaluate(net: SyncNet, clips: Mouths) -> dict[str, float]:
    """The proof on whole clips, in three numbers."""
    embedded = []
    for crops, mel in map(clips.clip, range(len(clips))):
        embedded.append((net.embed_video(crops[None])[0].numpy(), net.embed_audio(mel[None])[0].numpy()))
    proof = Proof.of(embedded)
    return {
        "offset_exact": float((proof.found == np.array(PLANTED)).mean()),
        "confidence": float(proof.own.mean()),
        "shuffled": float(proof.shuffled.mean()),
    }


def run(args: argparse.Namespace) -> None:
    """Train, and write the weights and what is known of them to `args.weights`."""
    options = RunOptions.from_arguments(args)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    clips = Mouths.load_or_make(options.out / "train.npz", args.clips, SOUNDS)
    held_out = Mouths.load_or_make(options.out / "val.npz", args.val, 1)

    def losses(net: torch.nn.Module, batch: tuple[Tensor, Tensor], progress: float) -> Losses:
        crops, mels = batch
        mels = mels.float() + torch.from_numpy(rng.uniform(-1, 1, (len(mels), 1, 1))).float()
        scale = net.log_scale.exp().clamp(max=60)
        own, across, hits = contrast(net.embed_video(augment(crops, rng)), net.embed_audio(mels), scale)
        return {"loss": own + 0.3 * across, "own": own, "across": across, "hits": hits}

    net = train(
        SyncNet(),
        lambda: clips.segments(options.batch_size, rng),
        losses,
        lambda net, _: evaluate(net, held_out),
        options,
        Accelerator(mixed_precision=options.mixed_precision, cpu=True),
    )
    rows = [json.loads(line) for line in (options.out / "log.jsonl").read_text().splitlines()]
    trained = {"clips": len(clips), "frames": int(clips.offsets[-1]), "steps": rows[-1]["step"]}
    trained["minutes"] = round(rows[-1]["seconds"] / 60, 1)
    record = {"trained": trained, "validation": evaluate(net, held_out)}
    save_syncnet(net, args.weights, record)
    print(json.dumps({"weights": str(args.weights), **record}))


def check(args: argparse.Namespace) -> None:
    """Look for planted offsets in a test set; the record beside the weights gains the key "check"."""
    net = load_syncnet(args.weights)
    embedded, voices, skipped = [], [], []
    for item in tqdm(read_manifest(args.check), desc="clips", unit="clip", mininterval=5):
        try:
            video = read_video(item.ref)
            frames = np.stack(list(video.frames))
            if video.waveform is None or len(frames) < 2 * MAX_SHIFT + len(PLANTED):
                raise InputError(item.ref, "too short, or without sound")
            embedded.append(net.embed(frames, video.waveform))
            voices.append(item.voice)
        except (NoMouthError, InputError) as error:
            skipped.append(f"{item.name}: {error}")
    result = {"set": Path(args.check).name, "clips": len(embedded), "skipped": skipped}
    result |= _summary(Proof.of(embedded), voices)
    path = args.weights.with_suffix(".json")
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(about | {"check": result}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


def _summary(proof: Proof, voices: list[str]) -> dict[str, object]:
    real = np.array([voice.startswith("prompts/") for voice in voices])
    error = np.abs(proof.found - np.array(PLANTED))
    numbers = {
        "offset_exact": proof.exact(),
        "offset_exact_real_prompts": proof.exact(real),
        "offset_exact_synthetic_voices": proof.exact(~real),
        "offset_within_one_frame": float((error <= 1).mean()),
        "clips_all_offsets_exact": float((error == 0).all(1).mean()),
        "confidence": float(proof.own.mean()),
        "confidence_shuffled": float(proof.shuffled.mean()),
        "confidence_shuffled_share": float(proof.shuffled.mean() / proof.own.mean()),
    }
    rounded = {name: None if value is None else round(value, 4) for name, value in numbers.items()}
    return {"clips_real_prompts": int(real.sum()), **rounded}


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    checking = argparse.ArgumentParser(prog="python -m eval.networks.train_syncnet", add_help=False)
    checking.add_argument("--check", type=Path, help="look for planted offsets in this test set instead of training")
    checking.add_argument("--weights", type=Path, default=WEIGHTS, help="where the result goes, or what is checked")
    if checking.parse_known_args(argv)[0].check is not None:
        check(checking.parse_args(argv))
        return 0
    parser = argparse.ArgumentParser(prog=checking.prog, description=__doc__.split("\n")[0], parents=[checking])
    parser.add_argument("--clips", type=Path, required=True, help="speech clips to train on (eartalking.synth.clips)")
    parser.add_argument("--val", type=Path, required=True, help="speech clips of the validation split")
    RunOptions.add_arguments(parser, steps=1200, batch_size=8, learning_rate=1e-3, warmup_steps=WARMUP_STEPS)
    run(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
