"""Puts one stream's packets in order and says which are lost. Core.

The consumer is speech recognition, so packets in order pass at once; only behind a gap is there a wait, and it is
bounded. What comes too late is counted and dropped; a jump of the numbers starts afresh (RFC 3550 A.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ari_app.rtp.packet import RtpPacket
from ari_app.rtp.serial import uint16_add, uint16_ahead

WAIT_S = 0.06
"""For a packet that others have overtaken."""
MAX_HELD = 16
"""Packets behind a gap; with more the gap is given up at once."""
MAX_AHEAD = 500
MAX_BEHIND = 100
"""Beyond these (RFC 3550's MAX_DROPOUT is 3000, MAX_MISORDER 100) the sender has started afresh. Ten seconds of
lost packets are indistinguishable from a new start, and are better treated as one."""


@dataclass(frozen=True, slots=True)
class Lost:
    """`count` packets in a row will never come."""

    count: int


@dataclass(slots=True)
class JitterCounters:
    """Of one stream."""

    lost: int = 0
    late: int = 0
    reordered: int = 0
    duplicate: int = 0


class JitterBuffer:
    """One SSRC's packets. `push` and `poll` yield what is in order now."""

    def __init__(self) -> None:
        self.counters = JitterCounters()
        self._expected: int | None = None
        self._held: dict[int, tuple[RtpPacket, float]] = {}
        self._missed: set[int] = set()
        """Numbers given up, to tell late packets from duplicates; bounded by MAX_BEHIND."""
        self._suspect: int | None = None
        """The number after a jump; two in a row make it a new start, one alone is a stray."""

    def push(self, packet: RtpPacket, now: float) -> Iterator[RtpPacket | Lost]:
        """Take one packet; `now` in seconds."""
        number = packet.sequence_number
        if self._expected is None:
            self._expected = number
        ahead = uint16_ahead(number, self._expected)
        if not -MAX_BEHIND <= ahead <= MAX_AHEAD:
            if number != self._suspect:
                self._suspect = uint16_add(number, 1)
                self.counters.late += 1
                return
            self._restart(number)
            ahead = 0
        self._suspect = None
        if ahead < 0:
            self._count_old(number)
        elif number in self._held:
            self.counters.duplicate += 1
        else:
            self.counters.reordered += bool(self._held) and ahead < self._furthest_held()
            self._held[number] = (packet, now)
            yield from self._release(now)

    def poll(self, now: float) -> Iterator[RtpPacket | Lost]:
        """What the passing of time sets free."""
        yield from self._release(now)

    def _release(self, now: float) -> Iterator[RtpPacket | Lost]:
        while self._held and self._expected is not None:
            if self._expected in self._held:
                packet, _ = self._held.pop(self._expected)
                self._advance(1)
                yield packet
                continue
            oldest = min(arrived for _, arrived in self._held.values())
            if now - oldest < WAIT_S and len(self._held) < MAX_HELD:
                return
            expected = self._expected
            gap = min(uint16_ahead(number, expected) for number in self._held)
            self.counters.lost += gap
            self._missed |= {uint16_add(expected, i) for i in range(max(0, gap - MAX_BEHIND), gap)}
            self._advance(gap)
            yield Lost(gap)

    def _advance(self, count: int) -> None:
        assert self._expected is not None
        self._expected = uint16_add(self._expected, count)
        if len(self._missed) > MAX_BEHIND:
            self._missed = {n for n in self._missed if uint16_ahead(self._expected, n) <= MAX_BEHIND}

    def _count_old(self, number: int) -> None:
        if number in self._missed:
            self._missed.discard(number)
            self.counters.late += 1
        else:
            self.counters.duplicate += 1

    def _furthest_held(self) -> int:
        expected = self._expected
        assert expected is not None
        return max(uint16_ahead(number, expected) for number in self._held)

    def _restart(self, number: int) -> None:
        self._expected = number
        self._held.clear()
        self._missed.clear()
