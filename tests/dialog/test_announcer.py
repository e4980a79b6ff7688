"""Last words over any brain, with playout's marks given by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ari_app.dialog import announcer
from ari_app.dialog.announcer import Announcer, Script
from ari_app.dialog.idle import LONGEST_TURN_S, Limits
from ari_app.dialog.phrasebook import Phrasebook, Sentence
from ari_app.dialog.ports import (
    BargeIn,
    BotSaid,
    BotSpeechStarted,
    CallerSaid,
    CallerSpeechStarted,
    Concluded,
    Fact,
    ItemStarted,
    Playout,
)
from ari_app.dialog.turns import TurnSettings
from ari_app.openai_api.realtime_minutes import DEADLINE_S as TRANSCRIPT_DEADLINE_S
from ari_app.rtp.pacer import Pacer
from tests.fakes.call_bench import ScriptedBrain, frame
from tests.fakes.phrases import phrasebook

WORDS = frame(3000) * 3


def opened() -> Script:
    """Calls begin with an announcement."""
    phrases = Phrasebook({}, also=["This is recorded."])
    phrases.put("This is recorded.", WORDS)
    return Script(phrases, opening="This is recorded.")


async def started(pcm: bytes = WORDS) -> tuple[Announcer, ScriptedBrain, Pacer]:
    outer, brain, pacer, _ = await reporting(pcm)
    return outer, brain, pacer


async def reporting(pcm: bytes = WORDS) -> tuple[Announcer, ScriptedBrain, Pacer, list[Fact]]:
    brain, pacer = ScriptedBrain(), Pacer()
    outer = Announcer(brain, Script(phrasebook(goodbye=pcm) if pcm else Phrasebook({})))
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
    await asyncio.wait_for(outer.say_goodbye(), 1)


async def test_nothing_is_said_without_words_or_without_a_caller() -> None:
    outer, brain, pacer = await started(b"")
    await outer.say_goodbye()
    assert brain.is_open and not pacer.speaking
    nobody = Announcer(ScriptedBrain(), Script(phrasebook(goodbye=WORDS)))
    await asyncio.wait_for(nobody.say_goodbye(), 0.1)


async def test_the_last_words_are_part_of_the_record_as_far_as_they_were_heard() -> None:
    outer, _, pacer, facts = await reporting()
    leaving = asyncio.create_task(outer.say_goodbye())
    await asyncio.sleep(0)
    play(outer, pacer, 3)
    await asyncio.wait_for(leaving, 1)
    assert facts == [BotSpeechStarted(0, 7.0), BotSaid(0, "goodbye.", "goodbye.", False, WORDS, 7.0)]


# --- before, and in between --------------------------------------------------------------------------


async def test_the_opening_is_heard_whole_before_the_brain_begins() -> None:
    brain, pacer = ScriptedBrain(), Pacer()
    outer = Announcer(brain, opened())
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
        BotSaid(0, "This is recorded.", "This is recorded.", False, WORDS, 7.0),
    ]


async def test_who_hangs_up_over_the_opening_never_meets_the_brain() -> None:
    brain = ScriptedBrain()
    outer = Announcer(brain, opened())
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
    assert outer.waiting == 0 and outer.say(Sentence("Two minutes left.", WORDS)) and outer.waiting == 1
    assert play(outer, pacer, 4) == [frame(100), *[frame(3000)] * 3]
    assert brain.said == ["Two minutes left."]
    assert facts == [
        BotSpeechStarted(0, 7.0),
        BotSaid(0, "Two minutes left.", "Two minutes left.", False, WORDS, 7.0),
    ]
    assert [mark.item_id for mark in brain.marks] == ["answer", "answer"], "the rest is the brain's"


async def test_of_a_remark_that_is_spoken_over_what_was_heard_is_reported() -> None:
    outer, brain, pacer, facts = await reporting()
    outer.say(Sentence("one two", frame(3000) * 10))
    play(outer, pacer, 5)
    pacer.clear()
    brain.report(BargeIn(0, 1.0, 1.0))
    assert facts[1:] == [BotSaid(0, "one two", "one", True, frame(3000) * 5, 7.0), BargeIn(0, 1.0, 1.0)]


async def test_no_remark_after_the_goodbye_or_before_the_call() -> None:
    outer, _, _ = await started()
    leaving = asyncio.create_task(outer.say_goodbye())
    await asyncio.sleep(0)
    assert not outer.say(Sentence("Too late.", WORDS))
    await outer.close()
    await leaving
    early = Announcer(ScriptedBrain(), Script())
    assert not early.say(Sentence("Too early.", WORDS))


# --- silence, and the longest call -------------------------------------------------------------------


async def limited(limits: Limits) -> tuple[Announcer, ScriptedBrain, Pacer, list[Fact]]:
    brain, pacer = ScriptedBrain(), Pacer()
    phrases = phrasebook(**dict.fromkeys(("idle", "parting", "warning", "limit"), WORDS))
    outer = Announcer(brain, Script(phrases, limits=limits))
    facts: list[Fact] = []
    await outer.start(pacer, facts.append)
    return outer, brain, pacer, facts


async def pass_time(outer: Announcer, pacer: Pacer, seconds: float) -> None:
    for _ in range(round(seconds * 50)):
        outer.push_audio(frame(0), 0.0)
        play(outer, pacer, 1)
        await asyncio.sleep(0)


def said(facts: list[Fact]) -> list[str]:
    return [fact.heard for fact in facts if isinstance(fact, BotSaid)]


async def test_who_says_nothing_is_asked_and_then_parted_with() -> None:
    outer, brain, pacer, facts = await limited(Limits(idle_s=10))
    await pass_time(outer, pacer, 9.9)
    assert facts == []
    await pass_time(outer, pacer, 0.3)
    assert said(facts) == ["idle."] and brain.said == ["idle."]
    await pass_time(outer, pacer, 4.7)
    assert said(facts) == ["idle."]
    await pass_time(outer, pacer, 0.5)
    assert said(facts) == ["idle.", "parting."] and not brain.is_open
    assert facts[-1] == Concluded("nobody spoke for a long time")


async def test_who_answers_the_question_is_there() -> None:
    outer, brain, pacer, facts = await limited(Limits(idle_s=10))
    await pass_time(outer, pacer, 11)
    brain.report(CallerSpeechStarted(0.0, 0.0))
    await pass_time(outer, pacer, 20)
    brain.report(CallerSaid(1, "Yes.", None, b""))
    await pass_time(outer, pacer, 9.5)
    assert said(facts) == ["idle."]
    await pass_time(outer, pacer, 1)
    assert said(facts) == ["idle.", "idle."], "the question is asked anew, and nobody is hung up on at once"


async def test_a_sound_that_never_becomes_a_turn_keeps_no_empty_line_open() -> None:
    """Nothing is reported of a cough between two sessions, or of one that the server did not hear."""
    outer, brain, pacer, facts = await limited(Limits(idle_s=10))
    await pass_time(outer, pacer, 5)
    for _ in range(2):  # the second does not prolong the belief in the first
        brain.report(CallerSpeechStarted(0.0, 0.0))
        await pass_time(outer, pacer, LONGEST_TURN_S / 2)
    await pass_time(outer, pacer, 4.9)
    assert said(facts) == []
    await pass_time(outer, pacer, 0.3)
    assert said(facts) == ["idle."]
    await pass_time(outer, pacer, 5.3)
    assert isinstance(facts[-1], Concluded)


async def test_who_talks_on_and_on_is_there() -> None:
    outer, brain, pacer, facts = await limited(Limits(idle_s=10))
    for turn in range(1, 4):
        brain.report(CallerSpeechStarted(0.0, 0.0))
        await pass_time(outer, pacer, TurnSettings().max_turn_ms / 1000 + TRANSCRIPT_DEADLINE_S)
        brain.report(CallerSaid(turn, "And so on.", None, b""))
    assert said(facts) == []


async def test_a_bot_that_speaks_up_by_itself_does_not_keep_an_empty_line_open() -> None:
    outer, _, pacer, facts = await limited(Limits(idle_s=10))
    for _ in range(30):
        await pass_time(outer, pacer, 1)
        pacer.play("tip", WORDS)
        pacer.finish("tip")
    assert isinstance(facts[-1], Concluded)


async def test_the_longest_call_ends_with_a_warning_and_a_farewell_in_its_time() -> None:
    outer, _, pacer, facts = await limited(Limits(max_call_s=60))
    await pass_time(outer, pacer, 29.9)
    assert said(facts) == []
    await pass_time(outer, pacer, 1)
    assert said(facts) == ["warning."]
    await pass_time(outer, pacer, 28.9)
    assert said(facts) == ["warning."]
    await pass_time(outer, pacer, 0.3)
    assert said(facts) == ["warning.", "limit."]
    assert facts[-1] == Concluded("the longest time for a call is over (MAX_CALL_SECONDS)")


async def test_what_goes_before_the_conversation_is_part_of_the_longest_call() -> None:
    """The call's hard end does not wait for it either, and would cut the farewell off."""

    class Slow(ScriptedBrain):
        async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
            await asyncio.sleep(0.2)
            await super().start(playout, report)

    outer = Announcer(Slow(), Script(phrasebook(warning=WORDS, limit=WORDS), limits=Limits(max_call_s=60)))
    facts: list[Fact] = []
    pacer = Pacer()
    await outer.start(pacer, facts.append)
    await pass_time(outer, pacer, 29.9)
    assert said(facts) == ["warning."]


