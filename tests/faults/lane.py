"""One Asterisk and one engine, and for each case a fresh application. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from ari_app.ari.ids import Kind, object_id, server_tag
from ari_app.demo.application import ServeProcess
from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.measure import footprint, socket_rows
from ari_app.record.folder import goes_on
from tests.fakes.call_bench import free_port
from tests.fakes.tcp_proxy import TcpProxy, cuttable
from tests.faults.engine import FaultyEngine
from tests.faults.phone import Phone

TOKEN = "t" * 40
WINDOW_S = 0.5
HEARD_HZ = {400: "answer", 600: "greeting", 800: "apology", 500: "regret", 700: "hold"}
"""The engine's tone for a text is chosen by the figures in it: what is heard tells what was said."""
SETTINGS = {
    "GREETING": "Hello from bench 1.",
    "SILENCE_DURATION_MS": "500",
    "IDLE_SECONDS": "0",
    "LANGUAGE": "en",
    "APOLOGY": "Sorry 2 hear that.",
    "REGRET": "This is step 3 and the last.",
    "HOLD": "One moment 4 you.",
    "GOODBYE": "Goodbye.",
    "OPENAI_TTS_API": "speech",
    "API_TOKEN": TOKEN,
    "SAVE_RECORDINGS": "yes",
    "RECORDINGS_MIN_FREE_MB": "0",
    "DRAIN_SECONDS": "0",
    "MAX_CALLS": "100",
    "NO_AUDIO_SECONDS": "20",
}
CLEAN_WITHIN_S = 8.0
KEPT_S = 32.0
"""An HTTP connection whose upgrade was refused is kept for the next try: aiohttp looks for idle ones every 15 s."""
ONLY_KEPT = re.compile(r"\d+ sessions")
ASK = aiohttp.ClientTimeout(total=5)


@dataclass
class Left:
    """What exists in Asterisk and in the application."""

    channels: int
    bridges: int
    udp_sockets: int
    tasks: int
    sessions: int
    """Connections to the Realtime server."""
    temporary: list[str] = field(default_factory=list)
    """Temporary files, and recordings that are not over."""

    def beyond(self, before: Left) -> str:
        """What is there that was not before, in words."""
        more = {
            name: getattr(self, name) - getattr(before, name)
            for name in ("channels", "bridges", "udp_sockets", "tasks", "sessions")
            if getattr(self, name) > getattr(before, name)
        }
        words = [f"{count} {name}" for name, count in more.items()]
        return ", ".join(words + self.temporary)


def connections(pid: int, port: int) -> int:
    """TCP connections of a process to a port of this machine."""
    return sum(row[2] == f"0100007F:{port:04X}" for row in socket_rows(pid, "tcp"))


