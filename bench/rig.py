"""The benchmark's parts as processes: engine, Asterisk, application, callers; and one batch of calls through them."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ari_app.audio.codec import pcm16_to_ulaw
from ari_app.demo.application import ServeProcess
from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.measure import footprint, process_cost
from bench.sipp import place_calls

HOST = "127.0.0.1"
RECORDED_S = 10
"""After the end of its call a recording is complete."""
CLEAN_S = 5.0
SET_UP_S = 1.0
"""Between the callers' sockets and the first INVITE, and at the end of a batch."""


@dataclass
class Batch:
    """What the callers of one batch do."""

    kind: str
    """A `_step_` of `bench.media`."""
    calls: int = 1
    turns: int = 1
    seconds: float = 30.0
    per_second: float = 10.0
    after_s: float = 1.5
    """The bot speaks for so long before it is spoken over."""
    echo_db: float | None = None
    """What the line returns of the bot's voice."""
    echo_delay_ms: float = 0.0


@dataclass
class Outcome:
    """What came of it."""

    calls: list[dict[str, Any]]
    answered_at: list[float]
    cpu_s: dict[str, float] = field(default_factory=dict)
    """By process, over the whole batch."""
    peak_rss_mb: dict[str, float] = field(default_factory=dict)

    def notes(self, name: str) -> list[float]:
        """All values noted under a name; what did not come counts as lost elsewhere."""
        return [n[name] for call in self.calls for n in call["notes"] if n.get(name) is not None]

    def failures(self, name: str) -> int:
        """Notes without a value, and calls that did not finish."""
        missing = sum(n[name] is None for call in self.calls for n in call["notes"] if name in n)
        return missing + sum(not call["done"] for call in self.calls)


class Rig:
    """Everything up, for one configuration of the application."""

    def __init__(
        self,
        asterisk: PrivateAsterisk,
        serve: ServeProcess,
        engine: asyncio.subprocess.Process,
        engine_url: str,
        sipp: Prefix,
    ) -> None:
        self._asterisk = asterisk
        self._serve = serve
        self._engine = engine
        self._engine_url = engine_url
        self._sipp = sipp

    @property
    def application_pid(self) -> int:
        return self._serve.pid

    async def engine_counts(self) -> dict[str, int]:
        """How often each stage was asked."""
        url = self._engine_url.removesuffix("/v1") + "/counts"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return dict(await answer.json())

    async def left(self) -> dict[str, int]:
        """What is there of calls some seconds after the last one."""
        await asyncio.sleep(CLEAN_S)
        there = await footprint(self._asterisk, self._serve.pid)
        return {"channels": there.channels, "bridges": there.bridges, "udp_sockets": there.udp_sockets}

    async def recordings(self, root: Path, count: int) -> list[Path]:
        """The folders of this many calls, once they are over; in the order in which the calls began."""
        begins: dict[Path, str] = {}
        async with asyncio.timeout(RECORDED_S):
            while len(begins) < count:
                await asyncio.sleep(0.1)
                for log in root.glob("*/events.jsonl"):
                    first, _, rest = log.read_text("utf-8").partition("\n")
                    if '"event": "ended"' in rest and not (log.parent / ".recording").exists():
                        begins[log.parent] = json.loads(first)["started"]
        return sorted(begins, key=lambda folder: begins[folder])

    async def run(self, batch: Batch, voices: Sequence[bytes], over: Sequence[bytes]) -> Outcome:
        """Place the calls of a batch and bring home what the callers noted.

        Args:
            voices, over: PCM16 at 8 kHz: questions, and what is said over the bot.
        """
        ports = free_ports(batch.calls)
        set_up_s = batch.calls / batch.per_second
        plan = {
            "kind": batch.kind,
            "turns": batch.turns,
            "after_s": batch.after_s,
            "ports": ports,
            "seconds": batch.seconds + set_up_s + 2 * SET_UP_S,
            "utterances": [b64encode(pcm16_to_ulaw(pcm)).decode() for pcm in voices],
            "over": [b64encode(pcm16_to_ulaw(pcm)).decode() for pcm in over],
            "echo_db": batch.echo_db,
            "echo_delay_ms": batch.echo_delay_ms,
        }
        pids = {
            "application": self._serve.pid,
            "asterisk": self._asterisk.pid or 0,
            "engine": self._engine.pid,
        }
        before = {name: process_cost(pid)["cpu_s"] for name, pid in pids.items()}
        calls, answered_at = await self.hold("bench.media", plan, batch.seconds, batch.per_second)
        after = {name: process_cost(pid) for name, pid in pids.items()}
        return Outcome(
            calls,
            answered_at,
            {name: after[name]["cpu_s"] - before[name] for name in pids},
            {name: after[name]["peak_rss_mb"] for name in pids},
        )

    async def hold(
        self, module: str, plan: Mapping[str, Any], seconds: float, per_second: float
    ) -> tuple[list[dict[str, Any]], list[float]]:
        """Place a call for each port of the plan, with the media of `module`; hang up when the callers are done.

        Returns:
            What each noted, and when each was answered.
        """
        async with callers(module, plan) as noted:
            placing = asyncio.create_task(
                place_calls(
                    self._sipp,
                    server=(self._asterisk.sip_host, self._asterisk.sip_port),
                    extension=self._asterisk.bot_extension,
                    user=self._asterisk.caller_user,
                    password=self._asterisk.caller_password,
                    ports=plan["ports"],
                    seconds=seconds,
                    per_second=per_second,
                )
            )
            try:
                raw = await noted.read()
                await self._asterisk.rx("channel request hangup all")
                answered_at = await placing
            finally:
                placing.cancel()
        return json.loads(raw)["calls"], answered_at


