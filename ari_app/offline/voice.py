"""Text-to-speech: SVOX Pico, one small voice per language, sentence by sentence. Shell over the engine."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import py_nanotts

from ari_app.offline.language import language_of

RATE_HZ = 16_000
VOLUME = 0.5
"""At its default Pico clips."""
VOICES = ("en-US", "en-GB", "es-ES", "fr-FR", "de-DE", "it-IT")
VOICE_OF_LANGUAGE = {"en": "en-US", "es": "es-ES"}
BLOCK = RATE_HZ * 20 // 1000
QUIET_RMS = 200
"""A 20 ms block below this (-44 dBFS) is silence. Pico puts 20 to 60 ms of it before speech and 0.25 to 1 s after it,
with a click in the Italian one."""
MARGIN_BLOCKS = 2
PAUSE = bytes(RATE_HZ * 150 // 1000 * 2)
"""Between two sentences."""
LONGEST_CHARS = 240
"""The engine keeps Python's lock while it works, about 2 ms per word: a longer piece would stall the server."""


def pick_voice(voice: str, text: str) -> str:
    """A Pico voice by its own name; for any other name (such as OpenAI's) the one of the text's language."""
    for known in VOICES:
        if voice.lower() == known.lower():
            return known
    return VOICE_OF_LANGUAGE[language_of(text)]


def pieces(text: str) -> list[str]:
    """What is spoken one by one: sentences; long ones in parts.

    Angle brackets are commands to Pico and go, and so do halves of characters, which can't be handed to it.
    """
    plain = re.sub(r"[<>\ud800-\udfff]", " ", text).strip()
    sentences = re.split(r"(?<=[.!?…])\s+", plain)
    parts = (part for sentence in sentences for part in textwrap.wrap(sentence, LONGEST_CHARS))
    return [part for part in parts if re.search(r"\w", part)]


def speak(piece: str, voice: str, speed: float = 1.0) -> bytes:
    """PCM16 at 16 kHz of one piece, silence at its end trimmed; empty when it has nothing to be spoken.

    Blocks for some tens of milliseconds. One call at a time: two at once are no faster together.
    """
    pcm: bytes = py_nanotts.NanoTTS().speak(piece, voice=voice, volume=VOLUME, speed=speed)
    samples = np.frombuffer(pcm, "<i2")
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.float32)
    loud = np.flatnonzero(np.square(blocks).mean(axis=1) > QUIET_RMS**2)
    if len(loud) == 0:
        return b""
    return pcm[: (loud[-1] + 1 + MARGIN_BLOCKS) * BLOCK * 2]
