"""Whole conversations through the pipeline: scripted engines, real turn-taking, the caller's time stepped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import fields, replace
from itertools import groupby

import pytest

from ari_app.audio.format import SILENT_FRAME, bytes_to_ms
from ari_app.audio.vad import make_vad
from ari_app.dialog.history import CALL_BEGINS
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.ports import (
    BargeIn,
    BotSaid,
    BotSpeechStarted,
    CallerNotUnderstood,
    CallerSaid,
    CallerSpeechStarted,
    EngineFailed,
    GaveUp,
    Message,
    PcmChunk,
    Speculated,
    TurnTimed,
)
from ari_app.errors import EngineRejected, EngineUnreachable
from tests.fakes.brain_ports import (
    TTS_RATE_HZ,
    Forever,
    ScriptedChat,
    ScriptedStt,
    ScriptedTts,
    Step,
    local_sentence,
)
from tests.fakes.phrases import phrasebook
from tests.fakes.pipeline_call import SETTINGS, Call, on_the_line, settle


async def test_a_conversation_of_three_turns_after_a_greeting() -> None:
    call = Call(
        ScriptedStt("I need a table.", "For two.", "Thanks a lot."),
        ScriptedChat(
            ["For how", " many people?"],
            ["Very well. ", "It is booked for ", "seven o'clock."],
            ["Good", "bye."],
        ),
        settings=PipelineSettings("Be brief.", greeting="Hello! This is the restaurant speaking."),
    )
    async with on_the_line(call):
        await call.until(lambda: call.all(BotSaid))
        for turn in (1, 2, 3):
            await call.say()
            await call.until(lambda turn=turn: call.all(BotSaid)[-1].turn == turn)  # type: ignore[misc]
    assert [(f.turn, f.text) for f in call.all(CallerSaid)] == [
        (1, "I need a table."),
        (2, "For two."),
        (3, "Thanks a lot."),
    ]
    said = call.all(BotSaid)
    assert [(f.turn, f.text) for f in said] == [
        (0, "Hello! This is the restaurant speaking."),
        (1, "For how many people?"),
        (2, "Very well. It is booked for seven o'clock."),
        (3, "Goodbye."),
    ]
    assert all(f.heard == f.text and not f.interrupted for f in said)
    assert call.tts.spoken[0] == "Hello!"
    assert [(m.role, m.content) for m in call.chat.asked[-1]] == [
        ("system", "Be brief."),
        ("user", CALL_BEGINS),
        ("assistant", "Hello! This is the restaurant speaking."),
        ("user", "I need a table."),
        ("assistant", "For how many people?"),
        ("user", "For two."),
        ("assistant", "Very well. It is booked for seven o'clock."),
        ("user", "Thanks a lot."),
    ]
    assert not call.all(BargeIn) and not call.all(EngineFailed)


async def test_facts_of_a_turn_come_in_order_with_all_stages_timed() -> None:
    call = Call(ScriptedStt("Hello there."), ScriptedChat(["Hi. How may I help you today?"]))
    async with on_the_line(call):
        await call.silence(500)
        await call.say()
        await call.until(lambda: call.all(BotSaid))
    assert call.kinds() == [
        *(CallerSpeechStarted, Speculated, CallerSaid, BotSpeechStarted, TurnTimed, BotSaid),
    ]
    (timed,) = call.all(TurnTimed)
    assert all(getattr(timed, f.name) is not None for f in fields(timed))
    assert 0.98 <= timed.endpoint_at - timed.speech_end_at <= 1.2
    (started,) = call.all(CallerSpeechStarted)
    assert started.onset_at == pytest.approx(100.52, abs=0.05)
    (said,) = call.all(CallerSaid)
    assert (said.onset_at, said.ended_at) == (started.onset_at, timed.speech_end_at), "not when it was known"
    assert 800 + 300 + 200 <= bytes_to_ms(len(said.pcm)) <= 800 + 300 + 400
    assert call.stt.heard == [said.pcm]
    (bot,) = call.all(BotSaid)
    assert bot.onset_at == timed.first_frame_at
    assert bytes_to_ms(len(bot.pcm)) == pytest.approx(len("Hi.How may I help you today?") * 50, abs=6)


async def test_segments_are_played_in_order_and_at_most_two_ahead() -> None:
    sentences = [f"This is the sentence number {n} of many." for n in "abcdef"]
    call = Call(ScriptedStt("Go on."), ScriptedChat([" ".join(sentences)]))
    async with on_the_line(call):
        await call.say()
        assert call.tts.spoken == sentences[:3]
        await call.until(lambda: call.all(BotSaid))
    assert call.tts.spoken == sentences
    order = [item for item in dict.fromkeys(call.playout.sent) if item]
    assert order == [f"t1.s{n}" for n in range(1, 7)]


async def test_barge_in_stops_the_bot_within_300_ms_and_keeps_what_was_heard() -> None:
    answer = "One two three four five. Six seven eight nine ten eleven. Twelve thirteen."
    call = Call(ScriptedStt("Count, please.", "Stop now."), ScriptedChat([answer], ["All right."]))
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: call.all(BotSpeechStarted))
        await call.silence(1800)
        onset = len(call.playout.sent)
        await call.speak(600)
        assert len([item for item in call.playout.sent[onset:] if item]) * 20 <= 300
        await call.silence(1200)
        said = call.all(BotSaid)[0]
        (barge_in,) = call.all(BargeIn)
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    played_ms = len([item for item in call.playout.sent if item and item.startswith("t1.")]) * 20
    assert said.interrupted and said.text == answer
    assert said.heard == "One two three four five. Six seven eight"[: len(said.heard)]
    assert abs(len(said.heard) * 50 - played_ms) < 8 * 50  # a word's length
    assert bytes_to_ms(len(said.pcm)) == pytest.approx(played_ms, abs=20)
    assert barge_in.at - barge_in.onset_at < 0.3
    assert [(m.role, m.content) for m in call.chat.asked[1]][1:] == [
        ("user", "Count, please."),
        ("assistant", f"{said.heard} —"),
        ("user", "Stop now."),
    ]
    # The words spoken over the bot are all there, from before their onset.
    assert bytes_to_ms(len(call.stt.heard[1])) >= 600 + 280


async def test_an_answer_stopped_by_noise_is_finished_after_all() -> None:
    answer = "One two three four five. Six seven eight nine ten eleven."
    call = Call(ScriptedStt("Count, please.", "..."), ScriptedChat([answer]))
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: call.all(BotSpeechStarted))
        await call.silence(400)
        await call.say(1100)
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    first, rest = call.all(BotSaid)
    assert (first.turn, first.heard, first.interrupted) == (1, "One two three", True)
    assert (rest.turn, rest.heard, rest.interrupted) == (
        2,
        "four five. Six seven eight nine ten eleven.",
        False,
    )


async def test_an_answer_stopped_by_noise_while_it_was_thought_of_is_asked_for_again() -> None:
    chat = ScriptedChat(["One two. Three ", Forever()], ["One two. Three four."])
    call = Call(ScriptedStt("Count, please.", "..."), chat)
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: call.all(BotSpeechStarted))
        await call.silence(800)
        await call.say(1100)
        await call.until(lambda: len(call.all(BotSaid)) == 2)
    first, again = call.all(BotSaid)
    assert (first.heard, first.interrupted) == ("One two.", True)
    assert (again.turn, again.heard, again.interrupted) == (2, "One two. Three four.", False)
    assert chat.asked[0] == chat.asked[1]


async def test_a_greeting_stopped_by_noise_before_its_first_word_is_spoken_after_all() -> None:
    call = Call(ScriptedStt("..."), settings=PipelineSettings(greeting="Welcome. How may I help you?"))
    async with on_the_line(call):
        await call.say(300)
        await call.until(lambda: call.all(BotSaid))
    assert [f.heard for f in call.all(BotSaid)] == ["Welcome. How may I help you?"]


async def test_a_click_does_not_stop_the_bot() -> None:
    call = Call(ScriptedStt("Hello there."), ScriptedChat(["This is quite a long answer to hear."]))
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: call.all(BotSpeechStarted))
        await call.speak(60)
        await call.until(lambda: call.all(BotSaid))
    (said,) = call.all(BotSaid)
    assert not said.interrupted and not call.all(BargeIn)


async def test_the_caller_goes_on_while_the_turn_is_transcribed() -> None:
    call = Call(ScriptedStt("I would like", "a table for two."), ScriptedChat(["Certainly."]))
    async with on_the_line(call):
        call.stt.gate.clear()
        await call.say()
        await call.speak()
        call.stt.gate.set()
        await call.silence(1200)
        await call.until(lambda: call.all(BotSaid))
    assert [(f.turn, f.text) for f in call.all(CallerSaid)] == [(1, "I would like"), (2, "a table for two.")]
    (asked,) = call.chat.asked
    assert asked[-1].content == "I would like a table for two."
    assert call.all(BotSaid)[0].turn == 2
    assert not call.all(BargeIn)


async def test_the_caller_goes_on_while_the_answer_is_thought_of() -> None:
    call = Call(ScriptedStt("I would like", "a table for two."), ScriptedChat([Forever()], ["Certainly."]))
    async with on_the_line(call):
        await call.say()
        assert call.chat.open == 1
        await call.speak()
        assert call.chat.open == 0
        await call.silence(1200)
        await call.until(lambda: call.all(BotSaid))
    assert [len(messages) for messages in call.chat.asked] == [2, 2]
    assert call.chat.asked[1][-1].content == "I would like a table for two."
    assert [f.turn for f in call.all(TurnTimed)] == [1, 2]
    assert call.all(TurnTimed)[0].first_token_at is None


async def test_transcripts_reach_the_history_in_spoken_order() -> None:
    slow, quick = asyncio.Event(), asyncio.Event()

    class TwoSpeeds(ScriptedStt):
        async def transcribe(self, pcm, rate_hz):  # type: ignore[no-untyped-def]
            first = not self.heard
            transcript = await super().transcribe(pcm, rate_hz)
            await (slow if first else quick).wait()
            return transcript

    call = Call(TwoSpeeds("First words,", "second words."), ScriptedChat(["Certainly."]))
    async with on_the_line(call):
        await call.say()
        quick.set()
        await call.say()
        assert not call.all(CallerSaid)
        slow.set()
        await call.until(lambda: call.all(BotSaid))
    assert call.chat.asked[0][-1].content == "First words, second words."


async def test_noise_that_stopped_an_answer_from_coming_does_not_leave_the_caller_without_it() -> None:
    call = Call(ScriptedStt("What time is it?", "..."), ScriptedChat([Forever()], ["It is noon."]))
    async with on_the_line(call):
        await call.say()
        await call.say(240)
        await call.until(lambda: call.all(BotSaid))
    assert [f.turn for f in call.all(CallerNotUnderstood)] == [2]
    assert call.chat.asked[0] == call.chat.asked[1]


async def test_a_caller_not_understood_twice_is_asked_to_repeat() -> None:
    call = Call(ScriptedStt("", "la la la la la la la"))
    async with on_the_line(call):
        await call.say(400)
        assert not any(call.playout.sent)
        await call.say(400)
        await call.silence(600)
    assert [(f.turn, f.reason) for f in call.all(CallerNotUnderstood)] == [
        (1, "no words"),
        (2, "repetition"),
    ]
    assert set(call.playout.sent) == {None, "t2.reprompt"}
    assert not call.all(EngineFailed)


BROKEN = EngineUnreachable("test", "the connection broke")


@pytest.mark.parametrize(
    ("call", "stage", "heard"),
    [
        (Call(ScriptedStt(BROKEN)), "test", None),
        (Call(ScriptedStt(Forever())), "speech-to-text", None),
        (Call(ScriptedStt("Hello there."), ScriptedChat([BROKEN])), "test", None),
        (Call(ScriptedStt("Hello there."), ScriptedChat([Forever()])), "chat", None),
        (Call(ScriptedStt("Hello there."), ScriptedChat([])), "chat", None),
        (Call(ScriptedStt("Hello there."), ScriptedChat(["👍"])), "chat", None),
        (
            Call(ScriptedStt("Hello there."), ScriptedChat(["This is fine. ", "But th", BROKEN])),
            "test",
            "This is fine.",
        ),
        (
            Call(ScriptedStt("Hello there."), ScriptedChat(["This is fine. ", "But th", Forever()])),
            "chat",
            "This is fine.",
        ),
        (
            Call(
                ScriptedStt("Hello there."),
                ScriptedChat(["This is fine. And this is not so."]),
                ScriptedTts({"And this is not so.": BROKEN}),
            ),
            "test",
            "This is fine. And",  # 480 ms, at the 65 ms per character assumed for an unknown length
        ),
        (
            Call(
                ScriptedStt("Hello there."),
                ScriptedChat(["This is fine. And this is not so."]),
                ScriptedTts({"This is fine.": Forever()}),
            ),
            "text-to-speech",
            "This",
        ),
        (Call(ScriptedStt(ValueError("a fault of ours"))), "conversation", None),
        (Call(ScriptedStt("Hello there."), ScriptedChat([ValueError("ours")])), "conversation", None),
    ],
)
async def test_when_an_engine_fails_the_caller_hears_a_local_sentence_and_may_go_on(
    call: Call, stage: str, heard: str | None
) -> None:
    settings = PipelineSettings(
        phrases=SETTINGS.phrases, stt_deadline_s=0.3, chat_deadline_s=0.3, tts_deadline_s=0.3
    )
    again = Call(call.stt, call.chat, call.tts, settings)  # parameters are shared between runs; a call is not
    async with on_the_line(again):
        await again.say()
        async with asyncio.timeout(10):
            while "t1.apology" not in again.playout.sent or again.playout.speaking:
                await again.frame(False)
                await asyncio.sleep(0.005)
        assert [f.stage for f in again.all(EngineFailed)] == [stage]
        assert again.playout.sent.count("t1.apology") == 20
        await settle()
        assert [f.heard for f in again.all(BotSaid)] == ([heard] if heard else [])
        again.stt.script.append("Hello again.")
        again.chat.script.append(["Welcome back."])
        await again.say()
        await again.until(lambda: again.all(BotSaid) and again.all(BotSaid)[-1].heard == "Welcome back.")
    assert not again.all(GaveUp)


async def test_a_failed_greeting_is_made_up_for() -> None:
    settings = PipelineSettings(greeting="Welcome.", phrases=SETTINGS.phrases)
    call = Call(tts=ScriptedTts({"Welcome.": BROKEN}), settings=settings)
    async with on_the_line(call):
        await call.until(lambda: "t0.apology" in call.playout.sent)
    assert [f.turn for f in call.all(EngineFailed)] == [0]


async def test_it_gives_up_after_failures_in_a_row_when_the_last_words_were_heard() -> None:
    call = Call(ScriptedStt(BROKEN, BROKEN, "Hello there.", BROKEN, BROKEN, BROKEN), ScriptedChat(["Hello."]))
    async with on_the_line(call):
        for _ in range(5):
            await call.say()
            await call.silence(600)
        assert not call.all(GaveUp)
        await call.say()
        sent = call.playout.sent
        await call.until(lambda: call.all(GaveUp))
        assert sent.count("t6.regret") == 20
        await call.say()  # nobody listens any more
    assert len(call.stt.heard) == 6


async def test_a_permanent_failure_gives_up_at_once_and_is_not_interrupted() -> None:
    refused = EngineRejected("speech-to-text", "the API key was refused", permanent=True)
    call = Call(ScriptedStt(refused))
    async with on_the_line(call):
        await call.say()
        await call.speak(300)
        await call.until(lambda: call.all(GaveUp))
    assert call.playout.sent.count("t1.regret") == 20
    assert "refused" in call.all(GaveUp)[0].reason


async def test_a_failure_while_the_caller_goes_on_is_left_to_the_next_turn() -> None:
    call = Call(ScriptedStt(BROKEN, "Hello there."), ScriptedChat(["Hello."]))
    async with on_the_line(call):
        call.stt.gate.clear()
        await call.say()
        await call.speak()
        call.stt.gate.set()
        await call.silence(1200)
        await call.until(lambda: call.all(BotSaid))
    assert [f.turn for f in call.all(EngineFailed)] == [1]
    assert "t1.apology" not in call.playout.sent


async def test_a_slow_engine_is_bridged_by_a_local_sentence() -> None:
    settings = PipelineSettings(phrases=phrasebook(hold=local_sentence(200)), hold_after_s=0.3)
    call = Call(ScriptedStt("Hello there."), ScriptedChat(["Hello."]), settings=settings)
    async with on_the_line(call):
        call.stt.gate.clear()
        await call.say()
        await asyncio.sleep(0.05)
        await call.silence(400)
        call.stt.gate.set()
        await call.until(lambda: call.all(BotSaid))
    assert [item for item in dict.fromkeys(call.playout.sent) if item] == ["t1.hold", "t1.s1"]


async def test_a_sentence_that_breaks_off_is_followed_by_a_word_in_time() -> None:
    tts = ScriptedTts({"Hello!": Forever()})
    call = Call(ScriptedStt("Hello there."), ScriptedChat(["Hello! How are you?"]), tts)
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: "t1.s1" in call.playout.sent)
        heard = len(call.playout.sent)
        await call.until(lambda: "t1.apology" in call.playout.sent[heard:])
        silent = call.playout.sent[heard:].count(None)
    assert 2400 <= silent * 20 <= 2700
    (failed,) = call.all(EngineFailed)
    assert (failed.stage, failed.kind) == ("text-to-speech", "timeout")


async def test_an_answer_that_drips_is_given_up() -> None:
    class Dripping(ScriptedTts):
        async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
            self.open += 1
            try:
                while True:
                    yield PcmChunk(b"\x00\x10" * 4, TTS_RATE_HZ)
                    await asyncio.sleep(0.02)  # of real time, in which many frames of the call pass
            finally:
                self.open -= 1

    settings = replace(SETTINGS, phrases=phrasebook(hold=local_sentence(200), apology=local_sentence(400)))
    call = Call(ScriptedStt("Hello there."), ScriptedChat(["Certainly."]), Dripping(), settings)
    async with on_the_line(call):
        await call.say()
        since = len(call.playout.sent)
        await call.until(lambda: "t1.apology" in call.playout.sent)
        silences = [len(list(run)) for item, run in groupby(call.playout.sent[since:]) if item is None]
        assert max(silences) * 20 <= 2600
    (failed,) = call.all(EngineFailed)
    assert (failed.stage, failed.kind) == ("text-to-speech", "timeout")


async def test_a_model_that_takes_long_between_two_sentences_is_waited_for() -> None:
    class Pausing(ScriptedChat):
        async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
            yield "Certainly, we are open. "
            await goes_on.wait()
            yield "Until five."

    goes_on = asyncio.Event()
    settings = replace(SETTINGS, phrases=phrasebook(hold=local_sentence(200)))
    call = Call(ScriptedStt("Hello there."), Pausing([]), settings=settings)
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: "t1.hold.2" in call.playout.sent)
        goes_on.set()
        await call.until(lambda: call.all(BotSaid))
    (said,) = call.all(BotSaid)
    assert (said.heard, said.interrupted) == ("Certainly, we are open. Until five.", False)
    assert [item for item in dict.fromkeys(call.playout.sent) if item] == [
        "t1.s1",
        "t1.hold",
        "t1.hold.2",
        "t1.s2",
    ]


async def test_who_speaks_again_while_asked_for_patience_is_not_put_off_for_ever() -> None:
    """Each time they give up one answer and begin another, of which nothing comes either."""
    settings = replace(
        SETTINGS, phrases=phrasebook(hold=local_sentence(200), regret=local_sentence(400)), hold_after_s=0.4
    )
    hanging = ScriptedChat(*([Forever()] for _ in range(6)))
    call = Call(ScriptedStt(*["Hello there."] * 6), hanging, settings=settings)
    async with on_the_line(call):
        for turn in range(1, 4):
            await call.say()
            await call.until(lambda turn=turn: f"t{turn}.hold" in call.playout.sent)  # type: ignore[misc]
            await call.silence(300)
        assert not call.all(GaveUp)
        await call.say()
        await call.until(lambda: call.all(GaveUp))
    assert "t4.hold" not in call.playout.sent
    assert call.playout.sent.count("t4.regret") == 20
    (failed,) = call.all(EngineFailed)
    assert (failed.stage, failed.kind) == ("chat", "timeout")


async def test_who_was_answered_has_patience_anew() -> None:
    settings = replace(SETTINGS, phrases=phrasebook(hold=local_sentence(200)), hold_after_s=0.4)
    script: list[list[Step]] = [[Forever()], [Forever()], ["Certainly."]]
    chat = ScriptedChat(*script * 2)
    call = Call(ScriptedStt(*["Hello there."] * 6), chat, settings=settings)
    async with on_the_line(call):
        for turn in range(1, 7):
            await call.say()
            item = f"t{turn}.hold" if turn % 3 else f"t{turn}.s1"
            await call.until(lambda item=item: item in call.playout.sent)  # type: ignore[misc]
            await call.silence(1000)
    assert not call.all(EngineFailed)


async def test_an_endless_answer_is_cut() -> None:
    call = Call(ScriptedStt("Tell me all."), ScriptedChat(["And so it went on for ever. "] * 1000))
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: call.chat.open == 0, 2000)  # the caller still listens
        await call.silence(1000)
        await call.speak(400)
    (said,) = call.all(BotSaid)
    assert len(said.text) < 4100


@pytest.mark.parametrize("stage", ["greeting", "speaking", "stt", "chat", "tts", "playing", "apology"])
async def test_hanging_up_at_any_stage_leaves_nothing(stage: str) -> None:
    greeting = "Hello! How are you?" if stage == "greeting" else None
    settings = PipelineSettings(greeting=greeting, phrases=SETTINGS.phrases)
    steps: dict[str, Step] = {"stt": Forever(), "apology": BROKEN}
    stt = ScriptedStt(steps.get(stage, "Hello there."))
    chat = ScriptedChat([Forever()] if stage == "chat" else ["Hello! How are you?"])
    tts = ScriptedTts({"Hello!": Forever(), "How are you?": Forever()} if stage == "tts" else None)
    call = Call(stt, chat, tts, settings)
    async with on_the_line(call):
        if stage == "greeting":
            await call.silence(400)
        elif stage == "speaking":
            await call.speak()
        else:
            await call.say()
            await call.silence(200)
    if stage in ("greeting", "playing"):
        (said,) = call.all(BotSaid)
        assert said.interrupted


async def test_audio_before_the_start_changes_nothing() -> None:
    call = Call()
    await call.say()
    await call.pipeline.close()
    assert not call.facts


async def test_closing_before_the_first_step_of_a_task() -> None:
    call = Call(settings=PipelineSettings(greeting="Hello!"))
    async with on_the_line(call):
        pass
    assert not call.facts


async def test_a_neural_detector_takes_noise_for_no_turn() -> None:
    """The caller of these tests is noise, which is speech to the other detector."""
    call = Call(settings=replace(SETTINGS, vad="neural"))
    later = make_vad("neural", -40.0)
    while later.threshold_dbfs == -40.0:  # they are loaded one after the other
        later.push(SILENT_FRAME, 0.0)
        await asyncio.sleep(0.01)
    async with on_the_line(call):
        await call.say()
    assert not call.facts
