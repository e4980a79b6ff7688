"""How good a call sounds, estimated from what RTCP reports. Core.

The E-model (ITU-T G.107) with its default values, reduced to what is known of the leg: R = 93.2 - Id - Ie,eff, where
Id = 0.024 d + 0.11 (d - 177.3) for delays d above 177.3 ms (without the second term below), and
Ie,eff = 95 P / (P + 25.1) for P percent of packets lost at random, which are the values of G.711 with concealment in
ITU-T G.113. Then MOS = 1 + 0.035 R + 7e-6 R (R - 60) (100 - R).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

R_DEFAULT = 93.2
BPL_G711 = 25.1
LONG_DELAY_MS = 177.3
IMPOSSIBLE_S = 60.0
"""On a quick line Asterisk's arithmetic goes below zero and comes out as 65536 s."""
NO_FIGURE = 1e15
"""Neither a count nor a time of a call is so large; JSON also has Infinity and NaN."""
OWN_DELAY_MS = 40.0
"""A frame to be filled and one to be played, at either end."""


def mos(*, delay_ms: float, loss_percent: float) -> float:
    """Mean opinion score, 1.0 to 4.5, of one direction.

    Args:
        delay_ms: from mouth to ear.
        loss_percent: of packets, late ones included.
    """
    loss_percent = min(max(loss_percent, 0.0), 100.0)
    delay = 0.024 * delay_ms + 0.11 * max(delay_ms - LONG_DELAY_MS, 0.0)
    r = R_DEFAULT - delay - 95 * loss_percent / (loss_percent + BPL_G711)
    r = min(max(r, 0.0), 100.0)
    return max(1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r), 1.0)


@dataclass(frozen=True, slots=True)
class LineQuality:
    """The caller's leg as Asterisk sees it."""

    received: int
    sent: int
    lost_percent: float
    """Of the packets from the caller."""
    lost_percent_there: float
    """Of those to the caller, as their RTCP reports say; 0 without any."""
    jitter_ms: float
    round_trip_ms: float

    @property
    def mos(self) -> float | None:
        """The worse direction's, with a jitter buffer of twice the jitter; None: one of them carried nothing."""
        if self.received <= 0 or self.sent <= 0:
            return None
        delay_ms = self.round_trip_ms / 2 + 2 * self.jitter_ms + OWN_DELAY_MS
        return mos(delay_ms=delay_ms, loss_percent=max(self.lost_percent, self.lost_percent_there))

    def __str__(self) -> str:
        mos = "unknown" if self.mos is None else f"{self.mos:.1f}"
        return f"MOS {mos}, {self.lost_percent:.1f} % lost"

    def told(self) -> dict[str, float | None]:
        """As JSON."""
        return {**asdict(self), "mos": None if self.mos is None else round(self.mos, 2)}


def parse_quality(reply: Mapping[str, Any]) -> LineQuality:
    """From ARI's `RTPstat`, in which times are seconds and counts are packets; what is missing or no number is 0."""

    def number(name: str) -> float:
        value = reply.get(name, 0)
        return float(value) if isinstance(value, int | float) and abs(value) < NO_FIGURE else 0.0

    received, lost = number("rxcount"), number("rxploss")
    sent, lost_there = number("txcount"), number("txploss")
    return LineQuality(
        received=int(received),
        sent=int(sent),
        lost_percent=100 * lost / (received + lost) if received + lost > 0 else 0.0,
        lost_percent_there=min(100 * lost_there / sent, 100.0) if sent > 0 else 0.0,
        jitter_ms=1000 * number("rxjitter"),
        round_trip_ms=1000 * number("rtt") if number("rtt") < IMPOSSIBLE_S else 0.0,
    )
