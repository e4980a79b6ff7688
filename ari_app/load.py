"""How late the event loop is: the one measure of a machine that has too much to do. Shell with a small core."""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Callable

EVERY_S = 0.25
REMEMBERED = 8
"""Measurements: a machine that was late for one moment of the last two seconds is not overloaded."""


class Load:
    """One process's.

    Args:
        limit_ms: of the median; 0: there is none.
        observe: is told each measurement, in seconds.
    """

    def __init__(self, limit_ms: float, observe: Callable[[float], None] = lambda lag_s: None) -> None:
        self._limit_ms = limit_ms
        self._observe = observe
        self._latest: deque[float] = deque([0.0] * REMEMBERED, maxlen=REMEMBERED)

    @property
    def lag_ms(self) -> float:
        """The median of the last measurements."""
        return 1000 * statistics.median(self._latest)

    @property
    def too_high(self) -> bool:
        """One more call would be at the cost of those that go on."""
        return bool(self._limit_ms) and self.lag_ms > self._limit_ms

    def push(self, lag_s: float) -> None:
        """The loop was so late."""
        self._latest.append(lag_s)
        self._observe(lag_s)

    async def measure(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.push(max(loop.time() - due, 0.0))
