"""A SIP registrar that knows one account and checks its digest strictly (RFC 3261 section 10.3, RFC 2617, RFC 7616)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from types import TracebackType

from tests.fakes.raw_sip_phone import Message, parse_message

REALM = "registrar.test"


class Registrar(asyncio.DatagramProtocol):
    """`async with Registrar("name", "password") as registrar:`; with `forbid` set it answers 403 to everybody."""

    def __init__(
        self, username: str, password: str, *, host: str = "127.0.0.1", forbid: bool = False
    ) -> None:
        self.forbid = forbid
        self.contacts: list[str] = []
        """Contact of each accepted registration."""
        self.wrong = 0
        """Digests that do not fit the password."""
        self._username = username
        self._password = password
        self._host = host
        self._nonces: set[str] = set()
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def port(self) -> int:
        assert self._transport is not None
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    async def __aenter__(self) -> Registrar:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._host, 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = parse_message(data)
        if request.start.startswith("REGISTER "):
            self._send(request, addr, *self._judge(request))

    def _judge(self, request: Message) -> tuple[str, str]:
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("authorization", "")))
        if self.forbid:
            return "403 Forbidden", ""
        if given.get("nonce") not in self._nonces:
            nonce = secrets.token_hex(8)
            self._nonces.add(nonce)
            return (
                "401 Unauthorized",
                f'WWW-Authenticate: Digest realm="{REALM}", nonce="{nonce}", algorithm=MD5, qop="auth"',
            )
        first = _md5(f"{self._username}:{REALM}:{self._password}")
        second = _md5(f"REGISTER:{given['uri']}")
        wanted = _md5(f"{first}:{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}:{second}")
        if (given["username"], given["realm"], given["response"]) != (self._username, REALM, wanted):
            self.wrong += 1
            return "403 Forbidden", ""
        self.contacts.append(request.headers["contact"])
        return "200 OK", f"Contact: {request.headers['contact']};expires=300"

    def _send(self, request: Message, addr: tuple[str, int], status: str, extra: str) -> None:
        assert self._transport is not None
        names = ("via", "from", "call-id", "cseq")
        lines = [f"SIP/2.0 {status}", *(f"{name}: {request.headers[name]}" for name in names)]
        lines += [f"to: {request.headers['to']};tag=registrar", "Content-Length: 0"]
        if extra:
            lines.append(extra)
        self._transport.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), addr)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
