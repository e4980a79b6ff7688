"""The media shell on loopback: one sender, real sockets, a peer with faults."""

import asyncio
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import numpy as np
import pytest
import uvloop

from ari_app.audio.codec import pcm16_to_slin, slin_to_pcm16
from ari_app.dialog.ports import ItemFinished, ItemStarted, PlayoutMark
from ari_app.errors import MediaError
from ari_app.rtp.endpoint import RtpEndpoint, bind, own_address
from ari_app.rtp.pacer import MAX_BURST_FRAMES, MAX_QUEUED_BYTES
from ari_app.rtp.packet import RtpPacket
from ari_app.rtp.sender import RtpSender
from tests.fakes.rtp_peer import RtpPeer

FRAME = 320


class Listener:
    """What the leg reports; `fail_on` makes one of its callbacks raise."""

    def __init__(self, fail_on: str = "") -> None:
        self.heard: list[tuple[bytes, float]] = []
        self.sent: list[tuple[bytes, float]] = []
        self.marks: list[tuple[PlayoutMark, float]] = []
        self._fail_on = fail_on

    def on_frame(self, pcm: bytes, now: float) -> None:
        self.heard.append((pcm, now))
        self._maybe_fail("frame")

    def on_sent(self, pcm: bytes, now: float) -> None:
        self.sent.append((pcm, now))
        self._maybe_fail("sent")

    def on_mark(self, mark: PlayoutMark, now: float) -> None:
        self.marks.append((mark, now))
        self._maybe_fail("mark")

    def _maybe_fail(self, what: str) -> None:
        if what == self._fail_on:
            raise RuntimeError(f"listener of {what}")


def leg_of(
    sender: RtpSender,
    listener: Listener,
    *,
    ports: tuple[int, int] | None = None,
    encode: Callable[[bytes], bytes] = pcm16_to_slin,
) -> RtpEndpoint:
    return RtpEndpoint(
        sender,
        host="127.0.0.1",
        ports=ports,
        decode=slin_to_pcm16,
        encode=encode,
        on_frame=listener.on_frame,
        on_sent=listener.on_sent,
        on_mark=listener.on_mark,
    )


@asynccontextmanager
async def connected(
    listener: Listener, peer: RtpPeer, sender: RtpSender, encode: Callable[[bytes], bytes] = pcm16_to_slin
) -> AsyncIterator[RtpEndpoint]:
    leg = leg_of(sender, listener, encode=encode)
    await leg.open()
    leg.connect(*peer.address)
    try:
        yield leg
    finally:
        leg.close()
        await asyncio.sleep(0)


def tone(frames: int) -> list[bytes]:
    """Frames that can be told apart."""
    return [np.full(160, 1000 + index, "<i2").tobytes() for index in range(frames)]


def values(listener: Listener) -> list[int]:
    """Which frames of `tone` were heard, by their middle; what is made up is fainter."""
    middles = [int(np.frombuffer(pcm, "<i2")[80]) for pcm, _ in listener.heard]
    return [value for value in middles if value >= 1000]


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_speaks_first_and_without_a_pause() -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        connected_at = asyncio.get_running_loop().time()
        await until(lambda: len(peer.arrivals) >= 25)
        assert peer.arrivals[0].at - connected_at < 1.0
        peer.assert_clean()
        steps = np.diff([arrival.timestamp for arrival in peer.arrivals]) % 2**32
        assert not np.any(steps % 160) and steps.min() == 160
        assert steps.sum() // 160 - len(steps) <= leg.counters.sent_skipped
        assert {arrival.payload for arrival in peer.arrivals} == {bytes(FRAME)}
        # A packet may be under way still.
        assert 0 <= leg.counters.sent - len(peer.arrivals) <= 1
        assert len(listener.sent) == leg.counters.sent


async def test_before_connect_nothing_leaves_and_nobody_is_heard() -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender:
        leg = leg_of(sender, listener)
        await leg.open()
        peer.send_one(leg.local_address, tone(1)[0])
        await asyncio.sleep(0.06)
        assert (peer.arrivals, listener.heard, listener.sent) == ([], [], [])
        leg.close()


