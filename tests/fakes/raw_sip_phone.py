"""A telephone of raw SIP and RTP over UDP on loopback, for what no well-behaved user agent would send.

One call at a time, ulaw, digest authentication (RFC 3261 sections 13 and 22, RFC 7616 with MD5), telephone
events (RFC 4733) both ways. It hears all RTP but plays nothing by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import struct
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

HOST = "127.0.0.1"
EVENT_TYPE = 101
KEYS = "0123456789*#"


@dataclass
class Message:
    """A SIP message: its first line, and the first value of each header (lower case)."""

    start: str
    headers: dict[str, str]
    body: str

    @property
    def status(self) -> int:
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0


def parse_message(data: bytes) -> Message:
    head, _, body = data.decode().partition("\r\n\r\n")
    start, *lines = head.split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return Message(start, headers, body)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, queue: asyncio.Queue[bytes]) -> None:
        self.queue = queue

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.queue.put_nowait(data)


@dataclass
class RawSipPhone:
    """`async with RawSipPhone(port, "user", "password") as phone: status = await phone.invite("100")`."""

    server_port: int
    """Where what it sends goes; it receives from anywhere."""
    user: str
    password: str = ""
    from_user: str = ""
    """The name in the From header, if it is not `user`."""
    caller_id: str = ""
    """All of the From header but the tag, if it is to be odd."""
    host: str = HOST
    """Its own address."""
    call_id: str = field(default_factory=lambda: secrets.token_hex(8))
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    own_port: int = 0
    """Where it listens for SIP; 0: anywhere."""
    patience_s: float = 5.0
    """For the answer to an INVITE."""
    sequence: int = 0
    answered: Message | None = None
    branch: str = ""
    """Of the last request, which a CANCEL repeats."""

    async def __aenter__(self) -> RawSipPhone:
        loop = asyncio.get_running_loop()
        self.sip: asyncio.Queue[bytes] = asyncio.Queue(100)
        self.rtp: asyncio.Queue[bytes] = asyncio.Queue(10000)
        self.sip_transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self.sip), local_addr=(self.host, self.own_port)
        )
        self.rtp_transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self.rtp), local_addr=(self.host, 0)
        )
        self.port = self.sip_transport.get_extra_info("sockname")[1]
        self.rtp_port = self.rtp_transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sip_transport.close()
        self.rtp_transport.close()
        await asyncio.sleep(0)

    # --- signalling

    async def receive(self, within_s: float = 5.0) -> Message:
        return parse_message(await asyncio.wait_for(self.sip.get(), within_s))

    async def invite(self, number: str) -> int:
        """The final status of a call to `number`; authenticates once if there is a password."""
        reply = await self._try_invite(number, "")
        challenge = reply.headers.get("www-authenticate", "")
        if reply.status == 401 and self.password:
            reply = await self._try_invite(number, self._credentials(challenge, f"sip:{number}@{HOST}"))
        if reply.status == 200:
            self.answered = reply
        return reply.status

    async def _try_invite(self, number: str, credentials: str) -> Message:
        self.sequence += 1
        uri = f"sip:{number}@{HOST}"
        self._send(f"INVITE {uri}", uri, "INVITE", credentials, body=self._offer())
        while True:
            reply = await self.receive(self.patience_s)
            final = reply.status >= 200 and reply.headers["cseq"] == f"{self.sequence} INVITE"
            if final:
                self._send(f"ACK {uri}", uri, "ACK", to=reply.headers["to"])
                return reply

    async def hang_up(self) -> None:
        assert self.answered is not None
        contact = re.search(r"<(sip:[^>]+)>", self.answered.headers["contact"])
        assert contact is not None
        self.sequence += 1
        self._send(f"BYE {contact[1]}", contact[1], "BYE", to=self.answered.headers["to"])
        while (await self.receive()).headers["cseq"] != f"{self.sequence} BYE":
            pass

    async def wait_for_bye(self, within_s: float) -> Message:
        """The other side's BYE, which is answered."""
        async with asyncio.timeout(within_s):
            while True:
                data = await self.sip.get()
                message = parse_message(data)
                if message.start.startswith("BYE "):
                    self.reply(data, "200 OK")
                    return message

    def reply(self, request: bytes, status: str, body: str = "") -> None:
        """Answer a request with the headers that RFC 3261 section 8.2.6.2 says to copy."""
        copied = re.findall(r"(?im)^((?:via|from|to|call-id|cseq):[^\r]*)\r$", request.decode())
        lines = [
            f"SIP/2.0 {status}",
            *(
                f"{line};tag={self.tag}" if re.match("to:(?!.*;tag=)", line, re.I) else line
                for line in copied
            ),
            f"Contact: <sip:{self.user}@{self.host}:{self.port}>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        text = "\r\n".join(lines) + "\r\n\r\n" + body
        self.sip_transport.sendto(text.encode(), (HOST, self.server_port))

    def _send(
        self,
        start: str,
        uri: str,
        method: str,
        credentials: str = "",
        *,
        to: str = "",
        body: str = "",
        more: tuple[str, ...] = (),
    ) -> None:
        name = self.from_user or self.user
        if method != "CANCEL":
            self.branch = f"z9hG4bK{secrets.token_hex(8)}"
        lines = [
            f"{start} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{self.port};rport;branch={self.branch}",
            "Max-Forwards: 70",
            f"From: {self.caller_id or f'<sip:{name}@{HOST}>'};tag={self.tag}",
            f"To: {to or f'<{uri}>'}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.sequence} {method}",
            f"Contact: <sip:{name}@{self.host}:{self.port}>",
            *([f"Authorization: {credentials}"] if credentials else []),
            *more,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        text = "\r\n".join(lines) + "\r\n\r\n" + body
        self.sip_transport.sendto(text.encode(), (HOST, self.server_port))

    def _offer(self, direction: str = "sendrecv") -> str:
        lines = [
            "v=0",
            f"o=- 1 1 IN IP4 {self.host}",
            "s=-",
            f"c=IN IP4 {self.host}",
            "t=0 0",
            f"m=audio {self.rtp_port} RTP/AVP 0 {EVENT_TYPE}",
            "a=rtpmap:0 PCMU/8000",
            f"a=rtpmap:{EVENT_TYPE} telephone-event/8000",
            f"a=fmtp:{EVENT_TYPE} 0-16",
            f"a={direction}",
        ]
        return "\r\n".join(lines) + "\r\n"

    def _credentials(self, challenge: str, uri: str) -> str:
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))
        assert given.get("algorithm", "MD5").upper() == "MD5"

        def digest(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        ours = secrets.token_hex(8)
        secret = digest(f"{self.user}:{given['realm']}:{self.password}")
        response = digest(f"{secret}:{given['nonce']}:00000001:{ours}:auth:{digest(f'INVITE:{uri}')}")
        return (
            f'Digest username="{self.user}", realm="{given["realm"]}", nonce="{given["nonce"]}", '
            f'uri="{uri}", response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="{ours}", '
            f'opaque="{given.get("opaque", "")}"'
        )

    # --- media

    def media_address(self) -> tuple[str, int]:
        """Where the other side hears, by its answer."""
        assert self.answered is not None
        host = re.search(r"c=IN IP4 (\S+)", self.answered.body)
        port = re.search(r"m=audio (\d+)", self.answered.body)
        assert host is not None
        assert port is not None
        return host[1], int(port[1])

    async def listen(self, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        """PCM of all ulaw heard from now on for `seconds`."""
        heard = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    packet = await self.rtp.get()
                    if packet[1] & 0x7F == 0:
                        heard += packet[12:]
        except TimeoutError:
            return ULAW[np.frombuffer(bytes(heard), np.uint8)]

    async def press(self, keys: str) -> None:
        """Send each key as a telephone event of 100 ms (RFC 4733 section 2.5)."""
        for number, key in enumerate(keys):
            for step in range(7):
                end = 0x80 if step >= 4 else 0
                duration = min(step + 1, 5) * 160
                header = struct.pack(
                    "!BBHII", 0x80, EVENT_TYPE, number * 7 + step, 8000 * (number + 1), 0xABCDEF
                )
                event = struct.pack("!BBH", KEYS.index(key), end | 10, duration)
                self.rtp_transport.sendto(header + event, self.media_address())
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)

    async def hear_keys(self, count: int, within_s: float) -> str:
        """The next `count` keys that the other side presses."""
        keys: dict[int, str] = {}
        async with asyncio.timeout(within_s):
            while len(keys) < count:
                packet = await self.rtp.get()
                if packet[1] & 0x7F == EVENT_TYPE:
                    keys[struct.unpack("!I", packet[4:8])[0]] = KEYS[packet[12]]
        return "".join(keys.values())


def _ulaw_table() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """ITU-T G.711 mu-law, by its definition: sign, 3 bits of exponent, 4 of mantissa, all inverted."""
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
    table: np.ndarray[tuple[int], np.dtype[np.int16]] = np.where(code & 0x80, -magnitude, magnitude).astype(
        np.int16
    )
    return table


ULAW = _ulaw_table()
