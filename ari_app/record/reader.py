"""Reading from a disk that may not answer. Shell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ari_app.apart import apart
from ari_app.errors import DiskTooSlow

T = TypeVar("T")

MAX_READS = 4
TIMEOUT_S = 10.0


class Reader:
    """A few reads at once, each for a bounded time."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_READS)

    async def read(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread.

        Raises:
            DiskTooSlow: the disk does not answer in time.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._free.acquire()
                reading = asyncio.create_task(apart(work))
                reading.add_done_callback(self._ended)  # a read that hangs keeps its place
                return await asyncio.shield(reading)
        except TimeoutError:
            raise DiskTooSlow(f"the disk of the recordings did not answer within {TIMEOUT_S:g} s") from None

    def _ended(self, reading: asyncio.Task[T]) -> None:
        self._free.release()
        if not reading.cancelled():
            reading.exception()  # who asked has it, or is gone
