"""Deadlines between items, and reading ahead that keeps order and leaves nothing open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from ari_app.dialog.streams import Eager, within
from ari_app.errors import EngineTimeout


class Source:
    """Gives numbers, then does `then`."""

    def __init__(self, count: int, then: Exception | None = None, *, hang: bool = False) -> None:
        self.given = 0
        self.closed = False
        self._count = count
        self._then = then
        self._hang = hang

    async def numbers(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._count):
                self.given += 1
                yield number
            if self._hang:
                await asyncio.Event().wait()
            if self._then:
                raise self._then
        finally:
            self.closed = True


async def test_items_in_time_pass() -> None:
    source = Source(3)
    assert [n async for n in within(source.numbers(), "chat", 5)] == [0, 1, 2]
    assert source.closed


async def test_a_late_item_is_a_timeout_of_its_stage() -> None:
    source = Source(1, hang=True)
    items = within(source.numbers(), "chat", 0.01)
    assert await anext(items) == 0
    with pytest.raises(EngineTimeout, match=r"chat: nothing came for 0.01 s"):
        await anext(items)
    assert source.closed


async def test_the_reader_s_own_time_does_not_count() -> None:
    items = within(Source(2).numbers(), "chat", 0.02)
    await anext(items)
    await asyncio.sleep(0.05)
    assert await anext(items) == 1
    await items.aclose()


async def test_eager_reads_ahead_and_raises_in_order() -> None:
    source = Source(3, ValueError("after three"))
    async with aclosing(Eager(source.numbers())) as eager:
        await asyncio.sleep(0)
        assert source.given == 3 and source.closed
        seen = []
        with pytest.raises(ValueError, match="after three"):
            async for number in eager.items():
                seen.append(number)
        assert seen == [0, 1, 2]


@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_closing_eager_closes_the_source(steps: int) -> None:
    before = asyncio.all_tasks()
    source = Source(1, hang=True)
    eager = Eager(source.numbers())
    for _ in range(steps):
        await asyncio.sleep(0)
    await eager.aclose()
    assert asyncio.all_tasks() == before
    assert source.closed or not source.given
