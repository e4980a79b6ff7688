"""The RTP loop through Asterisk: two ExternalMedia channels in one bridge, and sound both ways. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Sequence

from ari_app.ari import events
from ari_app.ari.ids import CALL_LENGTH, Kind, object_id
from ari_app.ari.rest import AriRest
from ari_app.audio.codec import pcm16_to_slin, slin_to_pcm16
from ari_app.audio.format import FRAME_BYTES, FRAME_MS, SAMPLE_BYTES
from ari_app.check.loop import Heard, compare, make_frames
from ari_app.errors import AriError
from ari_app.rtp.endpoint import bind
from ari_app.rtp.packet import RtpPacket, parse_rtp
from ari_app.rtp.receive import PAYLOAD_TYPE_SLIN

ENTER_TIMEOUT_S = 5.0
LINGER_S = 0.5
"""After the last packet was sent: late ones still count."""


class Loop:
    """One measurement. Give its `push_event` the events of the application that `rest` belongs to.

    Args:
        tag: of this process's object ids, by which a later process sweeps what we may leave.
    """

    def __init__(self, rest: AriRest, tag: str, host: str, ports: tuple[int, int] | None) -> None:
        self._rest = rest
        self._host = host
        self._ports = ports
        first, second = (secrets.token_hex(CALL_LENGTH // 2) for _ in range(2))
        self._bridge_id = object_id(tag, first, Kind.BRIDGE)
        self._media_ids = [object_id(tag, call_id, Kind.MEDIA) for call_id in (first, second)]
        self._waiting = set(self._media_ids)
        self._entered = asyncio.Event()

    @property
    def call_ids(self) -> list[str]:
        """What the object ids of this measurement carry."""
        return [media_id.split("-")[2] for media_id in self._media_ids]

    def push_event(self, event: events.Event) -> None:
        """An event of the application."""
        if isinstance(event, events.StasisStart):
            self._waiting.discard(event.channel_id)
            if not self._waiting:
                self._entered.set()

    async def measure(self) -> tuple[Heard, Heard]:
        """What either side heard of the other; all is taken down again.

        Raises:
            AriFull: calls have taken all but a few of Asterisk's RTP ports.
            AriError: Asterisk refused a step.
            MediaError: no port is free, or the address is not ours.
            TimeoutError: the channels never entered the application.
        """
        legs: list[_Leg] = []
        try:
            for seed in (1, 2):
                legs.append(_Leg(bind(self._host, self._ports), seed))
                await legs[-1].open()
            await self._connect(legs)
            await asyncio.gather(*(leg.send() for leg in legs))
            await asyncio.sleep(LINGER_S)
        finally:
            for leg in legs:
                leg.close()
            await asyncio.shield(self._take_down())
        first, second = legs
        return (
            compare(first.frames, first.sent_at, second.arrivals),
            compare(second.frames, second.sent_at, first.arrivals),
        )

    async def _connect(self, legs: Sequence[_Leg]) -> None:
        await self._rest.create_bridge(self._bridge_id)
        for leg, media_id in zip(legs, self._media_ids, strict=True):
            beside = await self._any_channel()
            leg.remote = await self._rest.external_media(media_id, leg.address, beside=beside)
        async with asyncio.timeout(ENTER_TIMEOUT_S):
            await self._entered.wait()
        await self._rest.add_channels(self._bridge_id, self._media_ids)

    async def _any_channel(self) -> str:
        """One that an application has: only of such does Asterisk tell whether it has RTP ports left."""
        channels = await self._rest.list_channels()
        return next((channel.id for channel in channels if channel.app_name == events.STASIS), "")

    async def _take_down(self) -> None:
        requests: list[Awaitable[None]] = [self._rest.hangup(media_id) for media_id in self._media_ids]
        for request in (*requests, self._rest.delete_bridge(self._bridge_id)):
            with contextlib.suppress(AriError):  # what resists is left to the next sweep
                await request


class _Leg(asyncio.DatagramProtocol):
    """One side: sends its frames on time, and notes what comes and when, without a jitter buffer."""

    def __init__(self, bound: socket.socket, seed: int) -> None:
        self.frames = make_frames(seed)
        self.sent_at: list[float] = []
        self.arrivals: list[tuple[bytes, float]] = []
        self.remote: tuple[str, int] | None = None
        self._socket = bound
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._socket)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        else:
            self._socket.close()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def send(self) -> None:
        assert self._transport is not None and self.remote is not None
        loop = asyncio.get_running_loop()
        start, ssrc = loop.time(), secrets.randbelow(2**32)
        for index, frame in enumerate(self.frames):
            await asyncio.sleep(start + index * FRAME_MS / 1000 - loop.time())
            packet = RtpPacket(
                PAYLOAD_TYPE_SLIN, index, index * (FRAME_BYTES // SAMPLE_BYTES), ssrc, pcm16_to_slin(frame)
            )
            self.sent_at.append(loop.time())
            self._transport.sendto(packet.to_bytes(), self.remote)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with contextlib.suppress(ValueError):  # no RTP: somebody else's
            self.arrivals.append((slin_to_pcm16(parse_rtp(data).payload), asyncio.get_running_loop().time()))

    def error_received(self, exc: Exception) -> None:
        """ICMP errors show as loss."""
