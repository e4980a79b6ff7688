"""A caller of whom nothing is heard, behind a firewall say: the real Asterisk, and a phone that sends no packet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from ari_app import cli
from ari_app.demo.asterisk import PrivateAsterisk
from tests.e2e.checks import settled
from tests.e2e.conftest import Serve
from tests.fakes.call_bench import free_port
from tests.fakes.raw_sip_phone import RawSipPhone

TOKEN = "t0ken-of-the-test-0123456789"


async def test_a_call_without_a_sound_of_the_caller_is_named(
    asterisk: PrivateAsterisk, serve: Serve, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, headers = free_port(), {"Authorization": f"Bearer {TOKEN}"}
    async with (
        serve(MODE="echo", WEB_PORT=str(port), API_TOKEN=TOKEN) as process,
        RawSipPhone(asterisk.sip_port, asterisk.caller_user, asterisk.caller_password) as phone,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as http,
    ):
        assert await phone.invite(asterisk.bot_extension) == 200
        async with asyncio.timeout(15):
            line = None
            while not line:
                async with http.get("/api/calls") as answer:
                    line = (await answer.json())["calls"][0]["line"]
                await asyncio.sleep(0.1)
        await phone.hang_up()
        await settled(asterisk, process.pid)
        async with http.get("/metrics") as answer:
            figures = await answer.text()
        log = process.log()
    assert line["received"] == 0 and line["sent"] > 0 and line["mos"] is None
    assert "ari_app_calls_without_caller_audio_total 1.0" in figures
    assert "ari_app_caller_mos_count 0.0" in figures
    assert "WARNING" in log and "no audio came from the caller" in log
    (folder,) = recordings.iterdir()
    command = ["calls", "--recordings-dir", str(recordings), "show", folder.name]
    assert await asyncio.to_thread(cli.main, command) == 0
    assert "no audio came from the caller" in capsys.readouterr().out
