"""Whether Asterisk has an RTP port left for another media channel. Shell.

A media channel for which there is none kills Asterisk (asterisk/asterisk#1757, in 22.10 too). So it is asked for its
range once per connection, and before each media channel for its channels, one call after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from ari_app.ari.events import Channel
from ari_app.ari.faults import NO_VARIABLE
from ari_app.ari.streams import is_full, streams_in, streams_used
from ari_app.errors import AriError, AriFull, AriUnreachable

logger = logging.getLogger(__name__)

UNKNOWN = -1


class RtpRoom:
    """Of one Asterisk."""

    def __init__(
        self,
        get_variable: Callable[[str, str], Awaitable[str]],
        list_channels: Callable[[], Awaitable[Sequence[Channel]]],
    ) -> None:
        self._get_variable = get_variable
        self._list_channels = list_channels
        self._streams: int | None = None
        """So many have room; None: not asked yet."""
        self._opening = asyncio.Lock()

    def forget(self) -> None:
        """It may have been started anew, with another range."""
        self._streams = None

    @asynccontextmanager
    async def needed(self, attempted: str, channel_id: str) -> AsyncIterator[None]:
        """Within it a media channel may be opened for the caller's channel; one at a time, so that each sees the last.

        Raises:
            AriFull: all but a few ports are taken.
        """
        async with self._opening:
            if self._streams is None:
                self._streams = await self._ask(channel_id)
            if self._streams is not None and self._streams != UNKNOWN:
                used = streams_used(channel.name for channel in await self._list_channels())
                if is_full(self._streams, used):
                    taken = f"{used} of Asterisk's {self._streams} pairs of RTP ports are taken"
                    raise AriFull(attempted, None, f"{taken} (rtpstart, rtpend in rtp.conf)")
            yield

    async def _ask(self, channel_id: str) -> int | None:
        try:
            first, last = [
                await self._get_variable(channel_id, f"AST_CONFIG(rtp.conf,general,{name})")
                for name in ("rtpstart", "rtpend")
            ]
            return streams_in(first, last)
        except AriUnreachable:
            raise
        except (AriError, ValueError) as error:
            if isinstance(error, AriError) and error.message != NO_VARIABLE:
                return None  # the caller has gone, as the call will see: the next one is asked
            logger.warning("Asterisk does not tell its RTP ports (load its module func_config): %s", error)
            return UNKNOWN
