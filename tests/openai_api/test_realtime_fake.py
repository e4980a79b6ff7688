"""The fake Realtime server itself: against two third-party clients, against the SDK's types, rule by rule."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimePlaybackTracker, RealtimeRunner
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from tests.fakes.realtime_audio import decode, encode, silence, tone
from tests.fakes.realtime_script import GARBAGE, TEN_SECONDS_AT_ONCE
from tests.fakes.realtime_server import Answer, FakeRealtime, Fault, FunctionCall, Message, running

KEY = "test-key"
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
PCM = {"type": "audio/pcm", "rate": 24_000}
VAD = {"type": "server_vad", "silence_duration_ms": 400, "prefix_padding_ms": 100}
Event = dict[str, Any]


@pytest.fixture
async def fake() -> AsyncIterator[FakeRealtime]:
    """Each event that any test made the server send has to be one of the API's."""
    async with running(KEY) as server:
        yield server
    for entry in server.sent():
        if entry.kind not in ("(garbage)", "conversation.weather.changed"):
            audio = {"delta": "AAAA"} if entry.kind == "response.output_audio.delta" else {}
            SERVER_EVENT.validate_python({**entry.event, **audio}, strict=True)


class Client:
    """A client that does as it is told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[Event] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def create(self, event_id: str = "make", **response: Any) -> None:
        await self.send("response.create", event_id=event_id, response=response)

    async def append(self, wire: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(wire).decode())

    async def until(self, kind: str, times: int = 1) -> Event:
        """The event after which so many of its type have come from here on."""
        async with asyncio.timeout(5):
            while True:
                event: Event = json.loads((await self.socket.receive()).data)
                self.seen.append(event)
                times -= event["type"] == kind
                if not times:
                    return event

    async def error(self) -> Event:
        body: Event = (await self.until("error"))["error"]
        return body

    async def closed(self) -> int | None:
        async with asyncio.timeout(5):
            while (await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        return self.socket.close_code

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.seen if event["type"] == kind]

    def audio(self) -> bytes:
        return b"".join(base64.b64decode(e["delta"]) for e in self.of("response.output_audio.delta"))


@asynccontextmanager
async def connected(fake: FakeRealtime, **more: Any) -> AsyncIterator[Client]:
    url = fake.url + "/realtime?model=some-model"
    headers = {"Authorization": f"Bearer {KEY}", **more.pop("headers", {})}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(
            url, headers=headers, timeout=aiohttp.ClientWSTimeout(ws_close=0.2), **more
        ) as socket,
    ):
        yield Client(socket)


@asynccontextmanager
async def configured(
    fake: FakeRealtime,
    turn_detection: Event | None = None,
    wire_format: Event = PCM,
    **audio_input: Any,
) -> AsyncIterator[Client]:
    async with connected(fake) as client:
        given = {"format": wire_format, "turn_detection": turn_detection, **audio_input}
        audio = {"input": given, "output": {"format": wire_format}}
        await client.send("session.update", session={"type": "realtime", "audio": audio})
        await client.until("session.updated")
        yield client


def utterance(kind: str = "audio/pcm", speech_ms: int = 500, pause_ms: int = 500) -> bytes:
    return tone(speech_ms, kind) + silence(pause_ms, kind)


# --- third-party clients -----------------------------------------------------------------------------


async def test_the_openai_sdk_holds_a_conversation_and_interrupts(fake: FakeRealtime) -> None:
    fake.answers = [Answer("A long story that nobody wants to hear to its end."), Answer("Sorry.")]
    fake.transcripts = ["tell me a story", "stop"]
    speech = base64.b64encode(utterance()).decode()
    seen: list[str] = []
    async with (
        AsyncOpenAI(base_url=fake.url, api_key=KEY) as openai,
        openai.realtime.connect(model="some-model") as connection,
    ):
        assert (await connection.recv()).type == "session.created"
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
                        "transcription": {"model": "gpt-transcribe", "languages": ["en"]},
                    }
                },
            }
        )
        assert (await connection.recv()).type == "session.updated"
        await connection.input_audio_buffer.append(audio=speech)
        bot_item, status = "", ""
        async for event in connection:
            seen.append(event.type)
            if event.type == "response.output_audio.delta" and not bot_item:
                bot_item = event.item_id
                await connection.input_audio_buffer.append(audio=speech)
            if event.type == "response.done":
                status = f"{status} {event.response.status}"
                if event.response.status == "cancelled":
                    await connection.conversation.item.truncate(
                        item_id=bot_item, content_index=0, audio_end_ms=80
                    )
                else:
                    break
    assert not fake.faults and not fake.errors and not fake.answers
    assert status == " cancelled completed"
    assert {"conversation.item.truncated", "rate_limits.updated"} < set(seen)
    after_interruption = seen[seen.index("input_audio_buffer.speech_started", 3) :]
    assert "response.output_audio.delta" in after_interruption[: after_interruption.index("response.done")]
    (connection_seen,) = fake.connections
    assert connection_seen.items.all[bot_item].audio_end_ms == 80
    words = [e.event["transcript"] for e in fake.sent() if e.kind.endswith("transcription.completed")]
    assert words == ["tell me a story", "stop"]
    assert connection_seen.close_code == 1000


async def test_the_openai_agents_sdk_holds_one_without_a_word_of_complaint(
    fake: FakeRealtime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    fake.house_rules = False
    fake.answers = [
        Answer("Let me see.", function_calls=[FunctionCall("opening_hours", '{"day": "monday"}')]),
        Answer("On Monday we open at nine and close at five in the afternoon."),
        Answer("Goodbye."),
    ]
    fake.transcripts = ["when are you open", "thank you"]

    @function_tool
    def opening_hours(day: str) -> str:
        return f"{day}: 9-17"

    tracker = RealtimePlaybackTracker()
    runner = RealtimeRunner(
        RealtimeAgent(name="desk", instructions="Answer the phone.", tools=[opening_hours]),
        config={"tracing_disabled": True},
    )
    session = await runner.run(
        model_config={
            "url": fake.url.replace("http", "ws") + "/realtime?model=some-model",
            "api_key": KEY,
            "playback_tracker": tracker,
            "initial_model_settings": {
                "model_name": "some-model",
                "tracing": None,
                "audio": {
                    "input": {
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
                        "transcription": {"model": "gpt-transcribe"},
                    }
                },
            },
        }
    )
    heard_bytes = 0
    async with session, asyncio.timeout(10):
        await session.send_audio(utterance())
        async for event in session:
            if event.type == "audio":
                heard_bytes += len(event.audio.data)
                tracker.on_play_ms(event.item_id, event.content_index, 40)
                if len(fake.answers) == 1 and len(fake.received("input_audio_buffer.append")) == 1:
                    await session.send_audio(utterance())
            if (
                event.type == "raw_model_event"
                and event.data.type == "turn_ended"
                and len(fake.sent("response.done")) == 3
            ):
                break
    assert not fake.faults and not fake.errors
    assert not caplog.records
    assert heard_bytes
    (output,) = [e.event["item"] for e in fake.received("conversation.item.create")]
    assert output["output"] == "monday: 9-17"
    assert [e.event["response"]["status"] for e in fake.sent("response.done")] == [
        "completed",
        "cancelled",
        "completed",
    ]
    (cut,) = fake.sent("conversation.item.truncated")
    assert fake.connections[0].items.all[cut.event["item_id"]].audio_end_ms == cut.event["audio_end_ms"]


# --- turn detection ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["audio/pcm", "audio/pcmu", "audio/pcma"])
async def test_turns_are_found_on_the_clock_of_the_audio(fake: FakeRealtime, kind: str) -> None:
    fake.answers = [Answer("Yes.", speed=100)]
    wire_format = PCM if kind == "audio/pcm" else {"type": kind}
    async with configured(fake, VAD, wire_format) as client:
        await client.append(silence(1000, kind) + tone(600, kind) + silence(500, kind))
        await client.until("response.done")
    (started,), (stopped,) = (client.of(f"input_audio_buffer.speech_{e}") for e in ("started", "stopped"))
    assert started["audio_start_ms"] == pytest.approx(900, abs=20)
    assert stopped["audio_end_ms"] == pytest.approx(2000, abs=20)
    item_ids = {
        started["item_id"],
        stopped["item_id"],
        client.of("input_audio_buffer.committed")[0]["item_id"],
    }
    assert len(item_ids) == 1
    samples = decode(client.audio(), kind)
    assert len(samples) == 240 * (24 if kind == "audio/pcm" else 8)
    crossings = np.count_nonzero(np.diff(np.signbit(samples)))
    assert crossings / 2 / 0.240 == pytest.approx(440, abs=10)
    assert not fake.faults


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_g711_survives_coding(kind: str) -> None:
    """The codes of ITU-T G.711 for the extremes and zero, and every code back to itself."""
    loudest = {"audio/pcmu": (0x80, 32124), "audio/pcma": (0xAA, 32256)}[kind]
    assert decode(bytes([loudest[0]]), kind)[0] == loudest[1]
    codes = bytes(code for code in range(256) if (kind, code) != ("audio/pcmu", 0x7F))  # minus zero
    assert encode(decode(codes, kind), kind) in (codes, codes.replace(b"\xff", b"\x7f"))


@pytest.mark.parametrize(
    "settings, pause_ms, turns",
    [
        (VAD, 380, 0),
        (VAD, 460, 1),
        ({"type": "semantic_vad", "eagerness": "high"}, 380, 0),
        ({"type": "semantic_vad", "eagerness": "high"}, 460, 1),
        ({"type": "semantic_vad", "eagerness": "low"}, 1400, 0),
        ({**VAD, "threshold": 1.0}, 460, 1),
    ],
)
async def test_a_turn_ends_with_its_silence(
    fake: FakeRealtime, settings: Event, pause_ms: int, turns: int
) -> None:
    async with configured(fake, {**settings, "create_response": False}) as client:
        await client.append(utterance(pause_ms=pause_ms))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
    assert len(client.of("input_audio_buffer.committed")) == turns
    assert not client.of("response.created")


async def test_a_low_threshold_hears_what_a_high_one_does_not(fake: FakeRealtime) -> None:
    quiet = encode(decode(tone(500, "audio/pcm"), "audio/pcm") // 20, "audio/pcm")
    for threshold, turns in ((0.9, 0), (0.1, 1)):
        settings = {**VAD, "threshold": threshold, "create_response": False}
        async with configured(fake, settings) as client:
            await client.append(quiet + silence(500, "audio/pcm"))
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            assert len(client.of("input_audio_buffer.speech_started")) == turns


async def test_a_silent_caller_is_addressed_after_the_idle_timeout(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Hello.", speed=100), Answer("Still there?", speed=100)]
    async with configured(fake, {**VAD, "idle_timeout_ms": 5000}) as client:
        await client.create()
        await client.until("response.done")
        await client.append(silence(5000, "audio/pcm"))
        await client.append(silence(400, "audio/pcm"))
        timeout = await client.until("input_audio_buffer.timeout_triggered")
        assert timeout["audio_end_ms"] - timeout["audio_start_ms"] == 5000
        await client.until("response.done")


async def test_without_interruption_the_answer_goes_on(fake: FakeRealtime) -> None:
    fake.answers = [Answer("One two three four five.", speed=10)]
    settings = {**VAD, "interrupt_response": False, "create_response": False}
    async with configured(fake, settings) as client:
        await client.create()
        await client.until("response.output_audio.delta")
        await client.append(utterance())
        done = await client.until("response.done")
        assert client.of("input_audio_buffer.committed") and done["response"]["status"] == "completed"


@pytest.mark.parametrize("delay_s, before", [(0.0, True), (0.3, False)])
async def test_transcripts_come_before_or_after_the_response(
    fake: FakeRealtime, delay_s: float, before: bool
) -> None:
    fake.answers, fake.transcripts = [Answer("Yes.", speed=100)], ["hello"]
    fake.transcript_delay_s = delay_s
    async with configured(fake, VAD, transcription={"model": "gpt-transcribe"}) as client:
        await client.append(utterance())
        await client.until("response.done")
        name = "conversation.item.input_audio_transcription.completed"
        assert bool(client.of(name)) == before
        if not before:
            assert (await client.until(name))["transcript"] == "hello"


async def test_a_transcription_may_fail(fake: FakeRealtime) -> None:
    fake.transcripts = [None]
    async with configured(fake, transcription={"model": "gpt-transcribe"}) as client:
        await client.append(tone(200, "audio/pcm"))
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.input_audio_transcription.failed")


# --- responses ---------------------------------------------------------------------------------------


async def test_a_response_with_two_messages_and_a_call_in_odd_pieces(fake: FakeRealtime) -> None:
    usage = {"total_tokens": 7, "input_tokens": 3, "output_tokens": 4}
    answer = Answer(
        "First words.", 150, [Message("Second.", 90)], [FunctionCall("hang_up", "{}", "call_7")],
        speed=100, delta_bytes=(999, 1), usage=usage,
    )  # fmt: skip
    fake.answers = [answer]
    async with configured(fake) as client:
        await client.create(metadata={"topic": "greeting"})
        done = (await client.until("response.done"))["response"]
    assert [item["type"] for item in done["output"]] == ["message", "message", "function_call"]
    assert [item["content"][0]["transcript"] for item in done["output"][:2]] == ["First words.", "Second."]
    assert done["output"][2]["call_id"] == "call_7"
    assert done["usage"] == usage and done["metadata"] == {"topic": "greeting"}
    sizes = [len(base64.b64decode(e["delta"])) for e in client.of("response.output_audio.delta")]
    assert sizes[:4] == [999, 1, 999, 1] and sum(sizes) == 240 * 48
    words = "".join(e["delta"] for e in client.of("response.output_audio_transcript.delta"))
    assert words == "First words.Second."


async def test_speech_comes_at_its_speed(fake: FakeRealtime) -> None:
    fake.answers = [Answer("x", 1000, speed=5.0), TEN_SECONDS_AT_ONCE]
    async with configured(fake) as client:
        for least_s, most_s in ((0.15, 1.0), (0.0, 1.0)):
            await client.create()
            await client.until("response.created")
            begin = time.monotonic()
            await client.until("response.done")
            assert least_s < time.monotonic() - begin < most_s
    assert len(client.audio()) == 11_000 * 48


async def test_a_text_response_and_other_formats(fake: FakeRealtime) -> None:
    fake.answers = [Answer("angry"), Answer("Hm.", 100)]
    async with configured(fake) as client:
        await client.create(conversation="none", output_modalities=["text"], input=[], metadata={"n": "1"})
        done = (await client.until("response.done"))["response"]
        assert done["output"][0]["content"] == [{"type": "output_text", "text": "angry"}]
        assert done["conversation_id"] is None and not client.of("conversation.item.added")
        await client.create(audio={"output": {"format": {"type": "audio/pcmu"}, "voice": "cedar"}})
        await client.until("response.done")
        assert len(client.audio()) == 800


async def test_out_of_band_responses_run_beside_the_conversation(fake: FakeRealtime) -> None:
    fake.routine = lambda wish: Answer(wish["metadata"]["say"], speed=10) if "metadata" in wish else None
    fake.answers = [Answer("The conversation.", speed=10)]
    async with configured(fake) as client:
        await client.create()
        for number in range(3):
            await client.create(conversation="none", metadata={"say": f"number {number}"})
        await client.until("response.done", 4)
    kinds = [e["type"] for e in client.seen]
    created = [i for i, kind in enumerate(kinds) if kind == "response.created"]
    assert len(created) == 4 and created[-1] < kinds.index("response.done")
    said = {e["response"]["output"][0]["content"][0]["transcript"] for e in client.of("response.done")}
    assert said == {"The conversation.", "number 0", "number 1", "number 2"}
    assert len(list(fake.connections[0].items)) == 1 and not fake.errors


async def test_cancel_leaves_deltas_in_flight(fake: FakeRealtime) -> None:
    fake.answers = [Answer("A long answer of many words.", speed=2.0)]
    async with configured(fake) as client:
        await client.create()
        await client.until("response.output_audio.delta")
        await client.send("response.cancel")
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        before = len(client.of("response.output_audio.delta"))
        done = (await client.until("response.done"))["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done["output"][0]["status"] == "incomplete"
    assert len(client.of("response.output_audio.delta")) > before


@pytest.mark.parametrize(
    "answer, details",
    [
        (Answer("Cut.", 500, status="incomplete", stop_after_ms=200, speed=50), "max_output_tokens"),
        (Answer(status="failed", error_code="rate_limit_exceeded"), "rate_limit_exceeded"),
        (Answer("Half.", 500, status="failed", stop_after_ms=200, speed=50), "server_error"),
    ],
)
async def test_answers_that_do_not_come_to_their_end(
    fake: FakeRealtime, answer: Answer, details: str
) -> None:
    fake.answers = [answer]
    async with configured(fake) as client:
        await client.create()
        done = (await client.until("response.done"))["response"]
        assert done["status"] == answer.status
        assert details in json.dumps(done["status_details"])
        assert len(client.audio()) == (200 * 48 if answer.stop_after_ms else 0)


async def test_a_hanging_answer_can_be_cancelled(fake: FakeRealtime) -> None:
    fake.answers = [Answer("Never said.", hang=True)]
    async with configured(fake) as client:
        await client.create()
        created = await client.until("response.created")
        await client.send("response.cancel", response_id=created["response"]["id"])
        assert (await client.until("response.done"))["response"]["status"] == "cancelled"


async def test_an_answer_too_few_is_a_fault(fake: FakeRealtime) -> None:
    async with configured(fake) as client:
        await client.create()
        await client.until("response.done")
    assert fake.faults == ["a response without a scripted answer"]


# --- the conversation --------------------------------------------------------------------------------


async def test_history_can_be_built_read_and_deleted(fake: FakeRealtime) -> None:
    def item(role: str, kind: str, **content: str) -> Event:
        return {"type": "message", "role": role, "content": [{"type": kind, **content}]}

    audio = base64.b64encode(tone(300, "audio/pcm")).decode()
    async with configured(fake) as client:
        for each in (
            item("user", "input_text", text="Hello"),
            item("assistant", "output_text", text="Hi"),
            item("user", "input_audio", audio=audio),
        ):
            await client.send("conversation.item.create", item=each)
        system = {**item("system", "input_text", text="Be brief."), "id": "first"}
        await client.send("conversation.item.create", item=system, previous_item_id="root")
        await client.until("conversation.item.done", 4)
        items = fake.connections[0].items
        assert [i.data["role"] for i in items] == ["system", "user", "assistant", "user"]
        await client.send("conversation.item.retrieve", item_id="first")
        assert (await client.until("conversation.item.retrieved"))["item"]["id"] == "first"
        await client.send("conversation.item.delete", item_id="first")
        await client.until("conversation.item.deleted")
        assert items.all["first"].deleted and "first" not in [i.id for i in items]
    assert fake.received("conversation.item.create")[2].event["item"]["content"][0]["audio"] == 300
    assert not fake.faults


Deed = Callable[[Client, FakeRealtime], Awaitable[None]]


async def truncate_too_far(client: Client, fake: FakeRealtime) -> None:
    await client.create()
    done = await client.until("response.done")
    await truncate(client, done["response"]["output"][0]["id"], 1001)


async def truncate_twice(client: Client, fake: FakeRealtime) -> None:
    await client.create()
    item_id = (await client.until("response.done"))["response"]["output"][0]["id"]
    await truncate(client, item_id, 400)
    await client.until("conversation.item.truncated")
    await truncate(client, item_id, 500)


async def truncate(client: Client, item_id: str, audio_end_ms: int) -> None:
    where = {"item_id": item_id, "content_index": 0, "audio_end_ms": audio_end_ms}
    await client.send("conversation.item.truncate", **where)


async def create_twice(client: Client, fake: FakeRealtime) -> None:
    await client.create()
    await client.create("make-2")


async def change_the_voice(client: Client, fake: FakeRealtime) -> None:
    await client.create()
    await client.until("response.done")
    session = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    await client.send("session.update", session=session)


def output(call_id: str) -> Event:
    return {"type": "function_call_output", "call_id": call_id, "output": "{}"}


@pytest.mark.parametrize(
    "deed, code",
    [
        (truncate_too_far, "Audio content of 1000ms is already shorter than 1001ms"),
        (truncate_twice, "Audio content of 400ms is already shorter than 500ms"),
        (lambda c, f: truncate(c, "nobody", 1), "item_truncate_invalid_item_id"),
        (create_twice, "conversation_already_has_active_response"),
        (change_the_voice, "cannot_update_voice"),
        (lambda c, f: c.send("response.cancel"), "response_cancel_not_active"),
        (lambda c, f: c.send("input_audio_buffer.commit"), "input_audio_buffer_commit_empty"),
        (lambda c, f: c.send("conversation.item.delete", item_id="x"), "item_delete_invalid_item_id"),
        (lambda c, f: c.send("conversation.item.retrieve", item_id="x"), "item_retrieve_invalid_item_id"),
        (lambda c, f: c.send("conversation.item.create", item=output("x")), "invalid_tool_call_id"),
    ],
)
async def test_what_the_state_does_not_allow(fake: FakeRealtime, deed: Deed, code: str) -> None:
    """The real server's errors; not noted as faults, because a careful client too can meet some."""
    fake.answers = [Answer("Yes.", 1000, speed=50)]
    async with configured(fake) as client:
        await deed(client, fake)
        error = await client.error()
    assert code in (error["code"], error["message"])
    assert fake.errors == [code] and not fake.faults


