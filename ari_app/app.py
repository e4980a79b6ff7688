"""Composition root: builds engines, media and the connection to Asterisk, and takes them down. Shell."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ari_app.ari.client import AriClient
from ari_app.ari.ids import server_tag
from ari_app.ari.instances import Instance, state_directory
from ari_app.ari.outcome import Ending, Outcome
from ari_app.ari.reconcile import Reconciler
from ari_app.brains import BuildBrains, build_brains
from ari_app.calls import Calls, Watcher
from ari_app.config import Config, collector_setting
from ari_app.desk import Desk
from ari_app.errors import AriUnreachable, ConfigError
from ari_app.happenings import Observer
from ari_app.live import LiveCalls
from ari_app.load import Load
from ari_app.metrics import Metrics
from ari_app.record.retention import Tidier
from ari_app.rtp.endpoint import bind, own_address
from ari_app.rtp.sender import RtpSender
from ari_app.web.access import Access, token_of
from ari_app.web.api import Api
from ari_app.web.phone import Phone
from ari_app.web.server import Web

if TYPE_CHECKING:
    from ari_app.traces import Traces

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_CONNECTION_S = 30
CHORE_PAUSE_S = 5.0


class App:
    """One process's share of Asterisk: its Stasis application, its calls, its engines.

    Args:
        config: all settings.
        command: `serve` or `dial`; names the recordings, and decides whose application this is: the server has
            the configured name, any other process one of its own.
        build: makes the brains of its calls.

    Raises:
        ConfigError: the environment names a collector for spans, and they can't be made.
    """

    def __init__(self, config: Config, *, command: str, build: BuildBrains = build_brains) -> None:
        self._config = config
        self._build = build
        self._is_server = command == "serve"
        suffix = "" if self._is_server else f"-{command}-{secrets.token_hex(4)}"
        self._app_name = config.ari_app + suffix
        self._tag = server_tag(self._app_name, config.ari_url)
        self._metrics, self._live, self._traces = Metrics(), LiveCalls(), _traces()
        watchers: list[Watcher] = [self._metrics, self._live]
        if self._traces:
            watchers.append(self._traces)
        self._load = Load(config.max_lag_ms, self._metrics.observe_lag)
        self._calls = Calls(config, command=command, tag=self._tag, load=self._load, watchers=watchers)
        self._client: AriClient

    # --- commands

    async def serve(self, *, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Answer calls until `stop` is set.

        Raises:
            AriError: refused at the start, or another process took the application over.
            SetupError, ConfigError: see their text.
        """
        async with self._running() as connection:
            await self._first(connection, self._registered())
            ready()
            await self._first(connection, stop.wait())
            await self._calls.drain(self._config.drain_seconds)

    async def dial(self, number: str, *, observer: Observer, hang_up: asyncio.Event) -> Ending:
        """Call `number`, hold the conversation until either side or `hang_up` ends it, and say how it ended.

        Raises:
            ConfigError: the number is not one, or may not be called.
            LimitReached: too many calls, or too many minutes.
            AriError: Asterisk is unreachable or refuses us.
        """
        async with AsyncExitStack() as stack:
            dial = await stack.enter_async_context(self._calls.outbound.allowed(number))
            connection = await stack.enter_async_context(self._running())
            await self._first(connection, self._registered())
            if hang_up.is_set():
                return Ending(Outcome.CANCELLED, "us", "hung up before it was dialed")
            call = self._calls.call_out(number, dial, (observer,))

            async def obey() -> None:
                await hang_up.wait()
                call.hang_up("hung up here")

            stack.push_async_callback(_end, asyncio.create_task(obey(), name="obey"))
            return await self._first(connection, self._calls.hold(call))

    # --- building and taking down

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Everything up; yields the task that keeps the connection to Asterisk."""
        config, calls = self._config, self._calls
        async with AsyncExitStack() as stack:
            if self._traces:
                await stack.enter_async_context(self._traces)
            if self._is_server and config.web_port:
                await stack.enter_async_context(self._web())
            instance = stack.enter_context(
                Instance(state_directory(), self._tag, config.ari_url, self._app_name)
            )
            if self._is_server:
                for chore in (self._tidy, self._load.measure):
                    stack.push_async_callback(_end, keep_up(chore, chore.__name__))
            rtp_host = await own_address(config.rtp_host, config.ari_url)
            bind(rtp_host, config.rtp_ports).close()  # a wrong address is found now, not by a caller
            brains = await self._build(config, stack)
            sender = await stack.enter_async_context(RtpSender())
            reconciler = Reconciler(
                instance,
                calls.known_channels,
                lambda: calls.living,
                count_connection=self._metrics.connected,
                count_swept=self._metrics.swept,
            )
            self._client = await stack.enter_async_context(
                AriClient(
                    *(config.ari_url, config.ari_username, config.ari_password, self._app_name),
                    calls.on_event,
                    on_connected=reconciler,
                    retry_first=self._is_server,
                )
            )
            calls.attach(self._client.rest, brains, sender, rtp_host)
            connection = asyncio.create_task(self._client.run(), name="ari-connection")
            sweeping = keep_up(lambda: reconciler.sweep_for_ever(self._client), "sweep")
            stack.push_async_callback(_end, connection, sweeping)
            stack.push_async_callback(calls.write_all)
            stack.push_async_callback(calls.cancel_all)
            stack.push_async_callback(calls.end_all)
            yield connection

    async def _registered(self) -> None:
        """Wait for the first registration: Asterisk may be starting beside us, but not for ever."""
        try:
            async with asyncio.timeout(FIRST_CONNECTION_S):
                await self._client.registered.wait()
        except TimeoutError:
            raise AriUnreachable(
                f"register at {self._config.ari_url} within {FIRST_CONNECTION_S} s",
                None,
                "start Asterisk, or correct ARI_URL",
            ) from None

    def _web(self) -> Web:
        config = self._config
        token, path = token_of(config.api_token, state_directory())
        where = "API_TOKEN" if path is None else f"the file {path}"
        logger.info(
            "console, API and metrics: http://%s:%d/, token: %s", config.web_host, config.web_port, where
        )
        return Web(
            *(config.web_host, config.web_port, self._health),
            access=Access(token, config.web_names),
            api=Api(Desk(self._calls), self._live, Path(config.recordings_dir)),
            metrics=self._metrics,
            phone=Phone(config.ari_url, config.browser_password, config.browser_extension),
        )

    async def _tidy(self) -> None:
        tidier = Tidier(
            Path(self._config.recordings_dir),
            max_age_s=self._config.recordings_keep_days * 86400,
            max_bytes=self._config.recordings_max_mb * 1_000_000,
        )
        await tidier.run()

    def _health(self) -> Mapping[str, Any]:
        registered = hasattr(self, "_client") and self._client.registered.is_set()
        return {
            "ready": registered and not self._calls.draining,
            "registered": registered,
            "draining": self._calls.draining,
            "calls": len(self._calls),
            "max_calls": self._config.max_calls,
            "engines": self._calls.engines,
        }

    async def _first(self, connection: asyncio.Task[None], wanted: Awaitable[T]) -> T:
        """Wait for `wanted`; if the connection to Asterisk ends for good before, raise why."""
        waiting = asyncio.ensure_future(wanted)
        try:
            await asyncio.wait({waiting, connection}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not waiting.done():
                waiting.cancel()
        if connection.done():
            connection.result()
        return await waiting


def _traces() -> Traces | None:
    """What makes spans, where the environment names a collector for them.

    Raises:
        ConfigError: they can't be made.
    """
    if not (wanted_by := collector_setting(os.environ)):
        return None
    try:
        from ari_app.traces import Traces
    except ImportError as error:
        raise ConfigError(
            f"{wanted_by} needs the package {error.name}: pip install 'ari_app[otel]', or leave it empty."
        ) from None
    return Traces()


def keep_up(chore: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """What has to go on as long as the process: a fault of ours costs it a pause, not its life. To be cancelled."""

    async def run() -> None:
        while True:
            try:
                await chore()
            except Exception:
                logger.exception("%s failed: it goes on in %g s", name, CHORE_PAUSE_S)
            await asyncio.sleep(CHORE_PAUSE_S)

    return asyncio.create_task(run(), name=name)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
