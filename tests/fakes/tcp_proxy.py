"""A TCP proxy on loopback whose connections can be broken, as a network does it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CHUNK_BYTES = 65536


class TcpProxy:
    """Passes bytes on to `host:port` until `cut`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.cuts = 0

    def freeze(self) -> None:
        """Connections stay up and carry nothing, as when a router forgets them."""
        self._flowing.clear()

    def thaw(self) -> None:
        """What waited goes on."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection; new ones are taken at once."""
        self.cuts += 1
        for writer in self._writers:
            # Linger of zero seconds: the peer gets a reset, not an orderly end.
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def cuttable(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """A proxy before an HTTP base URL; yields it with the URL to use instead."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    proxy = TcpProxy(parts.hostname, parts.port)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, parts._replace(netloc=f"127.0.0.1:{port}").geturl()
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
