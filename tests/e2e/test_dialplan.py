"""The recipes of docs/dialplan.md as they stand there, in a real Asterisk, called by the trunk and by phones."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.caller import CallerError, SipCall, SipCaller
from tests.e2e.applications import ServeProcess, keep_private, keep_secret
from tests.e2e.checks import asterisk_footprint, asterisk_settled, until
from tests.fakes.raw_sip_phone import RawSipPhone

DOC = Path(__file__).parents[2] / "docs" / "dialplan.md"
TRUNK = "127.0.0.3"
PASSWORDS = {"reception": "long-and-random-1", "workshop": "long-and-random-2"}
CALLER = "0301234"
keep_secret(*PASSWORDS.values())
keep_private(CALLER)


def blocks(text: str) -> dict[str, str]:
    """The fenced blocks that name their file, those of one file joined."""
    found: dict[str, str] = defaultdict(str)
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        name = re.match(r"[;#] file: (\S+)\n", block)
        assert name is not None, f"a block without a file: {block}"
        found[name[1]] += block + "\n"
    return found


def chapters() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", DOC.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def bundled() -> dict[str, str]:
    """The recipes for the bundled configuration, all at once."""
    own = ("An Asterisk of your own", "FreePBX")
    return blocks("".join(text for title, text in chapters().items() if title not in own))


def dotenv() -> dict[str, str]:
    return dict(line.split("=") for line in bundled()[".env"].split("\n") if "=" in line)


@dataclass
class Pbx:
    """A running Asterisk with its phones, and how to call it."""

    asterisk: PrivateAsterisk
    baresip: Prefix
    folder: Path

    def phone(self, name: str) -> SipCaller:
        return SipCaller(
            server=(self.asterisk.sip_host, self.asterisk.sip_port),
            user=name,
            password=PASSWORDS.get(name, self.asterisk.caller_password),
            register=True,
            prefix=self.baresip,
        )

    def trunk(self) -> RawSipPhone:
        return RawSipPhone(self.asterisk.sip_port, CALLER, host=TRUNK)

    def bot(self, app: str = "ari_app", **settings: str) -> ServeProcess:
        environment = {
            "ARI_URL": self.asterisk.ari_url,
            "ARI_USERNAME": self.asterisk.ari_user,
            "ARI_PASSWORD": self.asterisk.ari_password,
            "ARI_APP": app,
            "MODE": "echo",
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        directory = self.folder / app
        directory.mkdir(exist_ok=True)
        return ServeProcess(environment | settings, directory=directory)


@asynccontextmanager
async def pbx_with(
    files: dict[str, str], prefix: Prefix, baresip: Prefix, folder: Path, fallback: str = ""
) -> AsyncIterator[Pbx]:
    etc = folder / "asterisk" / "etc"
    etc.mkdir(parents=True)
    for name, text in files.items():
        (etc / name).write_text(text)
    settings = AsteriskSettings(trunk_domain=TRUNK, fallback_extension=fallback)
    async with PrivateAsterisk(prefix, settings, folder=folder / "asterisk") as asterisk:
        yield Pbx(asterisk, baresip, folder)


@pytest_asyncio.fixture
async def pbx(asterisk_prefix: Prefix, baresip_prefix: Prefix, tmp_path: Path) -> AsyncIterator[Pbx]:
    files = {name: text for name, text in bundled().items() if name != ".env"}
    fallback = dotenv()["FALLBACK_EXTENSION"]
    async with pbx_with(files, asterisk_prefix, baresip_prefix, tmp_path, fallback) as running:
        loaded = running.asterisk.log_path.read_text()
        assert "ERROR" not in loaded and "WARNING" not in loaded, loaded
        before = await asterisk_footprint(running.asterisk)
        yield running
        assert await asterisk_settled(running.asterisk, before) == before


async def reached(bot: ServeProcess, number: str) -> None:
    """The application has a call to this number."""
    await until(lambda: f"to '{number}'" in bot.log(), within_s=5)


@asynccontextmanager
async def outside_call(pbx: Pbx, number: str) -> AsyncIterator[asyncio.Task[int]]:
    """Somebody calls a number of the trunk: the task of the final status; hung up afterwards if it was answered."""
    async with pbx.trunk() as caller:
        status = asyncio.create_task(caller.invite(number))
        try:
            yield status
        finally:
            if status.done() and status.result() == 200:
                await caller.hang_up()
            status.cancel()


async def take(phone: SipCaller, status: asyncio.Task[int]) -> SipCall:
    """The phone rings, and answers the caller."""
    call = await phone.wait_incoming(5)
    await call.answer()
    assert await status == 200
    return call


async def test_extensions_for_people_and_the_bot(pbx: Pbx) -> None:
    async with pbx.bot() as bot, pbx.phone("reception") as reception, pbx.phone("workshop") as workshop:
        call = await workshop.dial("250")
        await call.answered(10)
        await reached(bot, "100")
        await call.hangup()

        call = await workshop.dial("reception")
        taken = await reception.wait_incoming(5)
        await taken.answer()
        await call.answered(5)
        await call.hangup()
        await taken.closed(5)


async def test_a_number_that_never_meets_the_bot(pbx: Pbx) -> None:
    async with pbx.bot() as bot, pbx.phone("reception") as reception:
        async with outside_call(pbx, "+4930987600") as status:
            await take(reception, status)
        async with outside_call(pbx, "+4930987699") as status:
            assert await status == 200
            await reached(bot, "+4930987699")
        assert "+4930987600" not in bot.log()


async def test_two_bots(pbx: Pbx) -> None:
    async with pbx.bot() as first:
        async with pbx.bot("sales") as second, outside_call(pbx, "+4930987601") as status:
            assert await status == 200
            await reached(second, "+4930987601")
        assert "+4930987601" not in first.log()
        async with outside_call(pbx, "+4930987601") as status:  # sales is away
            assert await status == 200
            await reached(first, "+4930987601")


async def test_people_first(pbx: Pbx) -> None:
    async with pbx.bot() as bot, pbx.phone("reception") as reception, pbx.phone("workshop") as workshop:
        async with outside_call(pbx, "+4930987602") as status:
            also_rings = await reception.wait_incoming(5)
            await take(workshop, status)
            await also_rings.closed(5)
        assert "+4930987602" not in bot.log()

        async with outside_call(pbx, "+4930987602") as status:
            for phone in (reception, workshop):
                await (await phone.wait_incoming(5)).reject()
            assert await status == 200
            await reached(bot, "+4930987602")


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
async def test_business_hours(is_open: bool, pbx: Pbx) -> None:
    today = datetime.now(ZoneInfo("Europe/Berlin"))
    first, last = (today + timedelta(days=days) for days in ((-1, 1) if is_open else (3, 4)))
    days = f"{first:%a}-{last:%a}".lower()
    recipe = pbx.asterisk.folder / "etc" / "extensions_trunk.conf"
    text = recipe.read_text()
    assert "09:00-17:00,mon-fri" in text
    recipe.write_text(text.replace("09:00-17:00,mon-fri", f"00:00-23:59,{days}"))
    await pbx.asterisk.rx("dialplan reload")
    async with pbx.bot() as bot, pbx.phone("reception") as reception:
        async with outside_call(pbx, "+4930987603") as status:
            if is_open:
                await (await reception.wait_incoming(5)).reject()
            assert await status == 200
            await reached(bot, "+4930987603")
        with pytest.raises(CallerError):
            await reception.wait_incoming(0.1)


async def test_from_the_bot_to_a_queue_of_people(pbx: Pbx) -> None:
    settings = dotenv()
    assert settings.pop("FALLBACK_EXTENSION") == pbx.asterisk.settings.fallback_extension
    async with (
        pbx.phone("reception") as reception,
        pbx.phone("workshop") as workshop,
        pbx.phone("demo-caller") as caller,
    ):
        async with pbx.bot(**settings) as bot:
            call = await caller.dial("100")
            await call.answered(10)
            await call.send_dtmf("5")
            await call.send_dtmf("0")
            taken = await reception.wait_incoming(5)
            await workshop.wait_incoming(5)
            await taken.answer()
            assert "the caller pressed 0" in bot.log()
            await call.hangup()
            await taken.closed(5)
        # Without the application it is the same people who are asked.
        call = await caller.dial("100")
        taken = await reception.wait_incoming(15)
        await taken.answer()
        await call.hangup()
        await taken.closed(5)


async def replaced(asterisk: PrivateAsterisk, files: dict[str, str]) -> None:
    """Another configuration in place of the bundled one; its ports are what they were."""
    port = f"bindport = {asterisk.http_port}"
    for name, text in files.items():
        (asterisk.folder / "etc" / name).write_text(text.replace("bindport = 8088", port))
    for module in ("http", "res_ari.so", "pbx_config.so"):
        await asterisk.rx(f"module reload {module}")


async def test_an_asterisk_of_ones_own(
    asterisk_prefix: Prefix, baresip_prefix: Prefix, tmp_path: Path
) -> None:
    phones = blocks(chapters()["Phones"])
    async with pbx_with(phones, asterisk_prefix, baresip_prefix, tmp_path) as pbx:
        asterisk = pbx.asterisk
        await replaced(asterisk, blocks(chapters()["An Asterisk of your own"]))
        async with pbx.phone("reception") as reception:
            settings = {"ARI_PASSWORD": "long-and-random-3", "HANDOVER_KEYS": "#"}
            async with pbx.bot(**settings) as bot, pbx.trunk() as caller:
                assert await caller.invite("+4930111") == 200
                await reached(bot, "+4930111")
                await caller.press("#")
                taken = await reception.wait_incoming(5)
                await taken.answer()
                await caller.hang_up()
                await taken.closed(5)
            async with outside_call(pbx, "+4930111") as status:  # the application is away
                await take(reception, status)


FREEPBX = """
[from-internal]
include => from-internal-custom
exten => 600,1,Dial(PJSIP/reception,30)
[from-trunk]
exten => _[+0-9]!,1,Set(__FROM_DID=${EXTEN})
 same => n,Goto(ari-app,s,1)
#include "extensions_custom.conf"
"""
"""What FreePBX brings itself: its context for phones, an inbound route to the custom destination, the include."""


async def test_freepbx(asterisk_prefix: Prefix, baresip_prefix: Prefix, tmp_path: Path) -> None:
    phones = blocks(chapters()["Phones"])
    async with pbx_with(phones, asterisk_prefix, baresip_prefix, tmp_path) as pbx:
        await replaced(pbx.asterisk, blocks(chapters()["FreePBX"]) | {"extensions.conf": FREEPBX})
        async with pbx.phone("reception") as reception, pbx.phone("workshop") as workshop:
            async with pbx.bot() as bot:
                call = await workshop.dial("250")
                await call.answered(10)
                await reached(bot, "s")
                await call.hangup()
                async with outside_call(pbx, "+4930222") as status:
                    assert await status == 200
                    await reached(bot, "+4930222")
            async with outside_call(pbx, "+4930222") as status:  # the application is away
                await take(reception, status)
