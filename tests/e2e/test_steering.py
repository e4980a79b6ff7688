"""What an operator does to real calls through the API: transfer one, place one."""

from __future__ import annotations

import asyncio

import aiohttp

from ari_app.demo.asterisk import PrivateAsterisk
from tests.e2e.checks import settled
from tests.e2e.conftest import Caller, Serve
from tests.fakes.call_bench import free_port

TOKEN = "t0ken-of-the-test-0123456789"


def operator(port: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, raise_for_status=True
    )


async def only_call(http: aiohttp.ClientSession, stage: str) -> str:
    """The id of the call, once it is so far."""
    async with asyncio.timeout(10):
        while True:
            async with http.get("/api/calls") as answer:
                calls = (await answer.json())["calls"]
            if calls and calls[0]["stage"] == stage:
                return str(calls[0]["call"])
            await asyncio.sleep(0.1)


async def test_a_caller_is_transferred_to_an_extension(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller
) -> None:
    port = free_port()
    async with (
        serve(MODE="echo", WEB_PORT=str(port), API_TOKEN=TOKEN) as process,
        caller() as ua,
        operator(port) as http,
    ):
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        call_id = await only_call(http, "talking")
        async with http.post(f"/api/calls/{call_id}/transfer", json={"extension": "123"}):
            pass
        heard = await call.listen_until_silence(max_s=15)
        assert 4 < heard.sound_s < 6, "the tone of extension 123 lasts 5 s"
        await call.hangup()
        after = await settled(asterisk, process.pid)
    assert (after.channels, after.bridges) == (0, 0)


async def test_a_call_is_placed_and_ended(asterisk: PrivateAsterisk, serve: Serve, caller: Caller) -> None:
    """The bot calls itself: what it placed comes back as a caller."""
    port = free_port()
    settings = {"DIAL_ENDPOINT": "Local/{number}@from-internal", "DIAL_ALLOW": "100"}
    async with (
        serve(MODE="echo", WEB_PORT=str(port), API_TOKEN=TOKEN, **settings) as process,
        operator(port) as http,
    ):
        async with http.post("/api/calls", json={"number": "100"}) as answer:
            placed = (await answer.json())["call"]
        async with asyncio.timeout(10):
            stages: dict[str, str] = {}
            while list(stages.values()) != ["talking", "talking"]:
                async with http.get("/api/calls") as answer:
                    stages = {call["direction"]: call["stage"] for call in (await answer.json())["calls"]}
                await asyncio.sleep(0.1)
        async with http.post(f"/api/calls/{placed}/hangup"):
            pass
        after = await settled(asterisk, process.pid)
        async with http.get("/api/calls") as answer:
            calls = (await answer.json())["calls"]
    assert (after.channels, after.bridges) == (0, 0)
    assert [call["stage"] for call in calls] == ["over", "over"]