async def test_with_turn_detection_there_is_nothing_to_commit(fake: FakeRealtime) -> None:
    async with configured(fake, VAD) as client:
        await client.append(silence(500, "audio/pcm"))
        await client.send("input_audio_buffer.commit")
        assert (await client.error())["code"] == "input_audio_buffer_commit_empty"


# --- strictness --------------------------------------------------------------------------------------


def session(**fields: Any) -> Event:
    return {"type": "session.update", "session": {"type": "realtime", **fields}}


def listening(**fields: Any) -> Event:
    return session(audio={"input": fields})


def speaking(**fields: Any) -> Event:
    return session(audio={"output": fields})


def answering(**fields: Any) -> Event:
    return {"type": "response.create", "event_id": "x", "response": fields}


def adding(**item: Any) -> Event:
    return {"type": "conversation.item.create", "item": item}


def says(role: str, kind: str, **fields: Any) -> Event:
    return adding(type="message", role=role, content=[{"type": kind, **fields}])


@pytest.mark.parametrize(
    "event, code, param",
    [
        ({"type": "session.update", "session": {}}, "missing_required_parameter", "session.type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({}, "missing_required_parameter", "type"),
        ({"type": "transcription_session.update"}, "invalid_value", "type"),
        ({"type": "output_audio_buffer.clear"}, "invalid_value", "type"),
        (session(modalities=["audio"]), "unknown_parameter", "session.modalities"),
        (session(temperature=0.8), "unknown_parameter", "session.temperature"),
        (session(voice="marin"), "unknown_parameter", "session.voice"),
        (session(input_audio_format="g711_ulaw"), "unknown_parameter", "session.input_audio_format"),
        (session(turn_detection=None), "unknown_parameter", "session.turn_detection"),
        (session(instructions=None), "invalid_type", "session.instructions"),
        (session(tools=None), "invalid_type", "session.tools"),
        (session(output_modalities=["audio", "text"]), "array_above_max_length", "session.output_modalities"),
        (session(max_output_tokens=0), "invalid_type", "session.max_output_tokens"),
        (listening(format="pcm16"), "invalid_type", "session.audio.input.format"),
        (
            listening(format={"type": "audio/pcm"}),
            "missing_required_parameter",
            "session.audio.input.format.rate",
        ),
        (
            speaking(format={"type": "audio/pcmu", "rate": 8000}),
            "unknown_parameter",
            "session.audio.output.format.rate",
        ),
        (
            speaking(format={"type": "audio/pcm", "rate": 16000}),
            "invalid_value",
            "session.audio.output.format.rate",
        ),
        (speaking(voice="nobody"), "invalid_value", "session.audio.output.voice"),
        (speaking(speed=3), "decimal_above_max_value", "session.audio.output.speed"),
        (
            listening(turn_detection={**VAD, "create_response": None}),
            "invalid_type",
            "session.audio.input.turn_detection.create_response",
        ),
        (
            listening(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "unknown_parameter",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            listening(turn_detection={**VAD, "idle_timeout_ms": 1000}),
            "integer_below_min_value",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        (
            listening(turn_detection={**VAD, "silence_duration_ms": 400.5}),
            "invalid_type",
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        (
            listening(transcription={"model": "gpt-transcribe", "language": "en"}),
            "unknown_parameter",
            "session.audio.input.transcription.language",
        ),
        (
            listening(transcription={"model": "whisper-1", "languages": ["en"]}),
            "unknown_parameter",
            "session.audio.input.transcription.languages",
        ),
        (
            listening(transcription={"model": "gpt-transcribe", "keywords": ["a\nb"]}),
            "invalid_value",
            "session.audio.input.transcription.keywords[0]",
        ),
        ({"type": "input_audio_buffer.append", "audio": "!!"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": 7}, "invalid_type", "audio"),
        ({"type": "input_audio_buffer.commit", "force": True}, "unknown_parameter", "force"),
        ({"type": "response.create"}, "missing_required_parameter", "event_id"),
        (answering(modalities=["audio"]), "unknown_parameter", "response.modalities"),
        (answering(conversation=None), "invalid_type", "response.conversation"),
        (answering(metadata={"n": 1}), "invalid_type", "response.metadata.n"),
        (answering(instructions=5), "invalid_type", "response.instructions"),
        (says("assistant", "text", text="x"), "invalid_value", "item.content[0].type"),
        (
            says("assistant", "output_audio", audio="AAAA"),
            "invalid_value",
            "item.content[0].type",
        ),
        (says("bot", "input_text", text="x"), "invalid_value", "item.role"),
        (says("user", "input_text"), "missing_required_parameter", "item.content[0].text"),
        (says("user", "input_audio", audio="!"), "invalid_value", "item.content[0].audio"),
        (adding(type="item_reference", id="x"), "invalid_value", "item.type"),
        (adding(type="function_call_output", call_id="c", output={}), "invalid_type", "item.output"),
        (
            {**says("user", "input_text", text="x"), "previous_item_id": None},
            "invalid_type",
            "previous_item_id",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1.5},
            "invalid_type",
            "audio_end_ms",
        ),
    ],
)
async def test_each_rule_is_enforced(fake: FakeRealtime, event: Event, code: str, param: str) -> None:
    async with connected(fake) as client:
        head = {} if event == {"type": "response.create"} else {"event_id": "mine"}
        await client.socket.send_str(json.dumps({**head, **event}))
        error = await client.error()
    assert (error["code"], error["param"]) == (code, param)
    assert error["event_id"] == (head | event).get("event_id")
    assert len(fake.faults) == 1


@pytest.mark.parametrize("frame", ["{", "[]", "7", b"{}"])
async def test_frames_that_are_no_events(fake: FakeRealtime, frame: str | bytes) -> None:
    async with connected(fake) as client:
        await (client.socket.send_str(frame) if isinstance(frame, str) else client.socket.send_bytes(frame))
        await client.error()
    assert len(fake.faults) == 1


async def test_half_samples_of_the_caller_are_refused(fake: FakeRealtime) -> None:
    async with configured(fake) as client:
        await client.append(b"\0" * 481)
        assert (await client.error())["code"] == "invalid_value"
    assert len(fake.faults) == 1


async def test_everything_a_client_may_send_is_taken(fake: FakeRealtime) -> None:
    """The long session.update of the API's own documents, which the SDK's types take as well."""
    event = session(
        model="some-model",
        output_modalities=["audio"],
        instructions="",
        audio={
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "near_field"},
                "transcription": {"model": "gpt-transcribe", "languages": ["en"], "keywords": ["ACME"]},
                "turn_detection": {**VAD, "threshold": 0.5, "idle_timeout_ms": 10_000},
            },
            "output": {"format": {"type": "audio/pcma"}, "voice": "cedar", "speed": 1.25},
        },
        tools=[{"type": "function", "name": "f", "description": "", "parameters": {"type": "object"}}],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"effort": "low"},
        max_output_tokens=1024,
        truncation={"type": "retention_ratio", "retention_ratio": 0.8},
        tracing=None,
    )
    CLIENT_EVENT.validate_python(event)
    async with connected(fake) as client:
        await client.send("session.update", session=event["session"])
        effective = (await client.until("session.updated"))["session"]
    assert not fake.faults
    assert effective["audio"]["input"]["turn_detection"]["create_response"] is True
    assert {name: effective[name] for name in ("instructions", "tools", "reasoning", "truncation")} == {
        name: event["session"][name] for name in ("instructions", "tools", "reasoning", "truncation")
    }


async def test_the_model_is_for_ever(fake: FakeRealtime) -> None:
    async with connected(fake) as client:
        await client.send("session.update", session={"type": "realtime", "model": "other"})
        assert (await client.error())["param"] == "session.model"


@pytest.mark.parametrize(
    "path, headers, status",
    [
        ("/realtime?model=m", {"Authorization": "Bearer wrong"}, 401),
        ("/realtime?model=m", {}, 401),
        ("/realtime", {"Authorization": f"Bearer {KEY}"}, 400),
        ("/realtime?model=m&intent=transcription", {"Authorization": f"Bearer {KEY}"}, 400),
        ("/live/sessions?model=m", {"Authorization": f"Bearer {KEY}"}, 404),
    ],
)
async def test_handshakes_that_are_wrong(
    fake: FakeRealtime, path: str, headers: dict[str, str], status: int
) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await http.ws_connect(fake.url + path, headers=headers)
    assert refusal.value.status == status and len(fake.faults) == 1


async def test_the_beta_is_dead(fake: FakeRealtime) -> None:
    async with connected(fake, headers={"OpenAI-Beta": "realtime=v1"}) as client:
        assert (await client.error())["code"] == "beta_api_shape_disabled"
        assert await client.closed() == 4000
    assert len(fake.faults) == 1


# --- misbehaviour ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_fault_refused(fake: FakeRealtime, status: int) -> None:
    fake.misbehave = [Fault(status=status)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with connected(fake):
            pass
    assert refusal.value.status == status and fake.refused == [status]
    async with connected(fake) as client:
        await client.until("session.created")
    assert not fake.faults


async def test_fault_no_handshake(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(no_handshake=True)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), connected(fake):
            pass
    assert fake.refused == [0]


async def test_fault_slow_or_missing_update(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(update_delay_s=0.1), Fault(never_updated=True)]
    begin = time.monotonic()
    async with configured(fake):
        assert time.monotonic() - begin >= 0.1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), configured(fake):
            pass


async def test_fault_audio_before_the_update_is_noticed(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(update_delay_s=0.1)]
    async with connected(fake) as client:
        await client.send("session.update", session={"type": "realtime"})
        await client.append(silence(20, "audio/pcm"))
        assert (await client.error())["param"] == "audio"
    assert len(fake.faults) == 1


async def test_fault_other_formats(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(output_format="audio/pcm")]
    fake.answers = [Answer("x", 100)]
    async with configured(fake, wire_format={"type": "audio/pcmu"}) as client:
        audio = client.of("session.updated")[0]["session"]["audio"]
        assert (audio["input"]["format"], audio["output"]["format"]) == ({"type": "audio/pcmu"}, PCM)
        await client.create()
        await client.until("response.done")
        assert len(client.audio()) == 4800


@pytest.mark.parametrize("code", [1001, 1011, 4000])
@pytest.mark.parametrize(
    "moment, events",
    [({}, 0), ({"after_events": 2}, 2), ({"after_audio_ms": 300}, 13), ({"after_s": 0.05}, 2)],
)
async def test_fault_close(fake: FakeRealtime, code: int, moment: Event, events: int) -> None:
    fake.misbehave = [Fault(close_code=code, **moment)]
    fake.answers = [Answer("one", 1000)]
    async with connected(fake) as client:
        if events:
            await client.until("session.created")
            await client.send("session.update", session={"type": "realtime"})
        if "after_audio_ms" in moment:
            await client.create()
        assert await client.closed() == code
    assert len(fake.sent()) == events if "after_audio_ms" not in moment else len(fake.sent()) < 16
    await fake.until(lambda: fake.connections[0].closed)
    assert fake.connections[0].close_code == code


async def test_fault_reset(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(reset=True, after_audio_ms=200)]
    fake.answers = [Answer("one", 1000)]
    async with configured(fake) as client:
        await client.create()
        await client.closed()
        assert client.socket.close_code == 1006
    await fake.until(lambda: fake.connections[0].closed)
    assert fake.connections[0].close_code is None


async def test_fault_expiry(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(expires_s=0.2)]
    async with configured(fake) as client:
        left_s = client.of("session.created")[0]["session"]["expires_at"] - time.time()
        assert -1 < left_s <= 1.2
        assert (await client.error())["code"] == "session_expired"
        assert await client.closed() == 1001


async def test_fault_error_code(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(error_code="insufficient_quota", after_events=2)]
    async with configured(fake) as client:
        assert (await client.error())["code"] == "insufficient_quota"


async def test_fault_race_with_the_turn_detection(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(race=True)]
    fake.answers = [Answer("I was first.", speed=100)]
    async with configured(fake) as client:
        await client.create("late")
        error = await client.error()
        assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "late")
        await client.until("response.done")


async def test_fault_unknown_events(fake: FakeRealtime) -> None:
    fake.unknown_every = 2
    fake.misbehave = [Fault(unknown_event=True)]
    async with configured(fake) as client:
        pass
    kinds = [event["type"] for event in client.seen]
    assert kinds[:3] == ["conversation.weather.changed", "session.created", "conversation.weather.changed"]


async def test_fault_silence_still_answers_pings(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(silent=True, after_events=2)]
    async with configured(fake) as client:
        await client.send("response.cancel")
        await client.socket.ping()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.socket.receive(), 0.1)
        await fake.until(lambda: fake.received("response.cancel"))
    assert not fake.errors


