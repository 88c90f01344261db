"""The voices that read sentences: espeak-ng, flite, hibari and kokoro, and recorded prompts with their transcripts.

Every engine returns 16 kHz mono speech with ARPABET phone times, from the synthesiser itself where it tells
them (espeak-ng, flite), by forced alignment where it does not (hibari, kokoro, recordings).
"""

import ctypes
import gzip
import re
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import resample_poly

from eartalking.config import SAMPLE_RATE
from eartalking.io.sound import read_audio
from eartalking.synth.kokoro import say, speakers
from eartalking.synth.visemes import PHONE_INDEX

if TYPE_CHECKING:
    from hibari import Hibari

Phones = list[tuple[str, float, float]]  # (ARPABET phone without stress, start seconds, end seconds)


@dataclass(frozen=True)
class Voice:
    """One speaker of one engine; `name` is what the engine calls it."""

    engine: str
    name: str

    @property
    def licence(self) -> str:
        """Under which terms the audio may be used."""
        return ENGINE_LICENCES[self.engine]

    def __str__(self) -> str:
        return f"{self.engine}/{self.name}"


ENGINE_LICENCES = {
    "espeak": "output of GPL-3.0 software, itself unrestricted",
    "flite": "CMU flite voices (BSD-like)",
    "hibari": "Apache-2.0 (hibari, distilled from Kokoro-82M)",
    "kokoro": "Apache-2.0 (Kokoro-82M and its voices, by hexgrad)",
    "prompts": "CC-BY-SA-3.0 (Allison Smith; Digium, Inc.)",
}

# Drawn uniformly, so a repeated name counts double. The last row reads English in its own sounds.
_LANGUAGES = """
    en-us en-us en-us en-us en-us en en en-gb-x-rp en-gb-x-rp en-gb-scotland en-gb-scotland
    en-029 en-us-nyc en-us-nyc en-gb-x-gbclan
    de es fr it nl pl pt sv"""
_VARIANTS = {
    "train": """f1 f2 f3 m1 m2 m3 m4 m5 m6 Alex Andrea Andy Annie Denis Diogo Gene Henrique Hugo Lee
        Marco Mario Mike adam anika aunty benjamin boris caleb david edward gustave ian john max michel
        norbert pablo pedro quincy rob robert sandro shelby steph travis victor zac klatt klatt2 klatt3""",
    "val": "f4 m8 belinda paul klatt5",
    "test": "f5 m7 linda Michael Alicia miguel klatt4",
}
_FLITE = {"train": ("kal", "awb", "slt"), "val": (), "test": ("rms",)}
_HIBARI = {"train": ("heart",), "val": (), "test": ()}


@cache
def voices(engine: str, split: str) -> tuple[Voice, ...]:
    """The voices of an engine in a split; the recorded prompts have one speaker, split by text alone."""
    if engine == "espeak":
        return tuple(
            Voice("espeak", f"{lang}+{variant}") for variant in _VARIANTS[split].split() for lang in _LANGUAGES.split()
        )
    if engine == "prompts":
        return (Voice("prompts", "allison"),)
    if engine == "kokoro":
        return tuple(Voice("kokoro", name) for name in speakers(split))
    return tuple(Voice(engine, name) for name in {"flite": _FLITE, "hibari": _HIBARI}[engine][split])


