"""Clients and servers of aiohttp with bytes in place of sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import struct
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

PATIENCE_S = 10.0
"""Of real time; nothing here waits for anybody."""
ENDS_S = 2.0
TURNS_BETWEEN = 4
"""Of the loop, between a request that is read and its handler."""
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def run(work: Coroutine[Any, Any, None]) -> None:
    """To its end, and without a fault in any of its tasks."""

    async def watched() -> None:
        faults: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(PATIENCE_S):
            await work
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # a thread may be about to end
            _, left = await asyncio.wait(left, timeout=ENDS_S)
        assert not faults and not left, (faults, left)

    with _quiet():
        asyncio.run(watched())


@contextmanager
def _quiet() -> Iterator[None]:
    """What strangers do is logged, and is no news here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class Wire(asyncio.Transport):
    """One end of a connection; what is written to it is kept."""

    def __init__(self, wrote: Callable[[], None] = lambda: None) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8089)})
        self.written = bytearray()
        self.protocol: asyncio.BaseProtocol
        self._wrote = wrote
        self._closing = False
        self._lost = False

    def connect(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self._wrote()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.close()

    def lose(self) -> None:
        """The connection is over."""
        self._closing = True
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(None)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_reading(self) -> bool:
        return True


class Answers(aiohttp.BaseConnector):
    """Every connection leads to a server that answers with the same bytes in pieces, and hangs up.

    With `upgrades` it is asked for a WebSocket first, and agrees.
    """

    def __init__(self, answer: bytes, piece_bytes: int, *, upgrades: bool = False) -> None:
        super().__init__(force_close=True)
        self._answer = answer
        self._piece_bytes = piece_bytes
        self._upgrades = upgrades
        self._servers: list[asyncio.Task[None]] = []

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        asked = asyncio.Event()
        wire = Wire(asked.set)
        protocol: ResponseHandler = self._factory()
        wire.connect(protocol)
        self._servers.append(asyncio.create_task(self._serve(asked, wire, protocol)))
        return protocol

    async def _serve(self, asked: asyncio.Event, wire: Wire, protocol: ResponseHandler) -> None:
        await asked.wait()
        await asyncio.sleep(0)
        answer = self._answer
        if self._upgrades:
            protocol.data_received(_agreed(bytes(wire.written)))
            for _ in range(4):
                await asyncio.sleep(0)  # until the client listens
        for start in range(0, len(answer), self._piece_bytes):
            if wire.is_closing():
                break
            protocol.data_received(answer[start : start + self._piece_bytes])
            await asyncio.sleep(0)
        wire.lose()

    async def hung_up(self) -> None:
        """All connections are over."""
        for server in self._servers:
            server.cancel()
        await asyncio.gather(*self._servers, return_exceptions=True)


def _agreed(request: bytes) -> bytes:
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert key
    accept = base64.b64encode(hashlib.sha1(key[1] + WEBSOCKET_GUID).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"


def text_frame(text: bytes) -> bytes:
    """Of a WebSocket server."""
    length = len(text)
    if length < 126:
        return struct.pack(">BB", 0x81, length) + text
    return struct.pack(">BBH", 0x81, 126, length) + text


async def asked(application: web.Application, request: bytes) -> bytes:
    """What a server says to bytes of a client that waits for its answers and hangs up."""
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    protocol = runner.server()
    wire = Wire()
    wire.connect(protocol)
    await asyncio.sleep(0)
    protocol.data_received(request)
    await _until_idle(protocol, wire)
    wire.lose()
    await runner.cleanup()
    return bytes(wire.written)


async def _until_idle(protocol: web.RequestHandler, wire: Wire) -> None:
    """All is answered that came; threads may have a part in it."""
    turns = idle = 0
    while idle < TURNS_BETWEEN and not wire.is_closing():
        turns += 1
        await asyncio.sleep(0 if turns < 50 else 0.0005)
        idle = idle + 1 if _waits(protocol) else 0


def _waits(protocol: web.RequestHandler) -> bool:
    """For a request, or for the rest of one, which does not come."""
    request = protocol._current_request
    return not protocol._messages if request is None else not request._payload.is_eof()
