"""The Realtime brain against a strict server: conversations, and every way in which a connection can go wrong.

The caller's time passes four times as fast as the clock: a frame every 5 ms.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Literal, TypeVar

import pytest

from ari_app.audio.format import SILENT_FRAME
from ari_app.dialog.ports import (
    BargeIn,
    BotSaid,
    BotSpeechStarted,
    CallerSaid,
    CallerSpeechStarted,
    EngineFailed,
    EngineUsed,
    Fact,
    GaveUp,
)
from ari_app.errors import EngineError
from ari_app.openai_api.realtime import RealtimeBrain
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import RealtimeSettings
from ari_app.openai_api.realtime_servers import RealtimeServers
from ari_app.openai_api.realtime_session import RealtimeClient
from tests.fakes.brain_ports import SteppedPlayout, local_sentence
from tests.fakes.phrases import phrasebook
from tests.fakes.realtime_script import TEN_SECONDS_AT_ONCE
from tests.fakes.realtime_server import Answer, FakeRealtime, Fault, FunctionCall, running

F = TypeVar("F", bound=Fact)

KEY = "test-key"
FRAME_S = 0.005
SETTINGS = RealtimeSettings(
    "some-model", "marin", "Be brief.", silence_duration_ms=400, transcription_model="gpt-transcribe"
)
MANNERS = Manners(
    greeting="Hello.",
    phrases=phrasebook(apology=local_sentence(300), regret=local_sentence(300), hold=local_sentence(200)),
    hold_after_s=0.6,
    answer_deadline_s=1.5,
)


def named(value: object) -> str | None:
    """A fault by what is wrong about it."""
    if not isinstance(value, Fault):
        return None
    plain = Fault()
    return ",".join(
        f"{f.name}={getattr(value, f.name)}"
        for f in fields(value)
        if getattr(value, f.name) != getattr(plain, f.name)
    )


class Phone:
    """The caller's side of one call, and the facts of the brain."""

    def __init__(self, brain: RealtimeBrain) -> None:
        self.brain = brain
        self.playout = SteppedPlayout()
        self.facts: list[Fact] = []
        self._loud_frames = 0
        self._noise = random.Random(3)

    async def talk(self) -> None:
        """The 20 ms clock, in both directions."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            frame = SILENT_FRAME
            if self._loud_frames:
                self._loud_frames -= 1
                frame = struct.pack("<160h", *(self._noise.randint(-9000, 9000) for _ in range(160)))
            self.brain.push_audio(frame, loop.time())
            for mark in self.playout.step():
                self.brain.push_mark(mark, loop.time())
            next_at += FRAME_S
            await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def say(self, ms: int = 600) -> None:
        self._loud_frames = ms // 20
        await self.until(lambda: not self._loud_frames)

    async def until(self, done: Callable[[], object], timeout_s: float = 15) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    await asyncio.sleep(FRAME_S)
        except TimeoutError:
            raise AssertionError(f"did not come: {self.facts}") from None

    async def answered(self, count: int) -> None:
        await self.until(lambda: len(self.all(BotSaid)) >= count)

    def all(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def heard(self) -> set[str]:
        """The items of which the caller heard something."""
        return {item for item in self.playout.sent if item}


@asynccontextmanager
async def on_the_line(
    fake: FakeRealtime, settings: RealtimeSettings = SETTINGS, manners: Manners = MANNERS, key: str = KEY
) -> AsyncIterator[Phone]:
    before = asyncio.all_tasks()
    async with RealtimeClient(fake.url, key, settings) as client:
        brain = RealtimeBrain(RealtimeServers(client), manners)
        phone = Phone(brain)
        brain.prepare()
        await brain.start(phone.playout, phone.facts.append)
        clock = asyncio.create_task(phone.talk())
        try:
            yield phone
        finally:
            clock.cancel()
            await asyncio.gather(clock, return_exceptions=True)
            await brain.close()
            await brain.close()
    await asyncio.sleep(0.05)  # the fake sees the end of its connections
    assert {task for task in asyncio.all_tasks() - before if "realtime" in task.get_name()} == set()


@pytest.fixture
async def fake() -> AsyncIterator[FakeRealtime]:
    async with running(KEY) as server:
        yield server
    assert server.faults == []


@pytest.mark.parametrize("audio", ["pcm", "pcmu"])
async def test_a_conversation(fake: FakeRealtime, audio: Literal["pcm", "pcmu"]) -> None:
    fake.answers = [Answer("Hello."), Answer("For how many?"), Answer("Done.", delta_bytes=(999, 1501))]
    fake.transcripts = ["A table, please.", "For two."]
    fake.unknown_every = 7
    async with on_the_line(fake, replace(SETTINGS, audio_format=audio)) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.answered(2)
        await phone.say()
        await phone.answered(3)
    words = [(f.turn, f.text) for f in phone.facts if isinstance(f, CallerSaid | BotSaid)]
    assert words == [
        (0, "Hello."),
        (1, "A table, please."),
        (1, "For how many?"),
        (2, "For two."),
        (2, "Done."),
    ]
    (connection,) = fake.connections
    session = connection.session
    assert session["audio"]["input"]["format"]["type"] == f"audio/{audio}"
    assert [f.stage for f in phone.all(EngineUsed)].count("realtime") == 3
    assert not phone.all(EngineFailed)
    assert fake.errors == []


async def test_the_session_is_opened_while_the_phone_rings(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello.")]
    async with RealtimeClient(fake.url, KEY, SETTINGS) as client:
        brain = RealtimeBrain(RealtimeServers(client), MANNERS)
        brain.prepare()
        await fake.until(lambda: fake.sent("session.updated"))
        await asyncio.sleep(0.1)
        assert not fake.received("response.create"), "nobody listens yet"
        phone = Phone(brain)
        await brain.start(phone.playout, phone.facts.append)
        await fake.until(lambda: fake.received("response.create"))
        await brain.close()


async def test_a_call_that_is_never_answered_leaves_nothing(fake: FakeRealtime) -> None:
    async with RealtimeClient(fake.url, KEY, SETTINGS) as client:
        for wait_s in (0, 0.002, 0.1):
            brain = RealtimeBrain(RealtimeServers(client), MANNERS)
            brain.prepare()
            await asyncio.sleep(wait_s)
            await brain.close()
    assert not fake.received("response.create")


async def test_an_interruption_is_truncated_at_what_was_heard(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("A very long answer.", audio_ms=6000), Answer("Yes?")]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.until(lambda: len(phone.all(BotSpeechStarted)) == 2)
        await asyncio.sleep(0.3)
        await phone.say()
        await phone.answered(3)
    (cut,) = fake.received("conversation.item.truncate")
    item = cut.event["item_id"]
    heard_ms = 20 * phone.playout.sent.count(item)
    assert 1000 < heard_ms < 3000
    assert abs(cut.event["audio_end_ms"] - heard_ms) <= 20
    assert len(phone.all(BargeIn)) == 1 and phone.all(BotSaid)[1].interrupted
    assert fake.errors == []


async def test_with_local_barge_in_the_response_is_cancelled_by_us(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("A long answer.", audio_ms=6000, speed=6), Answer("Yes?")]
    async with on_the_line(fake, replace(SETTINGS, barge_in="local")) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.until(lambda: len(phone.all(BotSpeechStarted)) == 2)
        await asyncio.sleep(0.2)
        await phone.say()
        await phone.answered(3)
    assert [e.kind for e in fake.received() if e.kind.startswith(("response", "conversation"))] == [
        "response.create",
        "response.create",
        "response.cancel",
        "conversation.item.truncate",
        "response.create",
    ]
    assert fake.errors == []


async def test_function_calls_are_answered_and_the_conversation_goes_on(fake: FakeRealtime) -> None:
    fake.answers = [
        Answer("Hello."),
        Answer(
            "", function_calls=[FunctionCall("transfer", '{"to": "sales"}'), FunctionCall("hang_up", "{")]
        ),
        Answer("I can't do that."),
    ]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.answered(2)
    assert phone.all(BotSaid)[1].text == "I can't do that."
    assert len(fake.received("conversation.item.create")) == 2
    assert fake.errors == []


async def test_a_race_for_the_slot_leaves_one_answer(fake: FakeRealtime) -> None:
    fake.answers = [Answer("I was first.")]
    fake.misbehave = [Fault(race=True)]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await asyncio.sleep(0.2)
    assert [f.text for f in phone.all(BotSaid)] == ["I was first."]
    assert fake.errors == ["conversation_already_has_active_response"]


async def test_ten_seconds_of_speech_in_a_burst_are_played_whole(fake: FakeRealtime) -> None:
    fake.answers = [TEN_SECONDS_AT_ONCE]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
    assert sum(item is not None for item in phone.playout.sent) * 20 == pytest.approx(10_000, abs=20)


async def test_garbage_costs_nothing(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("Yes.")]
    fake.misbehave = [Fault(garbage=True, after_events=5)]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.answered(2)
    assert not phone.all(EngineFailed) and len(fake.connections) == 1


async def test_a_server_that_quotes_the_key_gives_nothing_away(
    fake: FakeRealtime, caplog: pytest.LogCaptureFixture
) -> None:
    fake.answers = [Answer("Hello.")]
    fake.misbehave = [Fault(error_code="odd", error_message=f"Incorrect key {KEY}", after_events=5)]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await fake.until(lambda: fake.errors)
    assert "Incorrect key ***" in caplog.text and KEY not in caplog.text


# --- connections that go wrong


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429),
        Fault(close_code=1011),
        Fault(close_code=1011, after_events=2),
        Fault(reset=True),
        Fault(error_code="server_error"),
    ],
    ids=named,
)
async def test_a_bad_start_is_tried_again_and_the_caller_does_not_notice(
    fake: FakeRealtime, fault: Fault
) -> None:
    fake.answers = [Answer("Hello.")]
    fake.misbehave = [fault, fault]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
    assert [f.text for f in phone.all(BotSaid)] == ["Hello."]
    assert not phone.all(EngineFailed)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401), "the API key was refused"),
        (Fault(status=403), "may not use model 'some-model'"),
        (Fault(status=404), "no model 'some-model'"),
        (Fault(output_format="audio/pcmu"), "output audio is audio/pcmu"),
        (Fault(close_code=4000), "code 4000"),
        (Fault(error_code="insufficient_quota"), "insufficient_quota"),
        (Fault(error_code="insufficient_quota", after_events=6), "insufficient_quota"),
    ],
    ids=named,
)
async def test_what_can_not_be_mended_is_said_once_and_given_up(
    fake: FakeRealtime, fault: Fault, words: str
) -> None:
    fake.answers = [Answer("Hello.", audio_ms=8000)]
    fake.misbehave = [fault] * 9
    async with on_the_line(fake) as phone:
        await phone.until(lambda: phone.all(GaveUp))
        await asyncio.sleep(0.3)
    assert words in phone.all(GaveUp)[0].reason and words in phone.all(EngineFailed)[0].message
    assert "local.farewell" in phone.heard()
    assert len(fake.connections) + len(fake.refused) == 1, "trying again is no use"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(close_code=1011, after_audio_ms=800),
        Fault(close_code=1001, after_audio_ms=800),
        Fault(reset=True, after_audio_ms=800),
        Fault(expires_s=0.4),
    ],
    ids=named,
)
async def test_an_answer_that_is_cut_off_goes_on_in_the_next_session(
    fake: FakeRealtime, fault: Fault
) -> None:
    fake.answers = [
        Answer("Hello."),
        Answer("One two three four five six.", audio_ms=4000, speed=4),
        Answer("four five six."),
    ]
    hello = (
        replace(fault, after_audio_ms=360 + 800) if fault.after_audio_ms else replace(fault, expires_s=1.2)
    )
    fake.misbehave = [hello]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.answered(3)
    cut, rest = phone.all(BotSaid)[1:]
    assert cut.interrupted and cut.heard and rest.text == "four five six."
    history = [e.event["item"] for e in fake.received("conversation.item.create")]
    assert history[-1]["role"] == "assistant"
    assert history[-1]["content"][0]["text"] == f"{cut.heard} —"
    assert "Go on" in fake.received("response.create")[-1].event["response"]["instructions"]
    assert not phone.all(EngineFailed)


async def test_a_turn_that_was_not_answered_is_answered_by_the_next_session(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("", hang=True), Answer("Noon.")]
    fake.transcript_delay_s = 30
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await phone.say()
        await fake.until(lambda: len(fake.sent("response.created")) == 2)
        await fake.connections[0].close(1011)
        await phone.answered(2)
    assert phone.all(BotSaid)[1].text == "Noon."
    (item,) = [
        e.event["item"]
        for e in fake.received("conversation.item.create")
        if e.event["item"]["content"][0]["type"] == "input_audio"
    ]
    assert item["role"] == "user"
    assert not phone.all(EngineFailed)


async def test_while_there_is_no_session_the_caller_is_asked_to_hold_and_then_answered(
    fake: FakeRealtime,
) -> None:
    fake.answers = [Answer("Hello."), Answer("", hang=True), Answer("Noon.")]
    fake.misbehave = [None, *[Fault(status=503)] * 3]
    async with on_the_line(fake, manners=replace(MANNERS, hold_after_s=0.2)) as phone:
        await phone.answered(1)
        await phone.say()
        await fake.until(lambda: len(fake.sent("response.created")) == 2)
        fake.connections[0].abort()
        await phone.answered(2)
    assert any(item.startswith("local.hold") for item in phone.heard())
    assert phone.all(BotSaid)[1].text == "Noon." and not phone.all(GaveUp)


@pytest.mark.parametrize(
    "fault", [Fault(silent=True, after_events=4), Fault(half_open=True, after_events=4)], ids=named
)
async def test_a_server_that_falls_silent_is_left_for_another_connection(
    fake: FakeRealtime, fault: Fault
) -> None:
    fake.answers = [Answer("Hello."), Answer("I am back.")]
    fake.misbehave = [fault]
    async with on_the_line(fake) as phone:
        await phone.until(lambda: phone.all(EngineFailed))
        await phone.until(lambda: len(fake.connections) == 2)
        await phone.until(lambda: any(item.startswith("local.apology") for item in phone.heard()))
        fake.answers = [Answer("I am back.")]
        await phone.say()
        await phone.until(lambda: [f for f in phone.all(BotSaid) if f.text == "I am back."])
    assert not phone.all(GaveUp)


@pytest.mark.parametrize(
    "fault", [Fault(update_delay_s=0.5), Fault(no_handshake=True), Fault(never_updated=True)], ids=named
)
async def test_a_slow_start_is_bridged(fake: FakeRealtime, fault: Fault) -> None:
    fake.answers = [Answer("Hello.")]
    fake.misbehave = [fault]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
    assert not phone.all(EngineFailed)


async def test_sessions_that_break_at_once_are_not_opened_for_ever(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(close_code=1011, after_events=3)] * 50
    fake.routine = lambda wish: Answer("Hello.")
    async with on_the_line(fake) as phone:
        await phone.until(lambda: phone.all(GaveUp))
    assert len(fake.connections) <= 5
    assert "local.farewell" in phone.heard()


async def test_a_protected_greeting_is_heard_whole(fake: FakeRealtime) -> None:
    fake.answers = [Answer("This call is recorded, so please be polite."), Answer("Yes.")]
    async with on_the_line(fake, manners=replace(MANNERS, protect_greeting=True)) as phone:
        await phone.until(lambda: phone.all(BotSpeechStarted))
        await phone.say()
        await phone.answered(1)
        assert not phone.all(CallerSpeechStarted)
        await phone.say()
        await phone.answered(2)
    assert [said.interrupted for said in phone.all(BotSaid)] == [False, False]


async def test_a_session_near_its_end_is_changed_in_a_quiet_moment(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("Yes."), Answer("Still here.")]
    fake.transcripts = ["Are you there?", "And now?"]
    fake.misbehave = [Fault(expires_s=7.0)]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.answered(2)
        # Not when it is only connected: the caller who speaks then is still the old session's.
        await phone.until(lambda: len(fake.received("conversation.item.create")) >= 4)
        await phone.say()
        await phone.answered(3)
    assert phone.all(BotSaid)[2].text == "Still here."
    assert not fake.sent("error"), "the old session did not live to its end"
    texts = [e.event["item"]["content"][0]["text"] for e in fake.received("conversation.item.create")]
    assert texts[1:] == ["Hello.", "Are you there?", "Yes."]
    assert not phone.all(EngineFailed)


async def test_a_wrong_clock_does_not_open_sessions_without_end(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello.")]
    fake.misbehave = [Fault(clock_ahead_s=3900)]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        await asyncio.sleep(0.5)
    assert len(fake.connections) == 1


async def test_a_call_that_is_answered_while_nobody_is_there_is_bridged(unused_tcp_port: int) -> None:
    async with RealtimeClient(f"http://127.0.0.1:{unused_tcp_port}/v1", KEY, SETTINGS) as client:
        phone = Phone(RealtimeBrain(RealtimeServers(client), MANNERS))
        await phone.brain.start(phone.playout, phone.facts.append)
        clock = asyncio.create_task(phone.talk())
        await phone.until(lambda: any(item.startswith("local.hold") for item in phone.heard()))
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
        await phone.brain.close()


async def test_an_event_that_can_not_be_handled_costs_nothing_else(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("Yes.")]
    async with on_the_line(fake) as phone:
        await phone.answered(1)
        for frame in ("[" * 100_000, '{"type":"response.output_audio.delta","content_index":1e999}'):
            await fake.connections[0].write(frame)
        await phone.say()
        await phone.answered(2)
    assert not phone.all(EngineFailed) and len(fake.connections) == 1


async def test_an_answer_that_breaks_off_is_given_up_though_the_session_lives(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer("Certainly, we are open.", speed=0.002), Answer("Until five.")]
    fake.transcripts = ["Are you open?", "Are you there?"]
    async with on_the_line(fake, manners=replace(MANNERS, answer_deadline_s=60.0)) as phone:
        await phone.answered(1)
        await phone.say()
        await phone.until(lambda: any(item.startswith("local.apology") for item in phone.heard()))
        (failed,) = phone.all(EngineFailed)
        assert failed.kind == "timeout"
        await phone.say()
        await phone.until(lambda: phone.all(BotSaid)[-1].text == "Until five.")
    assert len(fake.connections) == 2


async def test_nobody_there(fake: FakeRealtime, unused_tcp_port: int) -> None:
    async with RealtimeClient(f"http://127.0.0.1:{unused_tcp_port}/v1", KEY, SETTINGS) as client:
        brain = RealtimeBrain(RealtimeServers(client), MANNERS)
        phone = Phone(brain)
        await brain.start(phone.playout, phone.facts.append)
        await asyncio.sleep(0.3)
        assert not phone.all(GaveUp), "it may come back in a moment"
        await brain.close()


# --- two servers -------------------------------------------------------------------------------------


@asynccontextmanager
async def on_a_line_with(servers: RealtimeServers) -> AsyncIterator[Phone]:
    phone = Phone(RealtimeBrain(servers, MANNERS))
    phone.brain.prepare()
    await phone.brain.start(phone.playout, phone.facts.append)
    clock = asyncio.create_task(phone.talk())
    try:
        yield phone
    finally:
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
        await phone.brain.close()


async def test_another_server_stands_in_and_is_paid_at_its_own_price(
    fake: FakeRealtime, unused_tcp_port: int
) -> None:
    fake.answers = [Answer("Hello."), Answer("Yes."), Answer("Hello.")]
    other = replace(SETTINGS, model="other-model")
    prices = dict.fromkeys(("text_in", "text_in_cached", "text_out"), 1.0)
    prices |= dict.fromkeys(("audio_in", "audio_in_cached", "audio_out", "minute"), 1.0)
    async with (
        RealtimeClient(f"http://127.0.0.1:{unused_tcp_port}/v1", KEY, SETTINGS) as dead,
        RealtimeClient(fake.url, KEY, other, prices=prices) as client,
    ):
        servers = RealtimeServers(dead, client)
        async with on_a_line_with(servers) as phone:
            await phone.answered(1)
            await phone.say()
            await phone.answered(2)
        async with on_a_line_with(servers) as phone:
            await asyncio.sleep(0.1)
    used = [fact for fact in phone.all(EngineUsed) if fact.stage == "realtime"]
    assert all(fact.model == "other-model" and fact.cost_usd is not None for fact in used)
    assert [engine.requests for engine in servers.engines.all] == [3, 2], "the dead one is not asked for ever"
    assert len(fake.connections) == 2


async def test_who_calls_while_the_server_is_known_to_be_away_is_told_at_once(unused_tcp_port: int) -> None:
    refused = 0
    async with RealtimeClient(f"http://127.0.0.1:{unused_tcp_port}/v1", KEY, SETTINGS) as client:
        servers = RealtimeServers(client)
        for _ in range(3):
            with pytest.raises(EngineError):
                await servers.open()
        asked = servers.engines.all[0].requests
        for _ in range(20):
            async with on_a_line_with(servers) as phone:
                await phone.until(lambda: phone.all(GaveUp))
                refused += (
                    "out of service" in phone.all(GaveUp)[0].reason
                    or "tried again" in phone.all(GaveUp)[0].reason
                )
        assert servers.engines.all[0].requests == asked and refused == 20


async def test_a_server_whose_answers_fail_is_not_asked_by_the_hundredth_caller(fake: FakeRealtime) -> None:
    """Its sessions open well."""
    fake.answers = [Answer(status="failed") for _ in range(9)]
    async with running(KEY) as other:
        other.answers = [Answer("Hello.") for _ in range(9)]
        async with (
            RealtimeClient(fake.url, KEY, SETTINGS) as failing,
            RealtimeClient(other.url, KEY, SETTINGS) as client,
        ):
            servers = RealtimeServers(failing, client)
            for _ in range(5):
                async with on_a_line_with(servers) as phone:
                    await phone.until(lambda phone=phone: phone.all(EngineFailed) or phone.all(BotSaid))  # type: ignore[misc]
        assert other.faults == []
    assert [engine.requests for engine in servers.engines.all] == [3, 2]
    assert [engine.breaker.is_open for engine in servers.engines.all] == [True, False]


async def test_an_answer_forgives_what_failed_before(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello."), Answer(status="failed")] * 4
    async with RealtimeClient(fake.url, KEY, SETTINGS) as client:
        servers = RealtimeServers(client)
        for count in range(1, 5):
            async with on_a_line_with(servers) as phone:
                await phone.answered(1)
                await phone.say()
                await phone.until(lambda phone=phone: phone.all(EngineFailed))  # type: ignore[misc]
            assert servers.engines.all[0].breaker.failures == 1, f"after call {count}"
