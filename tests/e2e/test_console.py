"""The console in a real browser, beside a real call: what is seen is what is said, and the buttons do what they say.

Needs Chromium (Debian's package `chromium`, which `.ci/run` installs); pictures go to `test-artefacts/`.
"""

from __future__ import annotations

import asyncio
import shutil
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from ari_app.demo import script
from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.events import wait_for_recording
from ari_app.demo.voice import utterance
from ari_app.record.files import PlainFile
from ari_app.record.wav import write_wav
from tests.e2e.applications import ServeProcess
from tests.e2e.checks import events_of, settled
from tests.e2e.conftest import Caller, Serve, settings_for
from tests.fakes.call_bench import free_port

CHROMIUM = shutil.which("chromium")
ARTEFACTS = Path(__file__).resolve().parents[2] / "test-artefacts"
TOKEN = "t0ken-of-the-test-0123456789"
DRAWN = """() => {
    const canvas = document.querySelector("canvas");
    const pixels = canvas.width && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels && pixels.some((value) => value);
}"""
REMEMBER_CONNECTIONS = """
    window.connections = [];
    const Plain = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Plain {
        constructor(...given) { super(...given); window.connections.push(this); }
    };
"""
HEARD_ENERGY = """async () => {
    let energy = 0;
    for (const connection of window.connections)
        for (const report of (await connection.getStats()).values())
            if (report.type === "inbound-rtp") energy += report.totalAudioEnergy || 0;
    return energy;
}"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


@asynccontextmanager
async def console(
    port: int, *, width: int = 1280, scheme: str = "light", microphone: Path | None = None
) -> AsyncIterator[Page]:
    """A browser that is logged in; whatever it complains of fails the test."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox"]
        if microphone:
            arguments += [
                *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
                *(
                    f"--use-file-for-fake-audio-capture={microphone}",
                    "--autoplay-policy=no-user-gesture-required",
                ),
            ]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = await browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = await context.new_page()
        await page.add_init_script(REMEMBER_CONNECTIONS)
        page.set_default_timeout(10_000)
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text)
                if said.type in ("error", "warning")
                and "status of 400" not in said.text  # what the test provokes
                else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"http://127.0.0.1:{port}/")
        await page.get_by_label("API token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_have_text("live")
        yield page
        await browser.close()
    assert complaints == []


async def until_true(page: Page, expression: str) -> None:
    """Poll from outside: the page's own policy forbids Playwright to do it within."""
    async with asyncio.timeout(10):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.1)


async def test_an_operator_follows_and_steers_a_call(
    asterisk: PrivateAsterisk, serve: Serve, caller: Caller, recordings: Path, tmp_path: Path
) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    port = free_port()
    settings = {"SYSTEM_MESSAGE": script.SYSTEM_MESSAGE, "GREETING": script.GREETING}
    line = await asyncio.to_thread(utterance, script.CALLER_LINES[0])
    async with (
        serve(**settings, WEB_PORT=str(port), API_TOKEN=TOKEN) as _,
        caller() as ua,
        console(port) as page,
    ):
        await expect(page.get_by_text("No call yet.")).to_be_visible()
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        directory = await wait_for_recording(recordings, set(), 10)
        detail = page.locator("#detail")
        await expect(detail).to_contain_text("Call from")
        await call.listen_until_silence(max_s=15)
        await expect(detail.locator(".word.bot")).to_contain_text("How can I help you")
        await call.say(line)
        assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "no answer was heard"
        await expect(detail.locator(".word.caller")).to_contain_text("Saturday")
        await expect(detail.locator(".word.bot").nth(1)).to_contain_text("ten to two")
        await expect(detail.locator("table.turns tr")).to_have_count(1)
        await page.screenshot(path=ARTEFACTS / "console-live.png")

        await page.get_by_label("a sentence to say").fill("This is the workshop speaking.")
        await page.keyboard.press("Enter")
        heard = await call.listen_until_silence(max_s=15)
        assert heard.sound_s > 1, "the sentence was not heard"
        await expect(detail.locator(".word.bot").nth(2)).to_contain_text("This is the workshop speaking.")
        await expect(page.get_by_label("a sentence to say")).to_have_value("")

        await page.get_by_role("button", name="Pause recording").click()
        await expect(page.get_by_role("button", name="Go on recording")).to_be_visible()
        await page.get_by_label("extension").fill("not a number")
        await page.get_by_role("button", name="Transfer").click()
        await expect(page.get_by_role("alert")).to_contain_text("no extension")

        await page.get_by_role("button", name="Hang up").click()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(page.locator("#calls button")).to_contain_text("hung up by an operator")
        await expect(page.locator("#recordings button")).to_have_count(1)

        # With the keyboard alone: the recording is reached, opened and played.
        await page.locator("#recordings button").focus()
        await page.keyboard.press("Enter")
        await expect(detail).to_contain_text("median wait")
        await until_true(page, "document.querySelector('#detail audio').duration > 5")
        await until_true(page, DRAWN)
        await page.screenshot(path=ARTEFACTS / "console-recording.png", full_page=True)
        await detail.locator(".word.caller").click()
        await until_true(page, "document.querySelector('#detail audio').currentTime > 1")
        await expect(detail.locator(".word.now")).to_contain_text("Saturday")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("API token")).to_be_visible()
        with wave.open(str(directory / "full_call.wav")) as sound:
            assert sound.getnframes() > 5 * 8000
    names = [event["event"] for event in events_of(directory)]
    assert "recording_paused" in names and names[-1] == "ended"


