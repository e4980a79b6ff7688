"""What tests of whole calls need: a brain that does as told, Asterisk's side of the audio, a search for leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ari_app.audio.format import FRAME_BYTES
from ari_app.demo import asterisk
from ari_app.dialog.ports import Fact, Playout, PlayoutMark
from tests.fakes.asterisk import Channel, FakeAsterisk, until
from tests.fakes.rtp_peer import Arrival, RtpPeer


def frame(level: int) -> bytes:
    """20 ms at one level, which neither concealment nor a codec makes by itself."""
    return level.to_bytes(2, "little", signed=True) * (FRAME_BYTES // 2)


class ScriptedBrain:
    """Does nothing of itself; raises `faults` by the name of the method; `gate` holds `start` up."""

    def __init__(self, **faults: Exception) -> None:
        self.faults = faults
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        """`start` was called."""
        self.is_open = False
        self.frames: list[bytes] = []
        self.marks: list[PlayoutMark] = []
        self.playout: Playout
        self.report: Callable[[Fact], None]
        self.said: list[str] = []

    def prepare(self) -> None:
        self.prepared = True

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        self.is_open = True
        self.playout, self.report = playout, report
        self.reached.set()
        self._fail("start")
        await self.gate.wait()

    def push_audio(self, frame: bytes, now: float) -> None:
        assert self.is_open and len(frame) == FRAME_BYTES
        self.frames.append(frame)
        self._fail("push_audio")

    def push_sent(self, frame: bytes) -> None:
        assert len(frame) == FRAME_BYTES

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        self.marks.append(mark)

    def note_said(self, text: str) -> None:
        self.said.append(text)

    async def close(self) -> None:
        self.is_open = False
        self._fail("close")

    def _fail(self, method: str) -> None:
        if method in self.faults:
            raise self.faults[method]


class MediaSide:
    """Asterisk's end of a media channel; takes only what is exactly as Asterisk expects it."""

    def __init__(self, asterisk: FakeAsterisk, channel: Channel) -> None:
        assert channel.rtp is not None
        self.rtp = channel.rtp
        wanted = [q for q in asterisk.asked("POST", "/externalMedia") if q["channelId"] == channel.id]
        host, _, port = wanted[0]["external_host"].rpartition(":")
        self.bot = (host, int(port))
        self.arrivals: list[Arrival] = []
        self._stream = RtpPeer()

    def say(self, pcm: bytes) -> None:
        """Send one packet to the bot."""
        self.rtp.sendto(self.packet(pcm), self.bot)

    def packet(self, pcm: bytes) -> bytes:
        """The next packet of the caller's stream."""
        return self._stream.packet(pcm)

    def hear(self) -> list[Arrival]:
        """All packets so far."""
        while True:
            try:
                data, source = self.rtp.recvfrom(2048)
            except (BlockingIOError, OSError):
                return self.arrivals
            assert source == self.bot
            self.arrivals.append(Arrival(data, asyncio.get_running_loop().time()))


def media_of(asterisk: FakeAsterisk, media_id: str) -> MediaSide:
    """Asterisk's end of that media channel."""
    return MediaSide(asterisk, asterisk.channels[media_id])


def _descriptors() -> set[str]:
    # Without eventfd and the like, which the event loop and thread pools keep.
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # the one of the listing itself
            continue
    return found


def _timers(now: float) -> list[str]:
    handles = [thing for thing in gc.get_objects() if type(thing) is asyncio.TimerHandle]
    return [repr(h) for h in handles if not h.cancelled() and h.when() > now and "Call." in repr(h)]


@asynccontextmanager
async def nothing_leaks() -> AsyncIterator[None]:
    """After the block: no task, no descriptor, no timer of a call, no recorder's thread more than before."""
    tasks, descriptors, threads = asyncio.all_tasks(), _descriptors(), set(threading.enumerate())
    yield

    def left() -> list[object]:
        more: list[object] = list(asyncio.all_tasks() - tasks - {asyncio.current_task()})
        more += _descriptors() - descriptors
        new = set(threading.enumerate()) - threads
        more += [thread.name for thread in new if thread.name.startswith("recorder-")]
        return more

    try:
        await until(lambda: not left(), within_s=2)
    except TimeoutError:
        raise AssertionError(f"left over: {left()}") from None
    timers = _timers(asyncio.get_running_loop().time())
    assert not timers, timers


def free_port() -> int:
    """A TCP port that nobody has, and that no outgoing connection gets."""
    return asterisk.free_port(socket.SOCK_STREAM)
