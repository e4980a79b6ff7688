"""What engines answer, through aiohttp, the SDK and the adapters to what the rest of the program gets of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any

import aiohttp

from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.dialog.ports import EngineUsed, Message
from ari_app.dialog.usage import Bill
from ari_app.errors import EngineError, EngineRejected
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import MAX_SERVER_WORDS, StageSettings
from ari_app.openai_api.realtime_protocol import RealtimeSettings
from ari_app.openai_api.realtime_session import RealtimeClient
from ari_app.openai_api.realtime_tts import RealtimeTextToSpeech
from ari_app.openai_api.stt import LANGUAGE, MAX_TRANSCRIPT_CHARS, OpenAiSpeechToText
from ari_app.openai_api.tts import OpenAiTextToSpeech
from ari_app.texts import clean
from tests.fuzz.wire import Answers, run, text_frame

KEY = "sk-key-of-the-fuzzer"
URL = "http://engine.invalid/v1"
MAX_ERROR_CHARS = MAX_SERVER_WORDS + 150
MOST_COUNTED = 1e12
"""Milliseconds of the most seconds that are believed."""
DEADLINE_S = 2.0
SPOKEN = "Good morning."


def engine_answer(data: bytes) -> None:
    """An HTTP answer to each kind of request: words and sound of bounded length, or one clear error of ours.

    The first byte chooses what was asked for, the second the length of the pieces that the answer comes in.
    """
    kind, piece_bytes, answer = data[:1], 1 + (data[1] if len(data) > 1 else 0), data[2:]
    run(_answered((kind[0] if kind else 0) % 4, answer, piece_bytes))


async def _answered(kind: int, answer: bytes, piece_bytes: int) -> None:
    stage: Any = (*_stages(), _stages()[0])[kind]
    used: list[EngineUsed] = []
    Bill().charge(1, used.append)
    connector = Answers(answer, piece_bytes)
    async with aiohttp.ClientSession(connector=connector) as http:
        stage._client.openai._client._transport.client = http
        try:
            async with asyncio.timeout(DEADLINE_S):
                await _ask(kind, answer)
        except EngineError as error:
            _check(error)
        except TimeoutError:
            # aiohttp waits for ever after a malformed trailer, and the pipeline has deadlines of its own.
            assert b"chunked" in answer.lower()
        await connector.hung_up()
    amounts = [amount for entry in used for amount in entry.amounts.values()]
    assert all(isinstance(amount, int) and 0 <= amount <= MOST_COUNTED for amount in amounts)


async def _ask(kind: int, answer: bytes) -> None:
    chat, stt, tts = _stages()
    if kind == 0:
        deltas = [delta async for delta in chat.reply([Message("user", "Hello?")])]
        assert all(isinstance(delta, str) and delta for delta in deltas)
        assert sum(map(len, deltas)) <= len(answer)
    elif kind == 1:
        heard = await stt.transcribe(bytes(320), TELEPHONE_RATE_HZ)
        assert heard.text == clean(heard.text) and len(heard.text) <= MAX_TRANSCRIPT_CHARS
        assert heard.language is None or LANGUAGE.fullmatch(heard.language)
    elif kind == 2:
        await _hear(tts.speak(SPOKEN), len(answer))
    else:
        await chat.warm()


@cache
def _stages() -> tuple[OpenAiChat, OpenAiSpeechToText, OpenAiTextToSpeech]:
    settings = StageSettings(URL, "some-model", KEY)
    return (
        OpenAiChat(settings),
        OpenAiSpeechToText(settings),
        OpenAiTextToSpeech(settings, voice="some-voice"),
    )


def realtime_frames(data: bytes) -> None:
    """Frames of a Realtime server while it is to speak a sentence: whole samples, or one clear error of ours.

    A line is a frame of text; one that begins with "!" is bytes of the connection, whatever they mean.
    """
    lines = data.split(b"\n")
    frames = [line[1:] if line.startswith(b"!") else text_frame(line) for line in lines]
    run(_spoken(b"".join(frames)))


async def _spoken(answer: bytes) -> None:
    client = RealtimeClient(URL, KEY, RealtimeSettings("some-model", "some-voice"), listens=False)
    connector = Answers(answer, max(len(answer), 1), upgrades=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        client._http = http
        stage = RealtimeTextToSpeech(client)
        try:
            await _hear(stage.speak(SPOKEN), len(answer))
        except EngineError as error:
            _check(error)
        await stage.close()
        await connector.hung_up()
    assert not stage._segments, "a sentence stays that nobody waits for"


async def _hear(speech: AsyncGenerator[Any, None], most_bytes: int) -> None:
    heard_bytes = 0
    async for chunk in speech:
        assert chunk.pcm and len(chunk.pcm) % 2 == 0 and 8000 <= chunk.rate_hz <= 192_000
        heard_bytes += len(chunk.pcm)
    assert heard_bytes <= 2 * most_bytes


def _check(error: EngineError) -> None:
    """It is for a log, and says what no stranger may know."""
    assert error.message == clean(error.message) and len(error.message) <= MAX_ERROR_CHARS, error
    assert KEY not in str(error)
    if isinstance(error, EngineRejected) and error.retry_after_s is not None:
        assert 0 <= error.retry_after_s < math.inf


def _http(status: str, body: bytes, *, kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


_EVENTS = (
    b'data: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": '
    b'[{"index": 0, "delta": {"role": "assistant", "content": "Good day."}}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, '
    b'"prompt_tokens_details": {"cached_tokens": 2}}}\n\ndata: [DONE]\n\n'
)
_REFUSAL = (
    b'{"error": {"message": "no such key: sk-key-of-the-fuzzer", "type": "x", "code": "insufficient_quota"}}'
)
_TRANSCRIPT = (
    b'{"text": "Hello.", "languages": [{"code": "en"}], "usage": {"type": "duration", "seconds": 1}, '
    b'"language": "en"}'
)
ANSWERS = [
    b"\x00\xff" + _http("200 OK", _EVENTS, kind="text/event-stream"),
    b"\x00\x10" + _http("200 OK", b'data: {"error": {"message": "x"}}\n\n', kind="text/event-stream"),
    b"\x00\xff" + _http("200 OK", b'data: {"choices": null}\n\ndata: 5\n\n', kind="text/event-stream"),
    b"\x00\xff" + _http("429 Too Many Requests", _REFUSAL, more="Retry-After: 3\r\n"),
    b"\x00\xff" + _http("400 Bad Request", _REFUSAL),
    b"\x03\xff" + _http("418 Teapot", b'{"error": {"message": "no", "type": {}, "code": []}}'),
    b"\x03\xff" + b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x00\xff" + _http("307 Temporary Redirect", b"", more="Location: ../x\r\n"),
    b"\x01\xff" + _http("200 OK", _TRANSCRIPT),
    b"\x01\xff" + _http("200 OK", b'{"text": "Hello.", "languages": {"en": 1}}'),
    b"\x01\xff" + _http("200 OK", b"Hello.", kind="text/plain"),
    b"\x01\xff" + _http("200 OK", _TRANSCRIPT, more="Content-Encoding: gzip\r\n"),
    b"\x01\xff"
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'e\r\n{"text": "Hi"}\r\n0\r\n\r\n',
    b"\x02\x07" + _http("200 OK", bytes(99), kind="audio/pcm;rate=24000"),
    b"\x02\xff" + _http("500 Oh", b"<html>", kind="text/html"),
    b"\x03\xff" + _http("200 OK", b'{"data": []}'),
]

_OPEN = (
    b'{"type": "session.created", "session": {"expires_at": 99999999999}}\n'
    b'{"type": "session.updated", "session": {"audio": {"input": {"format": {"type": "audio/pcm"}}, '
    b'"output": {"format": {"type": "audio/pcm"}}}}}\n'
)
_CREATED = b'{"type": "response.created", "response": {"id": "r", "metadata": {"segment": "segment-1"}}}\n'
FRAMES = [
    _OPEN
    + _CREATED
    + b'{"type": "response.output_audio.delta", "response_id": "r", "delta": "AAAAAAAAAAAAAAAAAAAAAAAA"}\n'
    + b'{"type": "response.output_audio_transcript.done", "response_id": "r", "transcript": "Good morning"}\n'
    + b'{"type": "response.done", "response": {"id": "r", "status": "completed", "usage": '
    + b'{"output_token_details": {"audio_tokens": 9}}}}',
    _OPEN
    + _CREATED
    + b'{"type": "response.done", "response": {"id": "r", "status": "failed", "status_details": {"error": {}}}}',
    _OPEN + b'{"type": "error", "error": {"event_id": "segment-1", "message": "sk-key-of-the-fuzzer"}}',
    b'{"type": "error", "error": {"event_id": "configuration", "type": "invalid_request_error", "param": "p"}}',
    _OPEN + b"!\x82\x01a\n!\x89\x01a\n!\x88\x02\x03\xe8",
    b"!\xc1\x01a",
]
