"""The caller's line as Asterisk sees it: asked now and then, and named when it is dead. Shell with a small core."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ari_app.errors import AriError
from ari_app.rtp.quality import LineQuality

logger = logging.getLogger(__name__)

FIRST_S, EVERY_S = 3.0, 10.0
"""When Asterisk is asked; RTCP reports come every 5 s."""

UNHEARD_S = 2.0
"""A caller's first packet comes at once; calls that end sooner tell nothing."""
UNHEARD = (
    "no audio came from the caller, not one packet: see firewall, NAT and EXTERNAL_ADDRESS (docs/trunk.md), "
    "or their muted phone"
)


class Pulse:
    """Tells when one direction has carried nothing for `limit_s`; 0: never. Core."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._counts: dict[str, int] = {}
        self._since: dict[str, float] = {}
        """When the count was first what it is."""

    def push(self, line: LineQuality, now: float, *, held: bool = False) -> str | None:
        """Why the line is dead, once it is.

        Args:
            held: a phone that put the call on hold rightly sends nothing.
        """
        dead = None
        for direction, count in (("from the caller", line.received), ("to the caller", line.sent)):
            if held or count != self._counts.get(direction):
                self._counts[direction], self._since[direction] = count, now
            elif self._limit_s and now - self._since[direction] >= self._limit_s:
                dead = f"no audio {direction} for {now - self._since[direction]:.0f} s"
        return dead


class LineWatch:
    """One call's.

    Args:
        ask: for the figures; raises AriError when there are none.
        observe: is told them.
        dead: is told why the line is dead.
        limit_s: of a silence of the network; 0: for ever.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[LineQuality]],
        *,
        observe: Callable[[LineQuality], None],
        dead: Callable[[str], None],
        limit_s: float,
    ) -> None:
        self._ask = ask
        self._observe = observe
        self._dead = dead
        self._pulse = Pulse(limit_s)
        self.held = False
        """The far end put the call on hold."""
        self.latest: LineQuality | None = None
        self._began_at: float | None = None

    def conclude(self, received: int) -> bool:
        """The call is over. True, and a warning, when nothing ever came from the caller.

        Args:
            received: packets from Asterisk, which hands on what it gets of the caller, and no more.
        """
        if self._began_at is None or received:
            return False
        unheard = asyncio.get_running_loop().time() - self._began_at >= UNHEARD_S
        if unheard:
            logger.warning(UNHEARD)
        return unheard

    async def run(self) -> None:
        """For ever."""
        self._began_at = asyncio.get_running_loop().time()
        delay_s = FIRST_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = EVERY_S
            try:
                self.latest = line = await self._ask()
            except AriError:  # it hung up, or its technology has no RTP
                continue
            self._observe(line)
            if why := self._pulse.push(line, asyncio.get_running_loop().time(), held=self.held):
                self._dead(why)
