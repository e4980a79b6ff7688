"""Engines that stand in for each other, over real HTTP where the server matters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from ari_app.dialog import engines as module
from ari_app.dialog.engines import AnyChat, AnySpeechToText, AnyTextToSpeech, Engines
from ari_app.dialog.ports import Message, PcmChunk, Transcript
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnavailable, EngineUnreachable
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageSettings
from tests.fakes.call_bench import nothing_leaks
from tests.fakes.openai_server import chat as deltas
from tests.fakes.openai_server import error, fake_openai

DEAD = EngineUnreachable("speech-to-text", "nobody answers")
KEY = EngineRejected("speech-to-text", "the key was refused", permanent=True, status=401)
DOWN = EngineRejected("speech-to-text", "the server failed", status=503)
HANGS = object()
Step = str | EngineError | object


class Ear:
    """Understands what its script says, one step per request; the last one for ever."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.asked = 0

    async def transcribe(self, pcm: bytes, rate_hz: int) -> Transcript:
        self.asked += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if step is HANGS:
            await asyncio.Event().wait()
        if isinstance(step, EngineError):
            raise step
        assert isinstance(step, str)
        return Transcript(step)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_S", 0.05)
    monkeypatch.setattr(module, "LATE_S", 0.05)


async def hear(ear: AnySpeechToText) -> str:
    return (await ear.transcribe(b"", 8000)).text


def breakers(ear: AnySpeechToText) -> list[bool]:
    return [engine.breaker.is_open for engine in ear.engines.all]


@pytest.mark.parametrize(
    "hiccup", [DEAD, DOWN, EngineRejected("speech-to-text", "", status=429, retry_after_s=0.01)]
)
async def test_a_moment_of_trouble_is_tried_again_at_once(hiccup: EngineError) -> None:
    primary, fallback = Ear(hiccup, "Hello."), Ear("no")
    assert await hear(AnySpeechToText(primary, fallback)) == "Hello."
    assert (primary.asked, fallback.asked) == (2, 0)


@pytest.mark.parametrize(
    "trouble",
    [
        KEY,
        EngineTimeout("speech-to-text", "no answer"),
        EngineError("speech-to-text", "nonsense"),
        EngineRejected("speech-to-text", "", status=429),
        EngineRejected("speech-to-text", "", status=429, retry_after_s=20),
        EngineRejected("speech-to-text", "", status=400),
        HANGS,
    ],
)
async def test_what_another_try_can_not_mend_goes_to_the_next_engine(trouble: Step) -> None:
    primary, fallback = Ear(trouble), Ear("Hello.")
    assert await hear(AnySpeechToText(primary, fallback)) == "Hello."
    assert (primary.asked, fallback.asked) == (1, 1)


async def test_the_hundredth_caller_does_not_ask_a_dead_server_the_hundredth_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    primary, fallback = Ear(HANGS), Ear("Hello.")
    ear = AnySpeechToText(primary, fallback)
    for _ in range(100):
        assert await hear(ear) == "Hello."
    assert primary.asked == 3 and fallback.asked == 100
    assert breakers(ear) == [True, False]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "the primary engine is out of service" in told[0]


async def test_without_a_fallback_the_caller_is_told_at_once_and_why() -> None:
    ear = AnySpeechToText(only := Ear(KEY))
    with pytest.raises(EngineRejected):
        await hear(ear)
    for _ in range(99):
        with pytest.raises(
            EngineUnavailable, match=r"primary engine failed 1 times in a row \(the key was refused\)"
        ):
            await hear(ear)
    assert only.asked == 1


async def test_both_down_is_the_last_ones_fault_until_nobody_is_asked() -> None:
    ear = AnySpeechToText(Ear(KEY), Ear(EngineRejected("speech-to-text", "no credit", permanent=True)))
    with pytest.raises(EngineRejected, match="no credit"):
        await hear(ear)
    with pytest.raises(EngineUnavailable, match="fallback engine"):
        await hear(ear)


async def test_an_engine_that_works_again_is_used_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("ari_app.dialog.breaker.FIRST_PAUSE_S", 0.05)
    primary, fallback = Ear(KEY, "Back."), Ear("Meanwhile.")
    ear = AnySpeechToText(primary, fallback)
    assert [await hear(ear), await hear(ear)] == ["Meanwhile.", "Meanwhile."]
    await asyncio.sleep(0.06)
    assert [await hear(ear), await hear(ear)] == ["Back.", "Back."]
    assert "the primary engine works again" in caplog.text


