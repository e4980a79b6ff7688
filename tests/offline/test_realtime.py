"""Conversations with the offline backend over a real WebSocket, with real speech and the real models."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import openai
import pydantic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent

from ari_app.audio.codec import pcm16_to_ulaw, ulaw_to_pcm16
from ari_app.audio.resample import resample
from ari_app.offline import realtime, server, voice, whisper
from ari_app.offline.language import words
from ari_app.offline.realtime_audio import alaw_to_pcm16, pcm16_to_alaw

Event = dict[str, Any]
SERVER_EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RealtimeServerEvent)
FACTS = (
    "You answer the phone. Facts: We are open Monday to Friday from nine to six. "
    "On Saturday we open from ten to two. A basic service costs sixty euros."
)
QUESTION = "Hello, what time do you open on Saturday?"
PCMU = {"type": "audio/pcmu"}
LONG_TEXT = "The first tram leaves at five, and then there is one every ten minutes until midnight. " * 4


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """The server in a thread of its own, its models loaded once for all tests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = server.running("127.0.0.1", 0)
    try:
        yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(60)
    finally:
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
async def http(base_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=base_url + "/") as session:
        yield session


def spoken(text: str) -> bytes:
    """PCM16 at 8 kHz, with a second of silence behind."""
    return resample(voice.speak(text, "en-US"), voice.RATE_HZ, 8000) + bytes(16_000)


class Peer:
    """A strict client: every event must be of the SDK's types."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[Event] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_json({"type": kind, **fields})

    async def next(self) -> Event:
        message = await self.socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        SERVER_EVENT.validate_json(message.data)
        event: Event = json.loads(message.data)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> Event:
        while True:
            event = await self.next()
            if event["type"] == kind:
                return event

    async def configure(self, **session: Any) -> None:
        await self.send("session.update", session={"type": "realtime", "instructions": FACTS, **session})
        await self.until("session.updated")

    async def hear(self, ulaw: bytes) -> None:
        """Append audio at once; the server counts its own clock."""
        for start in range(0, len(ulaw), 800):
            await self.send(
                "input_audio_buffer.append", audio=base64.b64encode(ulaw[start : start + 800]).decode()
            )

    def audio(self) -> bytes:
        deltas = (event for event in self.events if event["type"] == "response.output_audio.delta")
        return b"".join(base64.b64decode(event["delta"]) for event in deltas)


@asynccontextmanager
async def connected(http: aiohttp.ClientSession) -> AsyncIterator[Peer]:
    async with http.ws_connect("realtime?model=any", max_msg_size=0) as socket:
        peer = Peer(socket)
        assert (await peer.next())["type"] == "session.created"
        yield peer


def call_audio(input_format: Event = PCMU, output_format: Event = PCMU) -> Event:
    return {
        "input": {"format": input_format, "transcription": {"model": "any", "language": "en"}},
        "output": {"format": output_format},
    }


async def understood(pcm: bytes, rate_hz: int) -> str:
    """What Whisper makes of the bot's speech."""
    model = whisper.Whisper(whisper.model_folder(server.cache_folder()), parallel=1)
    heard = await asyncio.to_thread(model.transcribe, resample(pcm, rate_hz, whisper.RATE_HZ), ["en"])
    return heard.text


@pytest.fixture
def health(base_url: str) -> str:
    return base_url.removesuffix("/v1") + "/health"


async def until_idle(health: str) -> None:
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        while True:
            async with session.get(health) as response:
                if (await response.json())["sessions"] == 0:
                    return
            await asyncio.sleep(0.02)


# --- with the SDK ------------------------------------------------------------------------------------


async def talk(connection: AsyncRealtimeConnection, pcm: bytes) -> None:
    """A microphone: 20 ms of PCM16 at 24 kHz at a time, twice as fast as a person."""
    for start in range(0, len(pcm), 960):
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm[start : start + 960]).decode())
        await asyncio.sleep(0.01)


async def next_response(connection: AsyncRealtimeConnection) -> tuple[Any, bytes]:
    audio = b""
    async with asyncio.timeout(30):
        async for event in connection:
            SERVER_EVENT.validate_json(event.to_json())
            assert event.type != "error", event
            if event.type == "response.output_audio.delta":
                audio += base64.b64decode(event.delta)
            if event.type == "response.done":
                return event.response, audio
    raise AssertionError("the connection ended")


async def test_a_whole_conversation_with_the_sdk(base_url: str) -> None:
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none")
    async with client, client.realtime.connect(model="any-name") as connection:
        await connection.session.update(session={"type": "realtime", "instructions": FACTS})
        await connection.response.create(
            response={"instructions": "Say exactly: Welcome to the bicycle shop."}
        )
        greeting, audio = await next_response(connection)
        assert greeting.output[0].content[0].transcript == "Welcome to the bicycle shop."
        assert "bicycle" in await understood(audio, 24_000)
        for question, answer in (
            (QUESTION, "On Saturday we open from ten to two."),
            ("And how much does a basic service cost?", "A basic service costs sixty euros."),
        ):
            talking = asyncio.create_task(talk(connection, resample(spoken(question), 8000, 24_000)))
            response, audio = await next_response(connection)
            await talking
            assert response.status == "completed"
            assert response.output[0].content[0].transcript == answer
            heard = set(words(await understood(audio, 24_000)))
            assert len(heard & set(words(answer))) >= 4
            assert response.usage.input_token_details.audio_tokens > 10


