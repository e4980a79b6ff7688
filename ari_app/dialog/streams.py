"""Two helpers for the engines' streams: a deadline for every item, and reading ahead in a task. Shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, TypeVar

from ari_app.errors import EngineTimeout

T = TypeVar("T")


async def within(source: AsyncIterator[T], stage: str, deadline_s: float) -> AsyncGenerator[T, None]:
    """Pass on the items of `source`, each of which must come within `deadline_s`; closes `source`.

    Raises:
        EngineTimeout: an item came too late.
    """
    try:
        while True:
            try:
                async with asyncio.timeout(deadline_s):
                    item = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise EngineTimeout(stage, f"nothing came for {deadline_s:g} s") from None
            yield item
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


class Eager(Generic[T]):
    """Reads `source` in a task of its own, ahead of whoever iterates; its error arrives in order.

    The memory between the two is bounded by the length of `source`, so give it a source with an end.
    Whoever makes one closes it.
    """

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._ready: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for item in self._source:
                self._ready.put_nowait((item,))
        finally:
            self._ready.put_nowait(None)

    async def items(self) -> AsyncGenerator[T, None]:
        """The items of `source`, once."""
        while (item := await self._ready.get()) is not None:
            yield item[0]
        await self._task  # raises what ended the source

    async def aclose(self) -> None:
        """Stop reading; the source is closed when this returns."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._source.aclose()  # for a task that was cancelled before its first step
