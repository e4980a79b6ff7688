"""An engine that works until it is told to fail, in any way an engine on the internet can. Shell."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType

import numpy as np
from aiohttp import WSMessage, web

from bench.engine import MATCH, PROFILES, TTS_RATE_HZ, Engine, Known, envelope, tone
from bench.realtime import Conversation

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MEGABYTE = 1_000_000
STAGES = {
    "stt": "/v1/audio/transcriptions",
    "chat": "/v1/chat/completions",
    "tts": "/v1/audio/speech",
    "realtime": "/v1/realtime",
}
STATUSES: dict[str, tuple[int, str, dict[str, str]]] = {
    "401": (401, "invalid_api_key", {}),
    "429": (429, "rate_limit_exceeded", {}),
    "429 with Retry-After": (429, "rate_limit_exceeded", {"Retry-After": "20"}),
    "quota": (429, "insufficient_quota", {}),
    "500": (500, "server_error", {}),
    "503": (503, "overloaded", {}),
}
FAULTS = (
    "refused",
    *STATUSES,
    "hangs before the first byte",
    "hangs after the first byte",
    "resets in mid-stream",
    "garbage",
    "10 MB",
    "slow drip",
)
DRIP_S = 0.4
ANSWER = "Certainly, we can. It takes two days."
GARBAGE = b"<html>\x00\xff{]}\r\n\r\n: event" * 40


def _beginning(stage: str) -> tuple[str, bytes]:
    """Content type and first bytes of an answer that is right so far."""
    match stage:
        case "stt":
            return "application/json", b'{"text": "A sent'
        case "chat":
            delta = {"index": 0, "delta": {"content": "Well, then. That "}, "finish_reason": None}
            chunk = {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "m",
                "choices": [delta],
            }
            return "text/event-stream", b"data: " + json.dumps(chunk).encode() + b"\n\n"
        case _:
            return f"audio/pcm;rate={TTS_RATE_HZ}", tone(300, 400)


def _endless(stage: str) -> tuple[str, bytes]:
    """Content type and ten megabytes of an answer."""
    match stage:
        case "stt":
            return "application/json", json.dumps({"text": "a" * 10 * MEGABYTE}).encode()
        case "chat":
            return "text/event-stream", b'data: {"choices": [{"delta": {"content": "' + b"a" * 10 * MEGABYTE
        case _:
            return f"audio/pcm;rate={TTS_RATE_HZ}", tone(1000, 400) * (10 * MEGABYTE // 48_000)


class _Socket:
    """The server's end of a Realtime session, which may fail at any event."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, engine: FaultyEngine) -> None:
        self._socket = socket
        self._request = request
        self._engine = engine

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def send_str(self, text: str) -> None:
        fault = self._engine.fault if "realtime" in self._engine.stages else None
        in_answer = '"response.output_audio.delta"' in text
        match fault:
            case "hangs before the first byte":
                await self._engine.hang()
            case "hangs after the first byte" if in_answer:
                await self._socket.send_str(text)
                await self._engine.hang()
            case "resets in mid-stream" if in_answer:
                self.abort()
            case "garbage":
                await self._socket.send_str("{]}" * 20)
                await self._socket.send_bytes(GARBAGE)
            case "10 MB" if in_answer:
                await self._socket.send_str('{"type": "x", "y": "' + "a" * 10 * MEGABYTE + '"}')
            case "slow drip" if in_answer:
                await asyncio.sleep(1.0)
        await self._socket.send_str(text)

    def __aiter__(self) -> AsyncIterator[WSMessage]:
        return aiter(self._socket)


class FaultyEngine(Engine):
    """Serves on a loopback port; `arm` makes some stages fail until `heal`."""

    def __init__(self) -> None:
        super().__init__(PROFILES["fast"], ANSWER)
        self.fault: str | None = None
        self.stages: frozenset[str] = frozenset()
        self.failed: Counter[str] = Counter()
        """Requests that met the fault, by stage."""
        self._sockets: set[_Socket] = set()
        self._healed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def know(self, sentence: bytes, text: str) -> None:
        """What is said in it: 8 kHz PCM16; anything else is not understood."""
        self._known = [Known(envelope(np.frombuffer(sentence, "<i2").astype(float)), text)]

    async def __aenter__(self) -> FaultyEngine:
        application = self.application()
        application.middlewares.append(self._fail)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self._healed.set()
        await self._runner.cleanup()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def arm(self, fault: str, *stages: str) -> None:
        """From now on these stages fail so."""
        self.fault, self.stages = fault, frozenset(stages)
        if fault == "refused" and self._site is not None:
            await self._site.stop()
            self._site = None
        if fault in STATUSES or fault == "refused":
            for socket in list(self._sockets):
                socket.abort()

    async def hang(self) -> None:
        """Say nothing until all is well again; by then nobody listens."""
        await self._healed.wait()
        raise ConnectionError("it hung")

    async def heal(self) -> None:
        """Everything works again."""
        self.fault, self.match = None, MATCH
        self._healed.set()
        self._healed = asyncio.Event()
        if self._site is None:
            await self._listen()
        for socket in list(self._sockets):
            socket.abort()

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, protocols=("realtime",))
        await socket.prepare(request)
        self.counts["realtime"] += 1
        faulty = _Socket(socket, request, self)
        self._sockets.add(faulty)
        conversation = Conversation(
            faulty,  # type: ignore[arg-type]
            delay_s=self._profile.total_ms / 1000,
            speech_per_s=self._profile.speech_per_s,
            answer=lambda number: self._answer,
            spoken=self._spoken,
        )
        try:
            await conversation.run()
        except ConnectionError:
            pass
        finally:
            self._sockets.discard(faulty)
        return socket

    @web.middleware
    async def _fail(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        stage = next((name for name, path in STAGES.items() if request.path == path), "")
        if self.fault is None or stage not in self.stages:
            return await handler(request)
        self.failed[stage] += 1
        if self.fault == "refused":  # a connection that was kept
            return self._broken(request)
        if self.fault in STATUSES:
            status, code, headers = STATUSES[self.fault]
            body = {"error": {"message": "A fault was ordered.", "type": code, "code": code}}
            return web.json_response(body, status=status, headers=headers)
        if self.fault == "hangs before the first byte":
            await self._healed.wait()
            return self._broken(request)
        if stage == "realtime":
            return await handler(request)
        return await self._stream(request, stage, self.fault)

    async def _stream(self, request: web.Request, stage: str, fault: str) -> web.StreamResponse:
        kind, data = _beginning(stage)
        if fault == "garbage":
            kind, data = "text/html" if stage == "tts" else kind, GARBAGE
        elif fault == "10 MB":
            kind, data = _endless(stage)
        response = web.StreamResponse(headers={"Content-Type": kind})
        try:
            await response.prepare(request)
            if fault == "slow drip":
                for at in range(0, len(data), 8):
                    await response.write(data[at : at + 8])
                    await asyncio.sleep(DRIP_S)
            else:
                await response.write(data)
            if fault == "hangs after the first byte":
                await self.hang()
            if fault == "resets in mid-stream":
                return self._broken(request)
        except ConnectionError:
            self.counts["left"] += 1
        return response

    @staticmethod
    def _broken(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
