"""Speech over the bot: it pauses at once, and goes on with the next sample unless it was an interruption."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ari_app.dialog.interruption import interrupts
from ari_app.dialog.ports import (
    BargeIn,
    BargeInDismissed,
    BotSaid,
    BotSpeechStarted,
    CallerNotUnderstood,
    CallerSaid,
    CallerSpeechStarted,
    EngineFailed,
)
from ari_app.errors import EngineUnreachable
from tests.fakes.brain_ports import SPOKEN_MS_PER_CHAR, ScriptedChat, ScriptedStt
from tests.fakes.pipeline_call import SETTINGS, Call, on_the_line

SENTENCES = ("We open at ten.", "On Sunday we are closed.", "Come and see us.")
ANSWER = " ".join(SENTENCES)


@pytest.mark.parametrize(
    ("words", "said", "meant"),
    [
        ("Mhm.", ANSWER, False),
        ("Yeah, okay.", ANSWER, False),
        ("I see.", ANSWER, False),
        ("Ah, uh-huh.", ANSWER, False),
        ("Vale.", ANSWER, False),
        ("Oh, I see.", ANSWER, False),
        ("MMO.", ANSWER, False),
        ("M H N", ANSWER, False),
        ("Home.", ANSWER, True),
        ("", ANSWER, False),
        ("...", ANSWER, False),
        ("Stop.", ANSWER, True),
        ("No.", ANSWER, True),
        ("Okay, stop.", ANSWER, True),
        ("Yeah, but when do you close?", ANSWER, True),
        ("Yes yes okay right", ANSWER, True),
        ("Yes.", "Shall I book it? We have a table at eight.", True),
        ("Mhm.", "Shall I book it?", True),
    ],
)
def test_what_interrupts(words: str, said: str, meant: bool) -> None:
    assert interrupts(words, said=said, min_words=1) is meant


def test_fewer_words_than_asked_for_do_not_interrupt() -> None:
    assert interrupts("Stop it", said=ANSWER, min_words=2)
    assert not interrupts("Stop", said=ANSWER, min_words=2)
    assert not interrupts("", said="Shall I book it?", min_words=0)


async def begin_answer(call: Call) -> None:
    await call.say()
    await call.until(lambda: call.all(BotSpeechStarted))
    await call.silence(400)


@pytest.mark.parametrize(("heard", "words"), [("Mhm.", "Mhm."), ("...", "")], ids=["listening", "noise"])
async def test_who_only_listens_hears_the_answer_go_on_where_it_was(heard: str, words: str) -> None:
    call = Call(ScriptedStt("When do you open?", heard, "Thanks."), ScriptedChat([ANSWER], ["Bye."]))
    async with on_the_line(call):
        await begin_answer(call)
        onset = len(call.playout.sent)
        await call.speak(300)
        assert 0 < len([item for item in call.playout.sent[onset:] if item]) <= 8, "it pauses within 160 ms"
        await call.until(lambda: call.all(BotSaid))
        await call.say()
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    said = call.all(BotSaid)[0]
    assert (said.heard, said.interrupted) == (ANSWER, False)
    lengths_ms = [len(sentence) * SPOKEN_MS_PER_CHAR for sentence in SENTENCES]
    frames = len([item for item in call.playout.sent if item and item.startswith("t1.")])
    assert frames == sum(math.ceil(length_ms / 20) for length_ms in lengths_ms), "each sample once"
    (dismissed,) = call.all(BargeInDismissed)
    assert dismissed.turn == 1 and dismissed.words == words
    assert 300 <= dismissed.paused_ms <= 700
    assert dismissed.onset_at == call.all(CallerSpeechStarted)[1].onset_at, "of the words, not of the verdict"
    assert not call.all(BargeIn) and not call.all(CallerNotUnderstood)
    assert [fact.text for fact in call.all(CallerSaid)] == ["When do you open?", "Thanks."]
    assert [m.content for m in call.chat.asked[1]][1:] == ["When do you open?", ANSWER, "Thanks."]


async def test_short_words_that_mean_something_are_an_interruption() -> None:
    call = Call(ScriptedStt("When do you open?", "Stop."), ScriptedChat([ANSWER], ["All right."]))
    async with on_the_line(call):
        await begin_answer(call)
        await call.speak(300)
        assert not call.all(BargeIn)
        await call.silence(300)
        assert call.all(BargeIn), "it need not wait for the end of the turn"
        assert not call.playout.speaking
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    assert call.all(BotSaid)[0].interrupted
    assert call.all(BotSaid)[1].heard == "All right."
    assert not call.all(BargeInDismissed)


async def test_speech_that_goes_on_is_an_interruption_before_it_is_understood() -> None:
    call = Call(
        ScriptedStt("When do you open?", "Wait, that is not what I asked."),
        ScriptedChat([ANSWER], ["Sorry."]),
    )
    async with on_the_line(call):
        await begin_answer(call)
        await call.speak(900)
        assert not call.all(BargeIn)
        await call.speak(200)
        (barge_in,) = call.all(BargeIn)
        assert len(call.stt.heard) == 1
        await call.silence(1200)
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    assert barge_in.at - barge_in.onset_at < 0.3, "when the bot fell silent"
    assert call.chat.asked[1][-1].content == "Wait, that is not what I asked."


async def test_a_listener_who_then_interrupts() -> None:
    call = Call(
        ScriptedStt("When do you open?", "Mhm.", "Mhm. Stop."), ScriptedChat([ANSWER], ["All right."])
    )
    async with on_the_line(call):
        await begin_answer(call)
        call.stt.gate.clear()
        await call.speak(300)
        await call.silence(300)
        assert len(call.stt.heard) == 2
        await call.speak(300)
        call.stt.gate.set()
        await call.silence(100)
        assert not call.all(BargeInDismissed), "the caller was not done"
        await call.silence(1200)
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    assert len(call.all(BargeIn)) == 1
    assert [fact.text for fact in call.all(CallerSaid)] == ["When do you open?", "Mhm. Stop."]


async def test_words_that_come_too_late_do_not_keep_the_caller_waiting() -> None:
    call = Call(ScriptedStt("When do you open?", "Mhm."), ScriptedChat([ANSWER], ["Yes?"]))
    async with on_the_line(call):
        await begin_answer(call)
        call.stt.gate.clear()
        await call.say(300)
        assert call.all(BargeIn), "the silence is complete"
        call.stt.gate.set()
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    assert call.all(BotSaid)[1].heard == "Yes?"


async def test_without_speculation_the_end_of_the_turn_decides() -> None:
    settings = replace(SETTINGS, speculate_after_ms=0)
    call = Call(ScriptedStt("When do you open?", "..."), ScriptedChat([ANSWER]), settings=settings)
    async with on_the_line(call):
        await begin_answer(call)
        await call.say(300)
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    first, rest = call.all(BotSaid)
    assert first.interrupted and f"{first.heard} {rest.heard}" == ANSWER


async def test_an_engine_that_fails_over_a_doubt_ends_it() -> None:
    fault = EngineUnreachable("speech-to-text", "nobody answers")
    call = Call(ScriptedStt("When do you open?", fault, "Hello?"), ScriptedChat([ANSWER], ["Yes?"]))
    async with on_the_line(call):
        await begin_answer(call)
        await call.say(300)
        assert call.all(BargeIn)
        assert call.all(EngineFailed)
        await call.until(lambda: not call.playout.speaking)
        await call.say()
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    assert "t2.apology" in call.playout.sent


@pytest.mark.parametrize("protected", [True, False])
async def test_a_greeting_may_be_protected(protected: bool) -> None:
    settings = replace(SETTINGS, greeting="This call is recorded.", protect_greeting=protected)
    call = Call(
        ScriptedStt("Stop.", "Stop."), ScriptedChat(["All right."], ["All right."]), settings=settings
    )
    async with on_the_line(call):
        await call.until(lambda: call.all(BotSpeechStarted))
        await call.silence(400)
        await call.say(400)
        await call.until(lambda: call.all(BotSaid))
        assert call.all(BotSaid)[0].interrupted is not protected
        assert bool(call.all(CallerSpeechStarted)) is not protected
        await call.until(lambda: not call.playout.speaking)
        await call.say(400)
        await call.until(lambda: "All right." in [fact.heard for fact in call.all(BotSaid)])
