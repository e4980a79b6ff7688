"""From datagrams to continuous time: faults of the stream, and the clock."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_app.audio.codec import slin_to_pcm16
from ari_app.rtp.packet import RtpPacket
from ari_app.rtp.receive import (
    MAX_FILL_FRAMES,
    MAX_LOUD_AHEAD_FRAMES,
    PATIENCE_FRAMES,
    ReceiveStream,
)

PEER = ("127.0.0.1", 4000)
TICK_S = 0.02
SILENCE = bytes(320)


def loud(value: int, samples: int = 160) -> bytes:
    """PCM of one value, so that each frame can be told from the others."""
    return np.full(samples, 1000 + value, "<i2").tobytes()


class Line:
    """A stream on a virtual clock of 20 ms ticks."""

    def __init__(self) -> None:
        self.stream = ReceiveStream(slin_to_pcm16, started_at=0.0)
        self.stream.lock(PEER)
        self.now = 0.0
        self.out: list[bytes] = []
        self.sequence_number = 65_500
        self.timestamp = 2**32 - 8000
        self.ssrc = 7

    def send(self, pcm: bytes, *, payload_type: int = 10, source: tuple[str, int] = PEER) -> None:
        big_endian = np.frombuffer(pcm, "<i2").astype(">i2").tobytes()
        packet = RtpPacket(
            payload_type, self.sequence_number % 2**16, self.timestamp % 2**32, self.ssrc, big_endian
        )
        self.stream.push(packet.to_bytes(), source, self.now)
        self.sequence_number += 1
        self.timestamp += len(pcm) // 2

    def pause(self, ticks: int) -> None:
        """The far end has nothing to say: it sends nothing, and its time goes on."""
        self.timestamp += ticks * 160
        self.tick(ticks)

    def take(self) -> list[bytes]:
        frames = self.stream.take(self.now)
        self.out += frames
        return frames

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += TICK_S
            self.take()

    def talk(self, frames: int, first: int = 0) -> None:
        """A frame per tick, taken as it comes."""
        for index in range(frames):
            self.tick()
            self.send(loud(first + index))
            self.take()

    def count(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self.stream.counters).items() if value}


def values(frames: list[bytes]) -> list[int]:
    """First sample of each frame, 0 for silence."""
    return [int(np.frombuffer(frame, "<i2")[80]) for frame in frames]


def test_frames_pass_at_once() -> None:
    line = Line()
    line.talk(100)
    assert line.out == [loud(index) for index in range(100)]
    assert line.count() == {"received": 100}


@pytest.mark.parametrize("packet_ms", [10, 20, 30, 40, 60, 100, 200])
def test_any_packet_size_becomes_20_ms_frames(packet_ms: int) -> None:
    line = Line()
    sound = np.arange(1000, 1000 + 8000 * 6 // 5, dtype="<i2").tobytes()
    size = packet_ms * 16
    due = 0.0
    for start in range(0, len(sound), size):
        while line.now + 1e-9 < due:
            line.tick()
        line.send(sound[start : start + size])
        due += packet_ms / 1000
    line.take()
    assert b"".join(line.out) == sound
    assert "silence_filled" not in line.count()


def test_when_nothing_comes_time_goes_on_in_silence() -> None:
    line = Line()
    line.tick(100)
    assert line.out == [SILENCE] * (100 - PATIENCE_FRAMES)


@pytest.mark.parametrize("gap_frames", [5, 10, 50, 400])
def test_a_talk_gap_lasts_as_long_as_it_lasted(gap_frames: int) -> None:
    """The far end stops sending, its numbers go on without a hole (DTX)."""
    line = Line()
    line.tick(20)
    for _ in range(5):
        line.talk(50)
        line.tick(gap_frames)
    line.talk(50)
    elapsed = round(line.now / TICK_S)
    assert elapsed - PATIENCE_FRAMES <= len(line.out) <= elapsed + 1
    assert sum(value > 990 for value in values(line.out)) >= 300, "all that was said is heard"


@pytest.mark.parametrize("late_frames", [2, 6, 7, 15, 100])
def test_a_stream_that_begins_late_has_its_place_from_its_first_word(late_frames: int) -> None:
    """The network is long, or the phone is slow: silence up to the first packet, which is heard when it came."""
    line = Line()
    line.tick(late_frames)
    line.talk(20)
    assert values(line.out).index(1000) == late_frames
    assert values(line.out)[late_frames:] == list(range(1000, 1020))


def test_each_spurt_of_a_caller_who_sends_no_silence_has_its_place() -> None:
    line = Line()
    line.tick(3)
    begins = {}
    for number, gap in enumerate((3, 6, 7, 30, 1, 100, 20)):
        begins[1000 + 100 * number] = round(line.now / TICK_S)
        line.talk(10, first=100 * number)
        line.pause(gap)
    heard = values(line.out)
    assert {value: heard.index(value) for value in begins} == begins
    said = [1000 + 100 * number + index for number in range(7) for index in range(10)]
    assert set(said) <= set(heard), "all that was said is heard"
    assert line.count().get("quiet_dropped", 0) == 0


def test_a_jump_of_the_time_stamps_makes_no_time() -> None:
    """What the far end claims is believed as far as the clock agrees."""
    line = Line()
    line.talk(50)
    line.timestamp += 80_000
    line.talk(50, first=50)
    assert line.out == [loud(index) for index in range(100)]


def test_a_started_frame_is_completed_by_the_silence_after_it() -> None:
    line = Line()
    line.send(loud(1, samples=240))
    line.tick(30)
    line.send(loud(2))
    line.take()
    assert line.out[-1][80:] == loud(2)[80:], "what follows lies on a frame's border again"


def test_time_lost_in_short_gaps_is_made_good_in_the_next_long_one() -> None:
    line = Line()
    for _ in range(5):
        line.talk(50)
        line.tick(2)
    line.tick(20)
    assert len(line.out) == round(line.now / TICK_S) - PATIENCE_FRAMES


@pytest.mark.parametrize("lost_frames", [1, 2, 5, 20, 250, 450])
def test_an_outage_is_not_counted_twice(lost_frames: int) -> None:
    """Nothing comes and the numbers have a hole: silence by the clock and concealment fill it once."""
    line = Line()
    line.talk(50)
    line.sequence_number += lost_frames
    line.pause(lost_frames)
    line.talk(50, first=100)
    line.tick(10)
    assert line.count()["lost"] == lost_frames
    elapsed = round(line.now / TICK_S)
    assert elapsed - PATIENCE_FRAMES - 1 <= len(line.out) <= elapsed + 1
    assert [value for value in values(line.out) if value > 1099] == list(range(1100, 1150))


@pytest.mark.parametrize("jump", [30, 400, 5_000, 34_000])
def test_a_jump_of_the_numbers_makes_no_time(jump: int) -> None:
    line = Line()
    line.talk(50)
    line.sequence_number += jump
    line.talk(50, first=100)
    assert len(line.out) <= 104
    assert sum(value > 1099 for value in values(line.out)) >= 49


def test_a_delay_spike_is_heard_in_full_and_won_back_in_quiet() -> None:
    line = Line()
    line.talk(50)
    line.tick(30)
    for index in range(30):  # what was under way arrives at once
        line.send(loud(100 + index))
    line.talk(20, first=130)
    assert [value for value in values(line.out) if value > 1099] == list(range(1100, 1150))
    behind = len(line.out) - round(line.now / TICK_S)
    assert behind > 10
    for _ in range(300):
        line.tick()
        line.send(SILENCE)
        line.take()
    assert len(line.out) - round(line.now / TICK_S) in (0, 1)
    assert line.count()["quiet_dropped"] in (behind, behind - 1)


@pytest.mark.parametrize("drift", [-500e-6, -50e-6, 0.0, 50e-6, 500e-6])
def test_a_clock_that_runs_differently_is_followed_to_a_frame(drift: float) -> None:
    """Ten minutes of sentences and pauses over a network that jitters by 60 ms; no word is lost."""
    random = np.random.default_rng(1)
    line = Line()
    sent: list[int] = []
    leads: list[int] = []
    number, arrived_at, due = 0, 0.0, 0.0
    while due < 600:
        number += 1
        due = number * TICK_S * (1 - drift)
        arrived_at = max(arrived_at, due + random.uniform(0, 0.06))  # in order
        while line.now + TICK_S <= arrived_at:
            line.tick()
        speaks = number // 150 % 2 == 1
        if speaks:
            sent.append(number % 20_000)
        now, line.now = line.now, arrived_at
        line.send(loud(number % 20_000) if speaks else SILENCE)
        line.take()
        line.now = now
        if number % 300 == 140:  # at the end of a pause
            leads.append(len(line.out) - round(due / TICK_S))
    assert [value - 1000 for value in values(line.out) if value > 999] == sent
    assert all(abs(lead) <= 1 for lead in leads[1:]), leads
    if drift == 0:
        # The first packet has its place when it comes; what the network kept it back for is won back, and that is all.
        assert line.count().get("quiet_dropped", 0) <= 3 >= line.count().get("silence_filled", 0)


def test_after_a_silence_of_the_network_the_stream_finds_its_place() -> None:
    """What came first after it was early by what silence had not yet filled."""
    line = Line()
    line.talk(100)
    line.tick(200)
    for _ in range(2):
        for _ in range(60):
            line.tick()
            line.send(SILENCE)
            line.take()
        line.talk(60)
    assert abs(len(line.out) - round(line.now / TICK_S)) <= 1


def test_a_stall_of_ours_loses_nothing() -> None:
    """After 3 s the socket's buffer is read first; no silence comes between."""
    line = Line()
    line.talk(50)
    line.now += 3.0
    for index in range(150):
        line.send(loud(100 + index))
        line.take()
    assert values(line.out)[50:] == list(range(1100, 1250))
    assert "silence_filled" not in line.count()