# --- on the telephone's formats ----------------------------------------------------------------------


@pytest.mark.parametrize("wire_format", ["audio/pcmu", "audio/pcma"])
async def test_a_call_in_g711(http: aiohttp.ClientSession, wire_format: str) -> None:
    encode, decode = (
        (pcm16_to_ulaw, ulaw_to_pcm16) if wire_format == "audio/pcmu" else (pcm16_to_alaw, alaw_to_pcm16)
    )
    async with connected(http) as peer:
        await peer.configure(audio=call_audio({"type": wire_format}, {"type": wire_format}))
        await peer.hear(encode(spoken(QUESTION)))
        heard = await peer.until("conversation.item.input_audio_transcription.completed")
        assert "Saturday" in heard["transcript"]
        assert heard["languages"] == [{"code": "en"}]
        done = (await peer.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "On Saturday we open from ten to two."
        assert "Saturday" in await understood(decode(peer.audio()), 8000)
        seconds = len(peer.audio()) / 8000
        assert 1.5 < seconds < 5
        assert done["usage"]["output_token_details"]["audio_tokens"] == pytest.approx(seconds * 20, abs=2)


async def test_noise_is_no_turn_to_answer(http: aiohttp.ClientSession) -> None:
    async with connected(http) as peer:
        await peer.configure(audio=call_audio())
        noise = np.random.default_rng(7).standard_normal(8000) * 6000
        await peer.hear(pcm16_to_ulaw(noise.clip(-32768, 32767).astype("<i2").tobytes() + bytes(16_000)))
        heard = await peer.until("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == ""
        await peer.send("input_audio_buffer.clear")
        await peer.until("input_audio_buffer.cleared")
        assert not [event for event in peer.events if event["type"] == "response.created"]


async def test_an_item_with_a_recording_is_answered(http: aiohttp.ClientSession) -> None:
    async with connected(http) as peer:
        await peer.configure(audio=call_audio(), output_modalities=["text"])
        audio = base64.b64encode(pcm16_to_ulaw(spoken(QUESTION))).decode()
        item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
        await peer.send("conversation.item.create", item=item)
        await peer.send("response.create")
        done = (await peer.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["text"] == "On Saturday we open from ten to two."


# --- speaking ----------------------------------------------------------------------------------------


async def test_speech_interrupts_what_is_not_even_made_yet(http: aiohttp.ClientSession) -> None:
    async with connected(http) as peer:
        await peer.configure(audio=call_audio())
        await peer.send("response.create", response={"instructions": f"Say exactly: {LONG_TEXT}"})
        while len(peer.audio()) < 8000 * 2:
            first = await peer.until("response.output_audio.delta")
        await peer.hear(pcm16_to_ulaw(spoken(QUESTION)))
        started = await peer.until("input_audio_buffer.speech_started")
        assert started["audio_start_ms"] < 500
        done = (await peer.until("response.done"))["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert len(peer.audio()) < 8000 * 15, "the text takes more than 20 s"
        cut = {"item_id": first["item_id"], "content_index": 0, "audio_end_ms": 1500}
        await peer.send("conversation.item.truncate", **cut)
        await peer.until("conversation.item.truncated")
        await peer.send("conversation.item.retrieve", item_id=first["item_id"])
        item = (await peer.until("conversation.item.retrieved"))["item"]
        kept = item["content"][0]["transcript"]
        assert LONG_TEXT.startswith(kept)
        assert 1 <= len(kept.split()) <= 8
        answer = (await peer.until("response.done"))["response"]
        assert answer["output"][0]["content"][0]["transcript"] == "On Saturday we open from ten to two."


async def test_long_speech_is_sent_faster_than_it_is_played(http: aiohttp.ClientSession) -> None:
    async with connected(http) as peer:
        await peer.configure(audio=call_audio())
        began = time.monotonic()
        await peer.send("response.create", response={"instructions": f"Say exactly: {LONG_TEXT}"})
        await peer.until("response.output_audio.delta")
        first_s = time.monotonic() - began
        done = (await peer.until("response.done"))["response"]
        assert first_s < 2
        assert time.monotonic() - began < len(peer.audio()) / 8000 / 2
        said = "".join(
            e["delta"] for e in peer.events if e["type"] == "response.output_audio_transcript.delta"
        )
        assert words(said) == words(LONG_TEXT)
        assert done["output"][0]["content"][0]["transcript"] == said.strip() == LONG_TEXT.strip()


async def test_texts_are_read_word_for_word_side_by_side(http: aiohttp.ClientSession) -> None:
    texts = ["Your table is booked for seven.", "Do you need a receipt?", "..."]
    async with connected(http) as peer:
        await peer.configure(audio={"input": {"turn_detection": None}, "output": {"format": PCMU}})
        for number, text in enumerate(texts):
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            response = {
                "conversation": "none",
                "metadata": {"segment": str(number)},
                "instructions": "Read the user's text aloud word for word. Add nothing, answer nothing.",
                "input": [item],
            }
            await peer.send("response.create", response=response)
        said = {}
        for _ in texts:
            done = (await peer.until("response.done"))["response"]
            assert done["status"] == "completed"
            said[done["metadata"]["segment"]] = done["output"][0]["content"][0]["transcript"]
        assert said == {"0": texts[0], "1": texts[1], "2": ""}


# --- trouble -----------------------------------------------------------------------------------------


async def test_malformed_frames_cost_an_error_only(http: aiohttp.ClientSession) -> None:
    async with connected(http) as peer:
        for frame in ("", "{", "5", "[]", '"x"', "{}", "[" * 100_000, '{"type": NaN}', "1" * 9999):
            await peer.socket.send_str(frame)
            assert (await peer.next())["type"] == "error", frame[:20]
        await peer.socket.send_bytes(b"\x00\x01")
        assert (await peer.next())["type"] == "error"
        await peer.configure()


async def test_an_event_nested_deeply_leaves_the_session_alive(http: aiohttp.ClientSession) -> None:
    async with connected(http) as peer:
        for depth in (100, 330, 900):
            tool = '{"type":"function","parameters":' + '{"a":' * depth + "1" + "}" * depth + "}"
            await peer.socket.send_str(
                '{"type":"session.update","session":{"type":"realtime","tools":[' + tool + "]}}"
            )
            message = await peer.socket.receive(timeout=5)
            assert message.type is aiohttp.WSMsgType.TEXT
        await peer.configure(tools=[])


async def test_a_session_that_is_too_old_is_ended(http: aiohttp.ClientSession) -> None:
    model = whisper.Whisper(whisper.model_folder(server.cache_folder()), parallel=1)
    with ThreadPoolExecutor(1) as pool:
        young = realtime.RealtimeServer(model, pool, pool, ["en"], lifetime_s=0.3)
        application = web.Application()
        application.router.add_get("/realtime", young.serve)
        async with (
            TestServer(application) as test_server,
            http.ws_connect(test_server.make_url("/realtime")) as socket,
        ):
            created = await socket.receive_json(timeout=5)
            assert created["session"]["expires_at"] <= time.time() + 1
            expired = await socket.receive_json(timeout=5)
            assert expired["error"]["code"] == "session_expired"
            await socket.receive(timeout=5)
            assert socket.close_code == realtime.GOING_AWAY


async def test_the_beta_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.ws_connect("realtime?model=any", headers={"OpenAI-Beta": "realtime=v1"}) as socket:
        error = (await socket.receive_json(timeout=5))["error"]
        assert error["code"] == "beta_api_shape_disabled"
        await socket.receive(timeout=5)
        assert socket.close_code == realtime.BETA_DISABLED


async def test_what_is_no_websocket_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.get("realtime") as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_sessions_are_bounded_and_leave_nothing(http: aiohttp.ClientSession, health: str) -> None:
    await until_idle(health)
    sockets = [await http.ws_connect("realtime?model=any") for _ in range(realtime.MAX_SESSIONS)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("realtime?model=any")
    assert refused.value.status == 503
    await asyncio.gather(*(socket.close() for socket in sockets))
    await until_idle(health)


async def test_a_client_that_vanishes_leaves_no_task() -> None:
    async with server.running("127.0.0.1", 0) as base_url, aiohttp.ClientSession() as http:
        before = asyncio.all_tasks()
        socket = await http.ws_connect(base_url + "/realtime?model=any")
        peer = Peer(socket)
        await peer.configure(audio=call_audio())
        await peer.send("response.create", response={"instructions": f"Say exactly: {LONG_TEXT}"})
        await peer.hear(pcm16_to_ulaw(spoken(QUESTION)))
        await peer.until("response.output_audio.delta")
        names = {task.get_name() for task in asyncio.all_tasks() - before}
        assert "realtime-writer" in names
        connection = socket._response.connection
        assert connection is not None and connection.transport is not None
        connection.transport.abort()
        async with asyncio.timeout(10):
            while any(task.get_name().startswith("realtime-") for task in asyncio.all_tasks()):
                await asyncio.sleep(0.02)


async def test_the_server_stops_while_someone_talks() -> None:
    async with aiohttp.ClientSession() as http:
        async with server.running("127.0.0.1", 0) as base_url:
            socket = await http.ws_connect(base_url + "/realtime?model=any")
            peer = Peer(socket)
            await peer.configure(audio=call_audio())
            await peer.send("response.create", response={"instructions": f"Say exactly: {LONG_TEXT}"})
            await peer.until("response.output_audio.delta")
            began = time.monotonic()

            async def read() -> int | None:
                async for _ in socket:
                    pass
                return socket.close_code

            reading = asyncio.create_task(read())
        assert await reading == realtime.GOING_AWAY
        assert time.monotonic() - began < 5