@pytest.mark.parametrize("fault, ended", [(Fault(silent=True), False), (Fault(half_open=True), True)])
async def test_fault_half_open_is_found_by_a_heartbeat(fake: FakeRealtime, fault: Fault, ended: bool) -> None:
    fake.misbehave = [fault]
    async with connected(fake, heartbeat=0.1) as client:
        try:
            async with asyncio.timeout(0.4):
                await client.socket.receive()
        except TimeoutError:
            assert not ended
        assert client.socket.closed is ended


async def test_fault_garbage(fake: FakeRealtime) -> None:
    fake.misbehave = [Fault(garbage=True)]
    async with connected(fake) as client:
        frames = [(await client.socket.receive()).data for _ in GARBAGE]
        assert tuple(frames) == GARBAGE
        await client.until("session.created")


async def test_a_test_can_strike_at_any_time(fake: FakeRealtime) -> None:
    async with configured(fake) as client:
        await fake.connections[0].strike(Fault(error_code="server_error"))
        assert (await client.error())["code"] == "server_error"
        await fake.connections[0].close(1011)
        assert await client.closed() == 1011


async def test_nothing_is_left_behind() -> None:
    """Also when a client is in the middle of an answer."""
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http:
        async with running() as fake:
            fake.answers = [Answer("x", 10_000)]
            headers = {"Authorization": f"Bearer {KEY}"}
            socket = await http.ws_connect(f"{fake.url}/realtime?model=m", headers=headers)
            client = Client(socket)
            await client.create()
            await client.until("response.output_audio.delta")
        await client.closed()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