async def test_speech_leaves_whole_between_silence_and_is_marked() -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(5)
        leg.playout.play("a", b"".join(frames))
        leg.playout.finish("a")
        await until(lambda: len(peer.arrivals) >= 8)
        peer.assert_clean()
        got = [slin_to_pcm16(arrival.payload) for arrival in peer.arrivals]
        first = got.index(frames[0])
        assert got[first : first + 5] == frames
        assert [mark for mark, _ in listener.marks] == [ItemStarted("a"), ItemFinished("a", 100.0)]
        assert [pcm for pcm, _ in listener.sent][first : first + 5] == frames


async def test_the_caller_is_heard_through_a_bad_network() -> None:
    """Lost, doubled and overtaken packets, and others who talk to our port."""
    listener = Listener()
    async with (
        RtpPeer() as peer,
        RtpPeer() as stranger,
        RtpSender() as sender,
        connected(listener, peer, sender) as leg,
    ):
        peer.lose = lambda index: index in (20, 40, 41)
        peer.duplicate = lambda index: index % 10 == 4
        peer.swap = lambda index: index % 12 == 5
        frames = tone(60)
        sending = asyncio.create_task(peer.send(leg.local_address, frames))
        await stranger.send(leg.local_address, tone(10))
        peer.send_raw(leg.local_address, b"\xff" * 50)
        await sending
        await until(lambda: 1059 in values(listener))
        assert values(listener) == [1000 + at for at in range(60) if at not in (20, 40, 41)]
        counters = leg.counters
        assert (counters.lost, counters.duplicate, counters.reordered, counters.late) == (3, 6, 4, 0)
        assert (counters.received, counters.foreign, counters.malformed) == (60 - 3 + 6, 0, 1), (
            "the stranger's packets do not even reach us"
        )


def flood_packet(index: int, ssrc: int) -> bytes:
    """A well-formed packet of loud sound, of a stream in perfect order."""
    return RtpPacket(10, index % 2**16, index * 160 % 2**32, ssrc, b"\x60\x00" * 160).to_bytes()


async def test_a_flood_from_elsewhere_never_reaches_us() -> None:
    """50,000 packets while the caller speaks a second: from another port, and from another address of this host."""
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(50)
        speaking = asyncio.create_task(peer.send(leg.local_address, frames))
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as same_host,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere,
        ):
            same_host.bind(("127.0.0.1", 0))
            elsewhere.bind(("127.0.0.2", 0))
            sent = 0
            while sent < 50_000:
                for stranger in (same_host, elsewhere):
                    for _ in range(250):
                        # The caller's own stream, as if its number were known.
                        stranger.sendto(flood_packet(sent, peer.ssrc), leg.local_address)
                        sent += 1
                await asyncio.sleep(0)
        await speaking
        await until(lambda: 1049 in values(listener))
        assert values(listener) == list(range(1000, 1050))
        counters = leg.counters
        assert (counters.received, counters.foreign, counters.malformed, counters.lost) == (50, 0, 0, 0)
        peer.assert_clean()


async def test_a_flood_of_another_stream_from_asterisks_own_address_is_not_heard() -> None:
    """As if somebody forged its address: 20,000 packets, as fast as we read them."""
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(50)
        await peer.send(leg.local_address, frames[:5])
        await until(lambda: leg.counters.received == 5)
        speaking = asyncio.create_task(peer.send(leg.local_address, frames[5:]))
        for first in range(0, 20_000, 50):  # what fits into the socket's buffer: tested is what we do with it
            for index in range(first, first + 50):
                peer.send_raw(leg.local_address, flood_packet(index, 0xBAD))
            async with asyncio.timeout(10):
                while leg.counters.foreign < first + 50:
                    await asyncio.sleep(0)
        await speaking
        await until(lambda: 1049 in values(listener))
        assert values(listener) == list(range(1000, 1050))
        counters = leg.counters
        assert (counters.received, counters.foreign, counters.malformed, counters.lost) == (50, 20_000, 0, 0)


def test_on_uvloop_too_only_asterisk_reaches_us() -> None:
    """The loop of production reads the socket in its own way."""

    async def speak() -> None:
        listener = Listener()
        async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for index in range(10):
                    stranger.sendto(flood_packet(index, peer.ssrc), leg.local_address)
                    peer.send_one(leg.local_address, tone(10)[index])
                    await asyncio.sleep(0.02)
            await until(lambda: 1009 in values(listener))
            assert values(listener) == list(range(1000, 1010))
            assert (leg.counters.received, leg.counters.foreign) == (10, 0)
            peer.close()
            sent = leg.counters.sent
            await until(lambda: leg.counters.sent >= sent + 5)
            assert leg.counters.unsent == 0

    uvloop.run(speak())