def test_packets_that_waited_for_us_during_a_stall_make_no_double_time() -> None:
    """The sender's wake-up may come before the socket is read."""
    stream = ReceiveStream(slin_to_pcm16, started_at=0.0)
    stream.lock(PEER)
    frames = []
    for number in range(10):
        stream.push(RtpPacket(10, number, 160 * number, 7, loud(500)).to_bytes(), PEER, number * TICK_S)
        frames += stream.take(number * TICK_S)
    stalled_until = 30 * TICK_S
    frames += stream.take(stalled_until)
    for number in range(10, 30):
        stream.push(RtpPacket(10, number, 160 * number, 7, loud(500)).to_bytes(), PEER, stalled_until)
    frames += stream.take(stalled_until)
    assert len(frames) == 30
    assert stream.counters.silence_filled == 0


def test_one_lost_packet_is_concealed_in_place() -> None:
    line = Line()
    line.talk(10)
    line.tick()
    line.sequence_number += 1
    line.talk(10, first=20)
    line.tick(5)
    shown = values(line.out)
    assert len(shown) == 21
    assert 600 < shown[10] < 1010, "the last frame, fading"
    assert line.count() == {"received": 20, "lost": 1}


def test_others_are_not_heard() -> None:
    line = Line()
    line.send(loud(1), source=("127.0.0.1", 4001))
    line.send(loud(1), source=("127.0.0.2", 4000))
    assert line.take() == []
    assert line.count() == {"foreign": 2}


