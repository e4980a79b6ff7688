"""What an operator may have said at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ari_app.desk import MAX_WAITING, Desk
from ari_app.dialog.phrasebook import Sentence
from ari_app.errors import EngineUnreachable, LimitReached


class Line:
    """A call that says one sentence after the other, when it gets to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.waiting = 0

    def say(self, sentence: Sentence) -> bool:
        self.said.append(sentence.text)
        self.waiting += 1
        return True


class Voice:
    """An engine that takes its time."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_go_on = asyncio.Event()
        self.broken = False

    async def render(self, text: str) -> bytes:
        self.asked += 1
        await self.may_go_on.wait()
        if self.broken:
            raise EngineUnreachable("text-to-speech", "nobody there")
        return b""


def desk(line: Line, voice: Voice) -> Desk:
    held = SimpleNamespace(announcer=line)
    calls: Any = SimpleNamespace(find=lambda call_id: held, brains=voice)
    return Desk(calls)


async def test_sentences_do_not_pile_up() -> None:
    """Neither at the engine nor in the call, however fast they are asked for."""
    line, voice = Line(), Voice()
    one = desk(line, voice)
    wanted = [asyncio.create_task(one.say("c1", f"sentence {n}", "a test")) for n in range(MAX_WAITING + 3)]
    done, waiting = await asyncio.wait(wanted, timeout=0.05)
    assert len(done) == 3 and voice.asked == len(waiting) == MAX_WAITING
    assert all(isinstance(task.exception(), LimitReached) for task in done)
    other = asyncio.create_task(one.say("c2", "another call", "a test"))
    await asyncio.sleep(0)
    assert not other.done(), "another call has its own"
    voice.may_go_on.set()
    await asyncio.gather(*waiting, other)
    assert len(line.said) == MAX_WAITING + 1
    with pytest.raises(LimitReached, match="try again later"):
        await one.say("c1", "one more", "a test")
    line.waiting = MAX_WAITING - 1
    await one.say("c1", "one more", "a test")


async def test_sentences_that_can_t_be_spoken_wait_for_nothing() -> None:
    line, voice = Line(), Voice()
    voice.broken = True
    voice.may_go_on.set()
    one = desk(line, voice)
    for _ in range(MAX_WAITING + 2):
        with pytest.raises(EngineUnreachable):
            await one.say("c1", "a sentence", "a test")
    assert line.said == []