@pytest.mark.parametrize(
    "data",
    [
        bytes(65_507),
        RtpPacket(10, 1, 1, 0xA57E, bytes(60_000)).to_bytes(),
        RtpPacket(10, 1, 1, 0xA57E, bytes(3202)).to_bytes(),
        b"\x9f\x0a" + bytes(10) + bytes(60) + b"\xbe\xde\xff\xff" + bytes(1200),
        b"\x80",
    ],
)
async def test_a_datagram_that_is_no_packet_of_speech_costs_itself(data: bytes) -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(10)
        await peer.send(leg.local_address, frames[:5])
        peer.send_raw(leg.local_address, data)
        await peer.send(leg.local_address, frames[5:])
        await until(lambda: leg.counters.received == 10)
        await until(lambda: 1009 in values(listener))
        assert values(listener) == list(range(1000, 1010))
        assert leg.counters.malformed == 1


async def test_jitter_and_a_new_stream_lose_nothing() -> None:
    """Packets up to 30 ms late in any order; half-way the peer takes another SSRC and other numbers."""
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        peer.jitter_s = 0.03
        frames = tone(60)
        await peer.send(leg.local_address, frames[:30])
        peer.ssrc, peer.sequence_number = 0xBEEF, 7
        await peer.send(leg.local_address, frames[30:])
        await until(lambda: leg.counters.received == 60)
        await asyncio.sleep(0.08)
        assert values(listener) == list(range(1000, 1060))


def asleep(seconds: float) -> None:
    time.sleep(seconds)


def busy(seconds: float) -> None:
    """Without a pause for anybody else who wants the interpreter."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("stand_still", [asleep, busy])
async def test_a_loop_that_stands_still_is_not_heard(stand_still: Callable[[float], None]) -> None:
    """Frames leave while the loop does nothing else; it is told of them afterwards, in order."""
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(40)
        leg.playout.play("a", b"".join(frames))
        leg.playout.finish("a")
        await until(lambda: len(listener.sent) >= 5)
        sent, told = leg.counters.sent, len(listener.sent)
        stand_still(0.3)
        assert leg.counters.sent - sent >= 10
        assert len(listener.sent) == told
        await until(lambda: any(isinstance(mark, ItemFinished) for mark, _ in listener.marks))
        await until(lambda: len(peer.arrivals) == leg.counters.sent)
        peer.assert_clean()
        got = [slin_to_pcm16(arrival.payload) for arrival in peer.arrivals]
        assert [pcm for pcm in got if any(pcm)] == frames
        assert [pcm for pcm, _ in listener.sent if any(pcm)] == frames


@contextmanager
def sender_held_up(leg: RtpEndpoint) -> Iterator[None]:
    """The machine is too busy for the sender's thread: it waits for this leg."""
    with leg._lock:
        yield


async def test_a_short_stall_of_the_sender_makes_frames_late_and_loses_none() -> None:
    """80 ms: the late frames leave at once, the numbers and the time go on."""
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(40)
        leg.playout.play("a", b"".join(frames))
        leg.playout.finish("a")
        await until(lambda: len(listener.sent) >= 5)
        with sender_held_up(leg):
            await asyncio.sleep(0.08)
        await until(lambda: any(isinstance(mark, ItemFinished) for mark, _ in listener.marks))
        await until(lambda: len(peer.arrivals) == leg.counters.sent)
        peer.assert_clean()
        got = [slin_to_pcm16(arrival.payload) for arrival in peer.arrivals]
        assert [pcm for pcm in got if any(pcm)] == frames
        assert leg.counters.sent_late >= 2


async def test_speech_that_comes_too_slowly_or_never_ends_is_counted() -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        leg.playout.play("slow", tone(1)[0])
        await until(lambda: leg.counters.sent_starved >= 3)
        leg.playout.play("endless", bytes(MAX_QUEUED_BYTES + 7 * FRAME))
        assert leg.counters.overfull_dropped == 7
        assert leg.counters.sent >= 4


