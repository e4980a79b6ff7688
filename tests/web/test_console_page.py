"""The console in a real browser against many calls that never were: it stays as small as what it shows.

Needs Chromium (Debian's package `chromium`). The server is ours, the calls are told to it by this test.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from ari_app.ari.outcome import Ending, Outcome
from ari_app.dialog import ports
from ari_app.happenings import Ended, Observer, Progress
from ari_app.live import MAX_OVER, LiveCalls
from ari_app.metrics import Metrics
from ari_app.web.access import Access
from ari_app.web.api import Api
from ari_app.web.phone import Phone
from ari_app.web.server import Web
from tests.fakes.call_bench import free_port
from tests.test_cli_calls import leave_call

CHROMIUM = shutil.which("chromium")
TOKEN = "t0ken-of-the-test-0123456789"
GONE = Ended(Ending(Outcome.ANSWERED, "far", "hung up"))
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


class Office:
    """Our server with calls that this test tells of, and a browser that is logged in."""

    def __init__(self, live: LiveCalls, page: Page) -> None:
        self.live = live
        self.page = page
        self.asked: list[str] = []
        """Paths with queries, as the browser asked for them."""
        page.on("request", lambda request: self.asked.append(request.url.partition("/api")[2]))

    def call(self, call_id: str) -> Observer:
        recording = SimpleNamespace(state="off")
        one: Any = SimpleNamespace(call_id=call_id, recording=recording, tap=None)
        about = {"call": call_id, "direction": "inbound", "from": call_id, "to": "100"}
        observe = self.live.begin(one, about)
        observe(Progress("talking"))
        return observe


@asynccontextmanager
async def office(recordings: Path) -> AsyncIterator[Office]:
    live, nobody = LiveCalls(), None
    desk: Any = nobody
    state = {"ready": True, "registered": True, "calls": 0, "max_calls": 9, "engines": {}}
    server = Web(
        *("127.0.0.1", free_port(), lambda: state),
        access=Access(TOKEN),
        api=Api(desk, live, recordings),
        metrics=Metrics(),
        phone=Phone("http://127.0.0.1:9", "", "100"),
    )
    complaints: list[str] = []
    async with server, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"http://127.0.0.1:{server.port}/login")
        await page.get_by_label("API token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_have_text("live")
        yield Office(live, page)
        await browser.close()
    assert complaints == []


async def test_calls_that_are_over_are_forgotten(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        observe = here.call("first")
        await expect(here.page.locator("#calls li")).to_have_count(1)
        for number in range(MAX_OVER + 20):
            here.call(f"c{number:03d}")(GONE)
        await expect(here.page.locator("#calls")).to_contain_text(f"c{MAX_OVER + 19:03d}")
        await expect(here.page.locator("#calls li")).to_have_count(MAX_OVER + 1)
        await expect(here.page.locator("#calls")).to_contain_text("first")
        observe(GONE)


async def test_rows_stay_and_only_what_changes_is_written(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        for number in range(3):
            here.call(f"c{number}")
        rows = here.page.locator("#calls li")
        await expect(rows).to_have_count(3)
        await here.page.evaluate("for (const row of document.querySelectorAll('#calls li')) row.mark = true")
        await expect(rows.first).to_contain_text("0:02", timeout=5000)
        here.call("c3")
        await expect(rows).to_have_count(4)
        await expect(rows.first).to_contain_text("c3")
        marks = await here.page.evaluate(
            "[...document.querySelectorAll('#calls li')].map((row) => !!row.mark)"
        )
        assert marks == [False, True, True, True]


async def test_events_that_come_while_a_call_is_asked_for_are_shown_once(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        observe = here.call("chosen")
        await expect(here.page.locator("#detail")).to_contain_text("chosen")
        other = here.call("other")
        other(ports.CallerSaid(1, "before", "en", b""))
        answers, told = asyncio.Event(), asyncio.Event()

        async def hold(route: Any) -> None:
            """The server's answer is old when it arrives."""
            answer = await route.fetch()
            told.set()
            await answers.wait()
            await route.fulfill(response=answer)

        await here.page.route("**/api/calls/other", hold)
        await here.page.locator("#calls button", has_text="other").click()
        await told.wait()
        other(ports.CallerSaid(2, "meanwhile", "en", b""))
        observe(ports.CallerSaid(1, "elsewhere", "en", b""))
        await asyncio.sleep(0.2)
        answers.set()
        words = here.page.locator("#detail .word.caller")
        await expect(words).to_have_count(2)
        other(ports.CallerSaid(3, "after", "en", b""))
        await expect(words).to_have_count(3)
        texts = [text.removeprefix("caller") for text in await words.all_inner_texts()]
        assert [text.strip() for text in texts] == ["before", "meanwhile", "after"]


async def test_the_stages_of_a_wait_are_those_of_the_server(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        observe = here.call("chosen")
        await expect(here.page.locator("#detail")).to_contain_text("chosen")
        observe(ports.TurnTimed(1, 10.0, 11.0, 10.5, 10.6, 10.7, 10.8, 11.02))
        observe(ports.TurnTimed(2, 20.0, 20.5, None, 21.297, None, 21.294, 21.301))
        rows = here.page.locator("table.turns tr")
        await expect(rows).to_have_count(2)
        await expect(rows.nth(0)).to_contain_text("1020 ms")
        await expect(rows.nth(1)).to_contain_text("1301 ms")
        titles = await here.page.evaluate(
            "[...document.querySelectorAll('.turns title')].map((t) => t.textContent)"
        )
        assert titles[0].startswith(
            "silence window 1000 ms, on the line 20 ms, in the silence window: speech-to-text at 500"
        )
        assert titles[1] == "silence window 500 ms, first speech 794 ms, first word 3 ms, on the line 4 ms"


async def test_many_ends_of_calls_are_one_question_for_the_newest_recordings(tmp_path: Path) -> None:
    for number in range(1, 4):
        leave_call(tmp_path, number)
    async with office(tmp_path) as here:
        await expect(here.page.locator("#recordings li")).to_have_count(3)
        here.asked.clear()
        for number in range(8):
            here.call(f"c{number}")(GONE)
        leave_call(tmp_path, 9)
        await expect(here.page.locator("#recordings li")).to_have_count(4)
        await asyncio.sleep(2)
        assert [path for path in here.asked if path.startswith("/recordings")] == ["/recordings?limit=20"]


async def test_a_picture_of_the_sound_comes_from_the_server(tmp_path: Path) -> None:
    leave_call(tmp_path, 1)
    async with office(tmp_path) as here:
        page = here.page
        await page.locator("#recordings button").click()
        await expect(page.locator("#detail")).to_contain_text("median wait 1200 ms")
        await expect(page.locator("canvas")).to_be_visible()
        async with asyncio.timeout(10):
            while not any(path.endswith("/peaks?columns=800") for path in here.asked):
                await asyncio.sleep(0.05)
        drawn = (
            "(() => { const c = document.querySelector('canvas'); return c.width > 0 &&"
            " c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v); })()"
        )
        async with asyncio.timeout(10):
            while not await page.evaluate(drawn):
                await asyncio.sleep(0.05)
        assert sum(path.endswith("/audio") for path in here.asked) <= 1, "the player's own"
