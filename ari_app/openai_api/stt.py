"""Speech-to-text by `POST /audio/transcriptions`. Shell."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any, Literal

from ari_app.audio.format import SAMPLE_BYTES, bytes_to_ms
from ari_app.audio.resample import StreamResampler
from ari_app.dialog.ports import Transcript
from ari_app.openai_api.client import StageClient, StageSettings, count_of
from ari_app.texts import one_line

UPLOAD_RATE_HZ = 16_000
"""What the models work at inside; some local servers accept nothing else."""
LANGUAGE = re.compile("[a-z]{2,3}")
"""ISO 639."""
MAX_TRANSCRIPT_CHARS = 4000
"""Three minutes of quick speech."""


class OpenAiSpeechToText:
    """Implements `SpeechToText`; asks for plain JSON, the one format that every model offers."""

    def __init__(
        self,
        settings: StageSettings,
        *,
        languages: Sequence[str] = (),
        language_field: Literal["language", "languages"] = "language",
    ) -> None:
        """`languages` are ISO 639-1 codes; with the field `language`, which older models know, only one."""
        self._client = StageClient("speech-to-text", settings)
        self._transcriptions = (
            self._client.openai.audio.transcriptions
        )  # loads the SDK's module before there are calls
        self._hint: dict[str, Any] = {}
        if languages and language_field == "languages":
            self._hint = {"languages": list(languages)}
        elif len(languages) == 1:
            self._hint = {"language": languages[0]}

    async def transcribe(self, pcm: bytes, rate_hz: int) -> Transcript:
        """Transcribe one complete utterance.

        Raises:
            EngineError: the engine failed.
        """
        resampler = StreamResampler(rate_hz, UPLOAD_RATE_HZ)
        wav = wav_file(resampler.push(pcm) + resampler.flush(), UPLOAD_RATE_HZ)
        with self._client.request() as request, self._client.errors():
            request.took(audio_ms=round(bytes_to_ms(len(pcm), rate_hz)))
            answer = await self._transcriptions.create(
                file=("turn.wav", wav, "audio/wav"),
                model=self._client.model,
                response_format="json",
                temperature=0,
                **self._hint,
            )
            request.took(**_amounts(getattr(answer, "usage", None)))
            text = getattr(answer, "text", None)
            if not isinstance(text, str):
                raise ValueError("no text in the answer")
            return Transcript(one_line(text, MAX_TRANSCRIPT_CHARS), _language(answer))

    async def warm(self) -> None:
        await self._client.warm()

    async def close(self) -> None:
        await self._client.close()


def wav_file(pcm: bytes, rate_hz: int) -> bytes:
    """PCM16 mono with the 44-byte RIFF header in front."""
    layout = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    header = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", len(layout)) + layout
    return header + struct.pack("<4sI", b"data", len(pcm)) + pcm


def _language(answer: object) -> str | None:
    """The language where the server says one: `languages` of newer models, `language` of local servers."""
    languages = getattr(answer, "languages", None)
    if isinstance(languages, list) and languages:
        code = getattr(languages[0], "code", None)
        return code if isinstance(code, str) and LANGUAGE.fullmatch(code) else None
    language = getattr(answer, "language", None)
    return language if isinstance(language, str) and LANGUAGE.fullmatch(language) else None


def _amounts(usage: object) -> dict[str, int]:
    """What the server counted: seconds, or tokens."""
    details = getattr(usage, "input_token_details", None)
    amounts = {
        "audio_ms": count_of(usage, "seconds", 1000),
        "audio_in": count_of(details, "audio_tokens"),
        "text_in": count_of(details, "text_tokens"),
        "text_out": count_of(usage, "output_tokens"),
    }
    return {kind: count for kind, count in amounts.items() if count}
