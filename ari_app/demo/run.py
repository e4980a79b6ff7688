"""The `demo` command: a private Asterisk, the application with its backend, a SIP caller who talks. Shell.

Every part is a process of its own, started as an operator would start it, and seen only through what an
operator sees: the SIP call, the application's event log, ARI, and the process table.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ari_app.demo import measure, script
from ari_app.demo.application import ServeProcess
from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import fetch
from ari_app.demo.baresip import BARESIP
from ari_app.demo.caller import SipCaller
from ari_app.demo.events import delays_ms, describe, follow, wait_for_recording
from ari_app.demo.sip_call import SipCall
from ari_app.demo.voice import utterance
from ari_app.errors import SetupError

Show = Callable[[str], None]

ANSWER_TIMEOUT_S = 15


@dataclass
class DemoReport:
    """What `--json` writes."""

    greeting: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """What the caller said, what was heard, what the bot answered, and the delays of the answer."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The application's event log."""
    timings_s: dict[str, float] = field(default_factory=dict)
    recording: str = ""
    files: list[str] = field(default_factory=list)
    processes: dict[str, dict[str, float]] = field(default_factory=dict)
    leftovers: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


async def run_demo(
    report: DemoReport, *, mode: str, recordings: Path, show: Show, keep: bool = False
) -> None:
    """Hold the scripted conversation and fill the report; everything started here is gone afterwards.

    With `keep` it stays up until this is cancelled, with its console, for whoever wants to look or to call.

    Raises:
        SetupError: the machine lacks something; the text says what to do.
    """
    began = time.monotonic()
    # A folder of its own, so that demos running side by side do not take each other's call for theirs.
    recordings = recordings / time.strftime(f"demo_%Y%m%d-%H%M%S_{os.getpid()}")
    prefix = await asyncio.to_thread(fetch, show)
    phone = await asyncio.to_thread(fetch, show, BARESIP)
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ari_app-demo-")))
        voices = asyncio.create_task(_render_lines(), name="caller-voice")
        asterisk = await stack.enter_async_context(
            PrivateAsterisk(prefix, AsteriskSettings(browser_phone="yes" if keep else "no"))
        )
        show("Asterisk is up; starting the application and its offline backend")
        settings = _settings(asterisk, mode, recordings.resolve()) | (_console(asterisk) if keep else {})
        serve = await stack.enter_async_context(ServeProcess(settings, directory=work))
        lines = await voices
        before = await measure.footprint(asterisk, serve.pid)
        show(f"A SIP user agent calls extension {asterisk.bot_extension}\n")
        caller = await stack.enter_async_context(
            SipCaller(
                server=(asterisk.sip_host, asterisk.sip_port),
                user=asterisk.caller_user,
                password=asterisk.caller_password,
                prefix=phone,
            )
        )
        report.timings_s["until_call"] = round(time.monotonic() - began, 1)
        try:
            await _converse(caller, asterisk.bot_extension, lines, recordings, report, show)
        except TimeoutError:
            raise SetupError(
                f"The conversation stopped half-way; the application said: {serve.log()}"
            ) from None
        if keep:
            for line in _invitation(asterisk, settings):
                show(line)
            await asyncio.Event().wait()
        report.processes = _costs(asterisk.pid or 0, serve.pid, caller.pid)
        after = await measure.footprint(asterisk, serve.pid)
        report.leftovers = {name: value - asdict(before)[name] for name, value in asdict(after).items()}
    report.timings_s["total"] = round(time.monotonic() - began, 1)
    report.problems += [f"{count} {what} left over" for what, count in report.leftovers.items() if count]


def _console(asterisk: PrivateAsterisk) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "WEB_PORT": str(port),
        "API_TOKEN": secrets.token_urlsafe(16),
        "BROWSER_PASSWORD": asterisk.browser_password,
        "BROWSER_EXTENSION": asterisk.bot_extension,
    }


def _invitation(asterisk: PrivateAsterisk, settings: dict[str, str]) -> list[str]:
    return [
        "",
        "All of it stays up; Ctrl-C ends it.",
        f"Console    http://127.0.0.1:{settings['WEB_PORT']}/   token {settings['API_TOKEN']}",
        f"SIP phone  {asterisk.caller_user} at {asterisk.sip_host}:{asterisk.sip_port}, "
        f"password {asterisk.caller_password}: call {asterisk.bot_extension}",
    ]


