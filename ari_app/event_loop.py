"""The event loop: uvloop's, whose look-ups of names wait for no others. Shell.

uvloop has two threads for them, and needs one for each new connection, to a plain address too. While the names of the
engines get no answer, which takes 10 s each, no request would reach Asterisk, and no call be set up or ended.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import uvloop

from ari_app.apart import apart


class Loop(uvloop.Loop):
    """For `uvloop.run`."""

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As in asyncio. aiohttp asks for a name once at a time, so that few threads wait for it."""
        look_up = partial(socket.getaddrinfo, host, port, family, type, proto)
        try:
            return look_up(flags | socket.AI_NUMERICHOST)
        except socket.gaierror:  # a name
            return await apart(partial(look_up, flags))