@asynccontextmanager
async def callers(module: str, plan: Mapping[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
    """The callers' media, ready for calls; yields where they will tell what they noted."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 28,
    )
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(plan).encode())
        process.stdin.close()
        await process.stdout.readline()
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def rig(
    asterisk_prefix: Prefix,
    sipp: Prefix,
    *,
    profile: str,
    settings: Mapping[str, str],
    long: bool = False,
    speaks: bool = False,
    script: Mapping[bytes, str] | None = None,
    module: tuple[str, ...] = ("ari_app", "serve"),
) -> AsyncIterator[Rig]:
    """Start everything.

    Args:
        settings: the application's, on top of what binds the parts together.
        long: the bot's answers last half a minute.
        speaks: it has a real voice.
        script: recordings (PCM16, 8 kHz) that the engine knows, and their words.
        module: the program under test.
    """
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ari_app-bench-")))
        options = ["--profile", profile, *(["--long"] if long else []), *(["--speech"] if speaks else [])]
        if script:
            entries = [{"pcm": b64encode(pcm).decode(), "text": text} for pcm, text in script.items()]
            (work / "script.json").write_text(json.dumps(entries))
            options += ["--script", str(work / "script.json")]
        engine, url = await _start_engine(options)
        stack.push_async_callback(_end, engine)
        asterisk = await stack.enter_async_context(PrivateAsterisk(asterisk_prefix))
        serve = await stack.enter_async_context(
            ServeProcess(
                {
                    "ARI_URL": asterisk.ari_url,
                    "ARI_USERNAME": asterisk.ari_user,
                    "ARI_PASSWORD": asterisk.ari_password,
                    "OPENAI_BASE_URL": url,
                    "MAX_CALLS": "500",
                    "XDG_STATE_HOME": str(work / "state"),
                    "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
                    **settings,
                },
                directory=work,
                module=module,
            )
        )
        yield Rig(asterisk, serve, engine, url, sipp)


async def _start_engine(options: Sequence[str]) -> tuple[asyncio.subprocess.Process, str]:
    engine = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.engine", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    assert engine.stdout
    line = (await engine.stdout.readline()).decode()
    return engine, line.removeprefix("listening on ").strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


def free_ports(count: int) -> list[int]:
    """Even ports that are free now; the odd one after each is for RTCP, which nobody sends."""
    ports: list[int] = []
    port = 30_000
    while len(ports) < count:
        port += 2
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        ports.append(port)
    return ports