async def test_a_short_limit_comes_without_warning_and_who_leaves_over_the_farewell_is_let_go() -> None:
    outer, brain, pacer, facts = await limited(Limits(max_call_s=20))
    for _ in range(50 * 20):
        outer.push_audio(frame(0), 0.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not brain.is_open and facts == []
    play(outer, pacer, 1)
    await asyncio.wait_for(outer.close(), 1)
    assert [type(fact) for fact in facts] == [BotSpeechStarted, BotSaid], "nothing is concluded any more"


async def test_a_brain_that_does_not_close_keeps_no_line_open() -> None:
    outer, brain, pacer, facts = await limited(Limits(idle_s=2))
    brain.faults["close"] = ValueError("ours")
    await pass_time(outer, pacer, 4)
    assert isinstance(facts[-1], Concluded)
    brain.faults.clear()


async def test_who_speaks_spanish_is_parted_with_in_spanish() -> None:
    brain, pacer = ScriptedBrain(), Pacer()
    phrases = Phrasebook({"en": {"goodbye": "Goodbye."}, "es": {"goodbye": "Adiós."}})
    phrases.put("Goodbye.", WORDS)
    phrases.put("Adiós.", frame(100))
    outer = Announcer(brain, Script(phrases))
    await outer.start(pacer, lambda fact: None)
    brain.report(CallerSaid(1, "Hola.", "es", b""))
    leaving = asyncio.create_task(outer.say_goodbye())
    await asyncio.sleep(0)
    assert pacer.next_frame() == frame(100)
    await outer.close()
    await leaving
