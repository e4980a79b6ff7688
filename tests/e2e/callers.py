"""What end-to-end tests need beside `SipCaller`: phones that refuse, and real speech of people with its text.

A phone that is busy, rings for ever, or hangs up at any stage is a `SipCaller` with `answer="manual"` (see
`SipCall.reject`, `answer` and `hangup`). baresip refuses with 486 only; `RefusingPhone` with any status.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import wave
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import samplerate

from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.demo.asterisk_prefix import Tool, fetch
from ari_app.demo.voice import levelled, trimmed

log = logging.getLogger(__name__)

TEST_SPEECH = Tool(
    name="test-speech",
    title="the recorded test sentences",
    packages=("pocketsphinx-testdata",),
    binary="",
    keep="pocketsphinx-testdata",
    suites=("forky", "bookworm"),
)
SENTENCES = "usr/share/pocketsphinx/test/data/librivox"


@dataclass(frozen=True, slots=True)
class HumanSentence:
    """One sentence read by a person (LibriVox, "Sense and Sensibility"), 2 to 6 s."""

    text: str
    """Lower case, without punctuation."""
    pcm: bytes
    """PCM16 mono 8 kHz, speech at -20 dBFS."""


@functools.cache
def human_sentences() -> tuple[HumanSentence, ...]:
    """Five sentences, fetched from Debian into the cache at first use. Blocks.

    Raises:
        SetupError: they cannot be had on this machine.
    """
    folder = fetch(log.info, TEST_SPEECH).root / SENTENCES
    sentences = []
    for line in (folder / "transcription").read_text().splitlines():
        match = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line)
        assert match is not None, line
        with wave.open(str(folder / f"{match[2]}.wav"), "rb") as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
            ratio = TELEPHONE_RATE_HZ / file.getframerate()
        pcm = trimmed(levelled(samplerate.resample(samples, ratio, "sinc_medium")))
        sentences.append(HumanSentence(match[1], pcm))
    return tuple(sentences)


class RefusingPhone(asyncio.DatagramProtocol):
    """A SIP phone that rings and then refuses every call with one status (RFC 3261, sections 8.2 and 17.2.1).

    With `status=None` it rings until the CANCEL. Any request but INVITE, CANCEL, ACK and OPTIONS is a fault,
    kept in `unexpected` and raised on exit.
    """

    def __init__(self, status: int | None, reason: str = "Refused", *, ring_s: float = 0.0) -> None:
        self.calls: list[str] = []
        """Request URIs of the calls that came in."""
        self.cancelled = 0
        self.unexpected: list[str] = []
        self._status = status
        self._reason = reason
        self._ring_s = ring_s
        self._transport: asyncio.DatagramTransport | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._invites: dict[str, tuple[str, tuple[str, int]]] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to call."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")
        return host, port

    async def __aenter__(self) -> RefusingPhone:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if error is None:
            assert not self.unexpected

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = data.decode()
        method, uri = request.split(" ", 2)[:2]
        if method == "OPTIONS":
            self._send(request, addr, 200, "OK")
        elif method == "INVITE":
            self._ring(request, uri, addr)
        elif method == "CANCEL":
            self.cancelled += 1
            self._send(request, addr, 200, "OK")
            invite = self._invites.get(_header(request, "Call-ID"))
            if invite is not None:
                self._send(*invite, 487, "Request Terminated")
        elif method != "ACK":
            self.unexpected.append(method)

    def _ring(self, invite: str, uri: str, addr: tuple[str, int]) -> None:
        call_id = _header(invite, "Call-ID")
        if call_id not in self._invites:  # else a retransmission
            self.calls.append(uri)
            if self._status is not None:
                later = asyncio.get_running_loop().call_later
                self._timers.append(later(self._ring_s, self._send, invite, addr, self._status, self._reason))
        self._invites[call_id] = (invite, addr)
        self._send(invite, addr, 180, "Ringing")

    def _send(self, request: str, addr: tuple[str, int], status: int, reason: str) -> None:
        assert self._transport is not None
        copied = re.findall(r"^(?:Via|From|Call-ID|CSeq):.*$", request, re.MULTILINE | re.IGNORECASE)
        to = f"To: {_header(request, 'To')};tag=refusing"
        lines = [f"SIP/2.0 {status} {reason}", *(line.rstrip() for line in copied), to, "Content-Length: 0"]
        self._transport.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), addr)


def _header(message: str, name: str) -> str:
    match = re.search(rf"^{name}:\s*(.*?)\r?$", message, re.MULTILINE | re.IGNORECASE)
    assert match is not None, f"a SIP request without {name}"
    return match[1]
