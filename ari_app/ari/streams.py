"""How many RTP streams Asterisk has ports for, and how many are there. Core.

A stream takes an even port for RTP and the next one for RTCP (`rtpstart` and `rtpend` in rtp.conf). A call of ours has
two: the caller's and the media channel's.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_SPARE = 8
DEFAULT_FIRST, DEFAULT_LAST = 5000, 31000
"""What Asterisk takes where rtp.conf says nothing."""
LEAST_PORT, MOST_PORT = 1024, 65535
"""What Asterisk takes in place of ports beyond."""
WITHOUT_RTP = (
    "Local/",
    "Message/",
    "Announcer/",
    "Recorder/",
    "Surrogate/",
    "Snoop/",
    "DAHDI/",
    "IAX2/",
    "AudioSocket/",
)
"""Beginnings of the names of channels that take no port of this range."""


def streams_in(first: str, last: str) -> int:
    """How many have room in a range; empty: Asterisk's default.

    Raises:
        ValueError: it is none.
    """
    ports = int(first or DEFAULT_FIRST), int(last or DEFAULT_LAST)
    low, high = (min(max(port, LEAST_PORT), MOST_PORT) for port in ports)
    count = high // 2 - (low + 1) // 2 + 1
    if count < 1:
        raise ValueError(f"no range: {low} to {high}")
    return count


def spare(streams: int) -> int:
    """Kept free: for callers who come while one is let in, and for ports that something else has taken."""
    return min(MOST_SPARE, streams // 5)


def is_full(streams: int, used: int) -> bool:
    """Whether no media channel may be opened; the streams `used` are the caller's too for whom it would be."""
    return used + spare(streams) >= streams


def calls_in(streams: int) -> int:
    """How many calls they carry."""
    return (streams - spare(streams)) // 2


def ports_for(calls: int) -> int:
    """How many ports are enough for them."""
    return 2 * (2 * calls + MOST_SPARE)


def streams_used(names: Iterable[str]) -> int:
    """How many the channels of these names take."""
    return sum(not name.startswith(WITHOUT_RTP) for name in names)
