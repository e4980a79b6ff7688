"""A caller on the wire: raw SIP, RTP both ways by the clock, and a line as bad as one likes. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType

from ari_app.audio.codec import pcm16_to_ulaw
from tests.fakes.raw_sip_phone import HOST, RawSipPhone, parse_message

FRAME_S = 0.02
FRAME_BYTES = 160
SILENT = b"\xff" * FRAME_BYTES
_LEVEL = [abs(((((~c & 0x0F) << 3) + 0x84) << (~c >> 4 & 7)) - 0x84) for c in range(256)]
_LOUD = bytes(1 if level > 300 else 0 for level in _LEVEL)
_SIGN = bytes(c >> 7 for c in range(256))
HZ_PER_CROSSING = 25
"""A tone of 20 ms has so many hertz for each change of its sign."""
PATIENCE_S = 15.0
SPEECH_SAMPLES = 20
"""A packet with so many loud samples is sound."""


@dataclass(frozen=True)
class Packet:
    """One RTP packet before it meets the line."""

    number: int
    ssrc: int
    payload: bytes
    payload_type: int = 0
    silent: bool = False

    def to_bytes(self) -> bytes:
        header = struct.pack(
            "!BBHII", 0x80, self.payload_type, self.number & 0xFFFF, self.number * FRAME_BYTES, self.ssrc
        )
        return header + self.payload


Line = Callable[[Packet, random.Random], list[tuple[float, Packet]]]
"""What becomes of a packet: each that arrives, with its delay in seconds."""


def good(packet: Packet, chance: random.Random) -> list[tuple[float, Packet]]:
    """A line that loses nothing."""
    return [(0.0, packet)]


@dataclass
class Hearing:
    """What came back."""

    times: list[float] = field(default_factory=list)
    sounds: list[float] = field(default_factory=list)
    """When packets with sound came."""
    tones_hz: list[int] = field(default_factory=list)
    """How high each of them was."""
    lost: int = 0
    last_number: int = -1

    def push(self, data: bytes, now: float) -> None:
        if len(data) <= 12 or data[1] & 0x7F != 0:
            return
        (number,) = struct.unpack_from("!H", data, 2)
        if self.last_number >= 0:
            self.lost += max(((number - self.last_number) & 0xFFFF) - 1, 0) % 0x8000
        self.last_number = number
        self.times.append(now)
        if sum(data[12:].translate(_LOUD)) >= SPEECH_SAMPLES:
            self.sounds.append(now)
            signs = data[12:].translate(_SIGN)
            crossings = sum(a != b for a, b in zip(signs, signs[1:], strict=False))
            self.tones_hz.append(crossings * HZ_PER_CROSSING)

    def first_sound_after(self, when: float) -> float | None:
        return next((sound for sound in self.sounds if sound > when), None)

    def quiet_s(self, now: float) -> float:
        """For how long nothing was heard."""
        return now - self.sounds[-1] if self.sounds else now

    def gaps_ms(self, since: float) -> list[float]:
        """Between packets that came since."""
        times = [at for at in self.times if at >= since]
        return [(b - a) * 1000 for a, b in zip(times, times[1:], strict=False)]


class Phone:
    """One call: `async with Phone(...) as phone: await phone.dial("100")`."""

    def __init__(self, sip_port: int, user: str, password: str, *, seed: int = 1, own_port: int = 0) -> None:
        self._sip = RawSipPhone(sip_port, user, password, patience_s=PATIENCE_S, own_port=own_port)
        self._chance = random.Random(seed)
        self.line: Line = good
        self.mute = False
        """Sends nothing at all."""
        self.hearing = Hearing()
        self.status = 0
        self.ended = asyncio.Event()
        """The other side hung up."""
        self.replies: list[int] = []
        """Final statuses of requests within the call."""
        self.ssrc = self._chance.getrandbits(32)
        self.payload_type = 0
        self._number = self._chance.getrandbits(15)
        self._saying: list[bytes] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._to = ""
        self._invited = b""
        self._contact = ""

    async def __aenter__(self) -> Phone:
        await self._sip.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sip.__aexit__(kind, error, trace)

    @property
    def call_id(self) -> str:
        """SIP's Call-ID."""
        return self._sip.call_id

    # --- signalling

    async def dial(self, extension: str) -> int:
        """Call; returns the final status. From an answer on packets go both ways."""
        self.status = await self._sip.invite(extension)
        if self._sip.answered is not None:
            self._to = self._sip.answered.headers["to"]
            found = re.search(r"<(sip:[^>]+)>", self._sip.answered.headers["contact"])
            assert found is not None
            self._contact = found[1]
            self._begin(self._signal, self._speak, self._hear)
        return self.status

    async def ring(self, extension: str) -> None:
        """Wait for a call, and ring.

        Raises:
            TimeoutError: nobody called.
        """
        async with asyncio.timeout(PATIENCE_S):
            while not (data := await self._sip.sip.get()).startswith(b"INVITE "):
                self._sip.reply(data, "200 OK")
        self._invited = data
        self._sip.answered = invite = parse_message(data)
        assert f"sip:{extension}@" in invite.start
        self._sip.call_id, self._to = invite.headers["call-id"], invite.headers["from"]
        self._contact = f"sip:{HOST}:{self._sip.server_port}"
        self._sip.reply(data, "180 Ringing")

    async def pick_up(self, announcement: bytes = b"") -> None:
        """Answer what rings; before that, play an announcement as early media (RFC 3960)."""
        if announcement:
            self._sip.reply(self._invited, "183 Session Progress", self._sip._offer())
        self._begin(self._speak, self._hear)
        if announcement:
            await self.say(announcement)
        self._sip.reply(self._invited, "200 OK", self._sip._offer())
        self._begin(self._signal)
        self.status = 200

    async def cancelled(self, within_s: float) -> bool:
        """What rings is taken back (RFC 3261, section 9)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not (data := await self._sip.sip.get()).startswith(b"CANCEL "):
                    pass
            self._sip.reply(data, "200 OK")
            self._sip.reply(self._invited, "487 Request Terminated")
            return True
        return False

    def _begin(self, *works: Callable[[], Coroutine[None, None, None]]) -> None:
        self._tasks += [asyncio.create_task(work()) for work in works]

    async def dial_and_cancel(self, extension: str, after_s: float) -> int:
        """Call, and send a CANCEL so long after the INVITE with its digest; returns the final status."""
        calling = asyncio.create_task(self.dial(extension))
        while self._sip.sequence < 2 and not calling.done():
            await asyncio.sleep(0)
        await asyncio.sleep(after_s)
        uri = f"sip:{extension}@{HOST}"
        self._sip._send(f"CANCEL {uri}", uri, "CANCEL")
        return await calling

    def hang_up(self) -> None:
        self._request("BYE")
        self.ended.set()

    def hold(self, held: bool) -> None:
        """Re-INVITE (RFC 3264, section 8.4)."""
        self.mute = held
        self._request("INVITE", body=self._sip._offer("sendonly" if held else "sendrecv"))

    def refer(self, target: str) -> None:
        """Ask to be transferred (RFC 3515)."""
        self._request("REFER", more=(f"Refer-To: <sip:{target}@{HOST}>",))

    def _request(self, method: str, *, body: str = "", more: tuple[str, ...] = ()) -> None:
        self._sip.sequence += 1
        self._sip._send(f"{method} {self._contact}", self._contact, method, to=self._to, body=body, more=more)

    async def _signal(self) -> None:
        while True:
            data = await self._sip.sip.get()
            message = parse_message(data)
            if message.headers.get("call-id") != self._sip.call_id:
                continue  # for who had this port before
            if message.start.startswith("BYE "):
                self._sip.reply(data, "200 OK")
                self.ended.set()
            elif message.status >= 200:
                self.replies.append(message.status)
                if message.headers["cseq"].endswith("INVITE"):
                    self._sip._send(f"ACK {self._contact}", self._contact, "ACK", to=self._to)
            elif not message.status and not message.start.startswith("ACK"):
                self._sip.reply(data, "200 OK")

    # --- media

    async def say(self, pcm: bytes) -> float:
        """Speak; returns when the last frame has left, with its time, or when nobody is there to hear it."""
        ulaw = pcm16_to_ulaw(pcm)
        self._saying = [
            ulaw[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff") for at in range(0, len(ulaw), FRAME_BYTES)
        ]
        while self._saying and not any(task.done() for task in self._tasks):
            await asyncio.sleep(FRAME_S / 2)
        return asyncio.get_running_loop().time()

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        far = self._sip.media_address()
        due = loop.time()
        while True:
            due += FRAME_S
            await asyncio.sleep(max(due - loop.time(), 0))
            payload = self._saying.pop(0) if self._saying else SILENT
            self._number += 1
            if self.mute:
                continue
            packet = Packet(self._number, self.ssrc, payload, self.payload_type, payload == SILENT)
            for delay_s, carried in self.line(packet, self._chance):
                if delay_s:
                    loop.call_later(delay_s, self._send, carried.to_bytes(), far)
                else:
                    self._send(carried.to_bytes(), far)

    def _send(self, data: bytes, far: tuple[str, int]) -> None:
        if not self._sip.rtp_transport.is_closing():
            self._sip.rtp_transport.sendto(data, far)

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await self._sip.rtp.get()
            self.hearing.push(data, loop.time())
