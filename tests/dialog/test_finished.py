"""Words that end a turn early, and words after which the caller is waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ari_app.dialog.finished import is_finished
from ari_app.dialog.history import History
from ari_app.dialog.ports import BotSpeechStarted, CallerSaid
from tests.fakes.brain_ports import ScriptedChat, ScriptedStt
from tests.fakes.pipeline_call import SETTINGS, Call, on_the_line

FINISHED = """
What time do you open on Saturday?
How much does a basic service cost?
I want to cancel my order.
Yes, please.
No.
Two.
That is fine.
I need a new tyre for my bicycle.
My number is 030 1234567.
I come tomorrow at nine.
I don't know.
It is broken.
what time do you open
If I bring it today, when is it ready?
Yes, please do that.
Do you repair electric bicycles too?
¿A qué hora abren?
Ich brauche einen Termin.
"""
UNFINISHED = """
I would like to book.
I'd like to know if.
My order number is 4 5 6.
If I bring it today.
Can you tell me?
Can you please?
I have a bicycle and.
The tyre is from.
My name is
So the thing is,
It makes a strange...
Do you have
I was wondering whether
Um.
On Tuesday.
The brake on the left side.
Last year I bought.
Quiero una mesa para.
Ich hätte gern einen
"""


def lines(text: str) -> list[str]:
    return text.strip().split("\n")


@pytest.mark.parametrize("text", lines(FINISHED))
def test_finished(text: str) -> None:
    assert is_finished(text)


@pytest.mark.parametrize("text", [*lines(UNFINISHED), "", "..."])
def test_unfinished(text: str) -> None:
    assert not is_finished(text)


@pytest.mark.parametrize("text", ["On Tuesday.", "The blue one.", "At nine in the morning."])
def test_a_fragment_is_a_whole_answer(text: str) -> None:
    assert is_finished(text, after_question=True)
    assert not is_finished(text)


def test_history_knows_what_was_asked() -> None:
    history = History("")
    assert not history.asked
    history.add_assistant("When will you come?")
    history.add_user("On Tuesday.")
    assert history.asked
    history.add_assistant("See you.")
    assert not history.asked


QUICK = replace(SETTINGS, finished_silence_ms=400, speculate_after_ms=100)


async def silence_before_the_answer(call: Call) -> int:
    await call.speak()
    for frames in range(1, 100):
        await call.frame(False)
        if call.all(CallerSaid):
            return frames * 20
    raise AssertionError("no end of the turn")


async def test_a_finished_question_is_answered_sooner() -> None:
    call = Call(ScriptedStt("When do you open?"), ScriptedChat(["At ten."]), settings=QUICK)
    async with on_the_line(call):
        assert await silence_before_the_answer(call) == 400
        await call.until(lambda: call.all(BotSpeechStarted), limit_ms=40)


async def test_an_unfinished_one_is_waited_for() -> None:
    call = Call(ScriptedStt("I would like a"), ScriptedChat(["Yes?"]), settings=QUICK)
    async with on_the_line(call):
        assert await silence_before_the_answer(call) == 1000


async def test_what_is_finished_may_go_on_and_is_judged_anew() -> None:
    stt = ScriptedStt("When do you open?", "When do you open? And what does")
    call = Call(stt, ScriptedChat(["At ten."], ["Yes?"]), settings=QUICK)
    async with on_the_line(call):
        await call.speak()
        await call.silence(300)
        assert await silence_before_the_answer(call) == 1000
    assert [said.text for said in call.all(CallerSaid)] == ["When do you open? And what does"]


async def test_without_the_setting_every_turn_is_waited_for() -> None:
    settings = replace(QUICK, finished_silence_ms=0)
    call = Call(ScriptedStt("When do you open?"), ScriptedChat(["At ten."]), settings=settings)
    async with on_the_line(call):
        assert await silence_before_the_answer(call) == 1000