def _costs(asterisk: int, application: int, phone: int) -> dict[str, dict[str, float]]:
    pids = {"asterisk": asterisk, "application": application, "SIP caller": phone}
    for number, child in enumerate(measure.children(application)):
        pids["offline backend" + (f" {number + 1}" if number else "")] = child
    return {name: measure.process_cost(pid) for name, pid in pids.items()}


def _settings(asterisk: PrivateAsterisk, mode: str, recordings: Path) -> dict[str, str]:
    return {
        "MODE": mode,
        "ARI_URL": asterisk.ari_url,
        "ARI_USERNAME": asterisk.ari_user,
        "ARI_PASSWORD": asterisk.ari_password,
        "SYSTEM_MESSAGE": script.SYSTEM_MESSAGE,
        "GREETING": script.GREETING,
        "SAVE_RECORDINGS": "yes",
        "RECORDINGS_DIR": str(recordings),
    }


async def _render_lines() -> list[bytes]:
    return [await asyncio.to_thread(utterance, line) for line in script.CALLER_LINES]


async def _converse(
    caller: SipCaller,
    extension: str,
    lines: list[bytes],
    recordings: Path,
    report: DemoReport,
    show: Show,
) -> None:
    """Call the bot, say every line when the bot has finished, hang up, and collect what the call left."""
    call = await caller.dial(extension)
    await call.answered(ANSWER_TIMEOUT_S)
    directory = await wait_for_recording(recordings, set(), ANSWER_TIMEOUT_S)
    shown = asyncio.create_task(_show_conversation(directory, report, show), name="demo-conversation")
    await _hear(call, "the greeting", report)
    for text, sound in zip(script.CALLER_LINES, lines, strict=True):
        show(f"{'':9}  caller   {text}")
        await call.say(sound)
        await _hear(call, f"an answer to “{text}”", report)
    await call.hangup()
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await shown
    report.recording = str(directory)
    report.files = sorted(path.name for path in directory.iterdir())


async def _hear(call: SipCall, what: str, report: DemoReport) -> None:
    heard = await call.listen_until_silence(min_silence_ms=800, max_s=ANSWER_TIMEOUT_S)
    if heard.first_sound_at is None:
        report.problems.append(f"the caller did not hear {what}")


async def _show_conversation(directory: Path, report: DemoReport, show: Show) -> None:
    async for event in follow(directory / "events.jsonl"):
        report.events.append(event)
        _add_to_turns(event, report)
        line = describe(event)
        if line is not None:
            show(line)


def _add_to_turns(event: dict[str, Any], report: DemoReport) -> None:
    number = event.get("turn", 0)
    while len(report.turns) < number:
        said = script.CALLER_LINES[len(report.turns)] if len(report.turns) < len(script.CALLER_LINES) else ""
        report.turns.append({"caller_said": said, "heard": "", "bot": "", "delays_ms": {}})
    match event["event"]:
        case "bot_said" if number == 0:
            report.greeting = event["text"]
        case "bot_said":
            report.turns[number - 1]["bot"] = event["text"]
        case "caller_said":
            report.turns[number - 1]["heard"] = event["text"]
        case "turn_timed":
            report.turns[number - 1]["delays_ms"] = delays_ms(event)


def write_json(path: Path, report: DemoReport) -> None:
    """Write the report as data."""
    path.write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def summary(report: DemoReport) -> list[str]:
    """The closing lines of the demo."""
    lines = [
        "",
        f"Recording and transcript: {report.recording}/",
        f"  {', '.join(report.files)}",
        "Processes:",
    ]
    for name, cost in report.processes.items():
        lines.append(f"  {name:12} {cost['cpu_s']:6.2f} s CPU, {cost['peak_rss_mb']:6.1f} MB at most")
    left = ", ".join(f"{count} {what.replace('udp_', 'UDP ')}" for what, count in report.leftovers.items())
    lines.append(f"Left behind after the call: {left}")
    lines += [f"problem: {problem}" for problem in report.problems]
    return lines