def to_sample_rate(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Resample mono speech of that rate to 16 kHz."""
    ratio = Fraction(SAMPLE_RATE / rate).limit_denominator(500)
    return resample_poly(waveform, ratio.numerator, ratio.denominator).astype(np.float32)


def warp_voice(waveform: np.ndarray, phones: Phones, factor: float) -> tuple[np.ndarray, Phones]:
    """Pitch, formants and pace times `factor`: a cheap way to a different speaker, phone times included."""
    warped = to_sample_rate(waveform, SAMPLE_RATE * factor)
    scale = len(warped) / len(waveform)
    return warped, [(phone, start * scale, end * scale) for phone, start, end in phones]


# ---- espeak-ng -------------------------------------------------------------------------------------------

_IPA_TABLE = """
    tʃ:CH dʒ:JH ts:T+S p:P b:B t:T d:D k:K ɡ:G g:G m:M n:N ɲ:N ŋ:NG f:F v:V β:V θ:TH ð:DH s:S z:Z
    ʃ:SH ʂ:SH ɕ:SH ʒ:ZH ʐ:ZH ʑ:ZH h:HH ɦ:HH x:HH ç:HH ɣ:G ʁ:G ɹ:R r:L ɾ:D l:L ɫ:L ʎ:L w:W ʍ:W ɥ:W
    j:Y c:K ɟ:G ʋ:V aɪ:AY aʊ:AW ʌʉ:AW ɔɪ:OY eɪ:EY oʊ:OW əʊ:OW a:AA ɑ:AA æ:AE ɐ:AH ʌ:AH ə:AH ɜ:ER
    ɚ:ER ɝ:ER ɛ:EH e:EH i:IY ɪ:IH ᵻ:IH ɨ:IH ɔ:AO ɒ:AO o:OW ɵ:UH u:UW ʊ:UH ʉ:UW y:UW ʏ:UH ø:UH œ:ER"""
_IPA = {ipa: arpabet.split("+") for ipa, arpabet in (pair.split(":") for pair in _IPA_TABLE.split())}
_STOPS = frozenset(["P", "B", "T", "D", "K", "G", "CH", "JH"])


def ipa_to_arpabet(ipa: str) -> list[str]:
    """The ARPABET phones of an IPA string; stress, length, nasality and unknown signs are skipped."""
    found, position = [], 0
    while position < len(ipa):
        size = 2 if ipa[position : position + 2] in _IPA else 1
        found += _IPA.get(ipa[position : position + size], [])
        position += size
    return found


class _EspeakEvent(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int),
                ("user_data", ctypes.c_void_p), ("string", ctypes.c_char * 8))  # fmt: skip


_WORD_EVENT, _PHONEME_EVENT = 1, 7
_RATE, _PITCH, _RANGE = 1, 3, 4


class _Espeak:
    """The espeak-ng library; it is one per process, and so is this."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        synchronous, phoneme_events, as_ipa = 2, 1, 2
        self._rate = self._library.espeak_Initialize(
            synchronous, 0, espeakng_loader.get_data_path().encode(), phoneme_events | as_ipa
        )
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
        )
        self._callback = signature(self._collect)  # kept: the library holds only the address
        self._library.espeak_SetSynthCallback(self._callback)
        self._samples: list[np.ndarray] = []
        self._events: list[tuple[int, float, str]] = []

    def _collect(self, samples: "ctypes._Pointer", count: int, events: "ctypes._Pointer") -> int:
        if samples and count:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type:
            event = events[i]
            text = event.string.decode("utf-8", "ignore") if event.type == _PHONEME_EVENT else ""
            self._events.append((event.type, event.sample / self._rate, text))
            i += 1
        return 0

    def speak(self, name: str, text: str, pace: float, pitch: int, pitch_range: int) -> tuple[np.ndarray, Phones]:
        self._samples, self._events = [], []
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {name!r}")
        for parameter, value in ((_RATE, round(175 * pace)), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, 1, None, None)
        waveform = np.concatenate(self._samples).astype(np.float32) / 32768
        return to_sample_rate(waveform, self._rate), self._phones(waveform)

    def _phones(self, waveform: np.ndarray) -> Phones:
        """Phones from the events: a word's first phone begins with it, a stop with its silent closure."""
        marks: list[tuple[list[str], float]] = []
        word_start = None
        for kind, time, text in self._events:
            if kind == _WORD_EVENT:
                word_start = time
            elif kind == _PHONEME_EVENT and not text.startswith("("):  # "(de)" marks a change of language
                sounds = ipa_to_arpabet(text) or ["SIL"]
                if sounds[0] in _STOPS:
                    time = _closure_start(waveform, self._rate, time)
                if word_start is not None and sounds != ["SIL"] and time - word_start < 0.12:
                    time = word_start
                if sounds != ["SIL"]:
                    word_start = None
                marks.append((sounds, max(time, marks[-1][1] if marks else 0.0)))
        ends = [start for _, start in marks[1:]] + [len(waveform) / self._rate]
        phones: Phones = []
        for (sounds, start), end in zip(marks, ends, strict=True):
            step = (end - start) / len(sounds)
            phones += [(sound, start + i * step, start + (i + 1) * step) for i, sound in enumerate(sounds)]
        return tidy_phones(phones)