async def test_a_newcomer_talks_to_the_bot_from_the_browser(
    asterisk_prefix: Prefix, backend_url: str, recordings: Path, tmp_path: Path
) -> None:
    """WebRTC through the real Asterisk: the words of the microphone are understood, and the answer is heard."""
    line = await asyncio.to_thread(utterance, script.CALLER_LINES[0])
    microphone = tmp_path / "microphone.wav"
    write_wav(PlainFile(microphone), bytes(16_000 * 7) + line + bytes(16_000 * 30))
    port = free_port()
    async with PrivateAsterisk(asterisk_prefix, AsteriskSettings(browser_phone="yes")) as asterisk:
        settings = settings_for(asterisk, backend_url, recordings) | {
            "SYSTEM_MESSAGE": script.SYSTEM_MESSAGE,
            "GREETING": script.GREETING,
            "WEB_PORT": str(port),
            "API_TOKEN": TOKEN,
            "BROWSER_PASSWORD": asterisk.browser_password,
        }
        async with (
            ServeProcess(settings, directory=tmp_path) as process,
            console(port, microphone=microphone) as page,
        ):
            await page.get_by_role("button", name="Talk to the bot").click()
            await expect(page.get_by_role("button", name="Hang up").first).to_be_visible()
            detail = page.locator("#detail")
            await expect(detail.locator(".word.bot").first).to_contain_text("How can I help", timeout=15_000)
            await expect(detail.locator(".word.caller")).to_contain_text("Saturday", timeout=20_000)
            await expect(detail.locator(".word.bot").nth(1)).to_contain_text("ten to two", timeout=15_000)
            assert await page.evaluate(HEARD_ENERGY) > 0.01, "the browser heard nothing"
            await page.screenshot(path=ARTEFACTS / "console-phone.png")
            await page.locator("#phone").click()
            await expect(page.locator("#calls button")).to_contain_text("ended by the other side")
            await expect(page.locator("#phone")).to_have_text("Talk to the bot")
            after = await settled(asterisk, process.pid)
    assert (after.channels, after.bridges) == (0, 0)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
async def test_it_is_readable_on_a_phone_and_in_the_dark(serve: Serve, width: int, scheme: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    port = free_port()
    async with (
        serve(MODE="echo", WEB_PORT=str(port), API_TOKEN=TOKEN),
        console(port, width=width, scheme=scheme) as page,
    ):
        await expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()
        wider = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wider, "it has to be pushed sideways"
        ink, ground = await page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert contrast(ink, ground) > 7, (ink, ground)
        await page.screenshot(path=ARTEFACTS / f"console-{width}-{scheme}.png")


def contrast(one: str, other: str) -> float:
    """Of two CSS colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