def test_before_the_lock_nobody_is_heard() -> None:
    stream = ReceiveStream(slin_to_pcm16, started_at=0.0)
    stream.push(RtpPacket(10, 1, 1, 1, loud(1)).to_bytes(), PEER, 0.0)
    assert stream.take(0.01) == []
    assert stream.counters.foreign == 1


def test_garbage_costs_itself_only() -> None:
    line = Line()
    line.talk(5)
    for data in (b"", b"x" * 11, bytes(400), b"\x80\x0a" + bytes(10) + bytes(3202)):
        line.stream.push(data, PEER, line.now)
    line.talk(5, first=5)
    assert values(line.out) == list(range(1000, 1010))
    assert line.count() == {"received": 10, "malformed": 4}


def test_packets_without_audio_take_no_time_and_are_not_lost() -> None:
    line = Line()
    line.talk(5)
    line.send(loud(500), payload_type=13)
    line.send(b"")
    line.talk(5, first=5)
    assert values(line.out) == list(range(1000, 1010))
    assert line.count() == {"received": 12, "not_audio": 2}


def test_a_new_stream_of_the_peer_is_followed_without_loss() -> None:
    line = Line()
    line.talk(10)
    line.ssrc, line.sequence_number = 8, 100
    line.talk(10, first=10)
    assert values(line.out) == list(range(1000, 1020))
    assert line.count() == {"received": 20}


