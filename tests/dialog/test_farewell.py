"""Last words over any brain, with playout's marks given by hand."""

from __future__ import annotations

import asyncio

import pytest

from ari_app.dialog import farewell
from ari_app.dialog.farewell import Farewell
from ari_app.dialog.ports import ItemFinished, ItemStarted
from ari_app.rtp.pacer import Pacer
from tests.fakes.call_bench import ScriptedBrain, frame

WORDS = frame(3000) * 3


async def started(pcm: bytes = WORDS) -> tuple[Farewell, ScriptedBrain, Pacer]:
    brain, pacer = ScriptedBrain(), Pacer()
    outer = Farewell(brain, pcm)
    outer.prepare()
    await outer.start(pacer, lambda fact: None)
    return outer, brain, pacer


async def test_until_then_the_brain_has_everything() -> None:
    outer, brain, _ = await started()
    outer.push_audio(frame(1), 0.0)
    outer.push_mark(ItemStarted("a"), 0.0)
    assert brain.prepared and brain.frames == [frame(1)] and brain.marks == [ItemStarted("a")]


async def test_the_last_words_replace_all_others_and_are_waited_for() -> None:
    outer, brain, pacer = await started()
    pacer.play("answer", frame(100) * 50)
    leaving = asyncio.create_task(outer.say_goodbye())
    await asyncio.sleep(0)
    assert not brain.is_open
    assert [pacer.next_frame() for _ in range(3)] == [frame(3000)] * 3
    outer.push_audio(frame(1), 0.0)
    assert brain.frames == [], "whoever goes on speaking changes nothing"
    await asyncio.sleep(0.02)
    assert not leaving.done()
    for mark in pacer.take_marks():
        outer.push_mark(mark, 0.0)
    await asyncio.wait_for(leaving, 1)
    assert brain.marks == []


async def test_nobody_is_waited_for_who_has_left() -> None:
    outer, _, _ = await started()
    leaving = asyncio.create_task(outer.say_goodbye())
    await asyncio.sleep(0)
    await outer.close()
    await asyncio.wait_for(leaving, 1)


async def test_playout_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "GRACE_S", 0.05)
    outer, _, _ = await started()
    outer.push_mark(ItemFinished("goodbye", 60.0), 0.0)
    await asyncio.wait_for(outer.say_goodbye(), 1)


async def test_nothing_is_said_without_words_or_without_a_caller() -> None:
    outer, brain, pacer = await started(b"")
    await outer.say_goodbye()
    assert brain.is_open and not pacer.speaking
    await asyncio.wait_for(Farewell(ScriptedBrain(), WORDS).say_goodbye(), 0.1)
