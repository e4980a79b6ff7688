"""The pulse of a line, and who asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ari_app import line
from ari_app.errors import AriNotFound
from ari_app.line import LineWatch, Pulse
from ari_app.rtp.quality import LineQuality


def counted(received: int, sent: int) -> LineQuality:
    return LineQuality(received, sent, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ((500, 500), None),
        ((0, 500), "no audio from the caller for 60 s"),
        ((500, 0), "no audio to the caller for 60 s"),
    ],
)
def test_a_direction_that_stands_still_is_named(step: tuple[int, int], why: str | None) -> None:
    pulse = Pulse(60)
    told = [pulse.push(counted(9 + i * step[0], 9 + i * step[1]), i * 10.0) for i in range(7)]
    assert told[:-1] == [None] * 6 and told[-1] == why


def test_who_speaks_again_in_time_is_alive() -> None:
    pulse = Pulse(60)
    assert all(pulse.push(counted(1 + (i >= 5), i), i * 10.0) is None for i in range(11))
    assert pulse.push(counted(2, 11), 110.0) == "no audio from the caller for 60 s"


def test_a_held_call_is_quiet_and_its_time_begins_anew_when_it_is_taken_back() -> None:
    pulse = Pulse(60)
    assert all(pulse.push(counted(5, i), i * 10.0, held=True) is None for i in range(30))
    assert pulse.push(counted(5, 30), 300.0) is None
    assert pulse.push(counted(5, 31), 349.0) is None
    assert pulse.push(counted(5, 32), 350.0) == "no audio from the caller for 60 s"


def test_without_a_limit_nothing_is_dead() -> None:
    pulse = Pulse(0)
    assert all(pulse.push(counted(0, 0), i * 1000.0) is None for i in range(9))


async def test_a_line_that_can_not_be_asked_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "FIRST_S", 0.0)
    monkeypatch.setattr(line, "EVERY_S", 0.0)
    answers: Iterator[LineQuality | Exception] = iter(
        [AriNotFound("ask", 404, "not there"), counted(1, 1), AriNotFound("ask", 404, "gone"), counted(2, 2)]
    )
    seen: list[LineQuality] = []
    done = asyncio.Event()

    async def ask() -> LineQuality:
        answer = next(answers, None)
        if answer is None:
            done.set()
            await asyncio.Event().wait()
            raise AssertionError
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = LineWatch(ask, observe=seen.append, dead=lambda why: None, limit_s=60)
    task = asyncio.create_task(watch.run())
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == [counted(1, 1), counted(2, 2)] and watch.latest == counted(2, 2)
