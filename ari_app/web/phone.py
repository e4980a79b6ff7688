"""The console's telephone: SIP over a websocket (RFC 7118), handed on to Asterisk for who is logged in. Shell.

The browser never reaches Asterisk's HTTP server, which carries ARI too; only the sound goes between the two, encrypted.
The library it speaks SIP with is SIP.js, which `scripts/lib/fetch_phone.py` puts where `LIBRARY` says.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import aiohttp
from aiohttp import web

from ari_app.web.access import session_of

logger = logging.getLogger(__name__)

USER = "browser"
LIBRARY = Path(sys.prefix) / "share" / "ari_app" / "sip.js"
CONNECT_S = 5.0
MAX_MESSAGE_BYTES = 64 * 1024
MAX_PHONES = 20


class Phone:
    """Serves the telephone where Asterisk has an account for it.

    Args:
        ari_url: Asterisk's HTTP server, whose websocket at /ws speaks SIP.
        password: of the account `browser`; empty: there is no telephone.
        extension: whom it calls.
    """

    def __init__(self, ari_url: str, password: str, extension: str) -> None:
        self._url = f"{ari_url.rstrip('/')}/ws"
        self._password = password
        self._extension = extension
        self._phones = 0

    def routes(self) -> list[web.RouteDef]:
        """The library, what it needs to know, and its connection."""
        return [
            web.get("/sip.js", self._library),
            web.get("/phone", self._account),
            web.get("/phone/sip", self._connect),
        ]

    async def _library(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(LIBRARY)

    async def _account(self, request: web.Request) -> web.StreamResponse:
        if not self._password or not LIBRARY.is_file():
            return web.json_response({"user": None})
        return web.json_response({"user": USER, "password": self._password, "extension": self._extension})

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        _, _, origin = request.headers.get("Origin", "").partition("://")
        if not self._password or origin != request.host:
            return web.json_response({"error": "only for the console's own page"}, status=403)
        if self._phones >= MAX_PHONES:
            return web.json_response({"error": "too many telephones"}, status=429)
        self._phones += 1
        try:
            return await self._relay(request)
        finally:
            self._phones -= 1

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.ws_connect(self._url, protocols=("sip",), max_msg_size=MAX_MESSAGE_BYTES) as asterisk,
            ):
                browser = web.WebSocketResponse(
                    protocols=("sip",), max_msg_size=MAX_MESSAGE_BYTES, heartbeat=30
                )
                await browser.prepare(request)
                ways = [
                    asyncio.create_task(_hand_on(asterisk, browser)),
                    asyncio.create_task(_hand_on(browser, asterisk)),
                ]
                if session := session_of(request):
                    ways.append(asyncio.create_task(session.ended()))
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
                    await browser.close()
                return browser
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.warning("the console's telephone can't reach Asterisk: %s", error)
            return web.json_response({"error": "Asterisk takes no telephone of a browser"}, status=502)


Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _hand_on(source: Socket, target: Socket) -> None:
    """One direction, message by message, until either side closes."""
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        else:
            return
