"""Reading from a disk that may not answer. Shell.

A thread of its own for each read, which nobody waits for at the end: the event loop's pool, which resolves host names
too, would fill up with reads that hang, and the process would not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from ari_app.errors import DiskTooSlow

T = TypeVar("T")

MAX_READS = 4
TIMEOUT_S = 10.0


async def apart(work: Callable[[], T]) -> T:
    """Call `work` in a thread of its own."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as fault:
            error = fault
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="reader", daemon=True).start()
    return await done


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
