"""The far end of an RTP leg on loopback: sends as told, with faults, and is strict about what it receives."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Iterable
from types import TracebackType

SLIN = 10
FRAME_BYTES = 320


class Arrival:
    """One packet as it arrived, its header read without our parser."""

    def __init__(self, data: bytes, at: float) -> None:
        first, second, self.sequence_number, self.timestamp, self.ssrc = struct.unpack_from("!BBHII", data)
        assert first == 0x80, "plain header: version 2, no padding, extension or CSRC"
        assert second == SLIN, "no marker, payload type 10"
        assert len(data) == 12 + FRAME_BYTES, "20 ms of slin"
        self.payload = data[12:]
        self.at = at


class RtpPeer(asyncio.DatagramProtocol):
    """Speaks slin from one socket. Faults are switches, set before `send`.

    Attributes:
        lose: is told the index of each packet sent; True loses it.
        duplicate: likewise; True sends it twice.
        swap: likewise; True holds it back until after the next.
        jitter_s: each packet is delayed by up to so much, in order or not.
        arrivals: what came, each checked to be exactly what Asterisk expects.
        protocol_errors: what was wrong with the rest; `assert_clean` looks here.
    """

    def __init__(self, *, ssrc: int = 0xA57E, first_sequence: int = 65_530, seed: int = 1) -> None:
        self.lose: Callable[[int], bool] = lambda _: False
        self.duplicate: Callable[[int], bool] = lambda _: False
        self.swap: Callable[[int], bool] = lambda _: False
        self.jitter_s = 0.0
        self.ssrc = ssrc
        self.sequence_number = first_sequence
        self.timestamp = 0
        self.arrivals: list[Arrival] = []
        self.protocol_errors: list[str] = []
        self._random = random.Random(seed)
        self._sent = 0
        self._held_back: bytes | None = None
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> RtpPeer:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await asyncio.sleep(0)

    @property
    def address(self) -> tuple[str, int]:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    def close(self) -> None:
        """From now on our packets meet a closed port."""
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            arrival = Arrival(data, asyncio.get_running_loop().time())
        except (AssertionError, struct.error) as error:
            self.protocol_errors.append(str(error))
        else:
            self.arrivals.append(arrival)

    def error_received(self, exc: Exception) -> None: ...

    def assert_clean(self) -> None:
        """All that came was one unbroken stream: right form, one SSRC, numbers without a hole."""
        assert not self.protocol_errors
        assert len({arrival.ssrc for arrival in self.arrivals}) == 1
        numbers = [arrival.sequence_number for arrival in self.arrivals]
        assert numbers == [(numbers[0] + i) % 2**16 for i in range(len(numbers))]

    # --- sending -------------------------------------------------------------------------------------

    async def send(self, to: tuple[str, int], frames: Iterable[bytes], *, every_s: float = 0.02) -> None:
        """Send PCM16 frames of any length, one per packet, a packet every `every_s` by absolute deadline."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for index, frame in enumerate(frames):
            await asyncio.sleep(max(0.0, start + index * every_s - loop.time()))
            self.send_one(to, frame)
        await asyncio.sleep(self.jitter_s)

    def send_one(self, to: tuple[str, int], pcm: bytes) -> None:
        """One packet now, subject to the switches."""
        index, data = self._sent, self.packet(pcm)
        self._sent += 1
        if self.lose(index):
            return
        if self.swap(index) and self._held_back is None:
            self._held_back = data
            return
        copies = [data] * (2 if self.duplicate(index) else 1)
        if self._held_back is not None:
            copies.append(self._held_back)
            self._held_back = None
        for copy in copies:
            if self.jitter_s:
                delay_s = self._random.uniform(0, self.jitter_s)
                asyncio.get_running_loop().call_later(delay_s, self.send_raw, to, copy)
            else:
                self.send_raw(to, copy)

    def send_raw(self, to: tuple[str, int], data: bytes) -> None:
        """Any bytes."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.sendto(data, to)

    def packet(self, pcm: bytes) -> bytes:
        """The next packet of the stream."""
        header = struct.pack("!BBHII", 0x80, SLIN, self.sequence_number, self.timestamp, self.ssrc)
        self.sequence_number = (self.sequence_number + 1) % 2**16
        self.timestamp = (self.timestamp + len(pcm) // 2) % 2**32
        swapped = bytearray(len(pcm))
        swapped[0::2], swapped[1::2] = pcm[1::2], pcm[0::2]
        return header + bytes(swapped)