def test_what_waits_behind_a_gap_is_heard_before_the_new_stream() -> None:
    line = Line()
    line.talk(10)
    line.sequence_number += 1
    line.send(loud(11))
    line.ssrc, line.sequence_number = 8, 100
    line.talk(3, first=20)
    assert [value for value in values(line.out) if value >= 1000] == [
        *range(1000, 1010),
        1011,
        1020,
        1021,
        1022,
    ]
    assert line.count()["lost"] == 1


def test_a_long_packet_is_not_missed_before_it_is_due() -> None:
    """200 ms packets, each up to 80 ms late, after the clock has run ahead in silence."""
    line = Line()
    line.tick(50)
    filled = line.count()["silence_filled"]
    for ticks in (0, 14, 6, 14, 6, 14):
        line.tick(ticks)
        line.send(loud(1, samples=1600))
        line.take()
    assert line.count()["silence_filled"] == filled


def test_a_stray_stream_between_is_not_followed() -> None:
    line = Line()
    for index in range(10):
        line.talk(1, first=index)
        mine, line.ssrc, line.sequence_number = line.sequence_number, 9, 40 + index
        line.send(loud(500))
        line.ssrc, line.sequence_number = 7, mine
    assert values(line.out) == list(range(1000, 1010))
    assert line.count() == {"received": 10, "foreign": 10}


def test_a_flood_of_another_stream_from_the_same_address_takes_nothing_over() -> None:
    """50,000 packets a second: a thousand between two of the caller's, in perfect order; two seconds of it."""
    line = Line()
    line.talk(5)
    flood = Line()
    flood.stream, flood.ssrc, flood.sequence_number = line.stream, 0xBAD, 1
    for index in range(100):
        for _ in range(1000):
            flood.now = line.now
            flood.send(loud(5000))
        line.talk(1, first=5 + index)
    assert values(line.out) == list(range(1000, 1105))
    assert line.count() == {"received": 105, "foreign": 100_000}


def test_a_flood_takes_nothing_over_while_the_caller_is_silent() -> None:
    """Asterisk sends nothing then; whoever comes faster than speech is no stream of speech."""
    line = Line()
    line.talk(10)
    flood = Line()
    flood.stream, flood.ssrc, flood.sequence_number = line.stream, 0xBAD, 1
    for _ in range(50):
        for step in range(200):
            flood.now = line.now + step * TICK_S / 200
            flood.send(loud(5000))
        line.tick()
    line.talk(10, first=10)
    assert [value for value in values(line.out) if value >= 1000] == list(range(1000, 1020))
    assert line.count()["received"] == 20
    assert line.count()["foreign"] == 50 * 200


