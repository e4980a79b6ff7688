"""Answers begun in a pause: heard at once when the turn is over, without a trace when the caller goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ari_app.dialog.ports import (
    BotSaid,
    BotSpeechStarted,
    CallerNotUnderstood,
    CallerSaid,
    EngineFailed,
    Speculated,
    TurnTimed,
)
from ari_app.errors import EngineUnreachable
from tests.fakes.brain_ports import Forever, ScriptedChat, ScriptedStt, ScriptedTts
from tests.fakes.pipeline_call import SETTINGS, Call, on_the_line, settle

ANSWER = "We open at ten. On Sunday we are closed. Come and see us."


async def test_the_answer_is_ready_when_the_silence_is_complete() -> None:
    call = Call(ScriptedStt("When do you open?"), ScriptedChat([ANSWER]))
    async with on_the_line(call):
        await call.speak()
        await call.silence(700)
        assert call.stt.heard and call.chat.asked and call.tts.spoken == ["We open at ten."]
        assert not call.all(CallerSaid) and not any(call.playout.sent), "a guess must not be heard of"
        await call.until(lambda: call.all(BotSaid))
    (timed,) = call.all(TurnTimed)
    assert timed.first_frame_at is not None
    assert timed.first_frame_at - timed.endpoint_at <= 0.04
    assert [(fact.turn, fact.won, fact.requests) for fact in call.all(Speculated)] == [(1, True, 3)]
    (said,) = call.all(BotSaid)
    assert said.heard == ANSWER and not said.interrupted
    assert len(call.stt.heard) == len(call.chat.asked) == 1, "what was prepared is not asked for again"


async def test_a_caller_who_goes_on_leaves_no_trace_of_the_guess() -> None:
    call = Call(ScriptedStt("I would like", "I would like a table."), ScriptedChat(["What?"], ["For two?"]))
    async with on_the_line(call):
        await call.speak()
        await call.silence(600)
        assert call.tts.spoken == ["What?"]
        await call.speak()
        assert call.chat.open == call.tts.open == 0, "a request of the guess went on"
        await call.silence(1100)
        await call.until(lambda: call.all(BotSaid))
    assert [fact.won for fact in call.all(Speculated)] == [False, True]
    assert call.all(Speculated)[0].requests == 3
    assert [fact.text for fact in call.all(CallerSaid)] == ["I would like a table."]
    assert [fact.text for fact in call.all(BotSaid)] == ["For two?"]
    assert len(call.stt.heard[1]) > len(call.stt.heard[0]) + 16 * 1200
    assert [m.content for m in call.chat.asked[1] if m.role == "user"] == ["I would like a table."]
    assert not any(item and item.startswith("t1") and "What" in item for item in call.playout.sent)


async def test_slow_engines_go_on_from_where_the_guess_was() -> None:
    call = Call(ScriptedStt("Hello."), ScriptedChat(["Hi there."]))
    call.stt.gate.clear()
    async with on_the_line(call):
        await call.say()
        assert not call.chat.asked and not call.all(CallerSaid)
        call.stt.gate.set()
        await settle()
        assert [fact.text for fact in call.all(CallerSaid)] == ["Hello."]
        await call.until(lambda: call.all(BotSaid))
    assert len(call.stt.heard) == 1


async def test_a_guess_that_fails_is_told_only_when_the_turn_is_over() -> None:
    call = Call(ScriptedStt(EngineUnreachable("speech-to-text", "refused")), ScriptedChat())
    async with on_the_line(call):
        await call.speak()
        await call.silence(700)
        assert call.facts and not call.all(EngineFailed) and not call.playout.speaking
        await call.silence(500)
        assert [fact.turn for fact in call.all(EngineFailed)] == [1]


async def test_a_guess_that_fails_and_is_thrown_away_is_nobodys_business() -> None:
    call = Call(
        ScriptedStt(EngineUnreachable("speech-to-text", "refused"), "All of it."), ScriptedChat(["Fine."])
    )
    async with on_the_line(call):
        await call.speak()
        await call.silence(700)
        await call.speak()
        await call.silence(1100)
        await call.until(lambda: call.all(BotSaid))
    assert not call.all(EngineFailed)


async def test_a_failing_voice_in_a_guess_keeps_what_was_said_before_it() -> None:
    broken = EngineUnreachable("text-to-speech", "gone")
    call = Call(ScriptedStt("Hello."), ScriptedChat(["Hi there."]), ScriptedTts({"Hi there.": broken}))
    async with on_the_line(call):
        await call.speak()
        await call.silence(700)
        assert not call.all(EngineFailed)
        await call.until(lambda: call.all(BotSaid))
        await call.silence(200)
    sent = [item for item in dict.fromkeys(call.playout.sent) if item]
    assert sent == ["t1.s1", "t1.apology"]


async def test_noise_in_a_guess_is_noise_when_the_turn_is_over() -> None:
    call = Call(ScriptedStt(""), ScriptedChat())
    async with on_the_line(call):
        await call.speak()
        await call.silence(700)
        assert not call.all(CallerNotUnderstood)
        await call.silence(500)
    assert len(call.all(CallerNotUnderstood)) == 1
    assert not call.chat.asked


@pytest.mark.parametrize("after_ms", [0, 1000, 2000])
async def test_without_speculation_nothing_is_asked_before_the_silence_is_complete(after_ms: int) -> None:
    settings = replace(SETTINGS, speculate_after_ms=after_ms)
    call = Call(ScriptedStt("Hello."), ScriptedChat(["Hi."]), settings=settings)
    async with on_the_line(call):
        await call.speak()
        await call.silence(900)
        assert not call.stt.heard
        await call.until(lambda: call.all(BotSaid))
    assert not call.all(Speculated)


async def test_a_call_that_ends_in_a_guess_leaves_no_task() -> None:
    call = Call(ScriptedStt("Hello."), ScriptedChat([Forever()]))
    async with on_the_line(call):  # asserts on tasks and streams
        await call.speak()
        await call.silence(600)
        assert call.chat.open == 1


async def test_the_bot_speaks_over_nobody_after_a_guess_was_won() -> None:
    """The silence is complete while the voice is still on its way, and the caller begins again."""
    call = Call(ScriptedStt("One.", "Two."), ScriptedChat(["First answer."], ["Second answer."]))
    call.stt.gate.clear()
    async with on_the_line(call):
        await call.say()
        await call.speak(300)
        call.stt.gate.set()
        await call.speak(300)
        assert not call.all(BotSpeechStarted)
        await call.silence(1100)
        await call.until(lambda: call.all(BotSaid))
    assert [fact.text for fact in call.all(CallerSaid)] == ["One.", "Two."]
    assert [fact.text for fact in call.all(BotSaid)] == ["First answer."]
    assert [m.content for m in call.chat.asked[-1] if m.role == "user"] == ["One. Two."]
