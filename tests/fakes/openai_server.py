"""A strict OpenAI REST peer on loopback: scripted answers, recorded requests; anything else is a fault.

For a benchmark give `routine` replies instead of a script: they answer every call, with fixed delays.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

ALLOWED_FIELDS = {
    "/v1/audio/transcriptions": {
        "file",
        "model",
        "response_format",
        "temperature",
        "language",
        "languages[]",
    },
    "/v1/chat/completions": {
        "model",
        "messages",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "stream_options",
    },
    "/v1/audio/speech": {"model", "voice", "input", "response_format", "instructions"},
    "/v1/models": set(),
}


@dataclass(frozen=True)
class Reply:
    """One HTTP answer, sent in pieces."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    first_delay_s: float = 0.0
    """Before the status line."""
    gap_s: float = 0.0
    """Before every piece but the first."""
    hang: bool = False
    """After the pieces nothing comes, and the connection stays open."""
    reset: bool = False
    """After the pieces the connection is aborted."""

    def delayed(self, first_delay_s: float, gap_s: float = 0.0) -> Reply:
        return replace(self, first_delay_s=first_delay_s, gap_s=gap_s)


def transcript(text: str, **more: object) -> Reply:
    return Reply([json.dumps({"text": text, **more}).encode()])


def chat(*deltas: str, done: bool = True, **faults: Any) -> Reply:
    """A stream of deltas as OpenAI sends it: a role first, a finish reason, a usage chunk, [DONE]."""
    chunks: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": d} for d in deltas)]
    events = [_chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in chunks]
    if done:
        events.append(_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        events += [_chunk([], usage=usage), b"data: [DONE]\n\n"]
    return Reply(events, content_type="text/event-stream", **faults)


def _chunk(choices: list[dict[str, Any]], **more: object) -> bytes:
    body = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
        **more,
    }
    return f"data: {json.dumps(body)}\n\n".encode()


def speech(pcm: bytes, piece_bytes: int = 1999, content_type: str = "audio/pcm", **faults: Any) -> Reply:
    pieces = [pcm[i : i + piece_bytes] for i in range(0, len(pcm), piece_bytes)]
    return Reply(pieces, content_type=content_type, **faults)


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "fake", "param": None, "code": code}}
    return Reply([json.dumps(body).encode()], status, headers=headers)


@dataclass
class Request:
    """What a client sent."""

    path: str
    fields: dict[str, Any]
    headers: dict[str, str]
    port: int
    """The client's port: the same port is the same connection."""
    file: bytes = b""
    file_name: str = ""
    cut_off: bool = False
    """The client went away before the answer was complete."""


class FakeOpenAI:
    """The server; `stt`, `chat` and `tts` are the scripts of their routes."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.stt: list[Reply] = []
        self.chat: list[Reply] = []
        self.tts: list[Reply] = []
        self.routine: dict[str, Reply] = {"/v1/models": Reply([b'{"object":"list","data":[]}'])}
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.url = ""

    def sent(self, path: str) -> list[Request]:
        """The requests of a route, such as "/v1/audio/speech"."""
        return [request for request in self.requests if request.path == path]

    def check(self) -> None:
        assert not self.faults, self.faults
        assert not (self.stt or self.chat or self.tts), "part of the script was not asked for"

    async def handle(self, http: web.Request) -> web.StreamResponse:
        request = await self._read(http)
        self.requests.append(request)
        reply = self._next(request)
        try:
            await asyncio.sleep(reply.first_delay_s)
            return await self._send(http, reply)
        except (asyncio.CancelledError, ConnectionError):
            request.cut_off = True
            raise

    async def _send(self, http: web.Request, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.content_type = reply.content_type.partition(";")[0]
        response.headers["Content-Type"] = reply.content_type
        await response.prepare(http)
        for number, piece in enumerate(reply.pieces):
            if number and reply.gap_s:
                await asyncio.sleep(reply.gap_s)
            await response.write(piece)
            await asyncio.sleep(0)  # each piece its own packet as far as that can be had
        if reply.hang:
            await asyncio.Event().wait()
        if reply.reset and http.transport:
            await asyncio.sleep(0.02)  # let what was written leave
            http.transport.abort()
            return response
        await response.write_eof()
        return response

    def _next(self, request: Request) -> Reply:
        scripts = {
            "/v1/audio/transcriptions": self.stt,
            "/v1/chat/completions": self.chat,
            "/v1/audio/speech": self.tts,
        }
        script = scripts.get(request.path, [])
        if script:
            return script.pop(0)
        if request.path in self.routine:
            return self.routine[request.path]
        self.faults.append(f"unexpected call: {request.path}")
        return error(500, "unexpected call")

    async def _read(self, http: web.Request) -> Request:
        peer = http.transport.get_extra_info("peername") if http.transport else None
        request = Request(http.path, {}, dict(http.headers), peer[1] if peer else 0)
        if http.content_type == "multipart/form-data":
            for name, value in (await http.post()).items():
                if isinstance(value, web.FileField):
                    request.file, request.file_name = value.file.read(), value.filename
                    request.fields[name] = value.content_type
                    value.file.close()
                else:
                    request.fields[name] = value
        elif http.method == "POST":
            request.fields = await http.json()
        if http.path not in ALLOWED_FIELDS:
            self.faults.append(f"unknown path: {http.path}")
        extra = set(request.fields) - ALLOWED_FIELDS.get(http.path, set())
        if extra:
            self.faults.append(f"unexpected fields of {http.path}: {sorted(extra)}")
        if http.headers.get("Authorization") != f"Bearer {self._key}":
            self.faults.append(f"wrong key for {http.path}")
        return request


@asynccontextmanager
async def fake_openai(key: str = "test-key") -> AsyncIterator[FakeOpenAI]:
    """Serve on a free loopback port; leaving checks that all went by the script."""
    server = FakeOpenAI(key)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
    server.check()