async def test_who_goes_away_early_says_nothing_of_the_engine_and_who_waited_long_does() -> None:
    ear = AnySpeechToText(Ear(HANGS))
    for wait_s, failures in ((0.01, 0), (0.08, 1)):
        task = asyncio.create_task(hear(ear))
        await asyncio.sleep(wait_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert ear.engines.all[0].breaker.failures == failures


async def test_regardless_asks_those_out_of_service_last() -> None:
    first, second = Ear(KEY), Ear(KEY)
    engines: Engines[Ear] = Engines("speech-to-text", first, second)
    for _ in range(2):
        with pytest.raises(EngineError):
            await engines.ask(lambda ear: ear.transcribe(b"", 8000))
    second.script = ["There."]
    answer, engine = await engines.ask(lambda ear: ear.transcribe(b"", 8000), regardless=True)
    assert answer.text == "There." and engine.name == "fallback"
    assert not engine.breaker.is_open


# --- streams -----------------------------------------------------------------------------------------


class Mouth:
    """A chat whose stream is scripted: texts, errors, HANGS."""

    def __init__(self, *script: Step) -> None:
        self.script = script
        self.open = self.asked = 0

    async def reply(self, messages: object) -> AsyncGenerator[str, None]:
        self.open += 1
        self.asked += 1
        try:
            for step in self.script:
                if step is HANGS:
                    await asyncio.Event().wait()
                if isinstance(step, EngineError):
                    raise step
                yield str(step)
        finally:
            self.open -= 1


async def collect(stream: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in stream]


@pytest.mark.parametrize("trouble", [DEAD, KEY, HANGS])
async def test_a_stream_that_does_not_begin_is_replaced_and_closed(trouble: Step) -> None:
    primary, fallback = Mouth(trouble), Mouth("All ", "well.")
    assert await collect(AnyChat(primary, fallback).reply([])) == ["All ", "well."]
    assert primary.open == fallback.open == 0


@pytest.mark.parametrize("trouble", [DEAD, HANGS])
async def test_a_stream_that_breaks_after_its_beginning_is_the_callers_to_hear_about(
    trouble: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALONE_S", 0.05)
    primary, fallback = Mouth("Well, ", trouble), Mouth("no")
    chat = AnyChat(primary, fallback)
    heard: list[str] = []
    with pytest.raises(EngineError):
        async for piece in chat.reply([]):
            heard.append(piece)
    assert heard == ["Well, "] and primary.open == 0
    assert chat.engines.all[0].breaker.failures == 1


async def test_an_empty_stream_is_no_answer() -> None:
    primary, fallback = Mouth(), Mouth("All well.")
    chat = AnyChat(primary, fallback)
    for _ in range(100):
        assert await collect(chat.reply([])) == ["All well."]
    assert (primary.asked, fallback.asked) == (3, 100)


async def test_what_has_no_sound_is_spoken_without_any() -> None:
    class Voice:
        async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
            for chunk in [PcmChunk(b"ab", 8000)] if text == "Yes." else []:
                yield chunk

    voice = AnyTextToSpeech(Voice())
    assert [chunk async for chunk in voice.speak("…")] == []
    assert [chunk.pcm async for chunk in voice.speak("Yes.")] == [b"ab"]
    with pytest.raises(EngineError, match="empty"):
        [chunk async for chunk in voice.speak("No.")]


async def test_the_hundredth_caller_does_not_hear_the_hundredth_answer_break_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each begins well."""
    caplog.set_level(logging.INFO)
    primary, fallback = Mouth("Well, ", DEAD), Mouth("All well.")
    chat = AnyChat(primary, fallback)
    for _ in range(100):
        with contextlib.suppress(EngineError):
            await collect(chat.reply([]))
    assert (primary.asked, fallback.asked) == (3, 97)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "the primary engine is out of service" in told[0]


async def test_a_stream_that_is_left_is_closed() -> None:
    mouth = Mouth("One ", "two ", HANGS)
    stream = AnyChat(mouth).reply([])
    assert await anext(stream) == "One "
    await stream.aclose()
    assert mouth.open == 0


# --- over HTTP ---------------------------------------------------------------------------------------


async def test_a_real_server_that_refuses_is_replaced_by_one_that_works() -> None:
    async with nothing_leaks(), fake_openai() as broken, fake_openai() as working:
        broken.chat = [error(429, code="insufficient_quota")]
        working.chat = [deltas("Hello.") for _ in range(3)]
        clients = [OpenAiChat(StageSettings(server.url, "any", "test-key")) for server in (broken, working)]
        chat = AnyChat(*clients)
        for _ in range(3):
            assert await collect(chat.reply([Message("user", "Hi.")])) == ["Hello."]
        for client in clients:
            await client.close()
        assert len(broken.requests) == 1 and len(working.requests) == 3


@pytest.mark.parametrize(
    ("header", "pause_s"), [("20", 20.0), ("2", 3.0), ("0.2", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)]
)
async def test_a_servers_wish_for_a_pause_is_granted(header: str, pause_s: float) -> None:
    async with fake_openai() as server:
        replies = [error(429, "no", "rate_limit_exceeded", **{"Retry-After": header}) for _ in range(2)]
        server.chat = list(replies)
        client = OpenAiChat(StageSettings(server.url, "any", "test-key"))
        chat = AnyChat(client)
        with pytest.raises(EngineRejected):
            await collect(chat.reply([]))
        await client.close()
        server.chat.clear()
    now = asyncio.get_running_loop().time()
    assert chat.engines.all[0].breaker.retry_in_s(now) == pytest.approx(pause_s, abs=0.5)
