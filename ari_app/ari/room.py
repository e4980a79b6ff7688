"""Whether Asterisk has an RTP port left for another media channel. Shell.

A media channel for which there is none kills Asterisk (asterisk/asterisk#1757, in 22.10 too). So it is asked for its
range once per connection, and before each media channel for its channels, one call after the other; an answer that does
not come costs its own call, and the others a moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from ari_app.ari.events import Channel
from ari_app.ari.faults import NO_VARIABLE
from ari_app.ari.streams import is_full, streams_in, streams_used
from ari_app.errors import AriError, AriFull, AriUnreachable

logger = logging.getLogger(__name__)

UNKNOWN = -1
ANSWER_S = 2.0
"""Asterisk answers within milliseconds. All waits of a call together are shorter than its set-up may take."""
PATIENCE_S = 3.0
"""So long a call waits for those before it."""


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
    async def needed(
        self, attempted: str, channel_id: str, wanted: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """Within it a media channel may be opened for the caller's channel; one at a time, so that each sees the last.

        Raises:
            AriFull: all but a few ports are taken.
            AriError: Asterisk did not answer in time, or nobody wants the channel any more.
        """
        if self._streams is None:
            async with _within(ANSWER_S, attempted, "Asterisk did not say which RTP ports it has"):
                self._streams = await self._ask(channel_id)
        async with AsyncExitStack() as stack:
            async with _within(
                PATIENCE_S, attempted, "Asterisk did not open the media channel of another call"
            ):
                await stack.enter_async_context(self._opening)
            if not wanted():
                raise AriError(attempted, None, "the call is over")
            if self._streams is not None and self._streams != UNKNOWN:
                async with _within(ANSWER_S, attempted, "Asterisk did not say which RTP ports are taken"):
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


@asynccontextmanager
async def _within(limit_s: float, attempted: str, otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise AriError(attempted, None, f"{otherwise} within {limit_s:g} s") from None
