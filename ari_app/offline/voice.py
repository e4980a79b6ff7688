"""Text-to-speech: SVOX Pico, one small voice per language, sentence by sentence. Shell over the engine."""

from __future__ import annotations

import re
import threading

import numpy as np
import py_nanotts

from ari_app.offline.language import language_of

RATE_HZ = 16_000
VOLUME = 0.5
"""At its default Pico clips."""
VOICES = ("en-US", "en-GB", "es-ES", "fr-FR", "de-DE", "it-IT")
VOICE_OF_LANGUAGE = {"en": "en-US", "es": "es-ES"}
QUIET = 200
"""Samples below this at the ends of a sentence are silence: Pico adds up to half a second of it."""
MARGIN = RATE_HZ * 40 // 1000
PAUSE = bytes(RATE_HZ * 150 // 1000 * 2)
"""Between two sentences."""

_speaking = threading.Lock()


def pick_voice(voice: str, text: str) -> str:
    """A Pico voice by its own name; for any other name (such as OpenAI's) the one of the text's language."""
    for known in VOICES:
        if voice.lower() == known.lower():
            return known
    return VOICE_OF_LANGUAGE[language_of(text)]


def sentences(text: str) -> list[str]:
    """The pieces that are spoken one by one."""
    return [piece for piece in re.split(r"(?<=[.!?…])\s+", text.strip()) if re.search(r"\w", piece)]


def speak(sentence: str, voice: str, speed: float = 1.0) -> bytes:
    """PCM16 at 16 kHz of one sentence, silence at its ends trimmed. Blocks for some tens of milliseconds."""
    with _speaking:  # the engine keeps state in files of its own
        pcm = py_nanotts.NanoTTS().speak(sentence, voice=voice, volume=VOLUME, speed=speed)
    samples = np.frombuffer(pcm, "<i2")
    loud = np.flatnonzero(np.abs(samples) > QUIET)
    if len(loud) == 0:
        return b""
    trimmed: bytes = samples[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN].tobytes()
    return trimmed
