"""`check` as an operator runs it: a process of its own, real Asterisk, the embedded models; nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.voice import utterance
from tests.e2e.applications import finish, start
from tests.e2e.checks import asterisk_footprint, asterisk_settled
from tests.e2e.conftest import Caller, Serve, settings_for
from tests.e2e.test_dial import assert_echo


@pytest_asyncio.fixture
async def asterisk(asterisk_prefix: Prefix) -> AsyncIterator[PrivateAsterisk]:
    """With a trunk, which nobody answers for."""
    settings = AsteriskSettings(trunk_domain="127.0.0.1", trunk_port="9")
    async with PrivateAsterisk(asterisk_prefix, settings) as running:
        yield running


async def start_check(
    asterisk: PrivateAsterisk, folder: Path, *arguments: str, backend_url: str = "", **extra: str
) -> asyncio.subprocess.Process:
    """Without a backend no engine is asked, unless `extra` says otherwise."""
    mode = {} if backend_url else {"MODE": "echo"}
    settings = settings_for(asterisk, backend_url, folder / "recordings") | mode | extra
    # Where the tests run in a shell's background SIGINT is ignored, which would be inherited.
    return await start(settings, folder, "check", *arguments, prefix=("env", "--default-signal=INT"))


def line_of(out: str, subject: str) -> str:
    """The one line about it."""
    (line,) = [line for line in out.splitlines() if line[9:24].strip() == subject]
    return line


async def test_all_is_well_and_nothing_is_left_behind(
    asterisk: PrivateAsterisk, backend_url: str, tmp_path: Path
) -> None:
    await asterisk.rx("dialplan set global TRUNK_STATE Registered")
    before = await asterisk_footprint(asterisk)
    code, out, err = await finish(
        await start_check(asterisk, tmp_path, "--json", "report.json", backend_url=backend_url)
    )
    left = await asterisk_settled(asterisk, before)
    *lines, last = out.splitlines()
    assert (code, err, last) == (0, "", "all is well"), out
    assert {line[:9].strip() for line in lines} == {"ok"}, out
    assert re.search(
        r"\d+\.\d ms through Asterisk .* 0\.0 % lost, level [+-]0\.0 dB", line_of(out, "rtp loop")
    )
    assert "free" in line_of(out, "application") and "PJSIP/trunk" in line_of(out, "trunk")
    assert left == before
    assert list((tmp_path / "state" / "ari_app" / "instances").iterdir()) == []
    assert not (tmp_path / "recordings").exists()
    report = json.loads((tmp_path / "report.json").read_text())
    loop = next(f["figures"] for f in report["findings"] if f["subject"] == "rtp loop")
    assert loop["packets"] == 200 and loop["foreign_packets"] == 0
    stages = {f["subject"]: f["figures"]["latency_ms"] for f in report["findings"] if "model" in f["figures"]}
    assert set(stages) == {"speech-to-text", "chat", "text-to-speech"}


async def test_without_a_key_the_embedded_backend_is_tried(asterisk: PrivateAsterisk, tmp_path: Path) -> None:
    code, out, _ = await finish(await start_check(asterisk, tmp_path, MODE="realtime"))
    assert code == 0
    assert line_of(out, "realtime").startswith(
        "ok       realtime        the embedded offline backend: session"
    )


async def test_a_check_beside_a_call_disturbs_nobody(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, tmp_path: Path
) -> None:
    line = await asyncio.to_thread(utterance, "Am I still connected?")
    async with serve(MODE="echo"), caller() as ua:
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        await assert_echo(call, line)
        before = await asterisk_footprint(asterisk)
        checking = await start_check(asterisk, tmp_path)
        while checking.returncode is None:
            await assert_echo(call, line)
        code, out, _ = await finish(checking)
        left = await asterisk_settled(asterisk, before)
        await call.hangup()
    assert code == 0 and left == before
    assert (
        line_of(out, "application")
        == "ok       application     Stasis(ari_app) is held by serve on this host"
    )
    assert line_of(out, "rtp loop").startswith("ok")
    _, out, _ = await finish(await start_check(asterisk, tmp_path))
    assert "free" in line_of(out, "application"), "Asterisk forgets who has gone"


async def test_a_wrong_password_and_a_stopped_asterisk(asterisk: PrivateAsterisk, tmp_path: Path) -> None:
    code, out, err = await finish(await start_check(asterisk, tmp_path, ARI_PASSWORD="not-the-password"))
    assert (code, err) == (3, "")
    refused = line_of(out, "asterisk")
    assert refused.startswith("FAILED") and "ARI_PASSWORD" in refused and "not-the-password" not in out
    await asterisk.stop()
    code, out, err = await finish(await start_check(asterisk, tmp_path))
    assert (code, err) == (3, "")
    assert line_of(out, "asterisk").startswith("FAILED   asterisk        nobody answers at http://127.0.0.1:")


async def test_a_check_that_is_ended_takes_its_loop_down(asterisk: PrivateAsterisk, tmp_path: Path) -> None:
    before = await asterisk_footprint(asterisk)
    for number in (signal.SIGINT, signal.SIGTERM):
        for _ in range(5):
            checking = await start_check(asterisk, tmp_path)
            channels = 0
            while channels < before.channels + 2 and checking.returncode is None:
                channels = (await asterisk_footprint(asterisk)).channels
            if checking.returncode is None:
                checking.send_signal(number)
            code, out, err = await finish(checking)
            if code:
                break  # else it was over before we came
        assert (code, err) == (130, "")
        assert "rtp loop" not in out
        assert await asterisk_settled(asterisk, before) == before


async def test_a_trunk_that_registers_late(asterisk: PrivateAsterisk, tmp_path: Path) -> None:
    await asterisk.rx("dialplan set global TRUNK_STATE Unregistered")
    checking = await start_check(asterisk, tmp_path, "--reg-timeout", "30")
    assert checking.stdout is not None
    async with asyncio.timeout(20):
        while b" trunk " not in await checking.stdout.readline():
            pass
    await asyncio.sleep(0.3)  # it has seen for itself
    await asterisk.rx("dialplan set global TRUNK_STATE Registered")
    code, out, _ = await finish(checking)
    assert code == 0 and line_of(out, "registration").startswith("ok")
    await asterisk.rx("dialplan set global TRUNK_STATE Rejected")
    code, out, _ = await finish(await start_check(asterisk, tmp_path, "--reg-timeout", "0"))
    assert code == 3 and line_of(out, "registration").startswith("FAILED")
