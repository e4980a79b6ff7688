"""Callers who put into their number, their name and their Call-ID what means something elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from tests.e2e.applications import ServeProcess, finish, start
from tests.e2e.checks import events_of, settled, until
from tests.e2e.conftest import settings_for
from tests.e2e.test_console import CHROMIUM, TOKEN, console
from tests.e2e.test_steering import operator
from tests.fakes.call_bench import free_port
from tests.fakes.raw_sip_phone import RawSipPhone
from tests.record.whole import assert_whole

TRUNK = "127.0.0.3"
CALLERS = {
    r'"../../x \"q\" ; \\ é 漢 <b>" <sip:../../x@example.com>': "../../x",
    "<sip:..%2F..%2Fx%22%27%3Cimg%20src=x%20onerror=alert(1)%3E@example.com>": (
        "../../x\"'<img src=x onerror=alert(1)>"
    ),
    '"a%0d%0ab" <sip:5550001%0d%0a12%3A00%3A00.000%20ERROR%20forged%1b%5B31m%0a@example.com>': (
        "5550001\r\n12:00:00.000 ERROR forged\x1b[31m\n"
    ),
    "<sip:5550002%C3%A9%E6%BC%A2%C2%85%E2%80%A8x@example.com>": "5550002é漢\x85\u2028x",
    "<sip:5550003;ext=../../y@example.com>": "5550003",
    "<sip:%ff%fe5550004@example.com>": "",
}
"""From header, and the number that it means: escapes undone (RFC 3261, section 19.1.2), parameters and what is no UTF-8
left out, as Asterisk does."""
CALL_ID = '{0}"\x1b[31m;/../../\x85{0}'
LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) +\[[0-9a-f-]+\] ari_app\.[a-z_.]+: \S.*")


@pytest_asyncio.fixture
async def asterisk(asterisk_prefix: Prefix) -> AsyncIterator[PrivateAsterisk]:
    """Whose trunk may say who calls."""
    async with PrivateAsterisk(asterisk_prefix, AsteriskSettings(trunk_domain=TRUNK)) as running:
        yield running


async def called(asterisk: PrivateAsterisk, process: ServeProcess, recordings: Path) -> None:
    """Each of them calls for a moment."""
    for number, header in enumerate(CALLERS, start=1):
        phone = RawSipPhone(
            asterisk.sip_port, "0301234", host=TRUNK, caller_id=header, call_id=CALL_ID.format(number)
        )
        async with phone:
            assert await phone.invite("+4930987654") == 200, header
            await until(lambda: len(list(recordings.glob("*/events.jsonl"))) == number)  # noqa: B023
            await phone.hang_up()
        await until(lambda: process.log().count("call ended: answered;") == number)  # noqa: B023


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_odd_callers_leave_nothing_odd(
    log_format: str, asterisk: PrivateAsterisk, backend_url: str, recordings: Path, tmp_path: Path
) -> None:
    port = free_port()
    settings = settings_for(asterisk, backend_url, recordings)
    settings |= {"MODE": "echo", "LOG_FORMAT": log_format, "WEB_PORT": str(port), "API_TOKEN": TOKEN}
    before = everything(tmp_path)
    async with ServeProcess(settings, directory=tmp_path) as process, operator(port) as http:
        await called(asterisk, process, recordings)
        left = await settled(asterisk, process.pid)
        async with http.get("/api/calls") as answer:
            living = [call["from"] for call in (await answer.json())["calls"]]
        async with http.get("/api/recordings") as answer:
            kept = [call["number"] for call in (await answer.json())["recordings"]]
        if log_format == "text" and CHROMIUM is not None:
            async with console(
                port
            ) as page:  # which fails when the page complains of a script that it refused
                text = await page.locator("body").inner_text()
                assert await page.locator("img").count() == 0
            assert "../../x\"'<img src=x onerror=alert(1)>" in text
        log = process.log()
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)
    assert living[::-1] == sorted(kept, key=living[::-1].index) == list(CALLERS.values())

    for line in log.splitlines():
        if log_format == "text":
            assert line.isprintable() and LINE.fullmatch(line), line
        else:
            assert line.isprintable() and json.loads(line)["level"] == "INFO", line
    assert "5550001" not in log and "5550002" not in log and "5550003" not in log

    made = everything(tmp_path) - before
    assert {path.parts[0] for path in made} <= {"recordings", "state", "serve.log"}
    folders = list(recordings.iterdir())
    assert all(re.fullmatch(r"serve_\d{8}-\d{6}_[0-9a-f]{12}", folder.name) for folder in folders)
    for folder in folders:
        assert_whole(folder)
    assert sorted(events_of(folder)[0]["from"] for folder in folders) == sorted(CALLERS.values())
    listed = await calls_listed(recordings)
    assert len(listed) == len(CALLERS) + 1 and all(line.isprintable() for line in listed), listed


def everything(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


async def calls_listed(recordings: Path) -> list[str]:
    """What `calls list` shows."""
    process = await start({}, recordings.parent, "calls", "--recordings-dir", str(recordings), "list")
    code, out, err = await finish(process)
    assert (code, err) == (0, "")
    return out.splitlines()
