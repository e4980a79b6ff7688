"""The measure of overload."""

from __future__ import annotations

import asyncio
import time

import pytest

from ari_app import load
from ari_app.load import Load


@pytest.mark.parametrize(
    ("lags_ms", "too_high"),
    [
        ([], False),
        ([900], False),
        ([60] * 4, False),
        ([60] * 5, True),
        ([40] * 9, False),
        ([60] * 9 + [1] * 5, False),
    ],
)
def test_a_machine_that_is_late_for_long_is_overloaded(lags_ms: list[float], too_high: bool) -> None:
    seen: list[float] = []
    machine = Load(50, seen.append)
    for lag_ms in lags_ms:
        machine.push(lag_ms / 1000)
    assert machine.too_high is too_high
    assert seen == [lag_ms / 1000 for lag_ms in lags_ms]


def test_without_a_limit_none_is() -> None:
    machine = Load(0)
    for _ in range(9):
        machine.push(9.0)
    assert not machine.too_high


async def test_a_stalled_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "EVERY_S", 0.01)
    seen: list[float] = []
    task = asyncio.create_task(Load(0, seen.append).measure())
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - the stall
    while not seen:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen[0] >= 0.035
