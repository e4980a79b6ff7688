"""Order, loss and bounded waits of one stream."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from ari_app.rtp.jitter import MAX_AHEAD, MAX_BEHIND, MAX_HELD, WAIT_S, JitterBuffer, Lost
from ari_app.rtp.packet import RtpPacket

TICK_S = 0.02


def packet(index: int, first: int = 0) -> RtpPacket:
    return RtpPacket(10, (first + index) % 2**16, 0, 1, index.to_bytes(4, "big", signed=True))


def shown(items: Iterable[RtpPacket | Lost]) -> list[int | str]:
    """Packets as their index, losses as '-3'."""
    return [
        f"-{item.count}" if isinstance(item, Lost) else int.from_bytes(item.payload, "big", signed=True)
        for item in items
    ]


def push_all(
    buffer: JitterBuffer, indices: Iterable[int], first: int = 0, now: float = 0.0
) -> list[int | str]:
    return [one for index in indices for one in shown(buffer.push(packet(index, first), now))]


def test_packets_in_order_pass_at_once() -> None:
    buffer = JitterBuffer()
    for index in range(300):
        assert push_all(buffer, [index], first=65400) == [index]
    assert (buffer.counters.lost, buffer.counters.late, buffer.counters.reordered) == (0, 0, 0)


@given(st.permutations(range(1, MAX_HELD)), st.integers(0, 2**16 - 1))
def test_any_order_within_the_window_comes_out_in_order(order: list[int], first: int) -> None:
    buffer = JitterBuffer()
    assert push_all(buffer, [0, *order], first) == list(range(MAX_HELD))
    assert buffer.counters.lost == buffer.counters.duplicate == buffer.counters.late == 0
    overtaken = sum(any(other > index for other in order[:at]) for at, index in enumerate(order))
    assert buffer.counters.reordered == overtaken


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=120),
    st.integers(0, 2**16 - 1),
)
def test_each_packet_comes_out_once_and_the_lost_are_counted(
    fates: list[tuple[bool, int, int]], first: int
) -> None:
    """Each packet is lost or not, delayed by 0 to 5 ticks, and repeated 0 to 2 times."""
    arrivals: dict[int, list[int]] = {0: [0]}
    for index, (lost, delay, copies) in enumerate(fates, start=1):
        if not lost:
            for copy in range(1 + copies):
                arrivals.setdefault(index + delay + copy, []).append(index)
    last = max(max(at) for at in arrivals.values())
    buffer = JitterBuffer()
    out: list[int | str] = []
    for tick in range(len(fates) + 20):
        now = tick * TICK_S
        out += push_all(buffer, arrivals.get(tick, []), first, now) + shown(buffer.poll(now))
    delivered = [one for one in out if isinstance(one, int)]
    lost_count = sum(-int(one) for one in out if isinstance(one, str))
    assert delivered == sorted(set(delivered))
    assert len(delivered) + lost_count == last + 1
    assert buffer.counters.lost == lost_count
    pushed = sum(len(at) for at in arrivals.values())
    assert pushed == len(delivered) + buffer.counters.late + buffer.counters.duplicate


def test_a_lost_packet_costs_the_bounded_wait_and_no_more() -> None:
    buffer = JitterBuffer()
    out: dict[int | str, float] = {}
    for tick in range(60):
        now = tick * TICK_S
        arrived = [tick] if tick not in (10, 30, 31) else []
        for one in push_all(buffer, arrived, now=now) + shown(buffer.poll(now)):
            out[one] = now
    for index in range(60):
        if index not in (10, 30, 31):
            assert out[index] - index * TICK_S <= WAIT_S + TICK_S
    assert "-1" in out and "-2" in out
    assert out[59] == 59 * TICK_S, "the wait is not kept for ever"


def test_behind_a_gap_only_so_many_are_held() -> None:
    buffer = JitterBuffer()
    push_all(buffer, [0])
    assert push_all(buffer, range(2, 1 + MAX_HELD)) == []
    assert push_all(buffer, [1 + MAX_HELD]) == ["-1", *range(2, 2 + MAX_HELD)]


def test_too_late_is_late_and_twice_is_duplicate() -> None:
    buffer = JitterBuffer()
    push_all(buffer, [0, 2])
    assert shown(buffer.poll(WAIT_S)) == ["-1", 2]
    assert push_all(buffer, [1, 1, 2, 0], now=1.0) == []
    assert (buffer.counters.late, buffer.counters.duplicate, buffer.counters.lost) == (1, 3, 1)


def test_a_packet_overtaken_by_the_first_one_is_late() -> None:
    buffer = JitterBuffer()
    assert push_all(buffer, [0, -1, 1], first=100) == [0, 1]
    assert (buffer.counters.late, buffer.counters.duplicate) == (1, 0)


def test_a_copy_of_a_held_packet_is_a_duplicate() -> None:
    buffer = JitterBuffer()
    assert push_all(buffer, [0, 2, 2, 1]) == [0, 1, 2]
    assert buffer.counters.duplicate == 1


def test_a_jump_starts_afresh_after_two_in_a_row() -> None:
    for jump in (MAX_AHEAD + 10, 30000, 65535 - MAX_BEHIND - 20):
        buffer = JitterBuffer()
        assert push_all(buffer, range(5)) == list(range(5))
        after = range(5 + jump, 15 + jump)
        assert push_all(buffer, after) == list(after)
        assert buffer.counters.lost == 0


def test_what_was_held_comes_out_before_a_new_start() -> None:
    buffer = JitterBuffer()
    assert push_all(buffer, [0, 2, 3]) == [0]
    assert push_all(buffer, [30000, 30001]) == ["-1", 2, 3, 30000, 30001]


def test_a_stray_number_changes_nothing() -> None:
    buffer = JitterBuffer()
    assert push_all(buffer, [0, 1, 20000, 2, 3, 40000, 4]) == [0, 1, 2, 3, 4]
    assert (buffer.counters.late, buffer.counters.lost) == (2, 0)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 2**16 - 1), max_size=300))
def test_whatever_comes_what_is_held_is_bounded(numbers: list[int]) -> None:
    """Nothing is held longer than the wait: after it a poll leaves nothing to come."""
    buffer = JitterBuffer()
    for tick, number in enumerate(numbers):
        list(buffer.push(RtpPacket(10, number, 0, 1, b"x"), tick * 0.001))
    list(buffer.poll(1.0))
    assert shown(buffer.poll(100.0)) == []
