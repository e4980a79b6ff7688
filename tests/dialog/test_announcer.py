"""Last words over any brain, with playout's marks given by hand."""

from __future__ import annotations

import asyncio

import pytest

from ari_app.dialog import announcer
from ari_app.dialog.announcer import Announcer, Sentence
from ari_app.dialog.ports import BargeIn, BotSaid, BotSpeechStarted, Fact, ItemFinished, ItemStarted
from ari_app.rtp.pacer import Pacer
from tests.fakes.call_bench import ScriptedBrain, frame

WORDS = frame(3000) * 3


NOTHING = Sentence()


async def started(pcm: bytes = WORDS) -> tuple[Announcer, ScriptedBrain, Pacer]:
    outer, brain, pacer, _ = await reporting(pcm)
    return outer, brain, pacer


async def reporting(pcm: bytes = WORDS) -> tuple[Announcer, ScriptedBrain, Pacer, list[Fact]]:
    brain, pacer = ScriptedBrain(), Pacer()
    outer = Announcer(brain, opening=NOTHING, goodbye=Sentence("Goodbye.", pcm))
    outer.prepare()
    facts: list[Fact] = []
    await outer.start(pacer, facts.append)
    return outer, brain, pacer, facts


def play(outer: Announcer, pacer: Pacer, frames: int) -> list[bytes]:
    """Let some frames leave."""
    sent = [pacer.next_frame() for _ in range(frames)]
    for mark in pacer.take_marks():
        outer.push_mark(mark, 7.0)
    return sent


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
    monkeypatch.setattr(announcer, "GRACE_S", 0.05)
    outer, _, _ = await started()
    outer.push_mark(ItemFinished("goodbye", 60.0), 0.0)
    await asyncio.wait_for(outer.say_goodbye(), 1)


async def test_nothing_is_said_without_words_or_without_a_caller() -> None:
    outer, brain, pacer = await started(b"")
    await outer.say_goodbye()
    assert brain.is_open and not pacer.speaking
    nobody = Announcer(ScriptedBrain(), opening=NOTHING, goodbye=Sentence("Goodbye.", WORDS))
    await asyncio.wait_for(nobody.say_goodbye(), 0.1)


# --- before, and in between --------------------------------------------------------------------------


async def test_the_opening_is_heard_whole_before_the_brain_begins() -> None:
    brain, pacer = ScriptedBrain(), Pacer()
    outer = Announcer(brain, opening=Sentence("This is recorded.", WORDS), goodbye=NOTHING)
    facts: list[Fact] = []
    starting = asyncio.create_task(outer.start(pacer, facts.append))
    await asyncio.sleep(0)
    outer.push_audio(frame(1), 0.0)
    assert not brain.is_open and brain.frames == []
    assert play(outer, pacer, 3) == [frame(3000)] * 3
    await asyncio.wait_for(starting, 1)
    assert brain.is_open
    assert facts == [
        BotSpeechStarted(0, 7.0),
        BotSaid(0, "This is recorded.", "This is recorded.", False, WORDS),
    ]


async def test_who_hangs_up_over_the_opening_never_meets_the_brain() -> None:
    brain = ScriptedBrain()
    outer = Announcer(brain, opening=Sentence("This is recorded.", WORDS), goodbye=NOTHING)
    starting = asyncio.create_task(outer.start(Pacer(), lambda fact: None))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await outer.close()
    assert not brain.is_open


async def test_a_remark_follows_what_is_being_said_and_the_bot_knows_of_it() -> None:
    outer, brain, pacer, facts = await reporting()
    pacer.play("answer", frame(100))
    pacer.finish("answer")
    assert outer.say(Sentence("Two minutes left.", WORDS))
    assert play(outer, pacer, 4) == [frame(100), *[frame(3000)] * 3]
    assert brain.said == ["Two minutes left."]
    assert facts == [
        BotSpeechStarted(0, 7.0),
        BotSaid(0, "Two minutes left.", "Two minutes left.", False, WORDS),
    ]
    assert [mark.item_id for mark in brain.marks] == ["answer", "answer"], "the rest is the brain's"


async def test_of_a_remark_that_is_spoken_over_what_was_heard_is_reported() -> None:
    outer, brain, pacer, facts = await reporting()
    outer.say(Sentence("one two", frame(3000) * 10))
    play(outer, pacer, 5)
    pacer.clear()
    brain.report(BargeIn(0, 1.0, 1.0))
    assert facts[1:] == [BotSaid(0, "one two", "one", True, frame(3000) * 5), BargeIn(0, 1.0, 1.0)]


async def test_no_remark_after_the_goodbye_or_before_the_call() -> None:
    outer, _, _ = await started()
    leaving = asyncio.create_task(outer.say_goodbye())
    await asyncio.sleep(0)
    assert not outer.say(Sentence("Too late.", WORDS))
    await outer.close()
    await leaving
    early = Announcer(ScriptedBrain(), opening=NOTHING, goodbye=NOTHING)
    assert not early.say(Sentence("Too early.", WORDS))
