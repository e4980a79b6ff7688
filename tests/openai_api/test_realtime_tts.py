"""Speech over a Realtime session: sentences side by side, cancelled, lost, reworded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import pytest

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.ports import EngineUsed
from ari_app.dialog.usage import Bill
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnreachable
from ari_app.openai_api import realtime_tts
from ari_app.openai_api.realtime_protocol import Event, RealtimeSettings
from ari_app.openai_api.realtime_session import RealtimeClient, RealtimeSession
from ari_app.openai_api.realtime_tts import RealtimeTextToSpeech, likeness
from tests.fakes.asterisk import until
from tests.fakes.realtime_server import Answer, FakeRealtime, Fault, running

KEY = "test-key"
SETTINGS = RealtimeSettings("some-model", "marin", "Read texts aloud.", max_output_tokens=4096)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRealtime]:
    async with running(KEY) as server:
        server.routine = as_asked
        yield server
    assert server.faults == []


def as_asked(wish: Event) -> Answer:
    """The server reads the text that it was given."""
    return Answer(wish["input"][0]["content"][0]["text"], speed=20)


@asynccontextmanager
async def voice(fake: FakeRealtime) -> AsyncIterator[RealtimeTextToSpeech]:
    async with RealtimeClient(fake.url, KEY, SETTINGS, listens=False) as client:
        tts = RealtimeTextToSpeech(client)
        try:
            yield tts
        finally:
            await tts.close()
            await tts.close()


async def spoken_ms(tts: RealtimeTextToSpeech, text: str) -> float:
    pcm = b""
    async for chunk in tts.speak(text):
        assert chunk.rate_hz == 8000
        pcm += chunk.pcm
    return bytes_to_ms(len(pcm))


async def test_sentences_side_by_side_over_one_session(fake: FakeRealtime) -> None:
    texts = ["Good morning.", "What can I do for you today?", "Goodbye."]
    async with voice(fake) as tts:
        await tts.warm()
        lengths = await asyncio.gather(*(spoken_ms(tts, text) for text in texts))
    assert lengths == [pytest.approx(60 * len(text), abs=1) for text in texts]
    (connection,) = fake.connections
    assert connection.session["audio"]["input"]["turn_detection"] is None
    for entry in fake.received("response.create"):
        assert entry.event["response"]["conversation"] == "none"
    assert fake.errors == []


async def test_what_was_spoken_and_what_was_cancelled_is_counted(fake: FakeRealtime) -> None:
    used: list[EngineUsed] = []
    Bill().charge(2, used.append)
    prices = {"text_in": 1.0, "text_in_cached": 1.0, "text_out": 1.0, "audio_in": 1.0, "audio_out": 10.0}
    async with RealtimeClient(fake.url, KEY, SETTINGS, listens=False) as client:
        tts = RealtimeTextToSpeech(client, prices)
        await spoken_ms(tts, "Good morning.")
        (first,) = used
        # 60 ms a letter, 20 tokens a second; the fake's 40 tokens of text and 20 of sound go in.
        assert first.amounts == {"text_in": 40, "audio_in": 20, "text_out": 2, "audio_out": 15}
        assert first.cost_usd == pytest.approx((40 + 20 + 2 + 150) / 1e6)
        fake.routine = lambda wish: Answer("A long sentence.", audio_ms=9000, speed=2)
        stream = tts.speak("A long sentence.")
        await anext(stream)
        await stream.aclose()
        await until(lambda: len(used) == 2)
        assert used[1].turn == 2 and 0 < used[1].amounts["audio_out"] < 180
        stream = tts.speak("A long sentence.")
        await anext(stream)
        await tts.close()
        assert used[2].amounts == {"uncounted": 1} and used[2].cost_usd is None
        await stream.aclose()


@pytest.mark.parametrize("created", [True, False])
async def test_a_sentence_nobody_wants_any_more_is_cancelled(fake: FakeRealtime, created: bool) -> None:
    fake.routine = lambda wish: Answer("A long sentence.", audio_ms=9000, speed=2)
    async with voice(fake) as tts:
        await tts.warm()
        stream = tts.speak("A long sentence.")
        taking = asyncio.ensure_future(anext(stream))
        if created:
            await taking
        else:
            await fake.until(lambda: fake.received("response.create"))
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        await stream.aclose()
        await fake.until(lambda: fake.received("response.cancel"))
        await fake.until(lambda: fake.sent("response.done"))
        fake.routine = as_asked
        assert await spoken_ms(tts, "Still here.") == pytest.approx(660, abs=1)
    assert fake.sent("response.done")[0].event["response"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault(status=401), EngineRejected), (Fault(close_code=1011, after_audio_ms=100), EngineUnreachable)],
    ids=["refused", "lost"],
)
async def test_failures_are_those_of_this_stage_and_the_next_sentence_has_a_new_session(
    fake: FakeRealtime, fault: Fault, kind: type[EngineError]
) -> None:
    fake.misbehave = [fault]
    async with voice(fake) as tts:
        with pytest.raises(kind, match="^text-to-speech: "):
            await spoken_ms(tts, "A sentence that is never heard to its end.")
        assert await spoken_ms(tts, "Better.") == pytest.approx(420, abs=1)


class BrokenSocket:
    """Of a connection that breaks when a ping is to be answered."""

    close_code = 1006

    def __init__(self) -> None:
        self.closed = False

    def __aiter__(self) -> AsyncIterator[aiohttp.WSMessage]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[aiohttp.WSMessage]:
        yield aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, '{"type": "x"}', "")
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    async def send_str(self, text: str) -> None:
        raise AssertionError("nothing was to be sent")

    async def close(self) -> bool:
        await asyncio.sleep(0)
        self.closed = True
        return True


async def test_a_connection_that_breaks_at_a_ping_has_ended() -> None:
    session = RealtimeSession(cast(aiohttp.ClientWebSocketResponse, BrokenSocket()))
    assert [event async for event in session.events()] == [{"type": "x"}]
    assert "code 1006" in str(session.ended)
    await session.close()


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_connection_is_closed_also_when_its_closing_is_cancelled(turns: int) -> None:
    """As at the end of the process, when a server has just hung up."""
    socket = BrokenSocket()
    session = RealtimeSession(cast(aiohttp.ClientWebSocketResponse, socket))
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await until(lambda: socket.closed)


async def test_a_session_that_speaks_no_more_is_left_for_another(fake: FakeRealtime) -> None:
    fake.routine = lambda wish: Answer("Never.", hang=True)
    async with voice(fake) as tts:
        with pytest.raises(EngineTimeout, match="no speech within"):
            await spoken_ms(tts, "Never.")
        fake.routine = as_asked
        assert await spoken_ms(tts, "Better.") == pytest.approx(420, abs=1)
    assert len(fake.connections) == 2


async def test_a_session_near_its_end_speaks_what_it_has_begun(fake: FakeRealtime) -> None:
    fake.routine = lambda wish: Answer("A long sentence.", audio_ms=6000, speed=4)
    fake.misbehave = [Fault(clock_ahead_s=3597)]
    async with voice(fake) as tts:
        await tts.warm()
        await asyncio.sleep(2.8)
        first = asyncio.ensure_future(spoken_ms(tts, "A long sentence."))
        await asyncio.sleep(0.7)
        fake.routine = as_asked
        assert await spoken_ms(tts, "Better.") == pytest.approx(420, abs=1)
        assert len(fake.connections) == 2 and not first.done()
        assert await first == pytest.approx(6000, abs=1)
        await fake.until(lambda: fake.connections[0].closed)


@pytest.mark.parametrize("fault", [Fault(status=429), Fault(no_handshake=True)], ids=["refused", "hanging"])
async def test_a_session_that_can_t_be_renewed_speaks_on(
    fake: FakeRealtime, fault: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(realtime_tts, "RENEW_AT", 0.0)
    monkeypatch.setattr(realtime_tts, "MIN_LIFE_S", 0.0)
    monkeypatch.setattr(realtime_tts, "RENEWAL_S", 0.5)
    fake.misbehave = [None, fault]
    async with voice(fake) as tts:
        await tts.warm()
        for _ in range(3):
            assert await spoken_ms(tts, "Better.") == pytest.approx(420, abs=1)
        assert fake.misbehave == [] and caplog.text.count("speaks on") == 1, "and is left alone for a while"
        assert len(fake.connections) == 1


async def test_the_renewal_is_tried_again_later(fake: FakeRealtime, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEW_AT", "MIN_LIFE_S", "RENEW_AGAIN_S"):
        monkeypatch.setattr(realtime_tts, name, 0.0)
    fake.misbehave = [None, Fault(status=429)]
    async with voice(fake) as tts:
        await tts.warm()
        for connections in (1, 2):
            assert await spoken_ms(tts, "Better.") == pytest.approx(420, abs=1)
            assert len(fake.connections) == connections


async def test_a_failed_response_is_an_error(fake: FakeRealtime) -> None:
    fake.routine = lambda wish: Answer(
        "Oh", status="failed", error_code="server_error", error_message="Sorry."
    )
    async with voice(fake) as tts:
        with pytest.raises(EngineRejected, match="text-to-speech: server_error: Sorry"):
            await spoken_ms(tts, "Hello.")


async def test_a_rewording_is_logged_without_the_words(
    fake: FakeRealtime, caplog: pytest.LogCaptureFixture
) -> None:
    fake.routine = lambda wish: Answer("Sure, I will read that for you now!")
    with caplog.at_level(logging.WARNING):
        async with voice(fake) as tts:
            await spoken_ms(tts, "Your PIN is 4711.")
    assert "reworded" in caplog.text and "4711" not in caplog.text


@pytest.mark.parametrize(
    ("spoken", "same"),
    [
        ("Your table is booked for seven.", True),
        ("your table is booked for Seven", True),
        ("Your table is booked for 7.", True),
        ("Great! I can tell you that your table has been booked.", False),
        ("", False),
    ],
)
def test_likeness(spoken: str, same: bool) -> None:
    assert (likeness("Your table is booked for seven.", spoken) >= 0.8) == same
