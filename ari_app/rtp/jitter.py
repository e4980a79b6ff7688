"""Puts one stream's packets in order and says which are lost. Core.

The consumer is speech recognition, so packets in order pass at once; only behind a gap is there a wait, and it is
bounded. What comes too late is counted and dropped; a jump of the numbers starts afresh (RFC 3550 A.1).
"""

from __future__ import annotations

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
    """Of all streams that went through one buffer, in packets."""

    lost: int = 0
    late: int = 0
    reordered: int = 0
    duplicate: int = 0


class JitterBuffer:
    """One stream's packets at a time. Every call returns what is in order now."""

    def __init__(self) -> None:
        self.counters = JitterCounters()
        self._expected: int | None = None
        self._held: dict[int, tuple[RtpPacket, float]] = {}
        self._missed: set[int] = set()
        """Numbers given up, to tell late packets from duplicates; bounded by MAX_BEHIND."""
        self._stray: RtpPacket | None = None
        """A packet with a number far off; its successor makes it a new start, anything else a stray."""

    def push(self, packet: RtpPacket, now: float) -> list[RtpPacket | Lost]:
        """Take one packet; `now` in seconds."""
        number = packet.sequence_number
        if self._expected is None:
            self._begin(number)
        assert self._expected is not None
        ahead = uint16_ahead(number, self._expected)
        if not -MAX_BEHIND <= ahead <= MAX_AHEAD:
            return self._push_far(packet, now)
        if self._stray is not None:
            self._drop_stray()
        if ahead < 0:
            self._count_old(number)
        elif number in self._held:
            self.counters.duplicate += 1
        else:
            self.counters.reordered += bool(self._held) and ahead < self._furthest_held()
            self._held[number] = (packet, now)
        return self.poll(now)

    def poll(self, now: float) -> list[RtpPacket | Lost]:
        """What the passing of time sets free."""
        out: list[RtpPacket | Lost] = []
        while self._held:
            if not self._pop_expected(out):
                oldest = min(arrived for _, arrived in self._held.values())
                if now - oldest < WAIT_S and len(self._held) < MAX_HELD:
                    break
                out.append(self._give_up())
        return out

    def reset(self) -> list[RtpPacket | Lost]:
        """The stream is over: returns the rest of it, and takes the next packet as the first of a new one."""
        out: list[RtpPacket | Lost] = []
        while self._held:
            if not self._pop_expected(out):
                out.append(self._give_up())
        if self._stray is not None:
            self._drop_stray()
        self._expected = None
        return out

    def _begin(self, number: int) -> None:
        self._expected = number
        # What the first packet overtook was never heard: late, not duplicate.
        self._missed = {uint16_add(number, -i) for i in range(1, MAX_BEHIND + 1)}

    def _push_far(self, packet: RtpPacket, now: float) -> list[RtpPacket | Lost]:
        first = self._stray
        if first is None or packet.sequence_number != uint16_add(first.sequence_number, 1):
            if first is not None:
                self._drop_stray()
            self._stray = packet
            return []
        self._stray = None
        out = self.reset()
        return out + self.push(first, now) + self.push(packet, now)

    def _drop_stray(self) -> None:
        self._stray = None
        self.counters.late += 1

    def _pop_expected(self, out: list[RtpPacket | Lost]) -> bool:
        assert self._expected is not None
        if self._expected not in self._held:
            return False
        packet, _ = self._held.pop(self._expected)
        self._expected = uint16_add(self._expected, 1)
        out.append(packet)
        return True

    def _give_up(self) -> Lost:
        """Pass over the gap before the nearest packet held."""
        expected = self._expected
        assert expected is not None
        gap = min(uint16_ahead(number, expected) for number in self._held)
        self.counters.lost += gap
        self._expected = uint16_add(expected, gap)
        self._missed |= {uint16_add(expected, i) for i in range(max(0, gap - MAX_BEHIND), gap)}
        if len(self._missed) > MAX_BEHIND:
            self._missed = {n for n in self._missed if 0 < uint16_ahead(self._expected, n) <= MAX_BEHIND}
        return Lost(gap)

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