async def test_a_long_stall_is_passed_over_and_nothing_drifts() -> None:
    """400 ms: five frames at once, the rest of the time is jumped over in the timestamp and in the tap."""
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        frames = tone(40)
        leg.playout.play("a", b"".join(frames))
        leg.playout.finish("a")
        await until(lambda: len(listener.sent) >= 5)
        with sender_held_up(leg):
            await asyncio.sleep(0.4)
        await until(lambda: any(isinstance(mark, ItemFinished) for mark, _ in listener.marks))
        await until(lambda: len(peer.arrivals) == leg.counters.sent)
        peer.assert_clean()
        assert [p for p in (slin_to_pcm16(a.payload) for a in peer.arrivals) if any(p)] == frames
        counters = leg.counters
        assert counters.sent_skipped >= 10
        stamps = [arrival.timestamp for arrival in peer.arrivals]
        steps = (np.diff(stamps) % 2**32) // 160
        assert steps.sum() - len(steps) == counters.sent_skipped
        assert len(listener.sent) == counters.sent + counters.sent_skipped
        # All that left at one instant left in one burst.
        bursts = np.unique([now for pcm, now in listener.sent if any(pcm)], return_counts=True)[1]
        assert bursts.max() <= MAX_BURST_FRAMES
        # No drift: the stamps followed the clock.
        passed_s = listener.sent[-1][1] - listener.sent[0][1]
        assert abs(len(listener.sent) * 0.02 - passed_s) < 0.1


async def test_a_stall_before_its_time_is_not_made_up_by_a_new_leg() -> None:
    old, new = Listener(), Listener()
    async with (
        RtpPeer() as peer,
        RtpPeer() as another,
        RtpSender() as sender,
        connected(old, peer, sender) as first,
        AsyncExitStack() as stack,
    ):
        await until(lambda: bool(old.sent))
        with sender_held_up(first):
            await asyncio.sleep(0.03)
            await stack.enter_async_context(connected(new, another, sender))
            await asyncio.sleep(0.07)
        await until(lambda: len(new.sent) >= 3)
        assert len({now for _, now in new.sent[:3]}) == 3
        assert len(old.sent) > len({now for _, now in old.sent}), "the old one had something to make up for"


async def test_silence_is_heard_by_the_clock() -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender):
        started_at = asyncio.get_running_loop().time()
        await until(lambda: len(listener.heard) >= 10)
        passed_s = asyncio.get_running_loop().time() - started_at
        assert len(listener.heard) <= passed_s / 0.02
        assert {pcm for pcm, _ in listener.heard} == {bytes(FRAME)}


