"""Realtime over a real call, against the strict server: what the phone received is what the server was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest_asyncio

from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.events import follow, wait_for_recording
from ari_app.demo.voice import utterance
from ari_app.openai_api.realtime_protocol import Event
from tests.e2e.checks import settled, until
from tests.e2e.conftest import Caller, Serve
from tests.e2e.sound_checks import FRAME, SPEECH_RMS, speech_stretches
from tests.fakes.realtime_server import Answer, FakeRealtime, Fault, running

KEY = "test-key"
FRAME_MS = 20


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeRealtime]:
    async with running(KEY) as server:
        server.routine = read_aloud
        yield server
    assert server.faults == []


def read_aloud(wish: Event) -> Answer | None:
    """The local sentences that `serve` has rendered at its start."""
    if "input" in wish:
        return Answer(wish["input"][0]["content"][0]["text"], audio_ms=600, speed=20)
    return None


def realtime(fake: FakeRealtime) -> dict[str, str]:
    return {
        "MODE": "realtime",
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": fake.url,
        "SILENCE_DURATION_MS": "500",
    }


async def test_an_interruption_ends_the_bot_where_the_server_is_told(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, recordings: Path, fake: FakeRealtime
) -> None:
    hello = await asyncio.to_thread(utterance, "Hello, can you hear me?")
    stop = await asyncio.to_thread(utterance, "Stop it, please.")
    fake.answers = [Answer("A tone that goes on and on.", audio_ms=9000), Answer("Yes.", audio_ms=500)]
    async with serve(**realtime(fake), DEBUG="yes") as process, caller() as ua:
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        directory = await wait_for_recording(recordings, set(), 10)
        await call.say(hello)
        await call.say_over(stop, after_ms=2000)
        await call.listen_until_silence(max_s=10)
        await call.hangup()
        events = [event async for event in follow(directory / "events.jsonl")]
        left = await settled(asterisk, process.pid)
    received = np.frombuffer(call.received_pcm(), "<i2").astype(np.float64)
    (first, last), *_ = speech_stretches(received)
    tone = np.flatnonzero(np.abs(received[first * FRAME : (last + 1) * FRAME]) > SPEECH_RMS)
    heard_ms = (tone[-1] - tone[0]) / 8
    (cut,) = fake.received("conversation.item.truncate")
    assert abs(cut.event["audio_end_ms"] - heard_ms) <= FRAME_MS, heard_ms
    assert 2000 < heard_ms < 4000
    said = [event for event in events if event["event"] == "bot_said"]
    assert [event["interrupted"] for event in said] == [True, False]
    assert any(event["event"] == "barge_in" for event in events)
    assert fake.errors == []
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)


FAULTS = (
    Fault(close_code=1011, after_audio_ms=700),
    Fault(close_code=1001, after_audio_ms=700),
    Fault(reset=True, after_audio_ms=700),
    Fault(expires_s=2.0),
    Fault(update_delay_s=2.0),
    Fault(status=500),
    Fault(garbage=True, after_events=8),
    Fault(race=True),
    Fault(unknown_event=True, after_events=6),
)
SILENT = Fault(silent=True, after_events=6)
FATAL = (
    Fault(status=401),
    Fault(output_format="audio/pcmu"),
    Fault(error_code="insufficient_quota", after_events=8),
)


def _has_failed(log: Path) -> bool:
    return "engine_failed" in log.read_text("utf-8")


async def test_whatever_the_server_does_the_caller_hears_speech_and_nothing_is_left(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, recordings: Path, fake: FakeRealtime
) -> None:
    hello = await asyncio.to_thread(utterance, "Hello, can you hear me?")
    async with serve(**realtime(fake), GREETING="Hello.") as process, caller() as ua:
        for fault in (*FAULTS, SILENT, *FATAL):
            known = set(recordings.glob("*"))
            fake.misbehave = [fault] * 5 if fault in FATAL else [fault]
            fake.answers = [Answer("Hello.", audio_ms=1500)] + [Answer("Yes, I do.", audio_ms=1500)] * 4
            call = await ua.dial(asterisk.bot_extension)
            await call.answered(10)
            directory = await wait_for_recording(recordings, known, 10)
            assert (await call.listen_until_silence(max_s=12)).sound_s > 0.4, f"dead air: {fault}"
            if fault not in FATAL:
                await call.say(hello)
                assert (await call.listen_until_silence(max_s=12)).sound_s > 0.4, f"dead air: {fault}"
                if fault is SILENT:  # the caller is asked for patience until the server is given up
                    await until(partial(_has_failed, directory / "events.jsonl"), within_s=15)
                await call.hangup()
            await call.closed(10)
            events = [event async for event in follow(directory / "events.jsonl")]
            failed = [event for event in events if event["event"] == "engine_failed"]
            assert bool(failed) == (fault not in FAULTS), (fault, failed)
            assert events[-1]["outcome"] == ("failed" if fault in FATAL else "answered"), fault
            left = await settled(asterisk, process.pid)
            assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0), fault
        assert "Traceback" not in process.log()
