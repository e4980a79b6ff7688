"""Reads from a disk that does not answer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ari_app.errors import DiskTooSlow
from ari_app.record import reader as reader_module
from ari_app.record.reader import MAX_READS, Reader


async def test_what_is_read_and_what_goes_wrong_come_back() -> None:
    reader = Reader()
    assert await reader.read(lambda: threading.current_thread().daemon), "it does not keep the process alive"

    def fail() -> None:
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        await reader.read(fail)


async def test_a_disk_that_hangs_costs_a_few_threads_and_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "TIMEOUT_S", 0.1)
    reader, answers, begun = Reader(), threading.Event(), []

    def hang() -> bool:
        begun.append(threading.current_thread())
        return answers.wait(30)

    results = await asyncio.gather(*(reader.read(hang) for _ in range(3 * MAX_READS)), return_exceptions=True)
    assert len(begun) == MAX_READS, "the rest did not even begin"
    assert all(isinstance(result, DiskTooSlow) for result in results)
    answers.set()
    for thread in begun:
        await asyncio.to_thread(thread.join)
    monkeypatch.setattr(reader_module, "TIMEOUT_S", 10.0)
    assert (
        await asyncio.gather(*(reader.read(lambda: 7) for _ in range(3 * MAX_READS))) == [7] * 3 * MAX_READS
    )


async def test_who_goes_away_meanwhile_disturbs_nobody() -> None:
    reader, answers, begun = Reader(), threading.Event(), threading.Event()

    def slow() -> bool:
        begun.set()
        return answers.wait(30)

    reading = asyncio.create_task(reader.read(slow))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    answers.set()
    assert await asyncio.gather(*(reader.read(lambda: 7) for _ in range(MAX_READS))) == [7] * MAX_READS