class Session:
    """One application, for one case."""

    def __init__(self, lane: Lane, directory: Path, mode: str, more: Mapping[str, str]) -> None:
        self._lane = lane
        self._directory = directory
        self._web_port = free_port()
        self.temporary = directory / "tmp"
        self.settings = {
            "ARI_URL": lane.ari_url,
            "ARI_USERNAME": lane.asterisk.ari_user,
            "ARI_PASSWORD": lane.asterisk.ari_password,
            "OPENAI_BASE_URL": lane.engine.url,
            "MODE": mode,
            "WEB_PORT": str(self._web_port),
            "RECORDINGS_DIR": str(directory / "recordings"),
            "XDG_STATE_HOME": str(lane.directory / "state"),
            "TMPDIR": str(self.temporary),
            **SETTINGS,
            **more,
        }
        self.process: ServeProcess
        self._seen = 0

    async def start(self) -> None:
        """Start the application, also another time."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.process = ServeProcess(self.settings, directory=self._directory)
        await self.process.__aenter__()

    async def left(self) -> Left:
        """What exists now."""
        there = await footprint(self._lane.asterisk, self.process.pid)
        found = re.search(r"^ari_app_tasks (\d+)", await self._metrics(), re.MULTILINE)
        assert found is not None
        tasks = int(found[1])
        temporary = [path.name for path in self.temporary.iterdir()]
        temporary += [f"{folder.name} goes on" for folder in self._recordings() if goes_on(folder)]
        sessions = 0
        if self.settings["MODE"] == "realtime":  # the pipeline keeps connections for the next request
            sessions = connections(self.process.pid, self._lane.engine.port)
        return Left(there.channels, there.bridges, there.udp_sockets, tasks, sessions, temporary)

    async def rtp_counts(self) -> dict[str, int]:
        """What became of all packets, of calls that are over too."""
        found = re.findall(
            r'^ari_app_rtp_packets_total\{kind="(\w+)"\} (\d+)', await self._metrics(), re.MULTILINE
        )
        return {kind: int(count) for kind, count in found}

    async def _metrics(self) -> str:
        url = f"http://127.0.0.1:{self._web_port}/metrics"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=headers, timeout=ASK) as http, http.get(url) as answer:
            return await answer.text()

    async def idle(self) -> Left:
        """What exists when nobody calls, once what the start began is over."""
        for _ in range(30):
            first = await self.left()
            await asyncio.sleep(0.3)
            if (second := await self.left()) == first:
                break
        return second

    def _recordings(self) -> list[Path]:
        root = Path(self.settings["RECORDINGS_DIR"])
        return [path for path in root.iterdir() if path.is_dir()] if root.exists() else []

    def events(self, sip_call_id: str) -> list[dict[str, Any]]:
        """What the application noted of that call."""
        for folder in self._recordings():
            with contextlib.suppress(OSError, ValueError):
                lines = (folder / "events.jsonl").read_text("utf-8").splitlines()
                events: list[dict[str, Any]] = [json.loads(line) for line in lines]
                if events and events[0].get("sip_call_id") == sip_call_id:
                    return events
        return []

    async def place_call(self, number: str) -> int:
        """Have the bot call somebody, by its HTTP API; returns the status."""
        url = f"http://127.0.0.1:{self._web_port}/api/calls"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=ASK) as http,
            http.post(url, json={"number": number}) as answer,
        ):
            return answer.status

    async def registered(self) -> bool:
        """Asterisk hands calls to the application."""
        url = f"http://127.0.0.1:{self._web_port}/ready"
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession(timeout=ASK) as http, http.get(url) as answer:
                return answer.status == 200
        return False

    async def leftovers(self, before: Left) -> str:
        """What a case left behind beyond `before`, after some time to go away; empty: nothing."""
        loop = asyncio.get_running_loop()
        began_at, more = loop.time(), "not asked"
        while loop.time() < began_at + (KEPT_S if ONLY_KEPT.fullmatch(more) else CLEAN_WITHIN_S):
            with contextlib.suppress(aiohttp.ClientError, OSError):
                more = (await self.left()).beyond(before)
                if not more:
                    return ""
            await asyncio.sleep(0.2)
        return more

    def owes(self) -> bool:
        """By the event logs: a caller said something, and neither was it answered nor did an engine fail."""
        for log in Path(self.settings["RECORDINGS_DIR"]).glob("*/events.jsonl"):
            names = [json.loads(line)["event"] for line in log.read_text("utf-8").splitlines()]
            last = max((at for at, name in enumerate(names) if name == "caller_said"), default=len(names))
            if last < len(names) and not {"bot_said", "engine_failed"} & set(names[last:]):
                return True
        return False

    def faults_in_log(self) -> list[str]:
        """Lines that nobody should see: faults of ours."""
        lines = self.process.log().splitlines()
        return [
            line
            for line in lines
            if "Traceback" in line or "never awaited" in line or "fault of ours" in line
        ]


class Lane:
    """What the cases of one lane share: `async with Lane(...) as lane: async with lane.session(...)`."""

    def __init__(
        self, number: int, prefix: Prefix, directory: Path, settings: AsteriskSettings | None = None
    ) -> None:
        self.number = number
        self.directory = directory / f"lane{number}"
        self._prefix = prefix
        self.trunk_port = free_port()
        """Where numbers from outside are called."""
        self._asterisk_settings = settings or AsteriskSettings(
            trunk_domain="127.0.0.1", trunk_port=str(self.trunk_port)
        )
        self._stack = AsyncExitStack()
        self.asterisk: PrivateAsterisk
        self.engine = FaultyEngine()
        self.ari: TcpProxy
        self.ari_url = ""
        self._count = 0

    async def __aenter__(self) -> Lane:
        self.directory.mkdir(parents=True)
        await self._stack.enter_async_context(self.engine)
        await self.start_asterisk()
        self._stack.push_async_callback(lambda: self.asterisk.stop())
        self.ari, self.ari_url = await self._stack.enter_async_context(cuttable(self.asterisk.ari_url))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def start_asterisk(self) -> None:
        """Start it, or start it again where it was."""
        again = getattr(self, "asterisk", None)
        self.asterisk = PrivateAsterisk(
            self._prefix,
            self._asterisk_settings,
            folder=self.directory / "asterisk",
            http_port=again.http_port if again else 0,
            sip_port=again.sip_port if again else 0,
        )
        await self.asterisk.__aenter__()

    async def asterisk_is_up(self) -> bool:
        """Its ARI answers."""
        asterisk = self.asterisk
        headers = {"Authorization": aiohttp.encode_basic_auth(asterisk.ari_user, asterisk.ari_password)}
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with (
                aiohttp.ClientSession(headers=headers, timeout=ASK) as http,
                http.get(f"{asterisk.ari_url}/ari/asterisk/ping") as answer,
            ):
                return answer.status == 200
        return False

    async def leave_bridge(self) -> None:
        """What a dead call might have left: a bridge in the application's name."""
        asterisk = self.asterisk
        name = object_id(server_tag(asterisk.settings.app_name, self.ari_url), 12 * "0", Kind.BRIDGE)
        headers = {"Authorization": aiohttp.encode_basic_auth(asterisk.ari_user, asterisk.ari_password)}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=ASK) as http,
            http.post(f"{asterisk.ari_url}/ari/bridges/{name}") as answer,
        ):
            assert answer.status == 200

    def phone(self, *, outside: bool = False) -> Phone:
        """A caller with an account, or one outside who can be called."""
        self._count += 1
        asterisk = self.asterisk
        return Phone(
            *(asterisk.sip_port, asterisk.caller_user, asterisk.caller_password),
            seed=self._count,
            own_port=self.trunk_port if outside else 0,
        )

    @asynccontextmanager
    async def session(self, mode: str, more: Mapping[str, str] | None = None) -> AsyncIterator[Session]:
        """A fresh application, everything healthy."""
        self._count += 1
        session = Session(self, self.directory / f"case{self._count}", mode, more or {})
        self.ari.thaw()
        await self.engine.heal()
        if not await self.asterisk_is_up():  # a case broke off
            await self.asterisk.stop()
            await self.start_asterisk()
        await session.start()
        try:
            yield session
        finally:
            self.ari.thaw()
            await session.process.stop()
