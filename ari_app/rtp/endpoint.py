"""RTP sockets. Shell.

The sender's thread shares with the loop a leg's playout queue, behind a lock that nobody holds for longer than a frame
takes. Everything else happens on the loop: what comes in, and what is told of what left.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ari_app.audio.format import FRAME_BYTES, SAMPLE_BYTES, SILENT_FRAME
from ari_app.dialog.ports import PlayoutMark
from ari_app.errors import MediaError
from ari_app.rtp.datagram import Send, sender_to
from ari_app.rtp.pacer import Pacer
from ari_app.rtp.packet import RtpPacket
from ari_app.rtp.receive import FRAME_S, MAX_FILL_FRAMES, PAYLOAD_TYPE_SLIN, ReceiveStream, RtpCounters
from ari_app.rtp.sender import RtpSender
from ari_app.rtp.serial import uint16_add, uint32_add

logger = logging.getLogger(__name__)

TIMESTAMP_STEP = FRAME_BYTES // SAMPLE_BYTES
RECEIVE_BUFFER_BYTES = 256 * 1024
DSCP_EF = 0xB8
"""Expedited forwarding (RFC 3246): routers that look let voice pass first."""


class _Playout:
    """A leg's pacer as the brain sees it: the sender's thread takes frames from it at the same time."""

    def __init__(self, pacer: Pacer, lock: threading.Lock) -> None:
        self._pacer = pacer
        self._lock = lock

    def play(self, item_id: str, pcm: bytes) -> None:
        with self._lock:
            self._pacer.play(item_id, pcm)

    def finish(self, item_id: str) -> None:
        with self._lock:
            self._pacer.finish(item_id)

    def clear(self) -> None:
        with self._lock:
            self._pacer.clear()

    def pause(self) -> None:
        with self._lock:
            self._pacer.pause()

    def resume(self) -> None:
        with self._lock:
            self._pacer.resume()

    def played_ms(self, item_id: str) -> float:
        with self._lock:
            return self._pacer.played_ms(item_id)

    @property
    def speaking(self) -> bool:
        with self._lock:
            return self._pacer.speaking

    @property
    def starved(self) -> bool:
        with self._lock:
            return self._pacer.starved


@dataclass(frozen=True, slots=True)
class _Departure:
    """What left at one deadline."""

    at: float
    frames: list[bytes]
    marks: list[PlayoutMark]


class RtpEndpoint(asyncio.DatagramProtocol):
    """One leg: its socket, its receive stream and its playout.

    Args:
        sender: the process's one.
        host, ports: where to bind; any free port if `ports` is None.
        decode, encode: between RTP payload and PCM16 at 8 kHz; `decode` accepts any bytes.
        on_frame: gets each 20 ms frame of the far end, silence included.
        on_sent: gets each frame as it left.
        on_mark: gets what happened in playout.
    """

    def __init__(
        self,
        sender: RtpSender,
        *,
        host: str,
        ports: tuple[int, int] | None,
        decode: Callable[[bytes], bytes],
        encode: Callable[[bytes], bytes],
        on_frame: Callable[[bytes, float], None],
        on_sent: Callable[[bytes, float], None],
        on_mark: Callable[[PlayoutMark, float], None],
    ) -> None:
        self._pacer = Pacer()
        self._lock = threading.Lock()
        """Over the pacer, and over the socket against its end."""
        self.playout = _Playout(self._pacer, self._lock)
        self._departed: deque[_Departure] = deque()
        """Not told on the loop yet; as many as the loop is late, which ends the call before it fills memory."""
        self._fresh = True
        """Until the first deadline; a stall before that is none of its own."""
        self._sender = sender
        self._host = host
        self._ports = ports
        self._decode = decode
        self._encode = encode
        self._on_frame = on_frame
        self._on_sent = on_sent
        self._on_mark = on_mark
        self._socket: socket.socket | None = None
        self._transport: asyncio.DatagramTransport | None = None
        """Owns the socket."""
        self._receive: ReceiveStream | None = None
        self._send: Send | None = None
        """To Asterisk's address; None before it is known, and when the leg is closed."""
        self._sequence_number = secrets.randbelow(2**16)
        self._timestamp = secrets.randbelow(2**32)
        self._ssrc = secrets.randbelow(2**32)
        self._sent = self._sent_late = self._sent_skipped = self._unsent = 0
        self._complained = False
        self.heard_until = 0.0
        """The end of the frame that `on_frame` is given, in loop time: silence is produced later than it was."""

    async def open(self) -> None:
        """Bind.

        Raises:
            MediaError: no port is free, or the address is not ours.
        """
        self._socket = bind(self._host, self._ports)
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._socket)
        except BaseException:
            self._socket.close()
            raise

    @property
    def local_address(self) -> tuple[str, int]:
        """Where we are bound."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    def connect(self, host: str, port: int) -> None:
        """From now on send to Asterisk's address, a frame every 20 ms, and hear it alone.

        Raises:
            MediaError: `host` is not an IP address.
        """
        if self._transport is None or self._transport.is_closing():
            return
        try:
            # In the form in which the socket names the sources of what it receives.
            remote = (str(ipaddress.ip_address(host)), port)
        except ValueError:
            raise MediaError(f"Asterisk's RTP address “{host}” is not an IP address") from None
        self._receive = ReceiveStream(self._decode, started_at=asyncio.get_running_loop().time())
        self._receive.lock(remote)
        assert self._socket is not None
        try:
            # The kernel drops what others send: a flood costs neither us nor the place in the buffer of what is ours.
            self._socket.connect(remote)
        except OSError as error:
            raise MediaError(f"there is no way to Asterisk's RTP address {host}: {error.strerror}") from None
        self._send = sender_to(self._socket, *remote)
        self._sender.add(self)

    def close(self) -> None:
        """Free the socket; idempotent."""
        self._sender.remove(self)
        with self._lock:
            self._send = None
        self.tell()
        if self._transport is not None:
            self._transport.close()

    @property
    def counters(self) -> RtpCounters:
        """So far."""
        received = self._receive.counters if self._receive is not None else RtpCounters()
        return replace(
            received,
            sent=self._sent,
            sent_late=self._sent_late,
            sent_skipped=self._sent_skipped,
            sent_starved=self._pacer.underruns,
            overfull_dropped=self._pacer.dropped_bytes // FRAME_BYTES,
            unsent=self._unsent,
        )

    # --- asyncio -------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._receive is not None:
            self._receive.push(data, addr[:2], asyncio.get_running_loop().time())
            self.tell()

    def error_received(self, exc: Exception) -> None:
        """ICMP errors, such as Asterisk's port being closed already; the call's end comes through ARI."""

    # --- the sender's side ---------------------------------------------------------------------------

    def send_due(self, count: int, skipped: int, now: float) -> None:
        """Send the `count` frames that are due, then pass over the time of `skipped` ones. In the sender's thread."""
        with self._lock:
            if self._send is None:  # closed meanwhile
                return
            if self._fresh:
                self._fresh, count, skipped = False, 1, 0
            frames = [self._pacer.next_frame() for _ in range(count)]
            for frame in frames:
                self._send_frame(frame)
            self._sent_late += min(count, count + skipped - 1)
            self._sent_skipped += skipped
            self._timestamp = uint32_add(self._timestamp, skipped * TIMESTAMP_STEP)
            frames += [SILENT_FRAME] * min(skipped, MAX_FILL_FRAMES)
            self._departed.append(_Departure(now, frames, self._pacer.take_marks()))

    def tell(self) -> None:
        """Tell the listeners what left since the last time, and what came or is due. On the loop.

        What left comes first: an echo is known by what was sent, also when the loop is late.
        """
        while self._departed:
            departure = self._departed.popleft()
            for frame in departure.frames:
                self._call(self._on_sent, frame, departure.at)
            for mark in departure.marks:
                self._call(self._on_mark, mark, departure.at)
        self._deliver(asyncio.get_running_loop().time())

    def _send_frame(self, frame: bytes) -> None:
        assert self._send is not None
        packet = RtpPacket(
            PAYLOAD_TYPE_SLIN, self._sequence_number, self._timestamp, self._ssrc, self._encode(frame)
        )
        try:
            # Not by the transport: what the kernel does not take now would wait in a queue without bound.
            self._send_once_more(packet.to_bytes())
        except OSError:
            self._unsent += 1
        else:
            self._sent += 1
        self._sequence_number = uint16_add(self._sequence_number, 1)
        self._timestamp = uint32_add(self._timestamp, TIMESTAMP_STEP)

    def _send_once_more(self, data: bytes) -> None:
        """Send; a refusal that the kernel reports is an earlier packet's, or forged: it takes none with it."""
        assert self._send is not None
        try:
            self._send(data)
        except ConnectionRefusedError:
            self._send(data)

    def _deliver(self, now: float) -> None:
        if self._receive is None:
            return
        frames = self._receive.take(now)
        for index, frame in enumerate(frames, start=1):
            self.heard_until = self._receive.taken_until - (len(frames) - index) * FRAME_S
            self._call(self._on_frame, frame, now)

    def _call(self, callback: Callable[[Any, float], None], what: object, now: float) -> None:
        try:
            callback(what, now)
        except Exception:  # one leg's listener must not stop the sender of all; once is enough to read
            if not self._complained:
                logger.exception("a listener of this leg failed")
                self._complained = True


