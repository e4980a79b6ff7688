"""HTTP and websocket under aioari's operations, on aiohttp, in place of aioswagger11's client. Shell.

That one puts the password into every URL, raises server-side exceptions, refuses booleans, never notices a
dead connection, and goes to whatever address the API description names. Here the password travels in a
header, to the configured address only, and refusals are `AriError`s.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aioswagger11.http_client import HttpClient
from yarl import URL

from ari_app.ari.faults import ari_error
from ari_app.errors import AriError, AriUnreachable

REQUEST_TIMEOUT_S = 10.0
"""Asterisk answers within milliseconds; the slowest request only queues work."""
KEEPALIVE_S = 5.0
"""Asterisk closes an idle connection after 15 s (http.conf, session_keep_alive), and aiohttp by default too:
a request sent at that moment would be lost."""
HEARTBEAT_S = 8.0
"""An event websocket without an answer to its ping for half of this is dead."""
LARGEST_MESSAGE_BYTES = 4 * 1024 * 1024
LARGEST_REPLY_BYTES = 8 * 1024 * 1024
"""A list of several thousand channels."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What Asterisk answered, as aioswagger11 and aioari read it."""

    status: int
    body: str = field(repr=False)

    async def text(self) -> str:
        return self.body


class Transport(HttpClient):  # type: ignore[misc]  # aioswagger11 has no types
    """The session of one ARI user on one Asterisk. Close it.

    Args:
        url: e.g. http://127.0.0.1:8088, without /ari.
    """

    def __init__(self, url: str, user: str, password: str, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._heartbeat_s = heartbeat_s
        self.url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": aiohttp.encode_basic_auth(user, password)},
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            connector=aiohttp.TCPConnector(keepalive_timeout=KEEPALIVE_S),
            auto_decompress=False,  # a small reply could become a large one
        )

    def __repr__(self) -> str:
        return f"Transport({self.url})"

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self._session.close()

    async def request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, its reply read to the end; the signature is aioswagger11's.

        Raises:
            AriError: no answer, an error status, or a reply without end.
        """
        target = self._target(url)
        attempted = f"{method} {target.path}"
        try:
            async with self._session.request(
                method, target, params=_texts(params), data=data, headers=headers, allow_redirects=False
            ) as response:
                body = await _read(response, attempted)
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:
            raise self._unreachable(attempted, error) from error
        if response.status >= 400:
            raise ari_error(attempted, response.status, body)
        return Reply(response.status, body)

    async def ws_connect(
        self, url: str, params: Mapping[str, Any] | None = None
    ) -> aiohttp.ClientWebSocketResponse:
        """Open the event websocket; the signature is aioswagger11's.

        Raises:
            AriError: no answer, or an error status.
        """
        target = self._target(url).update_query(_texts(params))
        attempted = "open the event websocket"
        try:
            return await self._session.ws_connect(
                target,
                heartbeat=self._heartbeat_s,
                max_msg_size=LARGEST_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise ari_error(attempted, error.status, "") from None  # aiohttp does not keep the body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(attempted, error) from error

    def _target(self, url: str) -> URL:
        """Our address for a URL of the API description, whose host may be one that only Asterisk knows."""
        path = urlsplit(url).path
        return URL(f"{self.url}{path[path.index('/ari/') :]}", encoded=True)

    def _unreachable(self, attempted: str, error: Exception) -> AriError:
        if isinstance(error, RuntimeError):
            if not self._session.closed:
                raise error
            return AriUnreachable(attempted, None, "the connection to Asterisk has been closed")
        if isinstance(error, TimeoutError):
            reason = f"no answer from {self.url} within {REQUEST_TIMEOUT_S:g} s"
        elif isinstance(error, aiohttp.ClientConnectorError):
            reason = f"nobody answers at {self.url} ({_reason(error.os_error)})"
        else:
            reason = f"the connection to {self.url} broke ({type(error).__name__})"
        return AriUnreachable(attempted, None, f"{reason}: check ARI_URL, and that Asterisk is running")


async def _read(response: aiohttp.ClientResponse, attempted: str) -> str:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LARGEST_REPLY_BYTES:
            response.close()
            raise AriError(attempted, response.status, "the reply is longer than any of Asterisk's")
    return body.decode(errors="replace")


def _reason(error: OSError) -> str:
    """The system's words: asyncio puts the address in their place, which is in our sentence already."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return error.strerror or str(error)  # a name that is not found has an error number of its own


def _texts(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Query parameters as Asterisk reads them: yarl refuses booleans."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (params or {}).items()
    }