def _closure_start(waveform: np.ndarray, rate: int, burst: float) -> float:
    """Where the near-silence before a stop's burst begins, at most 100 ms back."""
    step = rate // 200
    threshold = 0.15 * float(np.sqrt(np.mean(waveform**2)))
    end, earliest = int(burst * rate), max(0, int((burst - 0.1) * rate))
    while end - step >= earliest and np.sqrt(np.mean(waveform[end - step : end] ** 2)) < threshold:
        end -= step
    return end / rate


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def tidy_phones(phones: Phones, shortest_pause: float = 0.06) -> Phones:
    """Drop empty phones, let too short pauses belong to the phone before, and join pauses in a row."""
    tidy: Phones = []
    for phone, start, end in phones:
        if end <= start:
            continue
        joins = tidy and phone == "SIL" and (end - start < shortest_pause or tidy[-1][0] == "SIL")
        if joins:
            tidy[-1] = (tidy[-1][0], tidy[-1][1], end)
        else:
            tidy.append((phone, start, end))
    return tidy


# ---- flite -----------------------------------------------------------------------------------------------

_FLITE_PHONES = {"pau": "SIL", "ax": "AH", "axr": "ER", "el": "L", "em": "M", "en": "N", "dx": "D", "nx": "N"}


def _flite(name: str, text: str, pace: float, pitch: float) -> tuple[np.ndarray, Phones]:
    if shutil.which("flite") is None:
        raise RuntimeError("the flite voices need the flite program: apt-get install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        options = ["--setf", f"duration_stretch={1 / pace:.3f}"]
        if name == "kal":  # the statistical voices bring their own pitch contour
            options += ["--setf", f"int_f0_target_mean={pitch:.0f}"]
        command = ["flite", "-voice", name, *options, "-psdur", "-t", text, "-o", str(path)]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as reader:
            rate = reader.getframerate()
            waveform = np.frombuffer(reader.readframes(reader.getnframes()), "<i2").astype(np.float32) / 32768
    phones: Phones = []
    for segment, end in re.findall(r"(\S+):([\d.]+)", listing):
        phone = _FLITE_PHONES.get(segment, segment.upper())
        start = phones[-1][2] if phones else 0.0
        if float(end) < start:
            raise ValueError(f"flite read more than one sentence in {text!r}")
        phones.append((phone if phone in PHONE_INDEX else "AH", start, float(end)))
    return to_sample_rate(waveform, rate), tidy_phones(phones)


# ---- forced alignment ------------------------------------------------------------------------------------


class Aligner:
    """Phone times of English speech whose words are known."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(lm=None, loglevel="FATAL")

    def words(self, text: str) -> list[str] | None:
        """The dictionary words of a text, or None where one of them is not in the dictionary."""
        words = re.sub(r"[^a-z' ]", " ", text.lower()).split()
        known = words and all(self._decoder.lookup_word(word) for word in words)
        return words if known else None

    def align(self, waveform: np.ndarray, text: str) -> Phones | None:
        """The phones and their times, or None where a word is unknown or the speech does not fit the text."""
        words = self.words(text)
        if words is None:
            return None
        # Silence around it gives the first and the last word their pauses, and the features room to settle.
        margin = SAMPLE_RATE // 5
        padded = np.pad(waveform, margin)
        padded = padded + np.random.default_rng(0).normal(0, 1e-4, len(padded))
        pcm = (np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes()
        decoder = self._decoder
        try:
            decoder.set_align_text(" ".join(words))
            self._decode(pcm)
            decoder.set_alignment()
            self._decode(pcm)
            alignment = decoder.get_alignment()
        except RuntimeError:
            return None
        if alignment is None:
            return None
        length = len(waveform) / SAMPLE_RATE
        phones: Phones = []
        for word in alignment:
            for phone in word:
                start = np.clip(phone.start / 100 - 0.2, 0, length)
                end = np.clip((phone.start + phone.duration) / 100 - 0.2, 0, length)
                phones.append((phone.name if phone.name in PHONE_INDEX else "SIL", float(start), float(end)))
        return tidy_phones(phones)

    def _decode(self, pcm: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()


@cache
def aligner() -> Aligner:
    """The process's aligner; loading its acoustic model takes a second."""
    return Aligner()


@cache
def lexicon() -> tuple[str, ...]:
    """The plain words of the aligner's dictionary, 3 to 10 letters long."""
    from pocketsphinx import get_model_path

    lines = Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines()
    return tuple(word for word in (line.split()[0] for line in lines) if re.fullmatch("[a-z]{3,10}", word))


# ---- hibari ----------------------------------------------------------------------------------------------


@cache
def _hibari() -> "Hibari":
    from hibari import Hibari

    return Hibari()


# ---- recorded prompts ------------------------------------------------------------------------------------

_PROMPT_SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_PROMPT_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
_DIGITS = dict(
    zip(
        "0123456789",
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        strict=True,
    )
)


@cache
def prompt_texts() -> dict[str, str]:
    """`{file stem: transcript}` of the recorded prompts; noises, tones and unknown words left out.

    Raises:
        RuntimeError: the Debian package with the recordings is not installed.
    """
    if not _PROMPT_TEXTS.is_file() or not _PROMPT_SOUNDS.is_dir():
        raise RuntimeError(
            "the recorded prompts need: apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-en"
        )
    with gzip.open(_PROMPT_TEXTS, "rt", encoding="utf-8", errors="replace") as reader:
        lines = [line.split(":", 1) for line in reader if ":" in line and not line.startswith(";")]
    texts = {}
    for stem, text in lines:
        text = re.sub(r"\b\d\b", lambda match: _DIGITS[match.group()], text.strip())
        spoken = not re.search(r"[\[\]<>(]|\d", text)
        if spoken and (_PROMPT_SOUNDS / f"{stem}.g722").is_file() and aligner().words(text):
            texts[stem] = text
    return texts


def read_prompt(stem: str) -> np.ndarray:
    """The waveform of one recorded prompt, 16 kHz."""
    return read_audio(_PROMPT_SOUNDS / f"{stem}.g722")


# ---- one verb for all ------------------------------------------------------------------------------------


def speak(voice: Voice, text: str, rng: np.random.Generator) -> tuple[np.ndarray, Phones] | None:
    """Let a voice say one sentence at a random pace and pitch (a recorded prompt: its file's stem instead).

    Returns:
        16 kHz float32 speech and its phones, or None where no phone times could be found.

    Raises:
        RuntimeError: the engine's program or recordings are not installed.
        ValueError: unknown voice.
    """
    pace = float(rng.uniform(0.8, 1.25))
    if voice.engine == "espeak":
        return _espeak().speak(voice.name, text, pace, int(rng.integers(20, 85)), int(rng.integers(20, 90)))
    if voice.engine == "flite":
        return _flite(voice.name, text, pace, float(rng.uniform(80, 180)))
    if voice.engine == "hibari":
        waveform = to_sample_rate(_hibari()(text, speed=pace, seed=int(rng.integers(2**31))), 24000)
    elif voice.engine == "kokoro":
        phonemes = " ".join(_hibari().phonemize(text))
        waveform = to_sample_rate(say(voice.name, phonemes, pace), 24000)
    elif voice.engine == "prompts":
        waveform, text = read_prompt(text), prompt_texts()[text]
    else:
        raise ValueError(f"unknown speech engine {voice.engine!r}")
    phones = aligner().align(waveform, text)
    return None if phones is None else (waveform, phones)