async def own_address(rtp_host: str, ari_url: str) -> str:
    """Where Asterisk sends its RTP: `rtp_host`, or for `auto` our address on the way to Asterisk.

    Nothing is sent: connecting a UDP socket only asks the routing table.

    Raises:
        MediaError: Asterisk's host has no address, or none that we have a way to.
    """
    if rtp_host != "auto":
        return rtp_host
    host = urlsplit(ari_url).hostname
    problem: OSError
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise MediaError(
            f"{host} of ARI_URL is not found ({error.strerror}), and RTP_HOST is auto"
        ) from error
    # Asterisk's HTTP server and its media listen on IPv4 unless told otherwise, and localhost is both.
    for family, _, _, _, target in sorted(found, key=lambda info: info[0] != socket.AF_INET):
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.connect(target)
            except OSError as error:
                problem = error
            else:
                address: str = probe.getsockname()[0]
                return address
    raise MediaError(f"there is no way to {host} of ARI_URL ({problem.strerror}), and RTP_HOST is auto")


def bind(host: str, ports: tuple[int, int] | None) -> socket.socket:
    """A UDP socket on a free port: any, or one of the range, which is tried from a random place on.

    Raises:
        MediaError: none is free, or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise MediaError(f"no RTP socket can be had: {error.strerror} (ulimit -n)") from error
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    if family == socket.AF_INET:
        bound.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, DSCP_EF)
    else:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, DSCP_EF)
    first, last = ports or (0, 0)
    count = last - first + 1
    offset = random.randrange(count)
    for attempt in range(count):
        try:
            bound.bind((host, first + (offset + attempt) % count))
        except OSError as error:
            problem = error
        else:
            return bound
    bound.close()
    where = f"{host}, ports {first}-{last}" if ports else host
    raise MediaError(f"no RTP port can be had on {where} (RTP_HOST, RTP_PORTS): {problem.strerror}")
