"""SIGTERM to a server with a caller: health, the fallback for newcomers, time to finish, a spoken goodbye."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.sip_call import SipCall
from ari_app.demo.voice import utterance
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.stt import OpenAiSpeechToText
from tests.e2e.applications import ServeProcess
from tests.e2e.checks import asterisk_footprint, asterisk_settled, until, word_error_rate
from tests.e2e.conftest import Caller, Serve

QUESTION = "What does a new bicycle tyre cost?"
FACTS = "Facts: A new bicycle tyre costs twenty euros."
GOODBYE = "The office closes now. Please call again tomorrow."
FALLBACK, FALLBACK_HZ = "123", 440
"""The test call: a tone that no bot makes."""


@pytest_asyncio.fixture
async def asterisk(asterisk_prefix: Prefix) -> AsyncIterator[PrivateAsterisk]:
    """Whoever the bot does not take hears a tone."""
    async with PrivateAsterisk(asterisk_prefix, AsteriskSettings(fallback_extension=FALLBACK)) as running:
        yield running


@dataclass(frozen=True)
class Health:
    """The health server of the application."""

    port: int

    async def ask(self, path: str) -> tuple[int, dict[str, object]]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status, await answer.json()


@pytest.fixture
def health() -> Health:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return Health(found.getsockname()[1])


async def words_of(pcm: bytes, backend_url: str) -> str:
    stt = OpenAiSpeechToText(StageSettings(backend_url, "any"))
    try:
        return (await stt.transcribe(pcm, 8000)).text
    finally:
        await stt.close()


def share_of(pcm: bytes, hz: float) -> float:
    """How much of the sound's energy is at this frequency."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    power = np.abs(np.fft.rfft(samples)) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / 8000) - hz) < 20
    return float(power[near].sum() / power.sum())


async def ended(process: ServeProcess, within_s: float) -> int | None:
    await until(lambda: process.returncode is not None, within_s=within_s)
    return process.returncode


async def assert_fallback(call: SipCall) -> None:
    await call.answered(10)
    heard = await call.listen_until_silence(max_s=3)
    assert share_of(heard.pcm, FALLBACK_HZ) > 0.9, "this is not the fallback"
    await call.hangup()


@pytest.mark.parametrize("mode", ["pipeline", "realtime"])
async def test_a_stop_in_the_middle_of_a_conversation(
    mode: str, asterisk: PrivateAsterisk, serve: Serve, caller: Caller, health: Health, backend_url: str
) -> None:
    question = await asyncio.to_thread(utterance, QUESTION)
    settings = {
        "MODE": mode,
        "GREETING": "Hello.",
        "SYSTEM_MESSAGE": FACTS,
        "GOODBYE": GOODBYE,
        "DRAIN_SECONDS": "12",
        "WEB_PORT": str(health.port),
    }
    before = await asterisk_footprint(asterisk)
    async with serve(**settings) as process, caller() as first, caller() as second:
        call = await first.dial(asterisk.bot_extension)
        await call.answered(10)
        assert (await call.listen_until_silence(max_s=10)).sound_s > 0.2, "the greeting was not heard"
        assert (await health.ask("/ready"))[0] == 200
        stopped_at = asyncio.get_running_loop().time()
        os.kill(process.pid, signal.SIGTERM)
        await asyncio.sleep(0.5)

        status, state = await health.ask("/ready")
        assert (status, state["draining"], state["calls"]) == (503, True, 1)
        assert (await health.ask("/live"))[0] == 200, "Kubernetes must not kill it now"
        await assert_fallback(await second.dial(asterisk.bot_extension))

        await call.say(question)
        answer = await call.listen_until_silence(max_s=10)
        assert "twenty" in (await words_of(answer.pcm, backend_url)).lower().replace("20", "twenty")
        assert not call.ended and process.returncode is None, "it has time to finish"

        goodbye = await call.listen_until_silence(max_s=20)
        assert goodbye.first_sound_at is not None
        assert 11 < goodbye.first_sound_at - stopped_at < 15
        await call.closed(10)
        code = await ended(process, 10)
        left = await asterisk_settled(asterisk, before)
        log = process.log()
    heard = await words_of(goodbye.pcm, backend_url)
    assert word_error_rate(GOODBYE, heard) <= 0.4, heard
    assert code == 0 and "Traceback" not in log, log
    assert "refused: the application is stopping" in log
    assert left == before


async def test_a_stop_ends_with_the_last_caller(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, health: Health, recordings: Path
) -> None:
    before = await asterisk_footprint(asterisk)
    async with (
        serve(MODE="echo", DRAIN_SECONDS="60", HEALTH_PORT=str(health.port)) as process,
        caller() as ua,
    ):
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        os.kill(process.pid, signal.SIGTERM)
        await asyncio.sleep(1.0)
        assert process.returncode is None and not call.ended
        await call.hangup()
        code = await ended(process, 10)
        left = await asterisk_settled(asterisk, before)
        with pytest.raises(aiohttp.ClientConnectorError):
            await health.ask("/live")
    assert code == 0
    assert left == before
    (directory,) = recordings.iterdir()
    assert (directory / "full_call.wav").stat().st_size > 8000, "the recording was finished"


async def test_a_second_signal_waits_for_nobody(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller
) -> None:
    before = await asterisk_footprint(asterisk)
    async with serve(MODE="echo", DRAIN_SECONDS="60") as process, caller() as ua:
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        os.kill(process.pid, signal.SIGTERM)
        await asyncio.sleep(0.5)
        os.kill(process.pid, signal.SIGTERM)
        code = await ended(process, 10)
        await call.closed(10)
        left = await asterisk_settled(asterisk, before)
    assert code == 130
    assert left == before
