"""What stands before the HTTP server: how many connections there are, and how long one may say nothing. Shell.

aiohttp waits for ever for the end of a request's head. Who opens connections and is silent would use up the process's
file descriptors, and with them the calls'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

MAX_CONNECTIONS = 200
"""Watchers, phones, scrapers and browsers together."""
HEAD_S = 10.0
"""A request's head fits into one packet."""


class Door:
    """Makes the protocol of each connection; give it to `loop.create_server`.

    Args:
        make: aiohttp's protocol of one connection.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self.connections = 0

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self, self._make)


class _Connection(asyncio.Protocol):
    """Hands everything on to aiohttp's protocol; ends what is one too many, or never comes to the point."""

    def __init__(self, door: Door, make: Callable[[], asyncio.Protocol]) -> None:
        self._door = door
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ours = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        if self._door.connections >= MAX_CONNECTIONS:
            ours.abort()
            return
        self._door.connections += 1
        self._inner = self._make()
        self._patience = asyncio.get_running_loop().call_later(HEAD_S, ours.abort)
        self._inner.connection_made(ours)

    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            return
        if self._patience is not None:
            seen = self._tail + data
            self._tail = seen[-3:]
            if b"\r\n\r\n" in seen or b"\n\n" in seen:
                # Later requests of the connection are watched by aiohttp's keep-alive time.
                self._patience.cancel()
                self._patience = None
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if self._inner is not None:
            self._door.connections -= 1
            self._inner.connection_lost(exc)