@pytest.mark.parametrize("fail_on", ["frame", "sent", "mark"])
async def test_a_failing_listener_stops_nobody(fail_on: str, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Listener(fail_on), Listener()
    async with (
        RtpPeer() as peer_1,
        RtpPeer() as peer_2,
        RtpSender() as sender,
        connected(bad, peer_1, sender) as leg,
        connected(good, peer_2, sender),
    ):
        for item_id in ("a", "b"):
            leg.playout.play(item_id, b"".join(tone(3)))
            leg.playout.finish(item_id)
        await peer_1.send(leg.local_address, tone(10))
        await until(lambda: len(peer_1.arrivals) >= 15 and len(peer_2.arrivals) >= 15)
        assert len(bad.heard) >= 10 and len(bad.marks) == 4
    assert len(caplog.records) == 1, "once per call"
    assert caplog.records[0].exc_info is not None


async def test_a_leg_that_breaks_inside_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def encode(pcm: bytes) -> bytes:
        raise ZeroDivisionError

    async with (
        RtpPeer() as peer_1,
        RtpPeer() as peer_2,
        RtpSender() as sender,
        connected(Listener(), peer_1, sender, encode),
        connected(Listener(), peer_2, sender),
    ):
        await until(lambda: len(peer_2.arrivals) >= 10)
        assert peer_1.arrivals == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_closed_port_at_the_far_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender, connected(listener, peer, sender) as leg:
        await until(lambda: len(peer.arrivals) >= 2)
        peer.close()
        sent = leg.counters.sent
        await until(lambda: leg.counters.sent >= sent + 10)
        # What the kernel reports is an earlier packet's refusal, which anybody could forge: it costs no packet.
        assert leg.counters.unsent == 0
    assert caplog.records == []


async def test_close_frees_the_port_and_ends_the_sending() -> None:
    listener = Listener()
    async with RtpPeer() as peer, RtpSender() as sender:
        leg = leg_of(sender, listener)
        await leg.open()
        leg.connect(*peer.address)
        await until(lambda: len(peer.arrivals) >= 2)
        address = leg.local_address
        leg.close()
        leg.close()
        await asyncio.sleep(0.01)
        sent = leg.counters.sent
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
        await asyncio.sleep(0.06)
        assert leg.counters.sent == sent
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks


def test_after_a_stall_what_left_is_told_before_what_came() -> None:
    """An echo is known by what was sent: also when both wait for a late loop, which is uvloop's as in service."""
    uvloop.run(after_a_stall())


async def after_a_stall() -> None:
    told: list[str] = []
    listener = Listener()
    listener.on_sent = lambda pcm, now: told.append("sent")  # type: ignore[method-assign]
    listener.on_frame = lambda pcm, now: told.append("heard")  # type: ignore[method-assign]
    frames = 12
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        async with RtpSender() as sender:
            leg = leg_of(sender, listener)
            await leg.open()
            leg.connect(*peer.getsockname())
            await until(lambda: "sent" in told)
            told.clear()
            for number in range(frames):  # the loop stands still
                packet = RtpPacket(10, number, number * 160, 7, bytes(FRAME))
                peer.sendto(packet.to_bytes(), leg.local_address)
                time.sleep(0.02)  # noqa: ASYNC251
            await until(lambda: told.count("heard") >= frames)
            leg.close()
    assert told[: frames - 2] == ["sent"] * (frames - 2)


async def test_a_leg_that_a_listener_closes_sends_no_more() -> None:
    """It ends between two deadlines, while the sender's thread may be about to send it."""
    listener, other = Listener(), Listener()
    async with (
        RtpPeer() as peer,
        RtpSender() as sender,
        connected(listener, peer, sender) as leg,
        connected(other, peer, sender),
    ):
        for turn in range(20):
            await until(lambda turn=turn: len(other.sent) > turn)  # type: ignore[misc]
            if turn == 10:
                leg.close()
                sent = leg.counters.sent
                assert len(listener.sent) == sent, "what left was told of"
        assert leg.counters.sent == len(listener.sent) == sent


async def test_a_host_name_is_refused() -> None:
    async with RtpSender() as sender:
        leg = leg_of(sender, Listener())
        await leg.open()
        with pytest.raises(MediaError, match="asterisk.example"):
            leg.connect("asterisk.example", 4000)
        leg.close()


async def test_connect_after_close_does_nothing() -> None:
    async with RtpSender() as sender:
        leg = leg_of(sender, Listener())
        await leg.open()
        leg.close()
        leg.connect("127.0.0.1", 4000)
        await asyncio.sleep(0.05)
        assert leg.counters.sent == 0


# --- ports -------------------------------------------------------------------------------------------


def free_range(count: int) -> tuple[int, int]:
    """A range of `count` ports, each free a moment ago."""
    for first in range(42_000, 60_000, count):
        held = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
        return first, first + count - 1
    raise AssertionError("no free ports")


def test_a_range_is_used_to_its_last_port_and_then_refused() -> None:
    ports = free_range(5)
    bound = [bind("127.0.0.1", ports) for _ in range(5)]
    try:
        assert sorted(one.getsockname()[1] for one in bound) == list(range(ports[0], ports[1] + 1))
        with pytest.raises(MediaError, match=f"{ports[0]}-{ports[1]}"):
            bind("127.0.0.1", ports)
    finally:
        for one in bound:
            one.close()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(MediaError, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", None)


def test_voice_is_marked_for_the_network() -> None:
    with bind("127.0.0.1", None) as bound:
        assert bound.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0xB8


@pytest.mark.parametrize("url", ["http://127.0.0.1:8088", "http://localhost:8088", "https://127.9.9.9"])
async def test_our_address_is_the_one_that_asterisk_is_reached_from(url: str) -> None:
    address = await own_address("auto", url)
    assert address.startswith("127.")
    with bind(address, None) as bound:
        assert bound.getsockname()[0] == address


async def test_an_ipv6_address_of_asterisk_gives_one_of_ours() -> None:
    assert await own_address("auto", "http://[::1]:8088") == "::1"


async def test_an_address_that_was_set_is_taken_as_it_is() -> None:
    assert await own_address("192.0.2.7", "http://no-such-host.invalid") == "192.0.2.7"


async def test_a_host_that_is_not_found_is_named_with_both_settings() -> None:
    with pytest.raises(MediaError, match=r"no-such-host\.invalid of ARI_URL is not found .*RTP_HOST"):
        await own_address("auto", "http://no-such-host.invalid:8088")


def test_without_descriptors_there_is_one_sentence() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(MediaError, match=r"no RTP socket can be had: Too many open files"):
            bind("127.0.0.1", None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
