"""Sentences that every call begins with, spoken once for all of them. Shell."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from ari_app.audio.format import TELEPHONE_RATE_HZ, bytes_to_ms
from ari_app.audio.resample import StreamResampler
from ari_app.dialog.ports import PcmChunk, TextToSpeech
from ari_app.errors import EngineError

MAX_TEXT_MS = 180_000
"""Longer than any text that is spoken in one piece; an engine that never stops is given up here."""


class KnownSpeech:
    """Implements `TextToSpeech`: by heart what is known, by an engine the rest.

    Args:
        known: PCM16 at 8 kHz by text.
    """

    def __init__(self, tts: TextToSpeech, known: Mapping[str, bytes]) -> None:
        self._tts = tts
        self._known = known

    async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        """Stream the speech of `text`.

        Raises:
            EngineError: before or between chunks.
        """
        if pcm := self._known.get(text):
            yield PcmChunk(pcm, TELEPHONE_RATE_HZ)
            return
        async with aclosing(self._tts.speak(text)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk


async def narrowed(tts: TextToSpeech, text: str) -> AsyncGenerator[bytes, None]:
    """The speech of `text`, piece by piece, PCM16 at 8 kHz.

    Raises:
        EngineError: before or between pieces.
    """
    resampler: StreamResampler | None = None
    async with aclosing(tts.speak(text)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            resampler = resampler or StreamResampler(chunk.rate_hz, TELEPHONE_RATE_HZ)
            yield resampler.push(chunk.pcm)
    if resampler:
        yield resampler.flush()


async def rendered(tts: TextToSpeech, text: str) -> bytes:
    """The whole speech of `text`, PCM16 at 8 kHz.

    Raises:
        EngineError: there is none.
    """
    pcm = bytearray()
    async with aclosing(narrowed(tts, text)) as pieces:
        async for piece in pieces:
            pcm += piece
            if bytes_to_ms(len(pcm)) > MAX_TEXT_MS:
                raise EngineError("text-to-speech", f"one text went on for {MAX_TEXT_MS / 1000:.0f} s")
    return bytes(pcm)
