"""Text-to-speech by streamed `POST /audio/speech`. Shell, with a small core that makes samples of it."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncGenerator

from openai import omit

from ari_app.audio.format import SAMPLE_BYTES, bytes_to_ms
from ari_app.dialog.ports import PcmChunk
from ari_app.errors import EngineError
from ari_app.openai_api.client import StageClient, StageSettings
from ari_app.texts import one_line

STAGE = "text-to-speech"
OPENAI_RATE_HZ = 24_000
LEAST_RATE_HZ, MOST_RATE_HZ = 8000, 192_000
"""Of speech; each sample of a lower rate would become many of ours."""
MAX_KIND_CHARS = 60
MAX_HEADER_BYTES = 4096
"""A WAV header is 44 bytes; some servers put a list of tags in front of the samples."""
COMPRESSED = {
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf2": "MP3",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
}


class OpenAiTextToSpeech:
    """Implements `TextToSpeech`; asks for raw PCM and looks at what the server really sent."""

    def __init__(
        self, settings: StageSettings, *, voice: str, rate_hz: int = OPENAI_RATE_HZ, instructions: str = ""
    ) -> None:
        """`rate_hz` is believed where neither the content type nor a WAV header names a rate."""
        self._client = StageClient(STAGE, settings)
        self._speech = self._client.openai.audio.speech  # loads the SDK's module before there are calls
        self._voice = voice
        self._rate_hz = rate_hz
        self._instructions = instructions

    async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        """Stream the speech of `text`; closing the iterator cancels.

        Raises:
            EngineError: before or between chunks.
        """
        with self._client.request() as counted, self._client.errors():
            counted.took(characters=len(text))
            request = self._speech.with_streaming_response.create(
                model=self._client.model,
                voice=self._voice,
                input=text,
                response_format="pcm",
                instructions=self._instructions or omit,
            )
            async with request as response:
                counted.answered = True
                spoken_bytes = 0
                body = SpeechBody(response.headers.get("content-type", ""), self._rate_hz)
                # Without a chunk size: with one the SDK holds bytes back until it is full.
                async for data in response.iter_bytes():
                    pcm = body.push(data)
                    spoken_bytes += len(pcm)
                    if pcm:
                        yield PcmChunk(pcm, body.rate_hz)
                counted.took(audio_ms=round(bytes_to_ms(spoken_bytes, body.rate_hz)))

    async def warm(self) -> None:
        await self._client.warm()

    async def close(self) -> None:
        await self._client.close()


class SpeechBody:
    """Makes whole samples of an HTTP body that comes in pieces of any size, raw or with a WAV header."""

    def __init__(self, content_type: str, rate_hz: int) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json" or kind.startswith("text/"):
            raise EngineError(STAGE, f"the server sent {one_line(kind, MAX_KIND_CHARS)} instead of audio")
        declared = re.search(r";\s*rate=(\d{4,6})\b", content_type)
        self.rate_hz = _rate(int(declared[1])) if declared else rate_hz
        self._pending = b""
        self._in_samples = False

    def push(self, data: bytes) -> bytes:
        """Take a piece of the body; return the whole samples there are, an odd byte waits.

        Raises:
            EngineError: the body is not PCM16 mono.
        """
        self._pending += data
        if not self._in_samples and not self._skip_header():
            return b""
        whole = len(self._pending) // SAMPLE_BYTES * SAMPLE_BYTES
        pcm, self._pending = self._pending[:whole], self._pending[whole:]
        return pcm

    def _skip_header(self) -> bool:
        """Look at the first bytes; True when `_pending` begins with samples."""
        head = self._pending
        for magic, name in COMPRESSED.items():
            if head.startswith(magic):
                raise EngineError(STAGE, f"the server sent {name} instead of PCM")
        if len(head) < 4:
            return False
        if head.startswith(b"RIFF"):
            start = self._wav_samples_at(head)
            if start is None:
                if len(head) > MAX_HEADER_BYTES:
                    raise EngineError(STAGE, "the server's WAV header has no end")
                return False
            self._pending = head[start:]
        self._in_samples = True
        return True

    def _wav_samples_at(self, head: bytes) -> int | None:
        """Where the samples begin, None when that is still to come; a stream's data length is bogus."""
        at = 12
        while at + 8 <= len(head):
            name, length = struct.unpack_from("<4sI", head, at)
            if name == b"data":
                return at + 8
            if name == b"fmt ":
                if at + 24 > len(head):
                    return None
                kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
                if kind not in (1, 0xFFFE) or channels != 1 or bits != 16:
                    raise EngineError(
                        STAGE, f"the server's WAV has {channels} channels of {bits} bits, not PCM16 mono"
                    )
                self.rate_hz = _rate(rate_hz)
            at += 8 + length + length % 2
        return None


def _rate(rate_hz: int) -> int:
    if not LEAST_RATE_HZ <= rate_hz <= MOST_RATE_HZ:
        raise EngineError(STAGE, f"the server's audio has {rate_hz} samples a second")
    return rate_hz