@pytest.mark.parametrize("streams", [2, 1000])
def test_a_flood_of_many_streams_takes_nothing_over(streams: int) -> None:
    line = Line()
    line.talk(5)
    flood = Line()
    flood.stream = line.stream
    for index in range(3000):
        flood.now, flood.ssrc = line.now, 100 + index % streams
        flood.send(loud(5000))
        if index % 100 == 99:
            line.talk(1, first=5 + index // 100)
    assert values(line.out) == list(range(1000, 1035))
    assert line.count() == {"received": 35, "foreign": 3000}


def test_a_new_stream_that_comes_after_a_stall_of_ours_is_followed_without_loss() -> None:
    """The loop stood still for 400 ms, in which Asterisk changed its stream: all is read at one moment."""
    line = Line()
    line.talk(10)
    line.now += 0.4
    for index in range(10, 20):
        line.send(loud(index))
    line.ssrc, line.sequence_number = 8, 100
    for index in range(20, 30):
        line.send(loud(index))
    line.take()
    line.talk(10, first=30)
    assert values(line.out) == list(range(1000, 1040))
    assert line.count() == {"received": 40}


def test_who_knows_the_stream_can_not_stretch_time() -> None:
    """Our stream's own number, faster than speech and loud: at most ten seconds are kept ahead of the clock."""
    line = Line()
    for _ in range(3000):
        line.send(loud(1))
        line.take()
    line.tick(50)
    assert len(line.out) <= MAX_LOUD_AHEAD_FRAMES + 50
    assert line.count()["ahead_dropped"] == 3000 - MAX_LOUD_AHEAD_FRAMES


datagrams = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda number, ssrc, samples, kind: RtpPacket(kind, number, 0, ssrc, bytes(2 * samples)).to_bytes(),
        st.integers(0, 2**16 - 1),
        st.integers(1, 3),
        st.sampled_from([0, 1, 80, 160, 161, 1600]),
        st.sampled_from([10, 13]),
    ),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(datagrams, st.floats(0, 1.5)), max_size=60))
def test_whatever_comes_time_goes_on(steps: list[tuple[bytes, float]]) -> None:
    """Whole frames only; never behind the clock for longer than patience; bounded ahead."""
    stream = ReceiveStream(slin_to_pcm16, started_at=0.0)
    stream.lock(PEER)
    now, frames, given_bytes = 0.0, 0, 0
    for data, pause_s in steps:
        stream.push(data, PEER, now)
        given_bytes += len(data)
        now += pause_s
        taken = stream.take(now)
        assert all(len(frame) == 320 for frame in taken)
        frames += len(taken)
    now += 1.0
    for _ in range(2 * PATIENCE_FRAMES):  # as the sender does; one late look alone is a stall of ours
        frames += len(stream.take(now))
        now += TICK_S
    elapsed = int(now / TICK_S + 1e-6)
    assert frames >= min(elapsed - PATIENCE_FRAMES - 1, MAX_FILL_FRAMES)
    assert frames <= elapsed + given_bytes / 320 + 3 * (len(steps) + 1)
    assert stream.counters.received + stream.counters.foreign + stream.counters.malformed == len(steps)


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_what_the_network_doubled_before_asterisk_is_heard_once(behind: int) -> None:
    """Asterisk gives each copy a number of its own and the time stamp of the first."""
    line = Line()
    sound = [loud(number) for number in range(60)]
    for tick, frame in enumerate(sound):
        line.send(frame)
        if tick >= behind:
            line.timestamp -= (behind + 1) * 160
            line.send(sound[tick - behind])
            line.timestamp += behind * 160
        line.tick()
    line.tick(2)
    assert line.out[:60] == sound
    assert line.stream.counters.duplicate == 60 - behind
    assert line.stream.counters.received == 120 - behind


def test_a_stream_whose_time_stamps_stand_still_is_heard() -> None:
    line = Line()
    sound = [loud(number) for number in range(60)]
    for frame in sound:
        line.send(frame)
        line.timestamp -= 160
        line.tick()
    assert line.out[:60] == sound
    assert line.stream.counters.duplicate == 0
