"""`dial` as an operator runs it: a process of its own, real Asterisk, real phones; the exit code tells the outcome."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.caller import SipCaller
from ari_app.demo.sip_call import SipCall
from ari_app.demo.voice import utterance
from tests.e2e.applications import ServeProcess, finish, start
from tests.e2e.callers import RefusingPhone
from tests.e2e.checks import asterisk_footprint, asterisk_settled, word_error_rate
from tests.e2e.conftest import settings_for
from tests.fakes.call_bench import free_port

QUESTION = "What does a new bicycle tyre cost?"
TOKEN = "t0ken-of-the-test-0123456789"
OPENED = "5551234"
"""A number that nothing but DIAL_ALLOW opens."""


@asynccontextmanager
async def asterisk_calling(prefix: Prefix, address: tuple[str, int]) -> AsyncIterator[PrivateAsterisk]:
    """An Asterisk whose way out leads to the phone at `address`."""
    settings = AsteriskSettings(trunk_domain=address[0], trunk_port=str(address[1]))
    async with PrivateAsterisk(prefix, settings) as asterisk:
        yield asterisk


async def start_dial(
    asterisk: PrivateAsterisk, backend_url: str, folder: Path, *arguments: str
) -> asyncio.subprocess.Process:
    settings = settings_for(asterisk, backend_url, folder / "recordings") | {"DIAL_ALLOW": OPENED}
    return await start(settings, folder, "dial", *arguments)


@pytest.mark.parametrize("mode", ["pipeline", "realtime"])
async def test_a_call_is_placed_held_and_ended_by_the_callee(
    mode: str, asterisk_prefix: Prefix, baresip_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    question = await asyncio.to_thread(utterance, QUESTION)
    async with (
        SipCaller(prefix=baresip_prefix) as phone,
        asterisk_calling(asterisk_prefix, phone.sip_address) as asterisk,
    ):
        before = await asterisk_footprint(asterisk)
        dialing = await start_dial(
            *(asterisk, backend_url, tmp_path, OPENED, "--greeting", "Hello, this is a test call."),
            *("--system-message", "Facts: A new bicycle tyre costs twenty euros.", "--mode", mode),
        )
        call = await phone.wait_incoming(20)
        await asyncio.sleep(0.3)
        await call.answer()
        assert (await call.listen_until_silence(max_s=10)).sound_s > 0.5, "the greeting was not heard"
        await call.say(question)
        assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "the answer was not heard"
        await call.hangup()
        code, out, _ = await finish(dialing)
        left = await asterisk_settled(asterisk, before)
    assert code == 0
    lines = out.splitlines()
    assert lines[:3] == ["dialing", "ringing", "answered"]
    assert "bot: Hello, this is a test call." in lines
    heard = next(line for line in lines if line.startswith("caller: "))
    assert word_error_rate(QUESTION, heard.removeprefix("caller: ")) <= 0.35
    assert any("twenty" in line for line in lines if line.startswith("bot: "))
    assert lines[-1].startswith("ended: answered")
    assert left == before
    (directory,) = (tmp_path / "recordings").glob("dial_*")
    assert {"full_call.wav", "full_transcript.txt", "segment_001.wav"} <= {
        p.name for p in directory.iterdir()
    }


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [(486, 4, "busy"), (603, 6, "rejected"), (404, 7, "unreachable"), (503, 7, "congestion")],
)
async def test_a_refused_call_tells_why(
    status: int, code: int, word: str, asterisk_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    async with (
        RefusingPhone(status, ring_s=0.2) as phone,
        asterisk_calling(asterisk_prefix, phone.address) as asterisk,
    ):
        before = await asterisk_footprint(asterisk)
        result = await finish(await start_dial(asterisk, backend_url, tmp_path, "100"))
        left = await asterisk_settled(asterisk, before)
    assert result[0] == code
    assert result[1].splitlines()[-1].startswith(f"ended: {word}")
    assert len(phone.calls) == 1
    assert left == before


async def test_a_number_that_no_rule_opens_is_never_dialled(
    asterisk_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    async with RefusingPhone(486) as phone, asterisk_calling(asterisk_prefix, phone.address) as asterisk:
        code, out, err = await finish(await start_dial(asterisk, backend_url, tmp_path, "5559999"))
    assert code == 2
    assert out == ""
    assert "DIAL_ALLOW=5559999" in err and len(err.splitlines()) == 1
    assert phone.calls == []


async def test_nobody_answers(asterisk_prefix: Prefix, backend_url: str, tmp_path: Path) -> None:
    async with RefusingPhone(None) as phone, asterisk_calling(asterisk_prefix, phone.address) as asterisk:
        before = await asterisk_footprint(asterisk)
        result = await finish(await start_dial(asterisk, backend_url, tmp_path, "100", "--ring-timeout", "2"))
        left = await asterisk_settled(asterisk, before)
    assert result[0] == 5
    assert phone.cancelled == 1
    assert left == before


@pytest.mark.parametrize("stage", ["ringing", "answered"])
async def test_ctrl_c_hangs_up_at_every_stage(
    stage: str, asterisk_prefix: Prefix, baresip_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    async with (
        SipCaller(prefix=baresip_prefix) as phone,
        asterisk_calling(asterisk_prefix, phone.sip_address) as asterisk,
    ):
        before = await asterisk_footprint(asterisk)
        dialing = await start_dial(asterisk, backend_url, tmp_path, "100")
        call = await phone.wait_incoming(20)
        if stage == "answered":
            await call.answer()
        dialing.send_signal(signal.SIGINT)
        code, _, _ = await finish(dialing)
        await call.closed(5)
        left = await asterisk_settled(asterisk, before)
    assert code == 130
    assert left == before


async def test_dial_runs_beside_serve_and_sweeps_what_a_killed_dial_left(
    asterisk_prefix: Prefix, baresip_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    question = await asyncio.to_thread(utterance, QUESTION)
    async with (
        SipCaller(prefix=baresip_prefix) as phone,
        asterisk_calling(asterisk_prefix, phone.sip_address) as asterisk,
        ServeProcess(
            settings_for(asterisk, backend_url, tmp_path / "recordings") | {"MODE": "echo"},
            directory=tmp_path,
        ) as server,
        SipCaller(
            server=(asterisk.sip_host, asterisk.sip_port),
            user=asterisk.caller_user,
            password=asterisk.caller_password,
            prefix=baresip_prefix,
        ) as caller,
    ):
        nothing = await asterisk_footprint(asterisk)
        inbound = await caller.dial(asterisk.bot_extension)
        await inbound.answered(10)
        await assert_echo(inbound, question)
        only_inbound = await asterisk_footprint(asterisk)
        assert (only_inbound.channels, only_inbound.bridges) == (2, 1)

        killed = await start_dial(asterisk, backend_url, tmp_path, "100", "--greeting", "Hello, a test.")
        outbound = await phone.wait_incoming(20)
        await outbound.answer()
        assert (await outbound.listen_until_silence(max_s=10)).sound_s > 0.5, "the greeting was not heard"
        await assert_echo(inbound, question)
        killed.kill()
        await finish(killed)
        stale = await asterisk_footprint(asterisk)
        assert (stale.channels, stale.bridges) == (4, 2)

        second = await start_dial(asterisk, backend_url, tmp_path, "200")
        while not outbound.ended:  # the server's caller speaks and hears all through the sweep
            await assert_echo(inbound, question)
        again = await phone.wait_incoming(20)
        await again.answer()
        await assert_echo(inbound, question)
        await again.hangup()
        code, _, _ = await finish(second)
        assert await asterisk_settled(asterisk, only_inbound) == only_inbound
        await assert_echo(inbound, question)
        await inbound.hangup()
        left = await asterisk_settled(asterisk, nothing)
        log = server.log()
    assert code == 0
    assert left == nothing
    assert log.count("call ended") == 1, log


async def assert_echo(call: SipCall, line: bytes) -> None:
    """The call lives: a line comes back whole."""
    said = await call.say(line)
    await asyncio.sleep(0.6)
    heard = call.heard_since(said.began_at).sound_s
    assert not call.ended
    assert abs(heard - (said.ended_at - said.began_at)) < 0.5, "the echo is not what was said"


async def test_a_placed_call_is_found_in_the_logs_of_both(
    asterisk_prefix: Prefix, baresip_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    """By the channel and by the SIP Call-ID, also when nobody answers; and who placed it and hung up."""
    port, headers = free_port(), {"Authorization": f"Bearer {TOKEN}"}
    async with (
        SipCaller(prefix=baresip_prefix) as phone,
        asterisk_calling(asterisk_prefix, phone.sip_address) as asterisk,
        ServeProcess(
            settings_for(asterisk, backend_url, tmp_path / "recordings")
            | {"DIAL_ALLOW": OPENED, "MODE": "echo", "WEB_PORT": str(port), "API_TOKEN": TOKEN},
            directory=tmp_path,
        ) as process,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers, raise_for_status=True) as http,
    ):
        async with http.post("/api/calls", json={"number": OPENED}) as answer:
            placed = (await answer.json())["call"]
        call = await phone.wait_incoming(20)
        async with http.post(f"/api/calls/{placed}/hangup"):
            pass
        await call.closed(10)
    log = process.log()
    found = re.search(rf"\[{placed}\] .* \(PJSIP/…-[0-9a-f]{{8}}\), SIP Call-ID (\S+)", log)
    assert found and found[1] != "unknown", log
    assert f"call {placed} is placed by a program with the token at 127.0.0.1" in log
    assert f"call {placed} is hung up by a program with the token at 127.0.0.1" in log
    assert OPENED not in log
